"""The page of infer_video.py: films, and the share of each class over their time."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from data.labels.classes import Classes
from inference.frames import MappedFrame
from results.pages.charts import share_chart
from results.pages.gallery import class_entries
from results.pages.html import Page, duration
from results.pages.layers import FOLDER, url
from results.tables import class_fractions
from results.video_files import ENDINGS
from utils import write_atomically

BROWSER_CODECS = ("264", "av1", "vp9")  # parts of the names of their encoders
CLASS_KEYS = ("name", "colour", "on")  # see class_entries
FILM_KINDS = ("overlay", "side-by-side", "mask")  # the first that was written is shown


@dataclass
class FilmNumbers:
    """What was counted of one film while it was written; kept as page/NAME.json.

    files: names by kind. codec: of the films. size: width, height in pixels. times: seconds at
    which frames begin, then the end. shares: 0..1 of each frame by class, the last: ignored pixels.
    model: what segmented it.
    """

    name: str
    files: dict[str, str]
    codec: str
    classes: list[dict]
    size: list[int]
    times: list[float] = field(default_factory=list)
    shares: list[list[float]] = field(default_factory=list)
    model: str = ""

    @property
    def path(self) -> Path:
        """Where they are kept, relative to the output folder."""
        return Path(FOLDER, f"{self.name}.json")

    def add(self, start: float, length: float, shares: Sequence[float]) -> None:
        """Append a frame."""
        self.times[-1:] = [round(start, 4), round(start + length, 4)]
        self.shares.append([round(share, 5) for share in shares])

    def write(self, folder: Path) -> None:
        content = json.dumps(asdict(self), separators=(",", ":"))
        write_atomically(folder / self.path, content.encode())


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
            name = path.name.removesuffix(ENDINGS[kind])  # the same whatever is saved
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
    seen = [duration(float(seconds)) for seconds in lengths @ (shares > 0)]
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
        "rows": list(zip(names, colours, means, shares.min(0), shares.max(0), seen, strict=True)),
    }
