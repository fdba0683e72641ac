"""What is told: questions with the command for each answer, and files that are not used."""

import os
import shlex
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from data.evidence import MASK, Group, fit
from data.inventory import Inventory
from data.names import Side
from data.pairs import SPLIT_NAMES, VOC, Splits
from data.splits import LISTING_FILES, split_of, without_split
from utils import InputError, first_of

SHOWN = 6  # groups of files in a warning
VIA_COLUMN = b"region_shape_attributes"
PLAIN = ("readme", "license", "licence", "requirements", "citation", "changelog")


def ask(question: str, answers: Sequence[str]) -> NoReturn:
    """Raise InputError with a question and the command that gives each answer."""
    commands = [f"  python check_data.py {answer}" for answer in answers]
    raise InputError("\n".join([question, *commands]))


def flags_of(root: Path, sides: Iterable[tuple[str, Side, Side]]) -> str:
    """The flags that name the images and masks of each split, which may have several."""
    words = {"--data": [root]}
    for split, images, masks in sides:
        words.setdefault(f"--{split}-images", []).append(images.where)
        words.setdefault(f"--{split}-masks", []).append(masks.where)
    return shlex.join(str(word) for flag, values in words.items() for word in (flag, *values))


def seen(inventory: Inventory) -> str:
    """What is in a folder, for a message."""
    names = unreadable(inventory)
    for path in sorted(inventory.root.glob("[!.]*")):
        folder = "/" if path in inventory.folders else "/ (no pictures in it)"
        names.append(path.name + (folder if path.is_dir() else ""))
    return f"found {first_of(names)}" if names else "it is empty"


def unreadable(inventory: Inventory) -> list[str]:
    """The files, in groups, of which it is known why they cannot be read, and what to do."""
    return [shown for shown in _by_folder(inventory, inventory.files) if shown.endswith(")")]


def tell(splits: Splits, inventory: Inventory) -> Splits:
    """The splits with the files that are not used, and a warning of those that say something."""
    used = {path for pair in splits.pairs for path in pair.files} | {*splits.sources}
    used |= {orphan.path for orphan in splits.orphans} | {Path(str(splits.classes_from))}
    if splits.classes_from:  # Roboflow writes its file into the folder of each split
        own = Path(splits.classes_from)
        alike = [path for path in inventory.texts if path.name == own.name]
        used |= {path for path in alike if path.read_bytes() == own.read_bytes()}
    left = [path for path in inventory.files if path not in used]
    rasters = _by_folder(inventory, [path for path in inventory.rasters if path not in used])
    told = (path for path in left if not path.stem.lower().startswith(PLAIN))
    texts = _by_folder(inventory, [p for p in told if p.suffix.lower() in LISTING_FILES])
    notes = [f"not used: {first_of([*each], SHOWN)}" for each in (rasters, texts) if each]
    notes += _other_masks(splits, inventory, rasters.values())
    unused = list(_by_folder(inventory, left))
    return replace(splits, notes=[*splits.notes, *notes], unused=unused)


def _by_folder(inventory: Inventory, paths: Sequence[Path]) -> dict[str, list[Path]]:
    """{what to call them: the files of a folder with one extension}."""
    groups: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path in paths:
        groups[path.parent, path.suffix.lower()].append(path)
    return {_shown(inventory.root, files): files for files in groups.values()}


def _shown(root: Path, files: Sequence[Path]) -> str:
    """A file's name, or what stands for several, and why they are of no use, if that is known."""
    suffix = files[0].suffix.lower()
    name = files[0] if len(files) == 1 else files[0].with_name(f"*{suffix}")
    count = f"{len(files)} " if len(files) > 1 else ""
    is_via = suffix == ".csv" and VIA_COLUMN in files[0].read_bytes()[:1000]
    reason = " (save VIA's annotations as JSON)" if is_via else ""
    return f"{count}{name.relative_to(root).as_posix()}{reason}"


def _other_masks(
    splits: Splits, inventory: Inventory, rasters: Collection[list[Path]]
) -> Iterable[str]:
    """A warning for each kind of masks that fits the pictures as well and is not used."""
    found: dict[str, dict[Path, tuple[str, Side, Side]]] = defaultdict(dict)
    for split in SPLIT_NAMES:
        images = sorted(pair.image for pair in splits.pairs_of(split))
        if not images:
            continue
        side = Side(Path(os.path.commonpath([path.parent for path in images])), images)
        for paths in rasters:
            where = paths[0].parent
            below = where.relative_to(inventory.root)
            is_of_objects = splits.layout == VOC and where.name == "SegmentationObject"
            is_other = where != side.where and 2 * len(paths) >= len(images) and not is_of_objects
            is_other &= split_of(below) in (None, split)
            masks = Group(where, paths)
            if is_other and fit(side, masks) and masks.kind == MASK:
                kind = " ".join(without_split(part) for part in below.parts)
                found[kind].setdefault(where, (split, side, masks))
    for sides in found.values():
        count = sum(len(masks.files) for _, _, masks in sides.values())
        yield (
            f"{next(iter(sides))} holds masks of these pictures too, {count} in all, which are not "
            f"used; to take them: python check_data.py {flags_of(inventory.root, sides.values())}"
        )
