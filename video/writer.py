"""Write frames as an MP4 that browsers play, with the times and sound of their source."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from common.signals import delayed_signals
from utils import InputError, temporary_path, without_secrets
from video.codecs import CRF_CODECS, DEFAULT_CODEC, QUIET, usable_codec
from video.mp4 import FilmFile, move_index_to_front, plays
from video.pictures import BT709, EXACT, usual_matrix
from video.reader import VideoReader
from video.sound import SoundTrack

SECONDS_PER_GROUP = 2  # between key frames; what a killed writer loses at most


class VideoWriter:
    """Writes frames to an H.264 file (yuv420p, ready to stream) with the reader's sound.

    The file gets its name when the with-block ends, after Ctrl-C or an InputError with the frames
    so far. After any other exception, or without a frame, no file is left and an older one of that
    name stays. On a full disk the groups of pictures that were written are kept. A writer that was
    killed leaves a temporary file, which plays too; utils.remove_leftovers deletes it.

    Args:
        path: ends in .mp4; must not be the reader's source.
        reader: source of sound, fps, time base and pixel shape.
        fps: frames per second if there is no reader.
        crf: quality, 0 (lossless) to 51 (worst), for CRF_CODECS.
        codec: an FFmpeg encoder.

    Raises InputError if path cannot be written or the codec is not available.
    """

    def __init__(
        self,
        path: str | Path,
        reader: VideoReader | None = None,
        *,
        fps: Fraction | float | None = None,
        crf: int = 18,
        codec: str = DEFAULT_CODEC,
    ):
        self.path = Path(path)
        self._reader, self._crf, self._codec = reader, crf, usable_codec(codec)
        self._fps = reader.fps if fps is None else Fraction(fps).limit_denominator(1001)
        self._time_base = reader.time_base if reader else 1 / self._fps
        ticks = self._time_base.denominator  # of the time at which the film begins
        self._timescale = {"movie_timescale": str(ticks * max(1, 1000 // ticks))}
        self._container = self._stream = self._sound = self._last_tick = self._file = None
        self._end = None  # seconds; None while the file has no frame
        self._check_path()

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        try:
            kept = kind is None or issubclass(kind, KeyboardInterrupt | InputError)
            if self._end is not None and kept and not self._file.drops:
                self._finish(interrupted=kind is not None)
        except InputError:
            if kind is None:  # else the first error is the one to tell
                raise
        finally:
            self._file.drops = True  # what closing an unfinished container writes
            for thing in (self._container, self._sound, self._file):
                with suppress(av.FFmpegError, OSError):
                    if thing:
                        thing.close()
            for path in (self._part, self._moved):
                with suppress(OSError):
                    path.unlink(missing_ok=True)

    def write(
        self, image: np.ndarray, time: Fraction | None = None, duration: Fraction | None = None
    ) -> None:
        """Append an RGB image (H, W, 3) uint8, shown at `time` for `duration` (seconds).

        Defaults: after the previous image, for 1 / fps.
        """
        time = Fraction(self._end or 0) if time is None else Fraction(time)
        duration = duration or 1 / self._fps
        with self._explained():
            if self._stream is None:
                self._start(*image.shape[:2])
            assert image.shape == self._shape, f"{image.shape} in a video of {self._shape}"
            self._encode(self._to_yuv(image, time, duration))
            self._end = time + duration
            if self._sound:
                self._sound.write(until=self._end)

    def _check_path(self) -> None:
        if self.path.suffix.lower() != ".mp4":
            raise InputError(
                f"{self.path}: videos are written as MP4; give a name that ends in .mp4"
            )
        if os.path.isdir(self.path):
            raise InputError(f"{self.path} is a folder; give the name of a video file")
        with suppress(OSError):  # one of them does not exist
            if self._reader and self.path.samefile(self._reader.source):
                raise InputError(f"{self.path} is the input itself; write to another name")
        self._part, self._moved = temporary_path(self.path, ".mp4"), temporary_path(self.path)
        with self._explained():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = FilmFile(self._part, "w+")  # fails now if the folder is not writable

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn errors of the disk and of FFmpeg into an InputError."""
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            remedy = "try another codec, or the video without its sound"
            if isinstance(error, OSError):
                remedy = "make room there or choose another place" + self._keep_fragments()
            raise InputError(
                f"{self.path} cannot be written ({error.strerror}); {remedy}"
            ) from error

    def _start(self, height: int, width: int) -> None:
        """Open the file for frames of height x width pixels, with sound if that is possible."""
        self._shape = (height, width, 3)
        self._open(height, width)
        if self._reader and self._reader.has_audio:
            try:
                self._sound = SoundTrack(self._reader, self._container)
                self._container.start_encoding()
            except (av.FFmpegError, InputError, ValueError) as error:
                why = without_secrets(str(error))
                print(f"{self._reader.name}: its sound is left out ({why})", file=sys.stderr)
                self._sound = None
                self._open(height, width)  # reopen: a stream cannot be removed

    def _open(self, height: int, width: int) -> None:
        # Fragments, so that a film that is cut off can be played; the end makes a usual MP4 of it.
        # delay_moov writes the header after the first packets, which say when the streams begin.
        options = {"movflags": "+hybrid_fragmented+delay_moov"} | self._timescale
        self._file.seek(0)
        self._file.truncate()
        self._container = av.open(self._file, "w", format="mp4", container_options=options)
        if self._reader:
            self._container.metadata["comment"] = self._reader.origin
        self._stream = stream = self._container.add_stream(self._codec, rate=self._fps)
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        stream.options = QUIET.get(self._codec, {})
        if self._codec in CRF_CODECS:
            stream.options |= {"crf": str(self._crf)}
        else:
            stream.bit_rate = max(1_000_000, int(0.2 * width * height * self._fps))
        if self._codec == "mpeg4":  # its time base has 16 bits
            self._time_base = max(self._time_base, Fraction(1, 65535))
        context = stream.codec_context
        context.time_base, context.thread_type = self._time_base, "AUTO"
        context.colorspace = context.color_primaries = context.color_trc = usual_matrix(height)
        context.gop_size = max(1, round(SECONDS_PER_GROUP * self._fps))
        context.max_b_frames = 0  # they lose the last frames if the rate varies
        context.flags |= 0x100  # AV_CODEC_FLAG_FRAME_DURATION
        context.sample_aspect_ratio = (self._reader and self._reader.pixel_aspect) or 0
        try:
            context.open()
        except av.FFmpegError as error:
            raise InputError(
                f"{self.path}: {self._codec} does not encode {width} x {height} pixels at "
                f"{float(self._fps):.6g} frames per second ({error.strerror}); scale the video, or "
                f"use {DEFAULT_CODEC}"
            ) from error

    def _to_yuv(self, image: np.ndarray, time: Fraction, duration: Fraction) -> av.VideoFrame:
        height, width = image.shape[:2]
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")  # 4:2:0
        matrix = "ITU709" if usual_matrix(height) == BT709 else "ITU601"
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=matrix, dst_color_range="MPEG", interpolation=EXACT
        )
        tick = round(time / self._time_base)
        if self._last_tick is not None:
            tick = max(tick, self._last_tick + 1)  # muxers require increasing times
        frame.pts = self._last_tick = tick
        frame.time_base, frame.duration = self._time_base, round(duration / self._time_base)
        return frame

    def _encode(self, frame: av.VideoFrame | None) -> None:
        # A packet lost between encoder and file would damage the ones after it.
        # Packets belong to stream 0 by default, which is the video.
        with delayed_signals():
            self._container.mux(self._stream.codec_context.encode_lazy(frame))

    def _finish(self, interrupted: bool) -> None:
        whole = self._reader is not None and self._reader.finished and not interrupted
        with self._explained():
            self._encode(None)
            if self._sound:
                self._sound.write(until=None if whole else self._end)
            self._container.close()
            self._file.close()
            if self._file.error:  # FFmpeg does not pass all of them on
                raise self._file.error
        try:
            move_index_to_front(self._part, self._moved, self._timescale)
            os.replace(self._moved, self.path)
        except (av.FFmpegError, OSError):  # no room for a copy: the index stays at the end
            os.replace(self._part, self.path)

    def _keep_fragments(self) -> str:
        """Keep what can be played of a film whose disk is full; returns words that say so."""
        if self._container is None:
            return ""
        self._file.drops = True
        with suppress(av.FFmpegError, OSError):
            self._container.close()
        with suppress(OSError):
            self._file.close()
            if plays(self._part):
                os.replace(self._part, self.path)
                return "; what was written so far is kept there"
        return ""


def origin_of(path: Path) -> str | None:
    """The comment in a file that a VideoWriter wrote, or None."""
    with suppress(av.FFmpegError, OSError, ValueError), av.open(str(path)) as container:
        return container.metadata.get("comment")
    return None
