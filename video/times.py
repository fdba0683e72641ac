"""When frames are shown, and how many there are per second."""

import time
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain

import av
from av.container import InputContainer

ASSUMED_RATE = Fraction(25)  # what FFmpeg assumes, too
USUAL_RATES = 120  # frames per second; a higher rate counts only if the frames' times agree
MEASURED_RATES = Fraction(1, 60), Fraction(240)  # what is measured lies between these
LOOK_AHEAD = 64  # packets whose times are looked at; frames that wait for the first time
LIVE_SECONDS = 1  # for which a live source is looked at
CLOCK_BASE = Fraction(1, 90_000)  # seconds; unit of times by the clock
AT_ONCE = 0.001  # seconds; a packet that comes sooner was waiting since the source was opened
NO_TIMES = 0x80  # FFmpeg's flag of a format that stores no times
JUMP = Fraction(1, 4)  # seconds; a larger step back in time is where another recording was joined


class FrameTimes:
    """Decides the frames' times and their rate.

    Formats store times, AVI only their order. Raw streams have none: the frames of a file are
    counted by the rate that the codec states, those of a live source get the time at which they
    arrive.

    Attributes:
        packets: of the video stream; read them from here.
        fps: frames per second; the mean if the rate varies.
        base: seconds; times are multiples of it.
        is_counted: whether frames are counted, so that the file is read from its beginning.
        assumed: whether fps is a guess that the times depend on.
        end: seconds of the source at which the last frame of `timed` ends.
    """

    def __init__(
        self, container: InputContainer, stream: av.VideoStream, packets: Iterable, live: bool
    ):
        self._live, self._is_avi = live, container.format.name == "avi"
        has_times = not container.format.flags & NO_TIMES
        self.is_counted = not has_times and not live
        self._by_clock = not has_times and live
        self.base = CLOCK_BASE if self._by_clock else stream.time_base
        self._opened, self._number, self._delay, self._first_dts = time.monotonic(), 0, None, None
        self._shift = self._earlier_shift = self.end = Fraction(0)
        self._last = None
        if self._by_clock:
            packets = self._stamped(packets)
        stated = stream.average_rate if has_times else stream.codec_context.framerate
        self.assumed = self.is_counted and not stated
        is_stated = self.is_counted or (has_times and bool(stated) and stated <= USUAL_RATES)
        if not is_stated:
            packets, measured = self._measured(iter(packets))
            is_stated = has_times and bool(stated and measured) and stated < 2 * measured
            stated = stated if is_stated else measured
        self.packets, self.fps = packets, stated or ASSUMED_RATE
        # FFmpeg gives each frame of a file without a rate this duration.
        self._invented = 0 if is_stated or not stream.guessed_rate else 1 / stream.guessed_rate

    def note(self, packet: av.Packet) -> None:
        """See a packet before it is decoded."""
        self._first_dts = packet.dts if self._first_dts is None else self._first_dts

    def timed(
        self, frames: Iterable[av.VideoFrame]
    ) -> Iterator[tuple[av.VideoFrame, Fraction, Fraction]]:
        """Yield frames with the seconds of the source at which each begins and ends.

        Those before the first one with a time are counted back from it by the frame rate.
        """
        waiting, waits = [], True
        for frame in frames:
            begin = self._begin(frame)
            if waits and begin is None and len(waiting) < LOOK_AHEAD:
                waiting.append(frame)
                continue
            if waits:
                yield from self._counted_back(waiting, begin)
                waits = False
            yield self._placed(frame, self.end if begin is None else begin)
        if waits:
            yield from self._counted_back(waiting, None)

    def _counted_back(
        self, frames: Sequence[av.VideoFrame], end: Fraction | None
    ) -> Iterator[tuple[av.VideoFrame, Fraction, Fraction]]:
        """Frames that end at `end`; from 0 on if that is None."""
        step = 1 / self.fps if end is None else min(1 / self.fps, max(end, 0) / (len(frames) or 1))
        begin = 0 if end is None else end - step * len(frames)
        for number, frame in enumerate(frames):
            yield self._placed(frame, begin + step * number)

    def _placed(self, frame: av.VideoFrame, begin: Fraction) -> tuple:
        length = (frame.duration or 0) * self.base
        invented = self._invented and abs(length - self._invented) <= self.base
        if not length or invented or self.is_counted or self._by_clock:
            length = 1 / self.fps
        self.end = begin + length
        return frame, begin, self.end

    def _begin(self, frame: av.VideoFrame) -> Fraction | None:
        """The time in seconds of the source, None if a frame has none.

        Where another recording was joined, whose time begins anew, it goes on from the last frame.
        """
        if self.is_counted:
            self._number += 1
            return (self._number - 1) / self.fps
        ticks = self._ticks(frame)
        if ticks is None:
            return None
        begin = ticks * self.base + self._shift
        self._last = begin if self._last is None else self._last
        back = begin - self._shift + self._earlier_shift  # as before a single time that was wrong
        if begin < self._last - JUMP:
            self._earlier_shift = self._shift
            self._shift += self._last + 1 / self.fps - begin
            begin = self._last + 1 / self.fps
        elif begin > self._last + JUMP and abs(back - self._last) < JUMP:
            self._shift, begin = self._earlier_shift, back
        self._last = max(self._last, begin)
        return begin

    def _ticks(self, frame: av.VideoFrame) -> int | None:
        if not self._is_avi:
            return frame.pts
        # AVI stores only the decoding order: with B-frames, FFmpeg's guessed pts are wrong.
        if frame.dts is None:
            return None
        if self._delay is None:
            self._delay = frame.dts - (self._first_dts or 0)
        return frame.dts - self._delay

    def _stamped(self, packets: Iterable[av.Packet]) -> Iterator[av.Packet]:
        """Packets with the time at which they arrived; None for those that came while opening."""
        waiting, packets = True, iter(packets)
        while True:
            asked = time.monotonic()
            if (packet := next(packets, None)) is None:
                return
            arrived = time.monotonic()
            waiting &= arrived - asked < AT_ONCE
            ticks = None if waiting else round((arrived - self._opened) / self.base)
            packet.pts = packet.dts = ticks
            yield packet

    def _measured(
        self, packets: Iterator[av.Packet]
    ) -> tuple[Iterator[av.Packet], Fraction | None]:
        """All packets again, and the mean rate of the first ones; None if they do not tell."""
        seen, ticks = [], []
        for packet in packets:
            seen.append(packet)
            if packet.pts is not None:
                ticks.append(packet.pts)
            span = (max(ticks) - min(ticks)) * self.base if ticks else 0
            if len(seen) == LOOK_AHEAD or (self._live and span >= LIVE_SECONDS):
                break
        rate = None
        if len(ticks) > 1 and span:
            low, high = MEASURED_RATES
            rate = min(max((len(ticks) - 1) / span, low), high).limit_denominator(1001)
        return chain(seen, packets), rate
