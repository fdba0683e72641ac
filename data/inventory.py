"""What is here: the files below a data folder by kind, from one walk over it."""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from config import SPLIT_WORDS
from data.arrays import is_array
from data.images import is_picture, walk
from data.splits import LISTING_FILES
from utils import InputError


@dataclass(frozen=True)
class Inventory:
    """The files below a root, sorted; hidden ones and those of systems are left out."""

    root: Path
    files: list[Path]

    @cached_property
    def pictures(self) -> list[Path]:
        """Photographs and masks alike."""
        return list(filter(is_picture, self.files))

    @cached_property
    def rasters(self) -> list[Path]:
        """What may be a picture or a mask: pictures, then NumPy arrays."""
        return [*self.pictures, *filter(is_array, self.files)]

    @cached_property
    def texts(self) -> list[Path]:
        """Lists, class files and annotation files."""
        return [path for path in self.files if path.suffix.lower() in LISTING_FILES]

    @cached_property
    def by_folder(self) -> dict[Path, list[Path]]:
        """The rasters that lie directly in each folder, which are sorted."""
        found = defaultdict(list)
        for path in self.rasters:
            found[path.parent].append(path)
        return {folder: sorted(found[folder]) for folder in sorted(found)}

    @cached_property
    def folders(self) -> list[Path]:
        """Every folder below the root with rasters in or below it, shallow ones first."""
        found = {folder for place in self.by_folder for folder in (place, *place.parents)}
        below = [folder for folder in found if self.root in folder.parents]
        return sorted(below, key=lambda folder: (len(folder.parts), folder))

    @cached_property
    def _by_name(self) -> dict[str, Path]:
        """{path below the root in lower case: folder with rasters}, the root's "." included."""
        found = {f.relative_to(self.root).as_posix().lower(): f for f in reversed(self.folders)}
        return {".": self.root, **found} if self.rasters else {}

    def first(self, patterns: Sequence[str], split: str = "train") -> Path | None:
        """The first folder of these paths below the root; upper and lower case are alike.

        A * in a path stands for a word of the split; InputError where two words name folders.
        """
        for pattern in patterns:
            names = dict.fromkeys(pattern.lower().replace("*", w) for w in SPLIT_WORDS[split])
            found = [self._by_name[name] for name in names if name in self._by_name]
            if len(found) > 1:
                shown = " and ".join(map(str, found))
                raise InputError(f"{shown} both look like one split; remove or rename one")
            if found:
                return found[0]
        return None

    def at(self, folder: Path) -> "Inventory":
        """The part of this inventory below a folder."""
        start = f"{folder}{os.sep}"
        return Inventory(folder, [path for path in self.files if str(path).startswith(start)])


def take_inventory(root: Path) -> Inventory:
    """List what is below a folder, of which nothing is opened."""
    return Inventory(root, sorted(path for path in walk(root) if not path.name.startswith(".")))


def evenly(items: Sequence, count: int) -> list:
    """At most `count` of these items, evenly spaced."""
    step = max(1, len(items) / max(1, count))
    return [items[int(k * step)] for k in range(min(count, len(items)))]
