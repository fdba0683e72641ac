"""Which files belong together by their names: images and masks become pairs."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from data.annotations.dataset import composed
from data.inventory import take_inventory
from data.pairs import LEAVE_OUT, Orphan, Pair, Splits
from utils import InputError

IMAGE_ENDING = re.compile("_(leftImg8bit|image|img|rgb)$")
MASK_ENDINGS = (
    "", "_mask", "_masks", "_label", "_labels", "_L", "_gt", "_seg", "_annotation",
    "_labelTrainIds", "_gtFine_labelTrainIds", "_gtFine_labelIds",
)  # fmt: skip
# Cityscapes has several files for each mask in one folder.
TRAIN_IDS, LABEL_IDS = "_labelTrainIds", "_labelIds"
ENOUGH = 0.9  # of the names on the smaller side, for two sides to belong together
DIGITS = "0123456789"


class NoFit(InputError):
    """A layout's folders are there, but not what they should hold."""


@dataclass(frozen=True)
class Side:
    """The pictures, or the masks, of one split.

    where: a folder, or a pattern of files in one such as "scans/*_mask.*", whose first * stands for
    the name. files: sorted.
    """

    where: Path
    files: Sequence[Path]

    @property
    def is_pattern(self) -> bool:
        return "*" in self.where.name

    def name_of(self, path: Path) -> str:
        """The name of a file below the folder, in Unicode's composed form, without extension."""
        if self.is_pattern:
            return composed(_regex(self.where.name).fullmatch(path.name)[1])
        return composed(path.relative_to(self.where).with_suffix("").as_posix())


def side_at(where: Path) -> Side:
    """The pictures and arrays of a folder or of a pattern; raises InputError if there are none."""
    is_pattern = "*" in where.name and not where.is_dir()
    folder = where.parent if is_pattern else where
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    files = take_inventory(folder).rasters
    if is_pattern:
        fits = _regex(where.name).fullmatch
        files = [path for path in files if path.parent == folder and fits(path.name)]
    if not files:
        raise InputError(f"{where}: no pictures in it")
    return Side(where, sorted(files))


def _regex(pattern: str) -> re.Pattern:
    return re.compile(re.escape(pattern).replace(r"\*", "(.*)"))


def from_sides(layout: str, sides: Sequence[tuple[str, Side, Side]]) -> Splits:
    """The pairs of (split, images, masks), of which a split may have several."""
    splits = Splits(layout)
    for split, images, masks in sides:
        pairs, orphans = pair_sides(images, masks)
        splits.pairs_of(split).extend(pairs)
        splits.orphans.extend(orphans)
    used = {path for pair in splits.pairs for path in pair.files}  # by other sides, perhaps
    return replace(splits, orphans=[o for o in splits.orphans if o.path not in used])


def pair_sides(images: Side, masks: Side) -> tuple[list[Pair], list[Orphan]]:
    """Images and masks of one name, sorted, and the files that are left over.

    The masks may be among the images, where they have one of MASK_ENDINGS or fit their pattern.
    """
    if {*map(os.path.abspath, masks.files)} <= {*map(os.path.abspath, images.files)}:
        images, masks = _in_one_folder(images, masks)
    matches = match_names(images, masks)
    pairs = [Pair(image, mask) for image, mask in matches if image and mask]
    if not pairs:
        both = [path.stem for side in (images, masks) for path in side.files]
        derived = derived_names(both)
        longer = set().union(*derived.values())
        patterns = [f"{key}.*" for key in derived] or ["*_mask.*"]
        kind, other, side, rest = "masks", "images", masks, images
        if longer and not longer & {path.stem for path in masks.files}:
            kind, other, side, rest = "images", "masks", images, masks
        folder = side.where.parent if side.is_pattern else side.where
        flags = " or ".join(f"--train-{kind} '{folder / key}'" for key in patterns)
        raise NoFit(
            f"{masks.where}: no mask has the name of an image in {images.where} (such as "
            f"{images.files[0].name} and {masks.files[0].name}); give both the same name; masks "
            f"may end in _mask, _label, _gt and the like; or name {other} and a pattern of the "
            f"{kind}: --train-{other} {rest.where} {flags}"
        )
    no_mask = f"no mask of this name in {masks.where}; {LEAVE_OUT}"
    no_image = f"no image of this name in {images.where}; {LEAVE_OUT}"
    orphans = [Orphan(image, no_mask) for image, mask in matches if not mask]
    return pairs, orphans + [Orphan(mask, no_image) for image, mask in matches if not image]


