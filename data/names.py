"""Which files belong together by their names."""

import re
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.annotations.dataset import composed
from data.inventory import take_inventory
from utils import InputError

IMAGE_ENDINGS = ("", "_leftImg8bit", "_image", "_img", "_rgb")
MASK_ENDINGS = (
    "", "_mask", "_masks", "_label", "_labels", "_L", "_gt", "_seg", "_annotation",
    "_labelTrainIds", "_gtFine_labelTrainIds", "_gtFine_labelIds",
)  # fmt: skip
# Cityscapes has several files for each mask in one folder.
TRAIN_IDS, LABEL_IDS = "_labelTrainIds", "_labelIds"
ENOUGH = 0.9  # of the names on the smaller side, for two sides to belong together


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

    @property
    def folder(self) -> Path:
        return self.where.parent if self.is_pattern else self.where

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


def match_names(images: Side, masks: Side) -> dict[str, tuple[Path | None, Path | None]]:
    """{name: (image, mask)}, sorted; None where one of the two lacks.

    Names are compared without IMAGE_ENDINGS and MASK_ENDINGS; where none meet, without the tail,
    and then the head too, that all names of a side share.
    Raises InputError where two files stand for one picture.
    """
    by_image = _by_key(images.files, lambda path: _image_key(images.name_of(path)))
    chosen = _one_rendering(masks.files)
    by_mask = _by_key(chosen, lambda path: _mask_key(masks.name_of(path), by_image))
    if not by_image.keys() & by_mask.keys():
        for cut in (_without_tail, _without_head_and_tail):
            found = cut(images), cut(masks)
            if len(found[0].keys() & found[1].keys()) >= ENOUGH * min(map(len, found)):
                by_image, by_mask = found
                break
    keys = sorted(by_image.keys() | by_mask.keys())
    return {key: (by_image.get(key), by_mask.get(key)) for key in keys}


def masks_beside(side: Side) -> set[Path]:
    """The masks in a folder that also holds their images, told by MASK_ENDINGS."""
    names = {path: side.name_of(path) for path in side.files}
    images = {_image_key(name) for name in names.values()}
    return {
        path
        for path, name in names.items()
        if any(key in images and key != _image_key(name) for key in _mask_keys(name))
    }


def derived_names(stems: Iterable[str]) -> dict[str, set[str]]:
    """{pattern: names}, for "*_anno" the names x_anno and for "mask_*" mask_x, where x is there.

    Only patterns that ENOUGH of the shorter names have; a digit does not lengthen a number.
    """
    stems = set(stems)
    found: dict[str, set[str]] = {}
    for stem in stems:
        for k in range(1, len(stem)):
            if stem[k - 1].isdigit() and stem[k].isdigit():
                continue
            if stem[:k] in stems:
                found.setdefault(f"*{stem[k:]}", set()).add(stem)
            if stem[k:] in stems:
                found.setdefault(f"{stem[:k]}*", set()).add(stem)
    shorter = len(stems) - len(set().union(*found.values()))
    return {key: names for key, names in sorted(found.items()) if len(names) >= ENOUGH * shorter}


def _by_key(paths: Sequence[Path], key_of: Callable[[Path], str]) -> dict[str, Path]:
    """{key of the name: file}."""
    found: dict[str, Path] = {}
    for path in paths:
        key = key_of(path)
        if key in found:
            raise InputError(f"{path} and {found[key].name} stand for one picture; remove one")
        found[key] = path
    return found


def _without_tail(side: Side) -> dict[str, Path]:
    names = _by_key(side.files, side.name_of)
    if len(names) < 2:  # all of a single name is its tail
        return names
    tail = _shared_head([name[::-1] for name in names])[::-1].lstrip("0123456789")
    return {name.removesuffix(tail): path for name, path in names.items()}


def _without_head_and_tail(side: Side) -> dict[str, Path]:
    names = _without_tail(side)
    if len(names) < 2:
        return names
    head = _shared_head(names).rstrip("0123456789")
    return {name.removeprefix(head): path for name, path in names.items()}


def _shared_head(names: Iterable[str]) -> str:
    """The characters with which all of several names begin."""
    first, last = min(names), max(names)
    both = zip(first, last, strict=False)
    return first[: next((k for k, (a, b) in enumerate(both) if a != b), len(first))]


def _one_rendering(masks: Sequence[Path]) -> Sequence[Path]:
    """Of Cityscapes' files for each picture: trainIds, or labelIds if there are none."""
    for ending in (TRAIN_IDS, LABEL_IDS):
        chosen = [path for path in masks if path.stem.endswith(ending)]
        if chosen:
            return chosen
    return masks


def _without_endings(name: str, endings: Sequence[str]) -> list[str]:
    return [name.removesuffix(ending) for ending in endings if name.endswith(ending)]


def _image_key(name: str) -> str:
    return min(_without_endings(name, IMAGE_ENDINGS), key=len)


def _mask_key(name: str, images: Container[str]) -> str:
    """The key of the image that a mask's name belongs to; the name itself if there is none."""
    return next((key for key in _mask_keys(name) if key in images), name)


def _mask_keys(name: str) -> list[str]:
    return [_image_key(rest) for rest in _without_endings(name, MASK_ENDINGS)]
