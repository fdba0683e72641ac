"""Lists of the pictures of each split, and what they make of pairs."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from data.annotations.dataset import composed
from data.images import IMAGE_SUFFIXES
from data.inventory import Inventory
from data.pairs import LEAVE_OUT, SPLIT_NAMES, Orphan, Pair, Splits
from data.split_files import Listing, read_listings
from utils import InputError

PREFERRED = "segmentation"  # of Pascal VOC's folders with lists
NAMING = ("im", "file", "name", "path")  # how the key begins that has a picture's name


class Names:
    """Finds files by the names, paths or numbers that lists give them."""

    def __init__(self, root: Path, files: Iterable[Path]):
        self._found: dict[str, list[Path]] = defaultdict(list)
        self._by_number: dict[int, list[Path]] = defaultdict(list)
        for path in files:
            below = Path(os.path.relpath(path, root)).with_suffix("")
            parts = PurePosixPath(composed(below.as_posix())).parts
            for k in range(len(parts)):
                self._found["/".join(parts[k:])].append(path)
            numbers = re.findall(r"\d+", path.stem)
            if len(numbers) == 1:
                self._by_number[int(numbers[0])].append(path)

    def find(self, entry: object) -> Path | None:
        """The one file of an entry: a line of text, a number, or a row such as {image: a}."""
        if isinstance(entry, Mapping):
            return next(filter(None, map(self.find, _names_in(entry))), None)
        if isinstance(entry, int) and not self._found.get(str(entry)):
            return self._one(self._by_number.get(entry, []), entry)
        # Some lists have a second column, such as the mask; names may have spaces.
        for name in (str(entry), re.split(r"[\s,;]", str(entry).strip(), maxsplit=1)[0]):
            parts = PurePosixPath(_without_suffix(name)).parts
            for k in range(len(parts)):
                if found := self._one(self._found.get("/".join(parts[k:]), []), entry):
                    return found
        return None

    @staticmethod
    def _one(found: list[Path], entry: object) -> Path | None:
        if len(found) > 1:
            raise InputError(f"{found[0]} and {found[1]} both have the name {entry}")
        return found[0] if found else None


def find_listings(inventory: Inventory) -> list[Listing]:
    """The lists of splits that name pictures, of one folder; [] if there are none.

    Raises InputError where two folders have lists, or where train.txt and the like name nothing.
    """
    names = Names(inventory.root, inventory.pictures)
    groups: dict[Path, list[Listing]] = defaultdict(list)
    pictures = {path.with_suffix(".txt") for path in inventory.pictures}
    for path in inventory.texts:
        if path in pictures:  # the label file of a picture called train, say
            continue
        listings = read_listings(path)
        sample = [entry for listing in listings for entry in listing.names[:20]]
        if not sample:
            continue
        if sum(_is_known(names, entry) for entry in sample) * 2 >= len(sample):
            groups[path.parent] += listings
        elif listings[0].is_plain and _is_place_of_lists(inventory.root, path):
            raise InputError(
                f"{path}: its name is that of a split's list, but {sample[0]} is no picture here; "
                "correct the names, or rename the file"
            )
    chosen = [f for f in groups if f.name.lower() == PREFERRED] or list(groups)
    stated = {folder: _stated(groups[folder]) for folder in chosen}
    for folder in chosen[1:]:
        if stated[folder] != stated[chosen[0]]:
            raise InputError(
                f"{chosen[0]} and {folder} both hold lists of splits, which differ; keep those "
                "that count, and give the others another extension"
            )
    return groups[chosen[0]] if chosen else []


def _is_place_of_lists(root: Path, path: Path) -> bool:
    """Whether a text lies where lists do; elsewhere val.txt may be anything."""
    place = path.parent.relative_to(root)
    is_usual = place.name.lower() in ("", "splits", "split", "lists", "list", PREFERRED)
    return path.suffix.lower() == ".txt" and is_usual


def _is_known(names: Names, entry: object) -> bool:
    try:
        return names.find(entry) is not None
    except InputError:
        return True


def _stated(listings: Sequence[Listing]) -> set[tuple[str, str]]:
    """(name, split) of all that lists name."""
    return {
        (PurePosixPath(_without_suffix(str(entry))).name, each.split)
        for each in listings
        if each.split
        for entry in each.names
    }


def _names_in(row: Mapping) -> list:
    """What may be the picture's name in a row."""
    named = [value for key, value in row.items() if str(key).lower().startswith(NAMING)]
    return named or [value for key, value in row.items() if key and isinstance(value, str)]


