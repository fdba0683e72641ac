"""Pair image and mask files by name, and read a pair."""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from config import SPLIT_WORDS
from data.annotations.dataset import composed
from data.annotations.shapes import Annotation
from data.images import UPRIGHT, list_images, orientation, read_image, read_mask, upright_size
from data.labels.class_entries import ClassFile
from data.labels.classes import Colour
from data.labels.masks import MaskEncoding
from data.numbers import ValueRange
from data.transforms import Window, tile_windows
from utils import InputError

SPLIT_NAMES = tuple(SPLIT_WORDS)
IMAGE_ENDINGS = ("", "_leftImg8bit", "_image", "_img", "_rgb")
MASK_ENDINGS = (
    "", "_mask", "_masks", "_label", "_labels", "_L", "_gt", "_seg", "_annotation",
    "_labelTrainIds", "_gtFine_labelTrainIds", "_gtFine_labelIds",
)  # fmt: skip
# Cityscapes has several files for each mask in one folder.
TRAIN_IDS, LABEL_IDS = "_labelTrainIds", "_labelIds"


class Pair(NamedTuple):
    """A picture, and its mask: a file, or the shapes to draw it from. window: a part of both.

    value_range: of the numbers in pictures of more than 8 bits, the same for a whole data set.
    """

    image: Path
    mask: Path | Annotation
    window: Window | None = None
    value_range: ValueRange | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the pair is read from."""
        return self.image, getattr(self.mask, "file", self.mask)


class Orphan(NamedTuple):
    """A picture without a mask, or a mask without a picture."""

    path: Path
    problem: str


@dataclass(frozen=True)
class Splits:
    """The pairs of each split, and what the layout says about the masks.

    orphans: files left over. problems: a line each, that training would fail on. notes: what the
    user should know of the layout. root: the data set's folder, None where images and masks are
    given by hand. classes: a class file or the name of a preset. class_file: classes that
    annotation files bring. instances: masks hold instance ids.
    """

    layout: str
    train: list[Pair] = field(default_factory=list)
    valid: list[Pair] = field(default_factory=list)
    test: list[Pair] = field(default_factory=list)
    orphans: list[Orphan] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    root: Path | None = None
    classes: str | Path | None = None
    class_file: ClassFile | None = None
    instances: bool = False

    def pairs_of(self, split: str) -> list[Pair]:
        """The pairs of one of SPLIT_NAMES."""
        return getattr(self, split)

    @property
    def pairs(self) -> list[Pair]:
        """All pairs, in the order of SPLIT_NAMES."""
        return [*self.train, *self.valid, *self.test]


def pair_by_stem(image_folder: Path, mask_folder: Path) -> tuple[list[Pair], list[Orphan]]:
    """Images and masks of one name, sorted, and the files that are left over.

    Names are compared without extension, IMAGE_ENDINGS and MASK_ENDINGS. The two folders may be
    one, in which masks have one of MASK_ENDINGS.
    """
    image_files, mask_files = list_images(image_folder), list_images(mask_folder)
    if image_folder.resolve() == mask_folder.resolve():
        masks_here = masks_beside(image_folder, image_files)
        if image_files and not masks_here:
            raise InputError(
                f"{image_folder}: no masks beside its pictures; masks in the pictures' folder are "
                "named x_mask.png for x.jpg, all others are in a folder of their own"
            )
        image_files = [path for path in image_files if path not in masks_here]
        mask_files = sorted(masks_here)
    images = _by_key(image_folder, image_files, _image_key)
    chosen = _one_rendering(mask_files)
    masks = _by_key(mask_folder, chosen, lambda name: _mask_key(name, images))
    keys = [key for key in sorted(images) if key in masks]
    if not keys:
        one, other = next(iter(images.values())).name, next(iter(masks.values())).name
        raise InputError(
            f"{mask_folder}: no mask has the name of an image in {image_folder} (such as {one} and "
            f"{other}); give both the same name; masks may end in _mask, _label, _gt and the like"
        )
    orphans = [
        Orphan(have[key], f"no {what} of this name in {other}")
        for have, lack, what, other in (
            (images, masks, "mask", mask_folder),
            (masks, images, "image", image_folder),
        )
        for key in have
        if key not in lack
    ]
    return [Pair(images[key], masks[key]) for key in keys], orphans


def masks_beside(folder: Path, paths: Sequence[Path]) -> set[Path]:
    """The masks among the files of a folder that also holds their images."""
    keys = {path: name_below(folder, path) for path in paths}
    images = {_image_key(key) for key in keys.values()}
    return {p for p, key in keys.items() if _mask_key(key, images - {_image_key(key)}) != key}


def name_below(folder: Path, path: Path) -> str:
    """The name of a file relative to a folder, without extension, in Unicode's composed form."""
    return composed(path.relative_to(folder).with_suffix("").as_posix())


