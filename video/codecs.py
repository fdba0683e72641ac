"""Which encoders can write the frames of an MP4 here."""

import io
import os
import sys
from fractions import Fraction
from functools import lru_cache

import av

from utils import InputError

DEFAULT_CODEC = "libx264"
FALLBACK_CODECS = ("libopenh264", "h264_videotoolbox", "h264_mf", "mpeg4")
CRF_CODECS = ("libx264", "libx265", "libsvtav1")  # other codecs get a bit rate
QUIET = {"libx265": {"x265-params": "log-level=error"}}  # options against an encoder's banner


def usable_codec(name: str) -> str:
    """`name`, or a fallback for the default codec with a line on stderr if FFmpeg lacks it."""
    problem = encoder_problem(name)
    if problem is None:
        return name
    fallback = next((n for n in FALLBACK_CODECS if encoder_problem(n) is None), None)
    if name != DEFAULT_CODEC or fallback is None:
        raise InputError(f"codec {name}: {problem}; use {DEFAULT_CODEC} or {fallback or 'mpeg4'}")
    print(f"{DEFAULT_CODEC} is missing in this PyAV: writing {fallback} instead", file=sys.stderr)
    return fallback


@lru_cache
def encoder_problem(name: str) -> str | None:
    """Why a codec cannot write yuv420p frames into an MP4, or None; it encodes one to find out."""
    os.environ.setdefault("SVT_LOG", "1")  # errors only: libsvtav1 has no option against its banner
    try:
        if av.Codec(name, "w").type != "video":
            return "encodes no pictures"
        with av.open(io.BytesIO(), "w", format="mp4") as container:
            stream = container.add_stream(name, rate=25, options=QUIET.get(name, {}))
            stream.width, stream.height, stream.pix_fmt = 352, 288, "yuv420p"
            frame = av.VideoFrame(352, 288, "yuv420p")
            frame.pts, frame.time_base = 0, Fraction(1, 25)
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    except (av.FFmpegError, ValueError) as error:
        return f"cannot write yuv420p into an MP4 here ({getattr(error, 'strerror', error)})"
    return None
