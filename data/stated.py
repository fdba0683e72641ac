"""The splits of pairs that the pictures' names and lists state, and pairs of several folders."""

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from data.inventory import Inventory
from data.lists import Listing, Names, find_listings, names_in
from data.names import Side
from data.pairs import LEAVE_OUT, SPLIT_NAMES, Orphan, Pair, Splits
from data.splits import WORDS, split_of_name
from data.told import flags_of
from utils import InputError, first_of


def with_stated(splits: Splits, inventory: Inventory) -> Splits:
    """The pairs in the splits that folders, the pictures' names and lists state, which must agree.

    Pairs that no list names are left out; without a list for training, they are trained on.
    Raises InputError where two statements contradict each other.
    """
    splits, listings = _by_first_word(splits), find_listings(inventory)
    if not listings:
        return splits
    owner, orphans, notes = _owners(splits, listings, inventory)
    paths = list(dict.fromkeys(each.path for each in listings))
    sources = [*splits.sources, *paths]
    if splits.valid or splits.test:
        for split, image in ((s, pair.image) for s in SPLIT_NAMES for pair in splits.pairs_of(s)):
            if image in owner and owner[image].split not in ("", split):
                raise InputError(
                    f"{image}: its folder says {split}, {owner[image].path} says "
                    f"{owner[image].split}; correct one of them"
                )
        return replace(splits, sources=sources)
    stated = {each.split for each in listings}
    chosen: dict[str | None, list[Pair]] = {split: [] for split in (*SPLIT_NAMES, None)}
    pair_of = {pair.image: pair for pair in splits.pairs}
    of_all = None if "train" in stated else "train"  # in trainval.txt alone
    of_none = None if stated & {"train", ""} else "train"
    for image in dict.fromkeys([*owner, *pair_of]):
        split = (owner[image].split or of_all) if image in owner else of_none
        chosen[split].append(pair_of[image])
    notes = [*splits.notes, *notes]
    if left := chosen.pop(None):
        first = left[0].image
        notes.append(f"{len(left)} pairs are in no list of a split; left out, first: {first}")
    files = ", ".join(str(path.relative_to(inventory.root)) for path in paths)
    decisions = [*splits.decisions, f"the splits are those of {files}"]
    return replace(
        splits, **chosen, orphans=orphans, notes=notes, decisions=decisions, sources=sources
    )


def _by_first_word(splits: Splits) -> Splits:
    """The splits that the names of all pictures state, as train_1 and testA_1 do."""
    words = {pair: WORDS.findall(pair.image.stem)[:1] for pair in splits.pairs}
    stated = {pair: split_of_name("".join(first)) for pair, first in words.items()}
    if splits.valid or splits.test or not all(stated.values()) or len({*stated.values()}) < 2:
        return splits
    chosen = {s: [pair for pair in splits.train if stated[pair] == s] for s in SPLIT_NAMES}
    line = "the splits are those that the pictures' names begin with"
    return replace(splits, **chosen, decisions=[*splits.decisions, line])


def _owners(
    splits: Splits, listings: Sequence[Listing], inventory: Inventory
) -> tuple[dict[Path, Listing], list[Orphan], list[str]]:
    """The list of each picture, what lists name in vain, and notes of lists that do throughout."""
    names = Names(inventory.root, [pair.image for pair in splits.pairs])
    pictures = Names(inventory.root, inventory.pictures)
    owner: dict[Path, Listing] = {}
    orphans, notes = [], []
    for each in sorted(listings, key=lambda each: not each.split):  # ALL comes last
        lost: dict[str, list[Path]] = defaultdict(list)
        for entry in each.names:
            found = names.find(entry)
            shown = next(iter(names_in(entry)), entry) if isinstance(entry, dict) else entry
            if len(found) > 1:
                raise InputError(f"{found[0]} and {found[1]} both have the name {shown}")
            if not found:
                path = next(iter(pictures.find(entry)), None)
                reason = "no mask of this name" if path else "no such picture"
                lost[reason].append(path or Path(str(shown)))
            elif owner.setdefault(found[0], each).split != each.split and each.split:
                raise InputError(
                    f"{found[0]}: in {owner[found[0]].split} of {owner[found[0]].path} and in "
                    f"{each.split} of {each.path}; correct one, or keep the lists that count and "
                    "give the others another extension"
                )
        if each.split == "test" and sum(map(len, lost.values())) == len(each.names):
            notes.append(
                f"none of the {len(each.names)} pictures in {each.path} has a mask; left out"
            )
            continue
        for reason, paths in lost.items():
            more = f" and {len(paths) - 1} more such" if len(paths) > 1 else ""
            problem = f"{reason}, but {each.path} lists it{more}; {LEAVE_OUT}"
            orphans.append(Orphan(paths[0], problem, len(paths)))
    return owner, orphans, notes


def joined(parts: Mapping[Path, Splits]) -> Splits | None:
    """The pairs of folders such as fold_1 and fold_2 together; None where they are no parts.

    Parts differ in numbers alone, state no split, and hold masks of other pictures each.
    """
    first, *_ = splits = list(parts.values())
    names = [pair.image.stem for each in splits for pair in each.pairs]
    are_alike = len({re.sub(r"\d+", "", str(folder)) for folder in parts}) == 1
    if not are_alike or any(s.valid or s.test or s.class_file for s in splits):
        return None
    if len(set(names)) < len(names):  # versions of one data set, perhaps
        return None
    lists = ("train", "orphans", "notes", "sources")
    both = {name: [item for each in splits for item in getattr(each, name)] for name in lists}
    shown = first_of([folder.name for folder in parts], 3)
    return replace(first, **both, decisions=[f"the pairs of {shown} are one data set"])


def flags_of_all(root: Path, parts: Mapping[Path, Splits]) -> list[str]:
    """The flags that train on all folders, where masks are files and no name speaks of a split."""
    sides = []
    for folder, part in parts.items():
        names = folder.relative_to(root).parts
        if (
            len(part.pairs) > len(part.train)
            or part.class_file
            or any(split_of_name(n, strict=False) for n in names)
        ):
            return []
        folders = zip(*(pair.files for pair in part.train), strict=True)
        images, masks = (Path(os.path.commonpath([p.parent for p in files])) for files in folders)
        sides.append(("train", Side(images, []), Side(masks, [])))
    return [flags_of(root, sides)]
