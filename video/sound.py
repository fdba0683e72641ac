"""Copy the sound of a video into an MP4, or encode it as AAC where MP4 cannot hold it."""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction

import av
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer

from video.reader import VideoReader
from video.source import CLOSED, Packets, open_source, seek, sound_stream
from video.times import JUMP

MP4_SOUND = ("aac", "mp3", "ac3", "eac3", "opus", "flac", "alac")  # copied, others become AAC
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)


class SoundTrack:
    """Writes the sound of the reader's clip into `output`, copied or as AAC."""

    def __init__(self, reader: VideoReader, output: OutputContainer):
        self._reader, self._output = reader, output
        # A second handle on the file, so that neither sound nor pictures pile up in memory.
        self._input = open_source(reader.source)
        self._source = source = sound_stream(self._input)
        self._read = Packets(self._input, source)
        if source.codec_context.codec.canonical_name in MP4_SOUND:
            self._stream = output.add_stream_from_template(source)
            self._packets = self._copy()
        else:
            rate = source.rate if source.rate in AAC_RATES else 48000
            self._stream = output.add_stream("aac", rate=rate, bit_rate=160_000)
            self._stream.layout = "mono" if source.channels == 1 else "stereo"
            self._packets = self._encode()
        if reader.is_trimmed:
            seek(self._input, reader.start_time)
        self._next = None

    def close(self) -> None:
        self._input.close()

    def write(self, until: Fraction | None) -> None:
        """Write the packets that start before `until` (seconds of the clip); None: all of them."""
        while True:
            self._next = self._next or next(self._packets, None)
            packet = self._next
            if packet is None or (until is not None and packet.pts * packet.time_base >= until):
                return
            self._next = None
            try:
                self._output.mux(packet)
            except OSError:  # the disk failed
                raise
            except av.FFmpegError:  # damaged sound does not end the video
                continue

    def _clip(self) -> Iterator[av.Packet]:
        """Yield the packets of the clip, with times relative to its start."""
        reader, base, last_pts, joined = self._reader, self._source.time_base, None, 0
        shift = round(reader.start_time / base)
        for packet in self._read:
            pts = packet.dts if packet.pts is None else packet.pts
            if pts is None:
                continue
            pts += joined
            if last_pts is not None and (last_pts - pts) * base > JUMP:  # another recording
                joined += last_pts + (packet.duration or 1) - pts
                pts = last_pts + (packet.duration or 1)
            if reader.is_trimmed and pts * base < reader.start_time:
                continue
            if reader.end_time is not None and pts * base >= reader.end_time:
                return
            if last_pts is None or pts > last_pts:  # damaged files jump back in time
                last_pts, packet.pts, packet.dts = pts, pts - shift, pts - shift
                yield packet
        self._tell_of_loss((last_pts or 0) * base)

    def _tell_of_loss(self, end: Fraction) -> None:
        source, reader, why = self._source, self._reader, self._read.error
        stated = ((source.duration or 0) + (source.start_time or 0)) * source.time_base
        if end >= stated - 1:
            return
        where = f"its sound stops at {float(end):.1f} of {float(stated):.1f} s"
        if not os.path.isfile(reader.source):
            reader.lost = reader.lost or f"connection lost: {where} ({why or CLOSED})"
        elif why:
            print(f"{reader.name}: {where} ({why})", file=sys.stderr)

    def _copy(self) -> Iterator[av.Packet]:
        packets = self._clip()
        codec = self._source.codec_context
        if codec.name.startswith("aac") and not codec.extradata:  # with a header in every packet
            to_mp4 = BitStreamFilterContext("aac_adtstoasc", self._source)
            packets = (filtered for packet in packets for filtered in to_mp4.filter(packet))
        for packet in packets:
            packet.stream = self._stream
            yield packet

    def _encode(self) -> Iterator[av.Packet]:
        for packet in self._clip():
            with suppress(av.FFmpegError):
                for frame in self._source.codec_context.decode(packet):
                    yield from self._stream.encode(frame)
        yield from self._stream.encode(None)