def _in_one_folder(images: Side, masks: Side) -> tuple[Side, Side]:
    """The two sides of a folder that holds images and their masks."""
    longer = set().union(*derived_names(path.stem for path in images.files).values())
    if not masks.is_pattern:
        masks = replace(masks, files=[path for path in images.files if path.stem in longer])
    if not masks.files:
        raise NoFit(
            f"{images.where}: no masks beside its pictures; masks in the pictures' folder are "
            "named x_mask.png for x.jpg, all others are in a folder of their own"
        )
    files = [p for p in images.files if p not in masks.files and p.stem not in longer]
    return replace(images, files=files), masks


def match_names(images: Side, masks: Side) -> list[tuple[Path | None, Path | None]]:
    """(image, mask) of each name, sorted; None where one of the two lacks.

    Names are compared without IMAGE_ENDING and MASK_ENDINGS; where none meet, without the tail,
    and then the head too, that all names of a side share; then by their numbers alone.
    Raises InputError where two files stand for one picture.
    """
    by_image = _by_key(images.files, lambda path: _image_key(images.name_of(path)))

    def mask_key(path: Path) -> str:
        name = masks.name_of(path)
        return next((key for key in _mask_keys(name) if key in by_image), name)

    by_mask = _by_key(_one_rendering(masks.files), mask_key)
    if not by_image.keys() & by_mask.keys():
        # By numbers alone 1, 2, 3 and 0, 1, 2 nearly meet, so that all of one side must.
        without_head = partial(_without_shared, with_head=True)
        for keys_of, share in ((_without_shared, ENOUGH), (without_head, 1), (_by_numbers, 1)):
            found = [keys_of(side) for side in (images, masks)]
            if len(found[0].keys() & found[1].keys()) >= share * min(map(len, found)) > 0:
                by_image, by_mask = found
                break
    return [(by_image.get(k), by_mask.get(k)) for k in sorted(by_image.keys() | by_mask.keys())]


def derived_names(stems: Iterable[str]) -> dict[str, set[str]]:
    """{pattern: names}, for "*_anno" the names x_anno and for "mask_*" mask_x, where x is there.

    Only patterns that ENOUGH of the shorter names have, or half of them if it is one of
    MASK_ENDINGS; a digit does not lengthen a number.
    """
    stems = set(stems)
    found: dict[str, set[str]] = defaultdict(set)
    for stem in stems:
        for k in range(1, len(stem)):
            if stem[k - 1].isdigit() and stem[k].isdigit():
                continue
            if stem[:k] in stems:
                found[f"*{stem[k:]}"].add(stem)
            if stem[k:] in stems:
                found[f"{stem[:k]}*"].add(stem)
    shorter = len(stems) - len(set().union(*found.values()))
    least = {key: (0.5 if key[1:] in MASK_ENDINGS else ENOUGH) * shorter for key in found}
    return {key: found[key] for key in sorted(found) if len(found[key]) >= least[key]}


def _by_key(paths: Sequence[Path], key_of: Callable[[Path], str]) -> dict[str, Path]:
    """{key of the name: file}."""
    found: dict[str, Path] = {}
    for path in paths:
        key = key_of(path)
        if key in found:
            raise InputError(f"{path} and {found[key].name} stand for one picture; remove one")
        found[key] = path
    return found


def _without_shared(side: Side, with_head: bool = False) -> dict[str, Path]:
    """{name: file} without the tail that all names share but digits, and without such a head."""
    names = _by_key(side.files, side.name_of)
    if len(names) > 1:  # all of a single name is shared
        tail = _shared_head([name[::-1] for name in names])[::-1].lstrip(DIGITS)
        names = {name.removesuffix(tail): path for name, path in names.items()}
    if len(names) > 1 and with_head:
        head = _shared_head(names).rstrip(DIGITS)
        names = {name.removeprefix(head): path for name, path in names.items()}
    return names


def _by_numbers(side: Side) -> dict[tuple[int, ...], Path]:
    """{numbers in the name: file}; {} where two files have the same, or one has none."""
    found = {tuple(map(int, re.findall(r"\d+", side.name_of(path)))): path for path in side.files}
    return found if len(found) == len(side.files) and () not in found else {}


def _shared_head(names: Iterable[str]) -> str:
    """The characters with which all of several names begin."""
    first, last = min(names), max(names)
    both = zip(first, last, strict=False)
    return first[: next((k for k, (a, b) in enumerate(both) if a != b), len(first))]


def _one_rendering(masks: Sequence[Path]) -> Sequence[Path]:
    """Of Cityscapes' files for each picture: trainIds, or labelIds if there are none."""
    chosen = ([p for p in masks if p.stem.endswith(ending)] for ending in (TRAIN_IDS, LABEL_IDS))
    return next(filter(None, chosen), masks)


def _image_key(name: str) -> str:
    return IMAGE_ENDING.sub("", name)


def _mask_keys(name: str) -> list[str]:
    """What the name of a mask's image may be."""
    return [_image_key(name.removesuffix(end)) for end in MASK_ENDINGS if name.endswith(end)]
