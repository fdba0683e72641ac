"""The numbers in pictures of more than 8 bits, and the range that becomes black to white."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from utils import InputError

PHOTOMETRIC, SAMPLE_FORMAT = 262, 339  # tags of TIFF
WHITE_IS_ZERO, UNSIGNED, SIGNED = 0, 1, 2  # their values
DEPTHS = (8, 10, 12, 14, 16)  # bits of unsigned numbers, whose whole range is taken if half is used
TAILS = (0.1, 99.9)  # per cent: a few dead or hot pixels do not stretch the range of a picture
NARROW = 16  # a picture that uses less than this part of a range is nearly of one colour


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


def colour_numbers(path: Path, upright: bool) -> np.ndarray:
    """The numbers (H, W, 3) uint16 of a picture of deep colours, which Pillow cuts.

    upright: apply the EXIF orientation; that of a TIFF is always applied.
    """
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    flags |= 0 if upright else cv2.IMREAD_IGNORE_ORIENTATION
    colours = cv2.imdecode(np.fromfile(path, np.uint8), flags)
    if colours is None:
        raise InputError(f"{path}: OpenCV cannot read its colours of 16 bits; save it as PNG")
    return colours[..., ::-1]


def extremes_of(numbers: np.ndarray) -> tuple[int, int]:
    """The lowest and the highest number, without TAILS where these still differ."""
    low, high = (int(n) for n in np.percentile(numbers, TAILS, method="nearest"))
    return (low, high) if low < high else (int(numbers.min()), int(numbers.max()))
