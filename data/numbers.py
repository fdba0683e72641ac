"""The numbers in pictures of more than 8 bits, and the range that becomes black to white."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

PHOTOMETRIC, SAMPLE_FORMAT = 262, 339  # tags of TIFF
WHITE_IS_ZERO, UNSIGNED, SIGNED = 0, 1, 2  # their values
DEPTHS = (8, 10, 12, 14, 16)  # bits of unsigned numbers, whose whole range is taken if half is used
TAILS = (0.1, 99.9)  # per cent: a few dead or hot pixels do not stretch the range of a picture
NARROW = 16  # a picture that uses less than this part of a range is nearly of one colour
OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


@dataclass(frozen=True)
class ValueRange:
    """The numbers that become black and white, 0 and 255, in pictures of more than 8 bits."""

    low: int
    high: int

    @classmethod
    def of(cls, extremes: Iterable[tuple[int, int]]) -> "ValueRange | None":
        """One range for pictures with these (low, high) numbers; None without any.

        The range of a depth, such as 0..4095 or 0..65535, where they use more than half of it;
        else from the lowest to the highest.
        """
        extremes = list(extremes)
        if not extremes:
            return None
        low, high = min(low for low, _ in extremes), max(high for _, high in extremes)
        for full in (2**bits - 1 for bits in DEPTHS):
            if low >= 0 and high <= full < 2 * (high - low):
                return cls(0, full)
        return cls(low, max(high, low + 1))

    def to_8_bits(self, numbers: np.ndarray) -> np.ndarray:
        """The numbers as uint8 of the same shape; those beyond the range become 0 or 255."""
        scaled = (numbers.astype(np.float64) - self.low) * (255 / (self.high - self.low))
        return scaled.round().clip(0, 255).astype(np.uint8)

    def misfit(self, extremes: tuple[int, int]) -> str:
        """Why a picture of (low, high) numbers is nearly of one colour in the range, or ""."""
        low, high = extremes
        shown = min(high, self.high) - max(low, self.low)
        if low == high or NARROW * shown >= max(high - low, self.high - self.low):
            return ""
        return f"its numbers {low} to {high} are little of the {self} that is black to white"

    def __str__(self) -> str:
        return f"{self.low} to {self.high}"


def raw_mode(image: Image.Image) -> str:
    """How an opened file stores its pixels, in Pillow's words, such as RGB;16B."""
    args = image.tile[0][3] if image.tile else ""
    return str(args if isinstance(args, str) or not args else args[0])


def is_deep_colour(raw: str) -> bool:
    """Whether Pillow cuts colours of 16 bits of such a file to their high bytes."""
    return ";16" in raw and raw.startswith(("RGB", "LA"))  # BGR;16 has 16 bits for all three


def read_low_bytes(image: Image.Image) -> None:
    """Make a file of deep colours, opened but not loaded, give the low byte of each colour."""

    def swapped(args: object) -> object:
        if not isinstance(args, str):
            return (swapped(args[0]), *args[1:])
        # Grey and alpha of 16 bits lie as four bytes do: red and green are the two of grey.
        return "RGBA" if args.startswith("LA") else args[:-1] + OTHER_ORDER[args[-1]]

    tiles = [(tile, swapped(tile[3])) for tile in image.tile]
    image.tile = [
        tile._replace(args=args) if hasattr(tile, "_replace") else (*tile[:3], args)
        for tile, args in tiles
    ]


def grey_numbers(image: Image.Image, tags: dict) -> np.ndarray | None:
    """The numbers (H, W) of a loaded grey picture of more than 8 bits or with a sign, else None.

    tags: those of TIFF, {} of other formats.
    """
    kind = tags.get(SAMPLE_FORMAT, UNSIGNED)
    kind = kind[0] if isinstance(kind, tuple) else kind
    if image.mode == "L" and tags and kind == SIGNED:
        return np.asarray(image).view(np.int8)
    if not image.mode.startswith("I"):
        return None
    numbers = np.asarray(image)
    if image.mode == "I" and tags and kind == UNSIGNED:
        return numbers.view(np.uint32)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:  # Pillow turns those of 8 bits alone
        numbers = ~numbers
    return numbers.astype(numbers.dtype.newbyteorder("="))


def colour_numbers(high: Image.Image, low: Image.Image, raw: str) -> np.ndarray:
    """The numbers (H, W, 3) of deep colours, from the pictures of their high and low bytes."""
    low_bytes = np.asarray(low)
    if raw.startswith("LA"):
        low_bytes = np.repeat(low_bytes[..., 1:2], 3, axis=2)
    return np.asarray(high)[..., :3].astype(np.uint16) << 8 | low_bytes[..., :3]


def extremes_of(numbers: np.ndarray) -> tuple[int, int]:
    """The lowest and the highest number, without TAILS where these still differ."""
    low, high = (int(n) for n in np.percentile(numbers, TAILS, method="nearest"))
    return (low, high) if low < high else (int(numbers.min()), int(numbers.max()))
