"""Read the frames of a video: exact times, upright, true colours."""

import os
import sys
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from utils import InputError, public_name
from video.pictures import ToRGB
from video.source import (
    CLOSED,
    Packets,
    is_live,
    open_source,
    origin,
    seek,
    sound_stream,
    stated_end,
    video_stream,
)
from video.times import FrameTimes


class Frame(NamedTuple):
    image: np.ndarray  # (H, W, 3) uint8 RGB, upright
    time: Fraction  # seconds since the start of the clip
    duration: Fraction  # seconds


class VideoReader:
    """Iterate once over the frames of a file, a webcam or an rtsp/http address, with exact times.

    Memory does not grow with the length. Damaged packets are skipped. At the end a line on stderr
    reports them, and a video that is shorter than its header says.

    Attributes:
        name: the source, for people: without user, password and query.
        origin: what results say of their source.
        is_live: whether the source cannot be read again, such as a camera.
        width, height: pixels of the upright frames.
        fps: frames per second; the mean if the rate varies.
        time_base: seconds; frame times are multiples of it.
        pixel_aspect: width / height of one pixel, None if unknown.
        num_frames: an estimate for progress bars, None if unknown.
        has_audio: whether there is sound that a VideoWriter can keep.
        start_time, end_time: the clip in seconds of the source; end_time None: to the end.
        finished: whether every frame has been read.
        lost: after the last frame, how the connection to an address ended too early; "" if not.

    Raises InputError if the source cannot be opened or has no frame in the clip.
    """

    def __init__(self, source: str | Path | int, start: float = 0, duration: float | None = None):
        self.source = str(source)
        self.name, self.finished, self.lost = public_name(self.source), False, ""
        self._container = open_source(self.source)
        self._stream = video_stream(self._container, self.source)
        self._stream.thread_type = "AUTO"
        self.is_live = is_live(self._container)
        self.origin = origin(self.source, self._container)
        self._packets = Packets(self._container, self._stream)
        self._times = FrameTimes(self._container, self._stream, self._packets, self.is_live)
        self.fps, self.time_base = self._times.fps, self._times.base
        self.has_audio = not self.is_live and sound_stream(self._container) is not None
        self._set_clip(exact(start), None if duration is None else exact(duration))
        self._num_damaged = self._num_packets = self._num_decoded = self._num_before_key = 0
        self._has_key = self._at_end = False
        self._frames = self._read_clip()
        self._next = next(self._frames, None)
        if self._next is None:
            why = f" ({self._packets.error})" if self._packets.error else ""
            stored = "://" in self.source and not self.is_live
            raise InputError(
                f"{self.name}: no frame can be decoded from {start} s on"
                f"{f' for {duration} s' if duration is not None else ''}{why}; "
                "check that it plays and how long it is"
                f"{', or download it and give the file' if stored else ''}"
            )
        self._to_rgb = ToRGB(self._next[0], self._stream)
        self.width, self.height = self._to_rgb.width, self._to_rgb.height
        self.pixel_aspect = self._to_rgb.pixel_aspect
        if self.is_trimmed or self.is_live:  # no gap before the first frame
            self.start_time = self._next[1]
        if self.is_live and duration is not None:
            self.end_time = self.start_time + exact(duration)
        if self._times.assumed:
            self._tell(f"has neither times nor a rate: {self.fps} frames per second are assumed")

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        while self._next is not None:
            frame, begin, end = self._next
            num_sizes = len(self._to_rgb.sizes)
            image = self._to_rgb(frame)
            if len(self._to_rgb.sizes) > num_sizes:
                when = f"{float(begin - self.start_time):.1f} s"
                self._tell(
                    f"has pictures of {frame.width} x {frame.height} from {when} on, which "
                    f"are fitted into {self.width} x {self.height}"
                )
            yield Frame(image, begin - self.start_time, end - begin)
            self._next = next(self._frames, None)
        self.finished = True
        self._report_losses()

    def _tell(self, what: str) -> None:
        print(f"{self.name} {what}", file=sys.stderr)

    def _set_clip(self, start: Fraction, duration: Fraction | None) -> None:
        streams = [s for s in (self._stream, sound_stream(self._container)) if s is not None]
        starts = [s.start_time * s.time_base for s in streams if s.start_time is not None]
        starts = [0] if self._times.is_counted else starts
        # Sound may begin before 0, with samples that only fill its decoder's buffers.
        self.start_time = max(Fraction(0), min(starts, default=0)) + start
        known = duration is not None and not self.is_live  # a live clip begins with its first frame
        self.end_time = self.start_time + duration if known else None
        self.is_trimmed = start > 0
        if self.is_trimmed and not self.is_live and not self._times.is_counted:
            seek(self._container, self.start_time)
            self._times.packets = self._packets  # not those of the beginning that were looked at
        self._stated_end = end = stated_end(self._container, self._stream)
        self.num_frames = self._stream.frames or None
        if end and (self.is_trimmed or duration or not self.num_frames):
            seconds = min(end, self.end_time or end) - self.start_time
            self.num_frames = max(1, round(seconds * self.fps))

    def _read_clip(self) -> Iterator[tuple[av.VideoFrame, Fraction, Fraction]]:
        """Yield the frames of the clip with begin and end in seconds of the source."""
        for frame, begin, end in self._times.timed(self._decode()):
            if self.end_time is not None and begin >= self.end_time:
                return
            if begin >= self.start_time or not self.is_trimmed:
                yield frame, begin, end
        self._at_end = True

    def _decode(self) -> Iterator[av.VideoFrame]:
        for packet in chain(self._times.packets, [None]):  # None: flush
            if packet and packet.is_corrupt:  # decoding it would damage the frames around it
                self._num_damaged += 1
                continue
            if packet:
                self._times.note(packet)
                self._num_packets += 1
                self._has_key |= packet.is_keyframe
                self._num_before_key += not self._has_key
            try:
                frames = self._stream.codec_context.decode(packet)
            except av.FFmpegError:
                frames, self._num_damaged = [], self._num_damaged + 1
            self._num_decoded += len(frames)
            yield from frames

    def _report_losses(self) -> None:
        notes = [f"{self._num_damaged} damaged packets left out"] if self._num_damaged else []
        if count := self._packets.num_passed_over:
            notes.append(f"{count} damaged bytes passed over")
        lost = min(self._num_before_key, self._num_packets - self._num_decoded)
        if lost > 0 and not self.is_trimmed and not self.is_live:
            notes.append(f"the first {lost} pictures are lost, as their key frame is missing")
        stated, end = self._stated_end, self._times.end
        is_short = self._at_end and stated is not None and stated - end > 3 / self.fps
        if is_short:
            notes.append(f"the pictures stop at {float(end):.1f} of {float(stated):.1f} s")
        broke = is_short or self.is_live or (stated is None and self._packets.error)
        if self._at_end and broke and not os.path.isfile(self.source):
            seconds = float(end - self.start_time)
            self.lost = f"connection lost after {seconds:.1f} s ({self._packets.error or CLOSED})"
        if notes:
            self._tell(f"is cut short or damaged: {', '.join(notes)}")


def exact(seconds: float) -> Fraction:
    """The decimal number as a fraction: 0.1 is 1/10, not the nearest binary number."""
    return Fraction(seconds).limit_denominator(1_000_000)
