"""The page of check_data.py: what is wrong, what the splits hold, pictures with their masks."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from config import IGNORE_INDEX
from data.labels.masks import UNKNOWN
from data.pairs import Pair, read_stored
from data.survey import SegmentationData
from results.data_report import choose, usable_pairs
from results.pages.charts import size_chart
from results.pages.gallery import class_entries, gallery, show_picture
from results.pages.html import Page

PICTURES = range(8, 61)  # in the gallery: one in PICTURES_OF, between these
PICTURES_OF = 50
SIZES = 6  # listed
LINKED_FILES = ("report.json", "contact_sheet.png", "augment.png")
MODES = [("Picture", "", False), ("Overlay", "target", True), ("Mask", "target", False)]


def problem_of(line: str) -> tuple[str, str, str]:
    """File, what was found, and remedy of a line of the report; "" for what it does not have."""
    file, colon, rest = line.partition(": ")
    if not colon or not re.search(r"[\\/.]", file):
        file, rest = "", line
    found, _, remedy = rest.partition("; ")
    return file, found, remedy


class DatasetPage(Page):
    """The page of check_data.py. data: None until everything has been read."""

    kind = "Data set"

    def __init__(self, folder: Path, source: str, wanted: bool = True):
        super().__init__(folder, wanted)
        self._source = source
        self.data: SegmentationData | None = None

    def text(self, state: str) -> str:
        files = [(name, name) for name in LINKED_FILES if self.wrote(self.folder / name)]
        statement = self._source
        if self.data:
            pairs_of, used = self.data.splits.pairs_of, self.data.used_splits
            counts = ", ".join(f"{len(pairs_of(split))} {split}" for split in used)
            statement = f"{self.data.source}: {counts} pairs"
        values = self._values(self.data) if self.data else {"problems": None}
        return self.render("dataset.html", state, statement, {}, files, **values)

    def _values(self, data: SegmentationData) -> dict:
        """What the template takes; writes the layers of the gallery's pictures."""
        pixels = np.array([data.pixels(split) for split in data.used_splits]).T  # class, split
        entries = class_entries(data.classes)
        sizes = _sizes(data.splits.pairs)
        return {
            "decisions": [data.splits.layout, *data.splits.decisions],
            "unused": data.splits.unused,
            "problems": [problem_of(line) for line in data.problems + data.warnings],
            "num_errors": len(data.problems),  # the rest are warnings
            "splits": [(split, len(data.splits.pairs_of(split))) for split in data.used_splits],
            "classes": entries[:-1],
            "pixels": pixels.tolist(),
            "shares": (pixels / pixels.sum(axis=0).clip(min=1)).tolist(),
            "sizes": sizes.most_common(SIZES),
            "more_sizes": max(0, len(sizes) - SIZES),
            "size_chart": size_chart(sizes),
            "gallery": gallery(entries, MODES, 1, [], list(self._pictures(data))),
        }

    def _pictures(self, data: SegmentationData) -> Iterator[dict]:
        """The entries of the gallery: one pair in PICTURES_OF, by split; writes their layers."""
        usable = [item for split in data.used_splits for item in usable_pairs(data, split)]
        count = min(max(len(data.scans) // PICTURES_OF, PICTURES[0]), PICTURES[-1])
        chosen = choose(data, usable, count, most_bad=count // 2)
        for split in data.used_splits:
            folders = [os.path.abspath(pair.image.parent) for pair in data.splits.pairs_of(split)]
            root = os.path.commonpath(folders)
            for pair in (pair for own, pair, _ in chosen if own == split):
                yield self._picture(data, Path(split, os.path.relpath(pair.image, root)), pair)

    def _picture(self, data: SegmentationData, path: Path, pair: Pair) -> dict:
        """The entry of a pair, whose path in the page no other has."""
        image, mask, palette = read_stored(pair)
        ids = data.encoding.look_up(mask, palette)
        labels = np.where(ids == UNKNOWN, IGNORE_INDEX, ids).astype(np.uint8)
        note = f"{pair.image} + {pair.mask}"
        if unknown := float((ids == UNKNOWN).mean()):
            note += f"; {unknown:.1%} of the mask's pixels have a value of no class"
        return show_picture(
            self.folder, path, image, {"target": labels}, data.classes,
            name=path.as_posix(), numbers=[], note=note,
        )  # fmt: skip


def _sizes(pairs: Sequence[Pair]) -> Counter:
    """Pictures by (width, height) as stored; reads no more than the files' headers."""
    sizes: Counter = Counter()
    for pair in pairs:
        with suppress(Exception), Image.open(pair.image) as image:  # else it is among the problems
            sizes[image.size] += 1
    return sizes
