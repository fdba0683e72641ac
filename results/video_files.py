"""Write the results of a segmented video, several films and a table, in one pass."""

import os
import re
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np

from data.labels.classes import Classes
from inference.frames import MappedFrame
from results.overlays import class_colours, overlay
from results.tables import FrameTable, source_of
from utils import InputError
from video.reader import VideoReader
from video.writer import VideoWriter, origin, origin_of

ENDINGS = {
    "overlay": ".mp4",
    "mask": "_mask.mp4",
    "side-by-side": "_side_by_side.mp4",
    "csv": ".csv",
}


def result_stem(source: str, is_live: bool = False) -> str:
    """A file name without extension for a file, a webcam's number or an address.

    A live source cannot be recorded again: its name has date and time, so that it replaces nothing.
    """
    if source.isdigit() and is_live:
        stem = f"webcam_{source}"
    elif "://" in source:
        stem = re.sub(r"\W+", "_", source.split("://", 1)[1]).strip("_") or "stream"
    else:
        stem = Path(source).stem
    return f"{stem}_{time.strftime('%Y%m%d_%H%M%S')}" if is_live else stem


def check_no_other_video(paths: Iterable[Path], reader: VideoReader) -> None:
    """Raise InputError if a result would replace that of another video of the same name."""
    for path in paths:
        found = origin_of(path) if path.suffix == ".mp4" else source_of(path)
        if found and found.startswith("made of ") and found != origin(reader):
            raise InputError(
                f"{path} is there already, {found}; this is {origin(reader)[len('made of ') :]}: "
                "choose another --out-dir"
            )


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
        stem = result_stem(reader.source, reader.is_live)
        self.paths = {kind: folder / f"{stem}{ENDINGS[kind]}" for kind in kinds}
        check_no_other_video((folder / f"{stem}{ending}" for ending in ENDINGS.values()), reader)
        self.num_frames, self.changes, self._last = 0, 0.0, None
        self._classes, self._stack, self._films, self._table = classes, ExitStack(), {}, None
        with self._stack as stack:  # closes the files that are open if the next one fails
            if "csv" in kinds:  # opened first and closed last, so that a failed film removes it
                self._table = stack.enter_context(
                    FrameTable(self.paths["csv"], classes, origin(reader))
                )
            for kind in kinds:
                if kind != "csv":
                    writer = VideoWriter(self.paths[kind], reader, crf=crf, codec=codec)
                    self._films[kind] = stack.enter_context(writer)
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


class Window:
    """Shows frames in a window; if OpenCV cannot open one, prints a line and does nothing."""

    def __init__(self, wanted: bool):
        self._is_open = wanted and can_open_windows()
        if wanted and not self._is_open:
            print(
                "--show: no window can be opened here (OpenCV has no windows, or no screen); "
                "the files are still written",
                file=sys.stderr,
            )

    def __enter__(self) -> "Window":
        return self

    def __exit__(self, *_) -> None:
        if self._is_open:
            cv2.destroyAllWindows()

    def show(self, drawn: dict[str, np.ndarray]) -> bool:
        """Show the overlay of draw_frame; returns whether the user pressed q."""
        if not self._is_open:
            return False
        cv2.imshow("segmentation (q: stop)", drawn["overlay"][..., ::-1])
        return cv2.waitKey(1) & 0xFF == ord("q")


def can_open_windows() -> bool:
    """Whether OpenCV has window support and, on Linux, whether there is a screen."""
    gui = re.search(r"^\s*GUI:\s*(\S+)", cv2.getBuildInformation(), re.MULTILINE)
    has_screen = not sys.platform.startswith("linux") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
    return gui is not None and gui[1] != "NONE" and has_screen
