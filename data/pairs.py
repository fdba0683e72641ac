"""Pairs of images and masks, and how one is read."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from config import SPLIT_WORDS
from data.annotations.shapes import Annotation
from data.images import read_image, read_mask, upright_size
from data.labels.class_entries import ClassFile
from data.labels.classes import Colour
from data.labels.masks import MaskEncoding
from data.numbers import ValueRange
from data.transforms import Window, tile_windows
from utils import InputError, first_of

SPLIT_NAMES = tuple(SPLIT_WORDS)
PENN_FUDAN, VOC = "Penn-Fudan", "VOC"  # layouts whose masks are read by rules of their own
OFF_BY = 10  # pixels; a mask this little smaller may be cut or scaled, which nothing tells
LEAVE_OUT = "--allow-unmatched leaves it out"


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
    """A picture without a mask, or a mask without a picture, or the first of several alike."""

    path: Path
    problem: str
    count: int = 1


@dataclass(frozen=True)
class Splits:
    """The pairs of each split, and what was decided about them.

    layout: in words. orphans: files left over. problems: a line each, that training would fail on.
    decisions: how the folder is read, a line each. notes: what else the user should know, a warning
    each. sources: files that were read besides those of the pairs. unused: those that were not, in
    groups, a line each. root: the data set's folder, None where images and masks are given by hand.
    classes_from: a class file or the name of a preset. class_file: classes that other files bring.
    allow_unmatched: leave out orphans, and pairs whose sizes differ.
    """

    layout: str
    train: list[Pair] = field(default_factory=list)
    valid: list[Pair] = field(default_factory=list)
    test: list[Pair] = field(default_factory=list)
    orphans: list[Orphan] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    decisions: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sources: list[Path] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    root: Path | None = None
    classes_from: str | Path | None = None
    class_file: ClassFile | None = None
    allow_unmatched: bool = False

    def without_orphans(self) -> "Splits":
        """The splits without their orphans, and a note of how many there were, if they may go."""
        if not (self.allow_unmatched and self.orphans):
            return self
        count = sum(orphan.count for orphan in self.orphans)
        note = f"{count} files without a partner are left out, first: "
        return replace(self, orphans=[], notes=[*self.notes, note + str(self.orphans[0].path)])

    def pairs_of(self, split: str) -> list[Pair]:
        """The pairs of one of SPLIT_NAMES."""
        return getattr(self, split)

    @property
    def pairs(self) -> list[Pair]:
        """All pairs, in the order of SPLIT_NAMES."""
        return [*self.train, *self.valid, *self.test]


def with_validation(splits: Splits, fraction: float | None, default: float) -> Splits:
    """The splits with a validation set, split off the training pairs if there is none."""
    if splits.valid and fraction is not None:
        raise InputError(
            f"--valid-fraction: {splits.layout} has a validation set, which begins with "
            f"{splits.valid[0].image}; leave the flag out"
        )
    if splits.valid or not splits.train:
        return splits
    train, valid = split_pairs(splits.train, fraction or default)
    line = f"{len(valid)} of the training pairs are set aside to validate, chosen by name"
    folders = list(dict.fromkeys(pair.image.parent for pair in splits.train))
    if 1 < len(folders) < len(splits.train):  # else each picture has its own folder
        whole = os.path.commonpath(folders)
        folders = [str(folder.relative_to(whole)) for folder in folders]
        line += (
            f", from {first_of(folders, 3)} alike; where one of them holds copies of another's "
            "pictures, augmented say, or pictures to test with, name the others by --train-images "
            "and --train-masks"
        )
    return replace(splits, train=train, valid=valid, decisions=[*splits.decisions, line])


def split_pairs(pairs: Sequence[Pair], fraction: float) -> tuple[list[Pair], list[Pair]]:
    """Training and validation pairs, chosen by a hash of the names: alike on every machine."""
    if len(pairs) < 2:
        raise InputError(f"{pairs[0].image}: one pair cannot be split; add pictures")
    count = min(max(1, round(fraction * len(pairs))), len(pairs) - 1)
    by_hash = sorted(pairs, key=lambda p: hashlib.sha256(os.fsencode(p.image.stem)).hexdigest())
    chosen = set(by_hash[:count])
    return [p for p in pairs if p not in chosen], [p for p in pairs if p in chosen]


class SizeMismatch(InputError):
    """A mask and its image differ in size."""


def read_pair(
    pair: Pair, encoding: MaskEncoding, outside: Colour = (0, 0, 0)
) -> tuple[np.ndarray, np.ndarray]:
    """RGB (H, W, 3) uint8 and the target, class ids (H, W) uint8.

    outside: colour of the pixels of a window that lie beyond the picture.
    """
    read = _read_once if pair.window else read_stored
    image, mask, palette = read(pair._replace(window=None))
    target = encoding.decode(mask, palette)
    if pair.window:
        image = pair.window.cut(image, outside)
        target = pair.window.of_target(target)
    return image, target


def read_target(pair: Pair, encoding: MaskEncoding) -> np.ndarray:
    """Class ids (H, W) uint8 of a pair, without reading its image."""
    target = encoding.decode(*_read_mask(pair))
    return pair.window.of_target(target) if pair.window else target


def tile_pairs(pairs: Sequence[Pair], tile: tuple[int, int]) -> list[Pair]:
    """Each pair as windows of `tile` (H, W) that count each of its pixels once."""
    return [
        pair._replace(window=window)
        for pair in pairs
        for window in tile_windows(_mask_size(pair), tile)
    ]


def _mask_size(pair: Pair) -> tuple[int, int]:
    """(H, W) at which a pair's mask is read: a smaller copy is enlarged to its image's size."""
    if isinstance(pair.mask, Annotation):
        return pair.mask.size or upright_size(pair.image)
    image, mask = upright_size(pair.image), upright_size(pair.mask)
    return next((whole for whole in (image, image[::-1]) if is_smaller_copy(mask, whole)), mask)


def is_smaller_copy(mask: tuple[int, int], image: tuple[int, int]) -> bool:
    """Whether one factor, to a pixel of rounding, makes a size (H, W) that of its image."""
    both = list(zip(mask, image, strict=True))
    least = max((whole - 1) / part for part, whole in both)
    most = min((whole + 1) / part for part, whole in both)
    return least <= most and min(whole - part for part, whole in both) > OFF_BY


def _read_mask(pair: Pair) -> tuple[np.ndarray, dict[int, Colour]]:
    """The values and the palette of a pair's mask (see read_mask), or its shapes drawn.

    A mask that is a smaller copy of its image is enlarged to its size, without blending.
    """
    if isinstance(pair.mask, Annotation):
        return pair.mask.draw(_mask_size(pair)), {}
    mask, palette = read_mask(pair.mask)
    if (size := _mask_size(pair)) != mask.shape[:2]:
        rows, columns = (np.arange(n) * m // n for n, m in zip(size, mask.shape, strict=False))
        mask = mask[rows][:, columns]
    return mask, palette


def read_stored(pair: Pair) -> tuple[np.ndarray, np.ndarray, dict[int, Colour]]:
    """RGB (H, W, 3) uint8, and the mask's stored values and palette (see read_mask), of one size.

    A picture whose EXIF orientation its mask does not share is left as it is stored.
    """
    mask, palette = _read_mask(pair)
    image = read_image(pair.image, value_range=pair.value_range)
    if image.shape[:2] != mask.shape[:2]:
        stored = read_image(pair.image, upright=False, value_range=pair.value_range)
        if stored.shape[:2] != mask.shape[:2]:
            raise SizeMismatch(_mismatch(pair, mask.shape[:2], image.shape[:2]))
        image = stored
    return image, mask, palette


_read_once = lru_cache(maxsize=1)(read_stored)  # windows of one picture follow one another


def _mismatch(pair: Pair, mask: tuple[int, int], image: tuple[int, int]) -> str:
    """The message of SizeMismatch; sizes are (H, W)."""
    shown, expected = (f"{width}x{height}" for height, width in (mask, image))
    if isinstance(pair.mask, Annotation):
        shown = f"the file gives {shown}"
        advice = "correct it, or use the picture that was annotated"
    else:
        is_turned = mask == image[::-1]
        advice = "turn it by 90 degrees" if is_turned else "export it again at that size"
    return (
        f"{pair.mask}: {shown} pixels, but its image {pair.image.name} has {expected}; {advice}; "
        f"{LEAVE_OUT}"
    )
