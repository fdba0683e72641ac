"""Open a video source, find its streams, tell whether it is live; packets, not frames."""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Stream

from utils import InputError, printable, public_name

WEBCAMS = {"linux": ("/dev/video{}", "v4l2"), "darwin": ("{}", "avfoundation")}
OPENING, SILENCE = 15.0, 30.0  # seconds to wait for an address to answer, and for its next picture
PLAYLISTS = ("hls", "dash", "rtsp", "sdp")  # their size is not that of the film
CLOSED = "the other side closed it"  # why a connection ended that gave no error
DENSE = ("matroska,webm", "flv")  # no index or padding between packets; passes over what is damaged
MAX_HEADERS = 4096  # bytes that such a format may have between two packets
COVER = 0x400  # disposition flag of a cover picture in an audio file


def open_source(source: str) -> InputContainer:
    """Open a file, a webcam's number or an address; raises InputError if that fails."""
    name, options = f"file:{source}", {}
    remedy = "expected mp4, mov, mkv, avi, webm or the like, with its header whole"
    if is_webcam(source):
        if sys.platform not in WEBCAMS:
            raise InputError(f"webcam {source}: webcams are read on Linux and macOS only")
        pattern, options["format"] = WEBCAMS[sys.platform]
        name, remedy = pattern.format(source), "check that this webcam is plugged in and free"
    elif "://" in source:
        protocol, rest = source.split("://", 1)
        name, options["timeout"] = f"{protocol.lower()}://{rest}", (OPENING, SILENCE)
        remedy = "check the address, and that something answers there"
    elif not os.path.isfile(source):
        found = "is a folder" if os.path.isdir(source) else "is a pipe or a device"
        if not os.path.exists(source):
            found = "does not exist"
            if "@" in source:  # an address whose protocol is missing
                source = public_name(f"://{source}")[3:]
        raise InputError(
            f"{source} {found}; give a video file, a webcam's number or an address such as rtsp://HOST"
        )
    try:
        # Where time begins anew, FFmpeg would add the 26 hours after which a counter overflows.
        plain = {"correct_ts_overflow": "0"}
        return av.open(name, metadata_errors="replace", options=plain, **options)
    except (av.FFmpegError, OSError) as error:
        raise InputError(
            f"{public_name(source)} cannot be opened as a video ({reason(error)}); {remedy}"
        ) from error


def is_webcam(source: str) -> bool:
    return source.isdigit() and not os.path.exists(source)


def reason(error: Exception) -> str:
    """What went wrong, without the address that FFmpeg adds."""
    if isinstance(error, av.error.ExitError):
        return "no answer in time"
    return error.strerror or type(error).__name__


def is_live(container: InputContainer) -> bool:
    """Whether a source cannot be read again: it has neither a length nor a size."""
    return not container.duration and not num_bytes(container)


def num_bytes(container: InputContainer) -> int | None:
    """The size of the file behind a container, None where there is none or it is not told."""
    of_media = container.format.name not in PLAYLISTS
    return container.size if of_media and container.size > 0 else None


def origin(source: str, container: InputContainer) -> str:
    """What is written into results: name and size of their source, which tell two sources apart."""
    name = printable(Path(source).name if os.path.isfile(source) else public_name(source))
    if is_live(container):
        return f"recorded from {name}"
    size = num_bytes(container)
    length = f"{size} bytes" if size else f"{container.duration / av.time_base} s"
    return f"made of {name}, {length}"


def video_stream(container: InputContainer, source: str) -> av.VideoStream:
    """The stream of moving pictures that players show; raises InputError if none can be decoded."""
    name = container.format.name
    if name in ("image2", "tty") or name.endswith("_pipe"):
        raise InputError(f"{public_name(source)} {_about_pictures(source)}")
    streams = [s for s in container.streams.video if not s.disposition.value & COVER]
    if not streams:
        raise InputError(
            f"{public_name(source)} has no video stream; give a file that has pictures"
        )
    ends = [stated_end(container, s) for s in streams]
    longest = max((end for end in ends if end), default=0)
    moving = [s for s, end in zip(streams, ends, strict=True) if not end or 2 * end > longest]
    best = container.streams.best("video")
    stream = next((s for s in moving if best is not None and s.index == best.index), moving[0])
    if stream.codec_context is None:
        raise InputError(
            f"{public_name(source)}: its video codec is unknown here; convert it to H.264 first"
        )
    return stream


def _about_pictures(source: str) -> str:
    with suppress(OSError), open(source, "rb") as file:
        header = file.read(21)
        if header[8:16] == b"WEBPVP8X" and header[20] & 2:  # the flag of animations
            return "is an animated WebP, which FFmpeg does not read; convert it to GIF or MP4"
    return "is not a video; pictures go to infer_image.py"


def is_film(path: Path) -> bool:
    """Whether a file can be read by VideoReader."""
    try:
        with open_source(str(path)) as container:
            return video_stream(container, str(path)) is not None
    except InputError:
        return False


def sound_stream(container: InputContainer) -> av.AudioStream | None:
    """The first audio stream that can be decoded, or None."""
    return next((s for s in container.streams.audio if s.codec_context is not None), None)


def stated_end(container: InputContainer, stream: av.VideoStream) -> Fraction | None:
    """The end of the pictures in seconds as the file states it, or None."""
    if stream.duration:
        return (stream.duration + (stream.start_time or 0)) * stream.time_base
    with suppress(KeyError, ValueError):  # Matroska writes 00:01:02.003000000
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    if container.duration and not container.streams.audio:
        return Fraction(container.duration, av.time_base)
    return None


def seek(container: InputContainer, time: Fraction) -> None:
    """Go to a key frame before `time` (seconds), or stay at the beginning."""
    with suppress(av.FFmpegError):
        # One second early, because some formats seek to a key frame after the given time.
        container.seek(max(0, int((time - 1) * av.time_base)))


class Packets:
    """Iterates over the packets of `stream` that hold data.

    error: why reading ended before the end of the file, "" if it did not.
    num_passed_over: damaged bytes between packets, where the format tells.
    """

    def __init__(self, container: InputContainer, stream: Stream):
        self._container, self._stream = container, stream
        self.error, self.num_passed_over = "", 0

    def __iter__(self) -> Iterator[av.Packet]:
        is_dense = self._container.format.name in DENSE
        end = largest = 0
        try:
            for packet in self._container.demux():
                if is_dense and packet.size and packet.pos is not None:
                    size = packet.size + sum(extra.data_size for extra in packet.iter_sidedata())
                    largest = max(largest, size, MAX_HEADERS)
                    hole = packet.pos - (end or packet.pos)
                    self.num_passed_over += hole if hole > 2 * largest else 0
                    end = packet.pos + size
                if packet.size and packet.stream.index == self._stream.index:
                    yield packet
        except av.error.ExitError:
            self.error = f"no data for {SILENCE:.0f} s"
        except av.FFmpegError as error:
            self.error = reason(error)
