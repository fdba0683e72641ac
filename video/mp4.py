"""Finish MP4 files: the index goes to the front, a cut file ends with its last whole fragment."""

import io
import os
import struct
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple

import av


class FilmFile(io.FileIO):
    """A file that drops what is written after its first error, or once `drops` is set.

    Without that, closing a container on a full disk would overwrite the header of its fragments.
    """

    drops = False
    error: OSError | None = None

    def write(self, data: bytes) -> int:
        rest = memoryview(data)
        try:
            while rest and not self.drops:  # a nearly full disk takes a part
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.error, self.drops = error, True
            raise
        return len(data)


class Box(NamedTuple):
    name: bytes
    start: int  # bytes from the beginning of the file
    size: int  # bytes, header included


def top_level_boxes(file: BinaryIO) -> list[Box]:
    """The whole boxes of a file in order, without the last one of a cut file.

    Source: ISO/IEC 14496-12, section 4.2.
    """
    end = file.seek(0, os.SEEK_END)
    boxes, start = [], 0
    while start + 8 <= end:
        file.seek(start)
        header = file.read(16)
        size, name = struct.unpack(">I4s", header[:8])
        if size == 1 and len(header) == 16:
            size = struct.unpack(">Q", header[8:])[0]
        elif size == 0:
            size = end - start
        if size < 8 or start + size > end:
            break
        boxes.append(Box(name, start, size))
        start += size
    return boxes


def move_index_to_front(source: Path, target: Path, options: dict[str, str]) -> None:
    """Copy an MP4 with its index first, so that it plays while it loads. options: the muxer's."""
    options = options | {"movflags": "+faststart"}
    with (
        av.open(str(source)) as film,
        av.open(str(target), "w", format="mp4", container_options=options) as output,
    ):
        output.metadata.update(film.metadata)
        streams = [output.add_stream_from_template(stream, opaque=True) for stream in film.streams]
        for packet in film.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                output.mux(packet)


def cut_to_whole_fragments(path: Path) -> bool:
    """Cut a fragmented MP4 after its last whole fragment; returns whether it has one.

    Such a file plays up to there, although its writer could not finish it.
    """
    with path.open("r+b") as file:
        boxes = top_level_boxes(file)
        ends = [
            after.start + after.size
            for box, after in pairwise(boxes)
            if (box.name, after.name) == (b"moof", b"mdat")
        ]
        file.truncate(ends[-1] if ends else 0)
    return bool(ends)