def _without_suffix(name: str) -> str:
    path = PurePosixPath(name.strip().replace("\\", "/"))
    return str(path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path)


def apply_listings(splits: Splits, listings: Sequence[Listing], inventory: Inventory) -> Splits:
    """The pairs in the splits that lists state; pairs that no list names are left out.

    Without a list for training, it has all pairs that the others do not name.
    Raises InputError where a list contradicts a folder or another list.
    """
    names = Names(inventory.root, [pair.image for pair in splits.pairs])
    pictures = Names(inventory.root, inventory.pictures)
    pair_of = {pair.image: pair for pair in splits.pairs}
    given = {pair.image: s for s in SPLIT_NAMES for pair in splits.pairs_of(s)}
    owner: dict[Path, Listing] = {}
    orphans: list[Orphan] = []
    notes = list(splits.notes)
    for each in sorted(listings, key=lambda each: not each.split):  # ALL comes last
        lost = []
        for entry in each.names:
            image = names.find(entry)
            if image is None:
                picture = _picture(pictures, entry)
                kind = "mask of this name" if picture else "such picture"
                problem = f"no {kind}, but {each.path} lists it; {LEAVE_OUT}"
                shown = next(iter(_names_in(entry)), entry) if isinstance(entry, dict) else entry
                lost.append(Orphan(picture or Path(str(shown)), problem))
            elif owner.setdefault(image, each).split != each.split and each.split:
                raise InputError(f"{image}: in {owner[image].path} and in {each.path}; correct one")
        if lost and each.split == "test" and len(lost) == len(each.names):
            notes.append(f"none of the {len(lost)} pictures in {each.path} has a mask; left out")
        else:
            orphans += lost
    if splits.valid or splits.test:
        _refuse_contradictions(given, owner)
        return splits
    states_training = any(each.split in ("train", "") for each in listings)
    has_training_list = any(each.split == "train" for each in listings)
    chosen: dict[str, list[Pair]] = {split: [] for split in SPLIT_NAMES}
    for image in [*owner, *(image for image in pair_of if image not in owner)]:
        split = owner[image].split or "train" if image in owner else None
        if split == "train" and has_training_list and not owner[image].split:
            split = None  # in trainval.txt, but in none of train.txt and val.txt
        if split or not states_training:
            chosen[split or "train"].append(pair_of[image])
    kept = {pair.image for pairs in chosen.values() for pair in pairs}
    if left := [image for image in pair_of if image not in kept]:
        notes.append(f"{len(left)} pairs are in no list of a split; left out, first: {left[0]}")
    files = ", ".join(dict.fromkeys(str(e.path.relative_to(inventory.root)) for e in listings))
    decisions = [*splits.decisions, f"the splits are those of {files}"]
    return replace(
        splits,
        **chosen,
        orphans=orphans,
        notes=notes,
        decisions=decisions,
        sources=[*splits.sources, *(each.path for each in listings)],
    )


def _picture(pictures: Names, entry: object) -> Path | None:
    try:
        return pictures.find(entry)
    except InputError:
        return None


def _refuse_contradictions(given: Mapping[Path, str], owner: Mapping[Path, Listing]) -> None:
    for image, each in owner.items():
        if each.split and given[image] != each.split:
            raise InputError(
                f"{image}: its folder says {given[image]}, {each.path} says {each.split}; correct "
                "one of them"
            )
