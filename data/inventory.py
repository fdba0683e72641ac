"""What is here: the files below a data folder by kind, from one walk over it."""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from data.images import is_picture, walk
from data.splits import LISTING_FILES


@dataclass(frozen=True)
class Inventory:
    """Files below a root, each kind sorted; hidden ones and those of systems are left out.

    pictures: photographs and masks alike. arrays: NumPy files, which may be masks. texts: lists,
    class files and annotation files. others: all the rest.
    """

    root: Path
    pictures: list[Path] = field(default_factory=list)
    arrays: list[Path] = field(default_factory=list)
    texts: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)

    @property
    def rasters(self) -> list[Path]:
        """What may be a picture or a mask."""
        return [*self.pictures, *self.arrays]

    @property
    def files(self) -> list[Path]:
        return [*self.rasters, *self.texts, *self.others]

    @cached_property
    def by_folder(self) -> dict[Path, list[Path]]:
        """The rasters that lie directly in each folder, which are sorted."""
        found = defaultdict(list)
        for path in self.rasters:
            found[path.parent].append(path)
        return {folder: sorted(found[folder]) for folder in sorted(found)}

    @cached_property
    def folders(self) -> list[Path]:
        """Every folder below the root that holds something, shallow ones first."""
        found = {
            folder for place in {p.parent for p in self.files} for folder in (place, *place.parents)
        }
        below = [folder for folder in found if folder != self.root and self.root in folder.parents]
        return sorted(below, key=lambda folder: (len(folder.parts), folder))

    def rasters_below(self, folder: Path) -> list[Path]:
        """All rasters below a folder of this inventory, sorted."""
        return sorted(path for place in self._below(folder) for path in self.by_folder[place])

    def has_rasters(self, folder: Path) -> bool:
        return bool(self._below(folder))

    def _below(self, folder: Path) -> list[Path]:
        start = str(folder) + os.sep
        whole = folder == self.root
        return [f for f in self.by_folder if whole or f == folder or str(f).startswith(start)]

    def at(self, folder: Path) -> "Inventory":
        """The part of this inventory below a folder."""
        if folder == self.root:
            return self
        start = str(folder) + os.sep
        kinds = (self.pictures, self.arrays, self.texts, self.others)
        return Inventory(folder, *([p for p in kind if str(p).startswith(start)] for kind in kinds))


def take_inventory(root: Path) -> Inventory:
    """List what is below a folder, of which nothing is opened."""
    found = Inventory(root)
    for path in walk(root):
        if path.name.startswith("."):
            continue
        suffix = path.suffix.lower()
        if is_picture(path):
            found.pictures.append(path)
        elif suffix == ".npy":
            found.arrays.append(path)
        else:
            (found.texts if suffix in LISTING_FILES else found.others).append(path)
    for kind in (found.pictures, found.arrays, found.texts, found.others):
        kind.sort()
    return found


def evenly(items: Sequence, count: int) -> list:
    """At most `count` of these items, evenly spaced."""
    step = max(1, len(items) / count)
    return [items[int(k * step)] for k in range(min(count, len(items)))]
