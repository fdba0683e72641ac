"""Write the results of a segmented video, several films and a table, in one pass."""

import re
import time
from collections.abc import Sequence
from contextlib import ExitStack
from glob import escape
from itertools import count
from pathlib import Path

import numpy as np

from data.labels.classes import Classes
from inference.frames import MappedFrame
from results.overlays import class_colours, overlay
from results.tables import FrameTable, source_of
from utils import InputError, public_name, result_name
from video.reader import VideoReader
from video.source import is_webcam
from video.writer import VideoWriter, origin_of

VIDEO_ENDINGS = {
    "overlay": ".mp4",
    "mask": "_mask.mp4",
    "side-by-side": "_side_by_side.mp4",
    "csv": ".csv",
}
NAME_ROOM = len("_20260131_235959_99_side_by_side.mp4")  # bytes after a source's own name


def result_stem(source: str, is_live: bool = False) -> str:
    """A file name without extension for a file, a webcam's number or an address.

    A live source cannot be recorded again: its name has date and time.
    """
    if is_webcam(source):
        stem = f"webcam_{source}"
    elif "://" in source:
        address = public_name(source).split("://", 1)[1]
        stem = re.sub(r"\W+", "_", address).strip("_") or "stream"
    else:
        stem = Path(source).stem
    stem = result_name(stem, NAME_ROOM)
    return f"{stem}_{time.strftime('%Y%m%d_%H%M%S')}" if is_live else stem


def result_paths(folder: Path, reader: VideoReader) -> dict[str, Path]:
    """Where all kinds of results of a source lie.

    What is recorded of a live source gets a name that nothing has.
    """
    stem = result_stem(reader.source, reader.is_live)
    names = (stem if number == 1 else f"{stem}_{number}" for number in count(1))
    for name in names:
        paths = {kind: folder / f"{name}{ending}" for kind, ending in VIDEO_ENDINGS.items()}
        free = not any(path.exists() or is_being_written(path) for path in paths.values())
        if free or not reader.is_live:
            return paths


def check_no_other_video(path: Path, reader: VideoReader, opened: bool) -> None:
    """Raise InputError if a result would replace that of another video of the same name.

    opened: whether this start writes it, too.
    """
    if is_being_written(path, by_others=opened):
        raise InputError(
            f"{path} is being written by another start: wait for its end, or choose another "
            "--out-dir"
        )
    found = origin_of(path) if path.suffix == ".mp4" else source_of(path)
    if found and found.startswith(("made of ", "recorded from ")) and found != reader.origin:
        raise InputError(
            f"{path} is there already, {found}; this is "
            f"{reader.origin.removeprefix('made of ')}: choose another --out-dir"
        )


def is_being_written(path: Path, by_others: bool = False) -> bool:
    """Whether a job that runs has opened a result of that name; see utils.temporary_path.

    by_others: another one than this job, which has opened it.
    """
    return len(list(path.parent.glob(f".{escape(path.name)}.*.part*"))) > by_others


def draw_frame(
    mapped: MappedFrame, classes: Classes, kinds: Sequence[str], alpha: float
) -> dict[str, np.ndarray]:
    """The RGB pictures of a frame by kind, for all kinds but csv."""
    (image, *_), labels = mapped
    drawn = {}
    if {"overlay", "side-by-side"} & set(kinds):
        drawn["overlay"] = overlay(image, labels, classes, alpha)
    if "mask" in kinds:
        drawn["mask"] = class_colours(labels, classes)
    if "side-by-side" in kinds:
        drawn["side-by-side"] = np.hstack([image, drawn["overlay"]])
    return drawn


class VideoResults:
    """Writes all files of one video; each gets its final name when the with-block ends.

    After Ctrl-C they hold the frames so far; after any other exception none stays.

    Attributes:
        paths: the files by kind.
        num_frames: written so far.
        changes: sum over frames of the fraction of pixels whose class differs from the last frame.
    """

    def __init__(
        self,
        folder: Path,
        reader: VideoReader,
        classes: Classes,
        kinds: Sequence[str],
        crf: int,
        codec: str,
    ):
        paths = result_paths(folder, reader)
        self.paths = {kind: path for kind, path in paths.items() if kind in kinds}
        self.num_frames, self.changes, self._last = 0, 0.0, None
        self._classes, self._stack, self._films, self._table = classes, ExitStack(), {}, None
        with self._stack as stack:  # closes the files that are open if the next one fails
            if "csv" in kinds:  # opened first and closed last, so that a failed film removes it
                self._table = stack.enter_context(
                    FrameTable(self.paths["csv"], classes, reader.origin)
                )
            for kind in kinds:
                if kind != "csv":
                    writer = VideoWriter(self.paths[kind], reader, crf=crf, codec=codec)
                    self._films[kind] = stack.enter_context(writer)
            for kind, path in paths.items():  # now that other starts see what is opened here
                check_no_other_video(path, reader, kind in kinds)
            self._stack = stack.pop_all()

    def __enter__(self) -> "VideoResults":
        return self

    def __exit__(self, *error) -> None:
        self._stack.__exit__(*error)

    def write(self, mapped: MappedFrame, drawn: dict[str, np.ndarray]) -> None:
        """Append a frame; drawn: see draw_frame."""
        (_, start, duration), labels = mapped
        for kind, writer in self._films.items():
            writer.write(drawn[kind], start, duration)
        if self._table:
            self._table.write(self.num_frames, float(start), labels)
        if self._last is not None and labels is not self._last:
            self.changes += float((labels != self._last).mean())
        self._last = labels
        self.num_frames += 1

    def summary(self) -> str:
        """One line: the files, and how much the class maps flicker."""
        changes = self.changes / max(1, self.num_frames - 1)
        files = ", ".join(str(path) for path in self.paths.values())
        return f"{files}: {changes:.3%} of the pixels change class from frame to frame"
