"""CSV files, and those that hold the fraction of each class in every picture or frame."""

import csv
import io
import math
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from common import distributed
from common.job_record import JobRecord
from config import IGNORE_INDEX
from data.labels.classes import Classes, count_pixels
from inference.windows import Prediction
from utils import InputError, printable, temporary_path, write_atomically, writing

RESULTS_CSV, RECORD, NAMES = "results.csv", "results.json", "names.json"


def picture_key(path: Path | str) -> str:
    """The same text for a picture named by a relative or an absolute path."""
    return printable(Path(os.path.abspath(path)))


def csv_text(rows: Iterable[Sequence]) -> str:
    """The rows as CSV; every table of the project is written by this function."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def class_fractions(labels: np.ndarray, num_classes: int) -> list[float]:
    """Fractions 0..1 of the pixels: one per class, then that of ignored pixels. labels: (H, W)."""
    counts = count_pixels(labels) / labels.size
    return [*counts[:num_classes].tolist(), float(counts[IGNORE_INDEX])]


def changed(path: Path) -> int:
    """Time of change in ns; 0 where there is no such file, or its name is too long for one."""
    with suppress(OSError):
        return path.stat().st_mtime_ns
    return 0


class ResultsTable:
    """results.csv: one row per picture with its size, mean confidence and class fractions.

    A row is appended as soon as its picture is done, so that an interrupted run keeps its rows;
    `finish` sorts them. keep: keep the rows of an earlier run whose record is equal, else tell why
    not. record: what the results depend on; written to results.json unless an equal one is there.
    Files older than results.json are therefore of other settings: see `is_current`.

    With several processes, the main process writes the file and holds the kept rows. The others
    hold only their own rows until `finish`, and add none before it has called `begin`.

    rows: by `picture_key`.
    """

    def __init__(self, folder: Path, classes: Classes, keep: bool, record: JobRecord):
        self.path, self.record_path = folder / RESULTS_CSV, folder / RECORD
        names = [*classes.names, "ignored"]
        self._header = ["picture", "result", "width", "height", "mean_confidence", *names]
        self._num_classes = classes.num_classes
        self._record, self._difference = record, self._difference_of(record)
        self.continues = keep and self._difference is None  # an earlier run of the same record
        self.rows = {}
        if distributed.is_main() and keep and self.path.exists():
            self.rows = self._read(self._difference)
        self._start, self._settings_since = math.inf, changed(self.record_path)

    def _difference_of(self, record: JobRecord) -> str | None:
        """How the record of an earlier run differs; None where it does not."""
        with suppress(OSError, ValueError, TypeError):
            earlier = JobRecord.from_json(self.record_path.read_text(encoding="utf-8"))
            return record.difference(earlier)
        return "settings that results.json does not tell"

    def begin(self) -> None:
        """Write the kept rows. The main process calls it."""
        self._write(self.rows.values())  # before the record: never old rows and a new record
        self._start = changed(self.path)  # by the clock of the results' file system
        if self._difference is not None:
            write_atomically(self.record_path, self._record.to_json().encode())
        self._settings_since = changed(self.record_path)

    def _read(self, difference: str | None) -> dict[str, list[str]]:
        """The rows of an earlier run, unless its record differs."""
        if difference is not None:
            print(f"every picture is segmented again: {self.path} was made with {difference}")
            return {}
        with suppress(OSError, UnicodeDecodeError, csv.Error):
            header, *rows = csv.reader(self.path.open(newline="", encoding="utf-8"))
            if header == self._header:
                return {picture_key(row[0]): row for row in rows if len(row) == len(header)}
        return {}

    def is_current(self, path: Path, picture: Path) -> bool:
        """Whether a file made of a picture exists, and is of this picture and these settings.

        What this job writes is so even where a picture's time of change lies in the future.
        """
        made = changed(path)
        since = max(self._settings_since, changed(picture)) if made else 0
        return made > 0 and made >= min(since, self._start)

    def __contains__(self, path: Path) -> bool:
        return picture_key(path) in self.rows

    def add(self, path: Path, name: Path, prediction: Prediction) -> None:
        height, width = prediction.labels.shape
        fractions = class_fractions(prediction.labels, self._num_classes)
        numbers = [f"{value:.6f}" for value in (prediction.confidence.mean(), *fractions)]
        row = [printable(path), name.as_posix(), str(width), str(height), *numbers]
        self.rows[picture_key(path)] = row
        with writing(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
            file.write(csv_text([row]))  # in one piece: other processes append to the same file

    def finish(self, least_confident_first: bool) -> None:
        """Sort the rows of all processes by path, or by confidence and then path."""
        for rows in distributed.gathered(self.rows):  # main's first: new rows replace kept ones
            self.rows |= rows
        rows = sorted(self.rows.values())
        if least_confident_first:
            rows.sort(key=lambda row: float(row[4]))
        self.rows = {picture_key(row[0]): row for row in rows}
        if distributed.is_main():
            self._write(rows)

    def _write(self, rows: Iterable[list[str]]) -> None:
        write_atomically(self.path, csv_text([self._header, *rows]).encode())


class FrameTable:
    """A CSV file with one row per frame: number, time, class fractions, source.

    It gets its name when the with-block ends, after Ctrl-C or an InputError with the rows so far;
    after any other exception, or without a frame, none is left and an older one stays.
    source: the same text in all rows.
    """

    def __init__(self, path: Path, classes: Classes, source: str):
        self.path, self._classes, self._source, self._is_empty = path, classes, source, True
        self._part = temporary_path(path)

    def __enter__(self) -> "FrameTable":
        with writing(self.path):
            self._file = self._part.open("w", newline="", encoding="utf-8")
        self._write(["frame", "time_s", *self._classes.names, "ignored", "source"])
        return self

    def write(self, number: int, seconds: float, labels: np.ndarray) -> None:
        fractions = class_fractions(labels, self._classes.num_classes)
        numbers = [f"{value:.6f}" for value in (seconds, *fractions)]
        self._write([number, *numbers, self._source])
        self._is_empty = False

    def _write(self, row: Sequence) -> None:
        with writing(self.path):
            self._file.write(csv_text([row]))

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        kept = kind is None or issubclass(kind, KeyboardInterrupt | InputError)
        try:
            with writing(self.path) if kind is None else suppress(OSError):  # of a full disk
                self._file.close()
            if kept and not self._is_empty:
                with writing(self.path):
                    os.replace(self._part, self.path)
        finally:
            with suppress(OSError):
                self._part.unlink(missing_ok=True)


def source_of(path: Path) -> str | None:
    """The source that a FrameTable names in its last column, or None."""
    with suppress(OSError, ValueError, csv.Error), path.open(newline="", encoding="utf-8") as file:
        header, row = next(csv.reader(file), []), next(csv.reader(file), [])
        if header[-1:] == ["source"] and len(row) == len(header):
            return row[-1]
    return None
