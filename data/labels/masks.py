"""Stored mask values to class ids.

A mask stores a number per pixel (class indices, 0/255, instance ids, palette indices) or a colour.
`MaskEncoding` says which value means which class; a value that it does not cover is an error,
never background.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np

from config import IGNORE_INDEX
from data.labels.classes import Colour, count_pixels, default_classes
from utils import InputError, first_of

UNKNOWN = -1
MANY = 8  # values, that may number objects
OBJECTS = "; where they number objects, write `names: [background, NAME]`, `instances: true`"
NUMBERS = 2**16  # mask values from here on, and negative ones, are not in the table


@dataclass(frozen=True)
class MaskEncoding:
    """Which class each stored value means. IGNORE_INDEX as a class means ignored.

    values: for single-channel masks; any whole number. colours: for RGB masks; if empty, an RGB
    mask whose channels are equal is read as single-channel. others: the class of every number that
    `values` does not name (instance ids), or None if such a number is an error. class_names: for
    messages. cut: RGB masks are greys, whose green channel is read. nearest: a colour that has no
    class is read as the nearest that has one, and ignored halfway between two.
    """

    name: str
    values: dict[int, int] = field(default_factory=dict)
    colours: dict[Colour, int] = field(default_factory=dict)
    others: int | None = None
    class_names: tuple[str, ...] = ()
    cut: bool = False
    nearest: bool = False

    @cached_property
    def _value_table(self) -> np.ndarray:
        unnamed = UNKNOWN if self.others is None else self.others
        table = np.full(NUMBERS + 1, unnamed, np.int16)  # the last entry: numbers beyond 16 bits
        table[IGNORE_INDEX] = IGNORE_INDEX
        for value, class_id in self.values.items():
            if 0 <= value < NUMBERS:
                table[value] = class_id
        return table

    @cached_property
    def _colour_table(self) -> np.ndarray:
        table = np.full(2**24, UNKNOWN, np.int16)
        for colour, class_id in self.colours.items():
            table[colour_code(colour)] = class_id
        return table

    def decode(self, mask: np.ndarray, palette: Mapping[int, Colour] | None = None) -> np.ndarray:
        """Stored values (H, W) or RGB (H, W, 3) uint8 -> class ids (H, W) uint8.

        palette: of a palette mask, {index: colour}.
        Raises InputError that names the values without a class and their number of pixels.
        """
        ids = self.look_up(mask, palette)
        if ids.min(initial=0) == UNKNOWN:
            raise InputError(self.problem(mask, palette))
        return ids.astype(np.uint8)

    def look_up(self, mask: np.ndarray, palette: Mapping[int, Colour] | None = None) -> np.ndarray:
        """Like `decode`, but int16, with UNKNOWN where a value has no class."""
        codes, is_colour = self._codes(mask, palette)
        if is_colour:
            ids = self._colour_table[codes]
            if self.nearest:
                unknown = ids == UNKNOWN
                found, places = np.unique(codes[unknown], return_inverse=True)
                ids[unknown] = self.nearest_classes(rgb_of(found))[places]
            return ids
        if codes.dtype.itemsize <= 2:
            return self._value_table[codes]
        ids = self._value_table[np.where((codes < 0) | (codes > NUMBERS), NUMBERS, codes)]
        for value, class_id in self.values.items():  # such as -9999 for no data
            if not 0 <= value < NUMBERS:
                ids[codes == value] = class_id
        return ids

    def reads_colours_of(self, palette: Mapping[int, Colour]) -> bool:
        """Whether a palette mask is decoded by its colours instead of its indices.

        That is so where a colour is that of another class than its index: programs that save
        colours as a palette (GIF, quantised PNG) number them in an order of their own. Palettes of
        greys or of repeated colours say nothing.

        palette: {index: colour} of the indices that occur.
        """
        is_grey_ramp = all(colour == (index,) * 3 for index, colour in palette.items())
        if not self.colours or is_grey_ramp or len(set(palette.values())) < len(palette):
            return False
        ids = {colour: self._value_table[index] for index, colour in palette.items()}
        return any(self.colours.get(colour, ids[colour]) != ids[colour] for colour in ids)

    def _codes(
        self, mask: np.ndarray, palette: Mapping[int, Colour] | None
    ) -> tuple[np.ndarray, bool]:
        """A number per pixel, and whether it stands for a colour."""
        if palette and self.reads_colours_of(used_colours(mask, palette)):
            table = np.zeros(IGNORE_INDEX + 1, np.uint32)
            table[list(palette)] = [colour_code(colour) for colour in palette.values()]
            return table[mask], True
        if mask.ndim == 3 and (self.cut or (not self.colours and is_grey(mask))):
            mask = mask[..., 1]
        return value_codes(mask), mask.ndim == 3

    def nearest_classes(self, colours: np.ndarray) -> np.ndarray:
        """The classes (n,) int16 of colours (n, 3): of the nearest that has one, or ignored.

        It is ignored unless the nearest colour of another class is three times as far.
        """
        known, classes = np.array(list(self.colours)), np.int16(list(self.colours.values()))
        distances = np.linalg.norm(known[None] - colours[:, None].astype(float), axis=2)
        found = classes[distances.argmin(axis=1)]
        others = np.where(classes == found[:, None], np.inf, distances).min(axis=1)
        return np.where(3 * distances.min(axis=1) < others, found, np.int16(IGNORE_INDEX))

    def entries(self) -> str:
        """The line of a class file that says the same of `values`."""
        named = {k: (name, []) for k, name in enumerate(self.class_names)}
        for value, k in self.values.items():
            named[k][1].append(value)
        listed = (f"{k}: {{name: {n}, labels: {v}}}" for k, (n, v) in named.items())
        return f"classes: {{{', '.join(listed)}}}"

    def nearest_colour(self, code: int) -> tuple[Colour, str, int]:
        """The known colour nearest to a colour code, its class, and the greatest difference."""
        known = min(self.colours, key=lambda other: distance(other, colour_of(code)))
        name = dict(enumerate(self.class_names)).get(self.colours[known], "ignored")
        return known, name, distance(known, colour_of(code))

    def problem(
        self,
        mask: np.ndarray,
        palette: Mapping[int, Colour] | None = None,
        counts: np.ndarray | None = None,
    ) -> str | None:
        """A message if some values have no class, else None. counts: pixels, if not one each."""
        codes, is_colour = self._codes(mask, palette)
        if is_colour and not self.colours:
            return "an RGB mask, but no class colours are known; list them in a dataset.yaml"
        unknown = self.look_up(mask, palette) == UNKNOWN
        if not unknown.any():
            return None
        values, places = np.unique(codes[unknown], return_inverse=True)
        pixels = np.bincount(places, None if counts is None else counts[unknown]).astype(int)
        most = pixels.argmax()
        value, shown, more = int(values[most]), f"value {values[most]}", ""
        if is_colour:
            known, class_name, off = self.nearest_colour(value)
            shown = f"colour {colour_of(value)}, {off} off {known} of {class_name},"
        if len(values) > 1:
            rest = pixels.sum() - pixels[most]
            more = f", as do {len(values) - 1} more with {rest} pixels"
        return (
            f"{shown} ({pixels[most]} pixels) belongs to no class{more} (masks hold {self.name});"
            " correct the mask, or give the value to a class or to ignore in a dataset.yaml"
        )


def distance(one: Colour, other: Colour) -> int:
    """The difference in the channel that differs most."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def used_colours(mask: np.ndarray, palette: Mapping[int, Colour]) -> dict[int, Colour]:
    """The palette's entries {index: colour} whose index occurs in a mask (H, W) uint8."""
    occurs = count_pixels(mask) > 0
    return {index: colour for index, colour in palette.items() if occurs[index]}


