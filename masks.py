"""Mask files to class ids, and what is in them.

A mask stores a number per pixel (class indices, 0/255, instance ids, palette indices) or a colour.
`MaskEncoding` says which value means which class; a value that it does not cover is an error,
never background.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from config import IGNORE_INDEX
from errors import InputError

Colour = tuple[int, int, int]
UNKNOWN = -1


@dataclass(frozen=True)
class MaskEncoding:
    """Which class each stored value means; IGNORE_INDEX stands for "ignored".

    values: of single-channel masks. colours: of RGB masks. other_values: the class of every number
    that `values` does not name (instance ids), or None where such a number is an error.
    """

    name: str
    values: dict[int, int] = field(default_factory=dict)
    colours: dict[Colour, int] = field(default_factory=dict)
    other_values: int | None = None

    @cached_property
    def _value_table(self) -> np.ndarray:
        table = np.full(
            2**16, UNKNOWN if self.other_values is None else self.other_values, np.int16
        )
        table[IGNORE_INDEX] = IGNORE_INDEX
        for value, class_id in self.values.items():
            table[value] = class_id
        return table

    @cached_property
    def _colour_table(self) -> np.ndarray:
        table = np.full(2**24, UNKNOWN, np.int16)
        for colour, class_id in self.colours.items():
            table[_code(np.uint8(colour))] = class_id
        return table

    def decode(self, mask: np.ndarray) -> np.ndarray:
        """Stored values (H, W) or RGB (H, W, 3) uint8 -> class ids (H, W) uint8.

        Raises InputError naming the first value that is no class, and its number of pixels.
        """
        codes, is_colour = _codes(mask), mask.ndim == 3
        table = self._colour_table if is_colour else self._value_table
        ids = np.take(table, codes, mode="clip")  # beyond 16 bits: as the last, unnamed value
        if ids.min(initial=0) == UNKNOWN:
            unknown = codes[ids == UNKNOWN]
            first = int(unknown[0])
            raise InputError(self.complaint(first, int((unknown == first).sum()), is_colour))
        return ids.astype(np.uint8)

    def decode_value(self, value: int, is_colour: bool) -> int:
        """The class of one stored value or colour code, UNKNOWN where there is none."""
        table = self._colour_table if is_colour else self._value_table
        return int(table[min(value, len(table) - 1)])

    def complaint(self, value: int, count: int, is_colour: bool) -> str:
        """What to say of a stored value or colour code that means no class."""
        if is_colour and not self.colours:
            return "an RGB mask, but no class colours are known; list them in a dataset.yaml"
        shown = f"colour {_colour(value)}" if is_colour else f"value {value}"
        return (
            f"{shown} ({count} pixels) belongs to no class (masks hold {self.name}); correct the "
            "mask, or give the value to a class or to ignore in a dataset.yaml"
        )


def _colour(code: int) -> Colour:
    return code >> 16, code >> 8 & 255, code & 255


def _code(colours: np.ndarray) -> np.ndarray:
    """RGB (..., 3) uint8 -> one number per colour, 0..2**24 - 1."""
    red, green, blue = (colours[..., i].astype(np.int32) for i in range(3))
    return (red << 16) | (green << 8) | blue


def _codes(mask: np.ndarray) -> np.ndarray:
    return _code(mask) if mask.ndim == 3 else mask


def count_values(mask: np.ndarray) -> dict[int, int]:
    """Pixels per stored value, or per colour code of an RGB mask."""
    codes = _codes(mask).ravel()
    # Masks are areas of one value: count runs, not pixels.
    starts = np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]]))
    lengths = np.diff(np.append(starts, codes.size))
    values, inverse = np.unique(codes[starts], return_inverse=True)
    counts = np.bincount(inverse, weights=lengths).astype(int)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def index_encoding(num_classes: int) -> MaskEncoding:
    values = {k: k for k in range(num_classes)}
    return MaskEncoding(f"class indices 0..{num_classes - 1}", values)


BINARY = MaskEncoding("0 and 255", {0: 0, IGNORE_INDEX: 1})
INSTANCES = MaskEncoding("instance ids of one class", {0: 0}, other_values=1)


def guess_encoding(values: set[int], num_classes: int | None) -> MaskEncoding:
    """The encoding of single-channel masks with these values when no class file tells it.

    {0, 255} in a set of two classes is background and foreground; everything else is class ids.
    """
    if values <= {0, IGNORE_INDEX} and IGNORE_INDEX in values and num_classes in (None, 2):
        return BINARY
    labels = values - {IGNORE_INDEX}
    return index_encoding(num_classes or max(max(labels, default=0) + 1, 2))
