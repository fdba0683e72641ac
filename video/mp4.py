"""Finish MP4 files: the index goes to the front, a file that was cut off is kept if it plays."""

import io
from contextlib import suppress
from pathlib import Path

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


def plays(path: Path) -> bool:
    """Whether a fragmented MP4 that its writer could not finish has pictures."""
    with suppress(av.FFmpegError, IndexError), av.open(str(path)) as film:
        return any(packet.size for packet in film.demux(video=0))
    return False
