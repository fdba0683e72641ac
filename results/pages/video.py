"""The page of infer_video.py: films, and the share of each class over their time."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data.labels.classes import Classes
from inference.frames import MappedFrame
from results.pages.charts import FILM_COLUMNS, share_chart
from results.pages.gallery import class_entries
from results.pages.html import Page, duration
from results.pages.layers import FOLDER, url
from results.tables import class_fractions
from results.video_files import VIDEO_ENDINGS
from utils import write_atomically

BROWSER_CODECS = ("264", "av1", "vp9")  # parts of the names of their encoders
CLASS_KEYS = ("name", "colour", "on")  # see class_entries
FILM_KINDS = ("overlay", "side-by-side", "mask")  # the first that was written is shown


@dataclass
class FilmNumbers:
    """What was counted of one film while it was written; kept as page/NAME.json.

    files: names by kind. codec: of the films. size: width, height in pixels. times: seconds at
    which columns begin, then the end. shares: 0..1 of each column by class, the last: ignored
    pixels. frames: in each column but the last, which may have fewer; the number of columns does
    not grow with the film. least, most: share in one frame, and seconds: seen for, by class. model:
    what segmented it.
    """

    name: str
    files: dict[str, str]
    codec: str
    classes: list[dict]
    size: list[int]
    times: list[float] = field(default_factory=list)
    shares: list[list[float]] = field(default_factory=list)
    model: str = ""
    frames: int = 1
    least: list[float] = field(default_factory=list)
    most: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    in_last: int = 0  # frames in the last column

    @property
    def path(self) -> Path:
        """Where they are kept, relative to the output folder."""
        return Path(FOLDER, f"{self.name}.json")

    def add(self, start: float, length: float, shares: Sequence[float]) -> None:
        """Append a frame."""
        new, end = np.asarray(shares), start + length
        seen = length * (new > 0)
        self.least = new if not len(self.least) else np.minimum(self.least, new)
        self.most = new if not len(self.most) else np.maximum(self.most, new)
        self.seconds = seen if not len(self.seconds) else self.seconds + seen
        if self.in_last == self.frames or not self.shares:
            if len(self.shares) == 2 * FILM_COLUMNS:
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

    def write(self, folder: Path) -> None:
        kept = {
            "times": _rounded(self.times, 4),
            "shares": [_rounded(row, 5) for row in self.shares],
            **{name: _rounded(getattr(self, name), 5) for name in ("least", "most", "seconds")},
        }
        content = json.dumps(vars(self) | kept, separators=(",", ":"))
        write_atomically(folder / self.path, content.encode())


def _rounded(numbers: Sequence[float], digits: int) -> list[float]:
    return np.asarray(numbers, np.float64).round(digits).tolist()


class VideoPage(Page):
    """The page of infer_video.py: all films whose numbers lie in the folder, the last one first.

    Open it before the films, so that they are whole when it is written at the end. facts: of the
    job, as short texts; "codec" is that of the films.
    """

    kind = "Video"

    def __init__(
        self, folder: Path, classes: Classes, facts: Mapping[str, str], wanted: bool = True
    ):
        super().__init__(folder, wanted)
        self._classes, self._facts = classes, facts
        self._numbers: FilmNumbers | None = None
        self._labels, self._shares = None, []

    def add(self, files: Mapping[str, Path], mapped: MappedFrame) -> None:
        """Count a frame of the film whose files are given by kind."""
        frame, labels = mapped
        if self._numbers is None:
            kind, path = next(iter(files.items()))
            name = path.name.removesuffix(VIDEO_ENDINGS[kind])  # the same whatever is saved
            size = [frame.image.shape[1], frame.image.shape[0]]
            by_kind = {kind: path.name for kind, path in files.items()}
            self._numbers = FilmNumbers(
                name, by_kind, self._facts["codec"], class_entries(self._classes), size,
                model=self._facts["model"],
            )  # fmt: skip
            with suppress(OSError):  # those of an earlier film that this one replaces
                (self.folder / self._numbers.path).unlink()
        if not self.wanted:
            return
        if labels is not self._labels:  # a map may hold for several frames
            self._shares = class_fractions(labels, self._classes.num_classes)
            self._labels = labels
        self._numbers.add(float(frame.time), float(frame.duration), self._shares)

    def text(self, state: str) -> str:
        numbers = self._numbers  # while the job runs, and after an error, there is no film
        if numbers and any(self.wrote(self.folder / name) for name in numbers.files.values()):
            numbers.write(self.folder)
        kept = (self.folder / FOLDER).glob("*.json")
        kept = sorted(kept, key=lambda path: path.stat().st_mtime, reverse=True)
        films = [film for path in kept if (film := _read(path, self.folder))]
        statement = ", ".join(f"{film['name']} ({film['length']})" for film in films)
        return self.render("video.html", state, statement, self._facts, [], films=films)


def _read(path: Path, folder: Path) -> dict | None:
    """A film whose numbers lie in a file; None if that is damaged, or the film is not there."""
    with suppress(OSError, ValueError, TypeError, LookupError, AttributeError):
        numbers = FilmNumbers(**json.loads(path.read_bytes()))
        files = numbers.files = {k: n for k, n in numbers.files.items() if (folder / n).is_file()}
        if files and numbers.shares and len(numbers.times) == len(numbers.shares) + 1:
            return _film(numbers)
    return None


def _film(numbers: FilmNumbers) -> dict:
    """What the template takes of a film.

    source: the address of the film to show, or "". ratio: width by height. rows: of each class its
    name, colour, shares 0..1 of the film (mean, least, most), and for how long it is seen.
    """
    films = [numbers.files[kind] for kind in FILM_KINDS if kind in numbers.files]
    shares = np.asarray(numbers.shares, np.float64)
    lengths = np.diff(numbers.times)
    names, colours, on = ([entry[key] for entry in numbers.classes] for key in CLASS_KEYS)
    means = lengths @ shares / lengths.sum()
    seen = list(map(duration, numbers.seconds))
    return {
        "name": numbers.name,
        "source": url(films[0]) if films else "",
        "plays": any(part in numbers.codec for part in BROWSER_CODECS),
        "ratio": round(numbers.size[0] / numbers.size[1], 4),
        "length": duration(numbers.times[-1]),
        "model": numbers.model,
        "files": [(kind, url(name)) for kind, name in numbers.files.items()],
        "names": names,
        "colours": colours,
        "chart": share_chart(numbers.times, shares, on),
        "rows": list(zip(names, colours, means, numbers.least, numbers.most, seen, strict=True)),
    }
