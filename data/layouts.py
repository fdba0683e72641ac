"""Which reading fits: the pairs of a data folder and their splits.

Names of folders are the first guess, then annotation files, then what names, values and sizes of
the files show (evidence.py). One reading is taken and told; two are a question.
"""

import hashlib
import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from config import VALID_FRACTION
from data.annotated import annotated_splits
from data.evidence import MASK, PHOTO, Twin, find_twins, kind_of
from data.inventory import Inventory, take_inventory
from data.labels.class_files import find_class_file, read_folders
from data.labels.classes import PRESETS
from data.lists import apply_listings, find_listings
from data.named_layouts import (
    FOLDERS,  # noqa: F401  (where extensions look for it)
    PENN_FUDAN,
    READERS,
    SHOWN_LAYOUTS,
    odd_splits,
    refuse_odd_splits,
)
from data.names import Side
from data.object_masks import object_masks
from data.pairs import SPLIT_NAMES, Pair, Splits
from data.sides import NoFit, by_split, from_folders, from_sides
from data.splits import WORDS, split_of, split_of_name
from data.told import ask, flags_of, seen, tell
from utils import InputError, first_of

DEFAULT_ROOT = Path("input/PennFudanPed")
PENN_FUDAN_VALID = 24 / 170
MAX_BELOW = 40  # folders that are looked at below the root


def find_splits(
    root: Path | None = None,
    folders: Sequence[Path | None] = (),
    valid_fraction: float | None = None,
    classes: str | Path | None = None,
    allow_unmatched: bool = False,
) -> Splits:
    """The pairs of a data set by split; a missing validation set is split off the training pairs.

    folders: images and masks of training, validation and test, if given by hand, as folders or
    patterns of files; else those that the class file names, else what fits below root.
    valid_fraction: share of the pairs to validate on. classes: a class file or a preset, instead of
    the one in root. allow_unmatched: leave out files without a partner, and pairs whose sizes
    differ, instead of listing them as problems.
    """
    by_hand, given = any(folders), root
    if not classes and (root or not by_hand):
        classes = find_class_file(root or DEFAULT_ROOT)
    root = root or DEFAULT_ROOT
    layout = "folders given by hand"
    if not by_hand and classes and str(classes) not in PRESETS:
        folders, layout = read_folders(Path(classes)), f"folders named in {classes}"
    inventory = take_inventory(root)
    if any(folders):
        splits = from_folders(layout, by_split(layout, folders))
        is_below = all(_is_below(pair.image, root) for pair in splits.pairs)
        if given and is_below:
            splits = _with_stated(splits, inventory)
    elif not root.is_dir():
        raise InputError(f"{root}: no such folder; {_how_to_get(root)}")
    else:
        splits = replace(_read(inventory, classes), root=root)
        classes = classes or splits.classes_from
        if splits.pairs and not classes:
            classes = find_class_file(_common_folder(splits))
    classes = classes or splits.classes_from
    splits = replace(splits, classes_from=classes, allow_unmatched=allow_unmatched)
    if not by_hand:
        splits = tell(splits, inventory)
    splits = _with_validation(splits, valid_fraction)
    return _without_orphans(splits) if allow_unmatched else splits


def _how_to_get(root: Path) -> str:
    downloads = {"PennFudanPed": "pennfudan", "VOC2012": "voc2012"}
    if root.name in downloads:
        return f"`python check_data.py --download {downloads[root.name]}` fetches it"
    return "--data expects the folder of a data set (input/README.md)"


def _is_below(path: Path, folder: Path) -> bool:
    return Path(os.path.abspath(folder)) in Path(os.path.abspath(path)).parents


def _common_folder(splits: Splits) -> Path:
    """The folder above those of images and masks."""
    return Path(os.path.commonpath([path for pair in splits.pairs for path in pair.files]))


def _read(inventory: Inventory, classes: str | Path | None) -> Splits:
    """The one reading that fits the folder, or one below it."""
    splits, problem = _read_by_names(inventory, classes)
    if splits is None:
        splits = _read_below(inventory, classes) or _read_by_evidence(inventory)
    if splits is None:
        if problem:
            raise problem
        refuse_odd_splits(inventory)
        raise InputError(
            f"{inventory.root}: no known layout in it, expected {SHOWN_LAYOUTS}; {seen(inventory)}"
        )
    return splits


def _read_by_names(
    inventory: Inventory, classes: str | Path | None
) -> tuple[Splits | None, InputError | None]:
    """What names of folders and annotation files say, with the splits of lists.

    Where nothing fits, None and what is wrong with the first that nearly did.
    """
    problem = None
    for reader in (*READERS, partial(annotated_splits, classes=classes)):
        try:
            splits = reader(inventory)
        except NoFit as error:
            problem = problem or error
            continue
        except InputError as error:
            if reader in READERS:
                raise
            problem = error  # annotation files beside masks are no reason to refuse the masks
            continue
        if splits:
            return _with_stated(splits, inventory), None
    return None, problem


def _read_below(inventory: Inventory, classes: str | Path | None) -> Splits | None:
    """What names say of the one folder below the root that they say something of."""
    here = sum(path.parent == inventory.root for path in inventory.pictures)
    if 10 * here > len(inventory.pictures):
        return None
    fitting: list[tuple[Path, Splits]] = []
    for folder in inventory.folders[:MAX_BELOW]:
        depth = len(folder.parts)
        if fitting and depth > len(fitting[0][0].parts):
            break
        if split_of(folder.relative_to(inventory.root)):
            continue
        splits, _ = _read_by_names(inventory.at(folder), classes)
        if splits:
            fitting.append((folder, splits))
    if len(fitting) > 1:
        ask(
            f"{inventory.root}: {len(fitting)} folders below it hold a data set each; which one?",
            [f"--data {shlex.quote(str(folder))}" for folder, _ in fitting],
        )
    if not fitting:
        return None
    folder, splits = fitting[0]
    return replace(splits, decisions=[f"the data set is in {folder}", *splits.decisions])