def colour_code(colour: Colour) -> int:
    return int.from_bytes(bytes(colour), "little")


def colour_of(code: int) -> Colour:
    return code & 255, code >> 8 & 255, code >> 16


def rgb_of(codes: np.ndarray) -> np.ndarray:
    """Colour codes (...) -> RGB (..., 3) uint8."""
    return np.stack([codes & 255, codes >> 8 & 255, codes >> 16 & 255], axis=-1).astype(np.uint8)


def value_codes(mask: np.ndarray) -> np.ndarray:
    """One number per pixel: the stored value, or the colour code of RGB (H, W, 3) uint8."""
    if mask.ndim == 2:
        return mask
    # With a fourth channel a pixel can be viewed as one 32-bit number.
    return cv2.cvtColor(mask, cv2.COLOR_RGB2RGBA).view("<u4")[..., 0] & 0xFFFFFF


def is_grey(mask: np.ndarray) -> bool:
    return bool((mask[..., :1] == mask[..., 1:]).all())


def count_values(codes: np.ndarray) -> dict[int, int]:
    """Pixels per number."""
    codes = codes.ravel()
    # Masks are areas of one value, so there are far fewer runs than pixels.
    starts = np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]]))
    lengths = np.diff(starts, append=codes.size)
    values, inverse = np.unique(codes[starts], return_inverse=True)
    counts = np.bincount(inverse, weights=lengths).astype(int)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def index_encoding(num_classes: int) -> MaskEncoding:
    return MaskEncoding(f"class indices 0..{num_classes - 1}", {k: k for k in range(num_classes)})


CUT = MaskEncoding(
    "black and white, cut at 128", {value: int(value >= 128) for value in range(256)}, cut=True
)


def levels_of(values: Collection[int]) -> MaskEncoding:
    """A class for each of these values, named after it; two of them are background, foreground."""
    ordered = sorted(values)
    is_binary = len(ordered) == 2 and ordered[0] == 0
    names = default_classes(2).names if is_binary else tuple(f"value_{v}" for v in ordered)
    return MaskEncoding("a few values", {v: k for k, v in enumerate(ordered)}, class_names=names)


def guess_encoding(
    values: set[int], num_classes: int | None, colours: dict[Colour, int]
) -> MaskEncoding:
    """The encoding of single-channel masks with these values when no class file says it.

    {0, 255} in a set of two classes is background and foreground. Values that are no indices but
    the greys of class colours are those classes. All other values are class indices.
    Raises InputError where the values cannot all be class indices.
    """
    if values <= {0, IGNORE_INDEX} and IGNORE_INDEX in values and num_classes in (None, 2):
        return MaskEncoding("0 and 255, background and foreground", {0: 0, IGNORE_INDEX: 1})
    labels = values - {IGNORE_INDEX}
    highest = max(labels, default=0)
    greys = {c[0]: class_id for c, class_id in colours.items() if len(set(c)) == 1}
    if num_classes and highest >= num_classes and values <= greys.keys() | {IGNORE_INDEX}:
        return MaskEncoding("the class colours as greys", greys)
    count = num_classes or max(highest + 1, 2)
    if num_classes is None and (len(labels) < count / 2 or count >= IGNORE_INDEX):
        shown = first_of([str(label) for label in sorted(labels)])
        are_many = len(labels) > MANY or count > IGNORE_INDEX
        raise InputError(
            f"the masks hold the {len(labels)} values {shown}: too few or too many to be class "
            "indices; give each to a class in a dataset.yaml (classes: {0: {name: ..., labels: "
            f"[...]}}}}), those to leave out to `ignore: [...]`{OBJECTS * are_many}"
        )
    return index_encoding(count)