def _by_key(folder: Path, paths: Sequence[Path], key_of: Callable[[str], str]) -> dict[str, Path]:
    """{key of the name: file}."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    if not paths:
        raise InputError(f"{folder}: no pictures in it")
    found: dict[str, Path] = {}
    for path in paths:
        key = key_of(name_below(folder, path))
        if key in found:
            raise InputError(f"{path} and {found[key].name} stand for one picture; remove one")
        found[key] = path
    return found


def _one_rendering(masks: list[Path]) -> list[Path]:
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
    shorter = (_image_key(rest) for rest in _without_endings(name, MASK_ENDINGS))
    return next((key for key in shorter if key in images), name)


class SizeMismatch(InputError):
    """A mask and its image differ in size."""


def read_pair(
    pair: Pair, encoding: MaskEncoding, outside: Colour = (0, 0, 0)
) -> tuple[np.ndarray, np.ndarray]:
    """RGB (H, W, 3) uint8 and the target, class ids (H, W) uint8.

    outside: colour of the pixels of a window that lie beyond the picture.
    """
    image, mask, palette = (
        read_stored(pair) if pair.window is None else _read_once(pair._replace(window=None))
    )
    target = encoding.decode(mask, palette)
    if pair.window:
        image = pair.window.of_image(image, outside)
        target = pair.window.of_target(target)
    return image, target


def read_target(pair: Pair, encoding: MaskEncoding) -> np.ndarray:
    """Class ids (H, W) uint8 of a pair, without reading its image."""
    target = encoding.decode(*_read_mask(pair))
    return pair.window.of_target(target) if pair.window else target


@lru_cache(maxsize=1)
def _read_once(pair: Pair) -> tuple[np.ndarray, np.ndarray, dict[int, Colour]]:
    """`read_stored` for the windows of one picture, which are read one after another."""
    return read_stored(pair)


def tile_pairs(pairs: Sequence[Pair], tile: tuple[int, int]) -> list[Pair]:
    """Each pair as windows of `tile` (H, W) that count each of its pixels once."""
    return [
        pair._replace(window=window)
        for pair in pairs
        for window in tile_windows(_mask_size(pair), tile)
    ]


def _mask_size(pair: Pair) -> tuple[int, int]:
    if isinstance(pair.mask, Annotation):
        return pair.mask.size or upright_size(pair.image)
    return upright_size(pair.mask)


def _read_mask(pair: Pair) -> tuple[np.ndarray, dict[int, Colour]]:
    """The stored values and the palette of a pair's mask (see read_mask), or its shapes drawn."""
    if isinstance(pair.mask, Annotation):
        return pair.mask.draw(_mask_size(pair)), {}
    turned = orientation(pair.mask)
    if turned != UPRIGHT and turned != orientation(pair.image):
        raise InputError(
            f"{pair.mask}: has an EXIF orientation that its image {pair.image.name} has not; turn "
            "it and remove the tag"
        )
    return read_mask(pair.mask)


def read_stored(pair: Pair) -> tuple[np.ndarray, np.ndarray, dict[int, Colour]]:
    """RGB (H, W, 3) uint8, and the mask's stored values and palette (see read_mask), of one size.

    A picture whose EXIF orientation its mask does not share is left as it is stored.
    Raises InputError where the mask has an orientation that differs from its picture's.
    """
    mask, palette = _read_mask(pair)
    image = read_image(pair.image, value_range=pair.value_range)
    if image.shape[:2] != mask.shape[:2]:
        stored = read_image(pair.image, upright=False, value_range=pair.value_range)
        if stored.shape[:2] != mask.shape[:2]:
            (height, width), mask_size = image.shape[:2], mask.shape[:2]
            is_turned = mask_size == (width, height)
            advice = "turn it by 90 degrees" if is_turned else "export it again at that size"
            what = ""
            if isinstance(pair.mask, Annotation):
                what, advice = "the file gives ", "export it again with this picture"
            raise SizeMismatch(
                f"{pair.mask}: {what}{mask_size[1]}x{mask_size[0]} pixels, but its image "
                f"{pair.image.name} has {width}x{height}; {advice}"
            )
        image = stored
    return image, mask, palette
