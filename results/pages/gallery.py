"""The gallery of pictures that three of the pages have, and the page of infer_image.py."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from data.labels.classes import Classes
from inference.windows import Prediction
from results.pages.html import Page
from results.pages.layers import layers_path, url, write_layers
from results.picture_files import CONTACT_SHEET, PICTURE_ENDINGS, result_paths
from results.tables import ResultsTable, class_fractions, picture_key


def gallery(
    classes: Sequence[dict], modes: Sequence[tuple[str, str, bool]], start: int,
    numbers: Sequence[tuple[str, str]], pictures: Sequence[dict],
) -> dict:  # fmt: skip
    """What the page's script takes of a gallery.

    Args:
        classes: see class_entries.
        modes: the ways to look at a picture: name, layer that is drawn over it, whether it is as
            opaque as chosen.
        start: the mode that the page begins with.
        numbers: those that each picture has: name, "percent" of 0..1 or "number".
        pictures: of each the name, the address of its layers, width, height, shares 0..1 by class
            id (of ignored pixels the id after the last; 0 of classes that are in the prediction
            alone), its numbers, its files as (name, address), and a note.
    """
    return {
        "classes": classes,
        "modes": [{"name": n, "layer": layer, "blend": blend} for n, layer, blend in modes],
        "start": start,
        "numbers": [{"name": name, "kind": kind} for name, kind in numbers],
        "pictures": pictures,
    }


INFERENCE_MODES = [
    ("Picture", "", False),
    ("Overlay", "prediction", True),
    ("Mask", "prediction", False),
    ("Confidence", "confidence", False),
]


def class_entries(classes: Classes) -> list[dict]:
    """Name and colour of each class, and of ignored pixels; a black class 0 begins switched off."""
    entries = [
        {"name": name, "colour": "#{:02x}{:02x}{:02x}".format(*colour), "on": k > 0 or any(colour)}
        for k, (name, colour) in enumerate(zip(classes.names, classes.palette, strict=True))
    ]
    return [*entries, {"name": "ignored", "colour": "#808080", "on": True}]


def show_picture(
    folder: Path, path: Path, image: np.ndarray, maps: Mapping[str, np.ndarray], classes: Classes,
    *, name: str, numbers: Sequence[float], note: str,
) -> dict:  # fmt: skip
    """Write the layers of a picture that has a target; its entry in a gallery.

    See write_layers for the arguments, and gallery for name, numbers and note.
    """
    write_layers(folder, path, image, maps, classes)
    height, width = maps["target"].shape
    by_layer = {
        layer: shares_by_class(class_fractions(ids, classes.num_classes))
        for layer, ids in maps.items()
    }
    shares = dict.fromkeys(chain(*by_layer.values()), 0.0) | by_layer["target"]
    return {
        "name": name,
        "layers": url(layers_path(path)),
        "width": width,
        "height": height,
        "shares": shares,
        "numbers": numbers,
        "files": [],
        "note": note,
    }


def shares_by_class(shares: Iterable[float]) -> dict[int, float]:
    """Without the classes that do not occur."""
    return {k: round(share, 5) for k, share in enumerate(shares) if share > 0}


class InferencePage(Page):
    """The page of infer_image.py: a gallery of the rows of results.csv.

    pictures: of this job. problems: why pictures could not be read, by path; it may grow during
    the job. facts: of the job, as short texts; "model" is its name or file.
    """

    kind = "Inference"

    def __init__(
        self, table: ResultsTable, classes: Classes, pictures: Iterable[Path],
        problems: Mapping[Path, str], facts: Mapping[str, str], wanted: bool = True,
    ):  # fmt: skip
        super().__init__(table.path.parent, wanted)
        self._table, self._classes = table, classes
        self._pictures = set(map(picture_key, pictures))
        self._problems, self._facts = problems, facts

    def add(self, name: Path, image: np.ndarray, prediction: Prediction) -> None:
        """Write what the page shows of a picture; name: see output_names."""
        if self.wanted:
            maps = {"prediction": prediction.labels}
            write_layers(self.folder, name, image, maps, self._classes, prediction.confidence)
            self.update()

    def text(self, state: str) -> str:
        rows, entries = self._table.rows, class_entries(self._classes)
        pictures = [shown for row in rows.values() if (shown := self._picture(row))]
        total = len(self._pictures | rows.keys())
        statement = f"{len(rows)} of {total} pictures segmented by {self._facts['model']}"
        if hidden := len(rows) - len(pictures):
            statement += f"; {hidden} of them, segmented with --no-page, are in results.csv alone"
        files = [("results.csv", "results.csv")]
        if self._table.is_current(self.folder / CONTACT_SHEET, self._table.record_path):
            files.append((CONTACT_SHEET, CONTACT_SHEET))
        return self.render(
            "gallery.html", state, statement, self._facts, files,
            gallery=gallery(entries, INFERENCE_MODES, 1, [("confidence", "percent")], pictures),
            problems=list(self._problems.values()),
        )  # fmt: skip

    def _picture(self, row: Sequence[str]) -> dict | None:
        """A row of results.csv, see ResultsTable; None where an earlier job wrote no layers."""
        source, result, width, height, confidence, *shares = row
        name, picture, is_current = Path(result), Path(source), self._table.is_current
        if not is_current(self.folder / layers_path(name), picture):
            return None
        found = result_paths(self.folder / name, PICTURE_ENDINGS).items()
        return {
            "name": result,
            "layers": url(layers_path(name)),
            "width": int(width),
            "height": int(height),
            "shares": shares_by_class(map(float, shares)),
            "numbers": [float(confidence)],
            "files": [
                (k, url(p.relative_to(self.folder))) for k, p in found if is_current(p, picture)
            ],
            "note": source,
        }
