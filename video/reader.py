"""Read the frames of a video: exact times, upright, true colours."""

import sys
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from utils import InputError
from video.source import open_source, read_packets, seek, sound_stream, stated_end, video_stream

LIVE = ("rtsp:", "rtmp:", "udp:", "rtp:")  # cannot be opened twice, which the sound needs
MAX_UNTIMED = 64  # frames that wait for the first one with a time
BT709, BT601, UNSPECIFIED = 1, 6, 2  # FFmpeg's numbers of a matrix, its primaries and its curve
# swscale's bilinear, full chroma and exact rounding; without them it darkens by 2 levels.
EXACT = 0x2 | 0x2000 | 0x40000


class Frame(NamedTuple):
    image: np.ndarray  # (H, W, 3) uint8 RGB, upright
    time: Fraction  # seconds since the start of the clip
    duration: Fraction  # seconds


class VideoReader:
    """Iterate once over the frames of a file, a webcam or an rtsp/http address, with exact times.

    Memory does not grow with the length. Damaged packets are skipped. At the end a line on stderr
    reports them, and a video that is shorter than its header says.

    Attributes:
        width, height: pixels of the upright frames.
        fps: frames per second; the mean if the rate varies.
        time_base: seconds; frame times are multiples of it.
        pixel_aspect: width / height of one pixel, None if unknown.
        num_frames: an estimate for progress bars, None if unknown.
        has_audio: whether there is sound that a VideoWriter can keep.
        start_time, end_time: the clip in seconds of the source; end_time None: to the end.
        finished: whether every frame has been read.

    Raises InputError if the source cannot be opened or has no frame in the clip.
    """

    def __init__(self, source: str | Path | int, start: float = 0, duration: float | None = None):
        self.source = str(source)
        self.finished = False
        self._container = open_source(self.source)
        self._stream = video_stream(self._container, self.source)
        self._stream.thread_type = "AUTO"
        self.fps = self._stream.average_rate or self._stream.guessed_rate or Fraction(25)
        self.time_base = self._stream.time_base
        self.is_live = self.source.isdigit() or self.source.startswith(LIVE)
        self.has_audio = not self.is_live and sound_stream(self._container) is not None
        self._set_clip(exact(start), None if duration is None else exact(duration))
        self._num_damaged = self._num_packets = self._num_decoded = self._num_before_key = 0
        self._has_key, self._first_dts, self._delay, self._last_end = False, None, None, Fraction(0)
        self._frames = self._read_clip()
        self._next = next(self._frames, None)
        if self._next is None:
            raise InputError(
                f"{source}: no frame can be decoded from {start} s on"
                f"{f' for {duration} s' if duration is not None else ''}; "
                "check that it plays and how long it is"
            )
        self._set_geometry(self._next[0])
        if self.is_trimmed or self.is_live:  # no gap before the first frame
            self.start_time = self._next[1]
        if self.is_live and duration is not None:
            self.end_time = self.start_time + exact(duration)

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        while self._next is not None:
            frame, time = self._next
            yield Frame(self._to_rgb(frame), time - self.start_time, self._last_end - time)
            self._next = next(self._frames, None)
        self.finished = True
        self._report_damage()

    def _set_clip(self, start: Fraction, duration: Fraction | None) -> None:
        streams = [s for s in (self._stream, sound_stream(self._container)) if s is not None]
        starts = [s.start_time * s.time_base for s in streams if s.start_time is not None]
        # Sound may begin before 0, with samples that only fill its decoder's buffers.
        self.start_time = max(Fraction(0), min(starts, default=0)) + start
        known = duration is not None and not self.is_live  # a live clip begins with its first frame
        self.end_time = self.start_time + duration if known else None
        self.is_trimmed = start > 0
        if self.is_trimmed:
            seek(self._container, self.start_time)
        self._stated_end = end = stated_end(self._container, self._stream)
        self.num_frames = self._stream.frames or None
        if end and (self.is_trimmed or duration or not self.num_frames):
            seconds = min(end, self.end_time or end) - self.start_time
            self.num_frames = max(1, round(seconds * self.fps))

    def _set_geometry(self, frame: av.VideoFrame) -> None:
        matrix = frame.side_data.get("DISPLAYMATRIX")
        # The pixel (x, y) is shown at (a x + c y, b x + d y).
        a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist() if matrix else (1, 0, 0, 0, 1)
        self._transposed = abs(b) > abs(a)
        flip_x, flip_y = (c < 0, b < 0) if self._transposed else (a < 0, d < 0)
        self._flips = np.s_[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
        self._coded_size = frame.width, frame.height
        self.width, self.height = self._coded_size[:: -1 if self._transposed else 1]
        aspect = self._stream.sample_aspect_ratio or None
        self.pixel_aspect = 1 / aspect if aspect and self._transposed else aspect

    def _read_clip(self) -> Iterator[tuple[av.VideoFrame, Fraction]]:
        """Yield the decoded frames of the clip with their times in seconds of the source."""
        for frame, time in self._timed(self._decode()):
            if self.end_time is not None and time >= self.end_time:
                return
            self._last_end = time + ((frame.duration or 0) * self.time_base or 1 / self.fps)
            if time >= self.start_time or not self.is_trimmed:
                yield frame, time

    def _timed(self, frames: Iterator[av.VideoFrame]) -> Iterator[tuple[av.VideoFrame, Fraction]]:
        """Yield frames with their times in seconds of the source.

        Frames before the first one with a time are counted back from it by the frame rate.
        """
        untimed, waits = [], True
        for frame in frames:
            ticks = self._ticks_of(frame)
            time = None if ticks is None else ticks * self.time_base
            if waits and time is None and len(untimed) < MAX_UNTIMED:
                untimed.append(frame)
                continue
            if waits:
                yield from self._counted_back(untimed, time)
                waits = False
            yield frame, self._last_end if time is None else time
        if waits:
            yield from self._counted_back(untimed, None)

    def _counted_back(
        self, frames: Sequence[av.VideoFrame], end: Fraction | None
    ) -> Iterator[tuple[av.VideoFrame, Fraction]]:
        """Frames that end at `end`; from 0 on if that is None."""
        step = 1 / self.fps if end is None else min(1 / self.fps, max(end, 0) / (len(frames) or 1))
        begin = 0 if end is None else end - step * len(frames)
        for number, frame in enumerate(frames):
            yield frame, begin + step * number

    def _decode(self) -> Iterator[av.VideoFrame]:
        for packet in chain(read_packets(self._container, self._stream), [None]):  # None: flush
            if packet and packet.is_corrupt:  # decoding it would damage the frames around it
                self._num_damaged += 1
                continue
            if packet:
                self._first_dts = packet.dts if self._first_dts is None else self._first_dts
                self._num_packets += 1
                self._has_key |= packet.is_keyframe
                self._num_before_key += not self._has_key
            try:
                frames = self._stream.codec_context.decode(packet)
            except av.FFmpegError:
                frames, self._num_damaged = [], self._num_damaged + 1
            self._num_decoded += len(frames)
            yield from frames

    def _ticks_of(self, frame: av.VideoFrame) -> int | None:
        if self._container.format.name != "avi":
            return frame.pts
        # AVI stores only the decoding order: with B-frames, FFmpeg's guessed pts are wrong.
        if frame.dts is None:
            return None
        if self._delay is None:
            self._delay = frame.dts - (self._first_dts or 0)
        return frame.dts - self._delay

    def _to_rgb(self, frame: av.VideoFrame) -> np.ndarray:
        width, height = self._coded_size  # a stream may change its size midway
        untagged = frame.colorspace == UNSPECIFIED
        image = frame.to_ndarray(
            format="rgb24",
            width=width,
            height=height,
            src_colorspace=usual_matrix(height) if untagged else int(frame.colorspace),
            dst_colorspace="DEFAULT",
            interpolation=EXACT,
        )
        if self._transposed:
            image = image.transpose(1, 0, 2)
        return np.ascontiguousarray(image[self._flips])

    def _report_damage(self) -> None:
        notes = [f"{self._num_damaged} damaged packets left out"] if self._num_damaged else []
        lost = min(self._num_before_key, self._num_packets - self._num_decoded)
        if lost > 0 and not self.is_trimmed and not self.is_live:
            notes.append(f"the first {lost} pictures are lost, as their key frame is missing")
        end = self._stated_end if self.end_time is None else None
        if end is not None and end - self._last_end > 3 / self.fps:
            stop, end = float(self._last_end), float(end)
            notes.append(f"the pictures stop at {stop:.1f} of {end:.1f} s")
        if notes:
            print(f"{self.source} is cut short or damaged: {', '.join(notes)}", file=sys.stderr)


def exact(seconds: float) -> Fraction:
    """The decimal number as a fraction: 0.1 is 1/10, not the nearest binary number."""
    return Fraction(seconds).limit_denominator(1_000_000)


def usual_matrix(height: int) -> int:
    """The colour matrix that players assume for untagged video of this height in pixels."""
    return BT709 if height >= 720 else BT601