def _read_by_evidence(inventory: Inventory) -> Splits | None:
    """The one way in which photographs and masks belong together; None if there is none.

    Raises InputError that asks where there are several.
    """
    twins = find_twins(inventory)
    sure = [twin for twin in twins if twin.images.kind == PHOTO and twin.masks.kind == MASK]
    rivals = sure if any(_rival(one, other) for one in sure for other in sure) else []
    if rivals or (twins and not sure):
        by_roles: dict[tuple[str, str], list[Twin]] = {}
        for twin in rivals or twins:
            by_roles.setdefault(twin.roles, []).append(twin)
        ask(
            f"{inventory.root}: names and values do not tell which of these are the images and "
            "their masks; choose one",
            [flags_of(inventory.root, _sides(each)) for each in by_roles.values()],
        )
    if not sure:
        return object_masks(inventory)
    names = [
        " + ".join(str(side.where.relative_to(inventory.root)) for side in (t.images, t.masks))
        for t in sure
    ]
    layout = first_of(names, 3)
    splits = from_sides(layout, _sides(sure))
    if {None, "train"} <= {twin.split for twin in sure}:
        raise InputError(
            f"{inventory.root}: {layout}: some of these folders state a split, others none; use "
            "folders called train, val and test for all"
        )
    used = {path.parent for pair in splits.pairs for path in pair.files}
    for folder in odd_splits(inventory):
        files = inventory.by_folder[folder]
        if folder in used or kind_of(files[0]) == MASK:
            continue
        note = f"{folder}: pictures without a folder of masks"
        if split_of(folder.relative_to(inventory.root) / ".") != "test":
            raise InputError(f"{note}; add their masks, or move them elsewhere")
        splits.notes.append(f"{note}; left out")
    line = f"images and masks, told by names, values and sizes: {layout}"
    return _with_stated(replace(splits, decisions=[line, *splits.decisions]), inventory)


def _rival(one: Twin, other: Twin) -> bool:
    """Whether two readings cannot both hold: two masks of a picture, or two pictures of a mask."""
    if one.images.where == other.images.where:
        return one.masks.where != other.masks.where
    return one.masks.where == other.masks.where and one.images.place != other.images.place


def _sides(twins: Sequence[Twin]) -> list[tuple[str, Side, Side]]:
    """The sides of each split; a folder that states none is of training.

    Where each has its own, names may have other words besides: pics and anns, pics_test, anns_test.
    """
    loose = [t.split or split_of_name(t.images.where.name, strict=False) for t in twins]
    stated = loose if len({*loose}) == len(twins) else [twin.split for twin in twins]
    sides = [(s or "train", t.images, t.masks) for s, t in zip(stated, twins, strict=True)]
    return sorted(sides, key=lambda side: SPLIT_NAMES.index(side[0]))


def _with_stated(splits: Splits, inventory: Inventory) -> Splits:
    """The pairs in the splits that the pictures' names and lists state."""
    splits, listings = _by_first_word(splits), find_listings(inventory)
    return apply_listings(splits, listings, inventory) if listings else splits


def _by_first_word(splits: Splits) -> Splits:
    """The splits that the names of all pictures state, as train_1 and testA_1 do."""
    words = {pair: WORDS.findall(pair.image.stem)[:1] for pair in splits.pairs}
    stated = {pair: split_of_name("".join(first)) for pair, first in words.items()}
    if splits.valid or splits.test or not all(stated.values()) or len({*stated.values()}) < 2:
        return splits
    chosen = {s: [pair for pair in splits.train if stated[pair] == s] for s in SPLIT_NAMES}
    line = "the splits are those that the pictures' names begin with"
    return replace(splits, **chosen, decisions=[*splits.decisions, line])


def _with_validation(splits: Splits, fraction: float | None) -> Splits:
    """The splits with a validation set, split off the training pairs if there is none."""
    if splits.valid and fraction is not None:
        raise InputError(
            f"--valid-fraction: {splits.layout} has a validation set, which begins with "
            f"{splits.valid[0].image}; leave the flag out"
        )
    if splits.valid or not splits.train:
        return splits
    default = PENN_FUDAN_VALID if splits.layout == PENN_FUDAN else VALID_FRACTION
    train, valid = split_pairs(splits.train, fraction or default)
    line = f"{len(valid)} of the training pairs are set aside to validate, chosen by name"
    return replace(splits, train=train, valid=valid, decisions=[*splits.decisions, line])


def split_pairs(pairs: Sequence[Pair], fraction: float) -> tuple[list[Pair], list[Pair]]:
    """Training and validation pairs, chosen by a hash of the names: alike on every machine."""
    if len(pairs) < 2:
        raise InputError(f"{pairs[0].image}: one pair cannot be split; add pictures")
    count = min(max(1, round(fraction * len(pairs))), len(pairs) - 1)
    by_hash = sorted(pairs, key=lambda p: hashlib.sha256(os.fsencode(p.image.stem)).hexdigest())
    chosen = set(by_hash[:count])
    return [p for p in pairs if p not in chosen], [p for p in pairs if p in chosen]


def _without_orphans(splits: Splits) -> Splits:
    """The splits without their orphans, and a note of how many there were."""
    if not splits.orphans:
        return splits
    note = f"{len(splits.orphans)} files without a partner are left out, first: "
    return replace(splits, orphans=[], notes=[*splits.notes, note + str(splits.orphans[0].path)])
