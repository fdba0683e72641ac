"""The page of infer_video.py: films, and the share of each class over their time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data.labels.classes import Classes
from inference.frames import MappedFrame
from results.pages.charts import share_chart
from results.pages.gallery import class_entries
from results.pages.html import Page, duration
from results.pages.layers import url
from results.tables import class_fractions
from results.video_files import VIDEO_ENDINGS

BROWSER_CODECS = ("264", "av1", "vp9")  # parts of the names of their encoders
COLUMNS = 600  # of the shares over time, at most; an even number
CLASS_KEYS = ("name", "colour", "on")  # see class_entries
FILM_KINDS = ("overlay", "side-by-side", "mask")  # the first that was written is shown


@dataclass
class FilmNumbers:
    """What is counted of a film while it is written.

    times: seconds at which columns begin, then the end. shares: 0..1 of each column by class, the
    last: ignored pixels. frames: in each column but the last, which may have fewer; the number of
    columns does not grow with the film. least, most: share in one frame, and seconds: seen for, by
    class.
    """

    times: list[float] = field(default_factory=list)
    shares: list[list[float]] = field(default_factory=list)
    frames: int = 1
    least: list[float] = field(default_factory=list)
    most: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    in_last: int = 0  # frames in the last column

    def add(self, start: float, length: float, shares: Sequence[float]) -> None:
        """Append a frame."""
        new, end = np.asarray(shares), start + length
        seen = length * (new > 0)
        self.least = new if not len(self.least) else np.minimum(self.least, new)
        self.most = new if not len(self.most) else np.maximum(self.most, new)
        self.seconds = seen if not len(self.seconds) else self.seconds + seen
        if self.in_last == self.frames or not self.shares:
            if len(self.shares) == COLUMNS:
                self._merge_columns()
            self.times[-1:] = [start, end]
            self.shares.append(new)
            self.in_last = 1
            return
        before, self.times[-1] = max(start - self.times[-2], 0), end
        weight = length / (before + length) if before + length > 0 else 1.0
        self.shares[-1] = self.shares[-1] + weight * (new - self.shares[-1])
        self.in_last += 1

    def _merge_columns(self) -> None:
        """Make one column of each two: means over twice the time."""
        pairs = np.asarray(self.shares).reshape(len(self.shares) // 2, 2, -1)
        weights = np.diff(self.times).reshape(-1, 2, 1).clip(1e-9)
        self.shares = list((pairs * weights).sum(1) / weights.sum(1))
        self.times, self.frames = self.times[::2], 2 * self.frames
        self.in_last = self.frames


class VideoPage(Page):
    """The page of infer_video.py: the film of this start.

    Open it before the film, so that that is whole when it is written at the end. facts: of the job,
    as short texts; "codec" is that of the film.
    """

    kind = "Video"

    def __init__(
        self, folder: Path, classes: Classes, facts: Mapping[str, str], wanted: bool = True
    ):
        super().__init__(folder, wanted)
        self._classes, self._facts = classes, facts
        self._files: Mapping[str, Path] = {}
        self._numbers, self._ratio = FilmNumbers(), 1.0
        self._labels, self._shares = None, []

    def add(self, files: Mapping[str, Path], mapped: MappedFrame) -> None:
        """Count a frame of the film whose files are given by kind."""
        frame, labels = mapped
        if not self.wanted:
            return
        self._files, self._ratio = files, frame.image.shape[1] / frame.image.shape[0]
        if labels is not self._labels:  # a map may hold for several frames
            self._shares = class_fractions(labels, self._classes.num_classes)
            self._labels = labels
        self._numbers.add(float(frame.time), float(frame.duration), self._shares)

    def text(self, state: str) -> str:
        # While the job runs, and after an error, there is no film.
        files = {kind: path for kind, path in self._files.items() if self.wrote(path)}
        film = self._film(files) if files else None
        statement = f"{film['name']} ({film['length']})" if film else ""
        return self.render("video.html", state, statement, self._facts, [], film=film)

    def _film(self, files: Mapping[str, Path]) -> dict:
        """What the template takes of a film.

        source: the address of the film to show, or "". ratio: width by height. rows: of each class
        its name, colour, shares 0..1 of the film (mean, least, most), and for how long it is seen.
        """
        kind, path = next(iter(files.items()))
        films = [files[kind].name for kind in FILM_KINDS if kind in files]
        numbers, entries = self._numbers, class_entries(self._classes)
        shares = np.asarray(numbers.shares, np.float64)
        lengths = np.diff(numbers.times)
        names, colours, on = ([entry[key] for entry in entries] for key in CLASS_KEYS)
        means = lengths @ shares / lengths.sum()
        seen = map(duration, numbers.seconds)
        return {
            "name": path.name.removesuffix(VIDEO_ENDINGS[kind]),  # the same whatever is saved
            "source": url(films[0]) if films else "",
            "plays": any(part in self._facts["codec"] for part in BROWSER_CODECS),
            "ratio": round(self._ratio, 4),
            "length": duration(numbers.times[-1]),
            "model": self._facts["model"],
            "files": [(kind, url(path.name)) for kind, path in files.items()],
            "names": names,
            "colours": colours,
            "chart": share_chart(numbers.times, shares, on),
            "rows": zip(names, colours, means, numbers.least, numbers.most, seen, strict=True),
        }
