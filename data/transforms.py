"""Pictures to network input: one way for training, validation and inference."""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from config import DINOV2_INPUT, IGNORE_INDEX, InputFormat


@dataclass(frozen=True)
class Resize:
    """How pictures come to the network's size: stretched to it, or whole in the middle of it.

    image_size: (H, W) of the input. keep_ratio: keep the picture's proportions and pad.
    input_format: what the backbone expects.
    """

    image_size: tuple[int, int]
    keep_ratio: bool = False
    input_format: InputFormat = DINOV2_INPUT

    def content_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(h, w) that a picture of `size` (H, W) takes up in the input."""
        if not self.keep_ratio:
            return self.image_size
        scale = min(n / m for n, m in zip(self.image_size, size, strict=True))
        return tuple(
            min(max(1, round(scale * m)), n) for n, m in zip(self.image_size, size, strict=True)
        )

    def padding(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """(top, bottom, left, right) pixels around the content of a picture of `size` (H, W)."""
        sides = zip(self.image_size, self.content_size(size), strict=True)
        patch = self.input_format.patch_size
        (top, bottom), (left, right) = (_centred(n, m, patch) for n, m in sides)
        return top, bottom, left, right


def _centred(length: int, content: int, patch_size: int) -> tuple[int, int]:
    """Pixels before and after the content.

    The model pads to whole patches; counted from its padded border the content lies in the middle,
    which is where `resampling.upsample` looks for it.
    """
    padded = -(-length // patch_size) * patch_size
    before = (padded - content) // 2 - (padded - length) // 2
    return before, length - content - before


def mean_colour(input_format: InputFormat) -> tuple[int, ...]:
    """RGB 0..255 that is zero once normalised, but for rounding."""
    return tuple(round(255 * channel) for channel in input_format.mean)


def to_tensor(image: np.ndarray, input_format: InputFormat) -> Tensor:
    """RGB (H, W, 3) uint8 -> normalised (3, H, W) float32."""
    mean, std = _mean_and_std(input_format)
    tables = ((np.arange(256, dtype=np.float32)[:, None] - mean) / std).T.copy()  # (3, 256)
    normalised = np.empty((3, *image.shape[:2]), np.float32)
    for channel, table, plane in zip(cv2.split(image), tables, normalised, strict=True):
        cv2.LUT(channel, table, plane)  # several times faster than arithmetic on each pixel
    return torch.from_numpy(normalised)


def to_image(tensor: Tensor, input_format: InputFormat) -> np.ndarray:
    """The inverse of to_tensor."""
    mean, std = _mean_and_std(input_format)
    pixels = tensor.cpu().numpy().transpose(1, 2, 0) * std + mean
    return pixels.round().clip(0, 255).astype(np.uint8)


def _mean_and_std(input_format: InputFormat) -> tuple[np.ndarray, np.ndarray]:
    """(3,) each, for RGB 0..255."""
    return 255 * np.float32(input_format.mean), 255 * np.float32(input_format.std)


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """RGB (H, W, 3) uint8 -> (*size, 3)."""
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)


def resize_target(target: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Class ids (H, W) -> size; ids are picked, never mixed."""
    # NEAREST_EXACT samples at pixel centres, as the picture's INTER_LINEAR does.
    return cv2.resize(target, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def pad(
    pixels: np.ndarray,
    padding: tuple[int, int, int, int],
    colour: int | tuple[int, ...] = IGNORE_INDEX,
) -> np.ndarray:
    """A colour around RGB (H, W, 3), or ignored pixels around class ids (H, W), both uint8.

    padding: (top, bottom, left, right) pixels.
    """
    return cv2.copyMakeBorder(pixels, *padding, cv2.BORDER_CONSTANT, value=colour)


class Window(NamedTuple):
    """A part of a picture at its own resolution, which may reach beyond it.

    skip_top, skip_left: rows and columns that another window counts already.
    """

    top: int
    left: int
    height: int
    width: int
    skip_top: int = 0
    skip_left: int = 0

    def cut(self, pixels: np.ndarray, colour: int | tuple[int, ...] = IGNORE_INDEX) -> np.ndarray:
        """(height, width) of RGB (H, W, 3) or class ids (H, W), padded where it reaches beyond."""
        part = pixels[self.top : self.top + self.height, self.left : self.left + self.width]
        height, width = part.shape[:2]
        return pad(part, (0, self.height - height, 0, self.width - width), colour)

    def of_target(self, target: np.ndarray) -> np.ndarray:
        """(height, width) of class ids (H, W) uint8; what is skipped or beyond is ignored."""
        part = self.cut(target)
        part[: self.skip_top] = IGNORE_INDEX
        part[:, : self.skip_left] = IGNORE_INDEX
        return part


def tile_windows(size: tuple[int, int], tile: tuple[int, int]) -> list[Window]:
    """Windows of one size (H, W) that count each pixel of a picture of `size` once."""
    rows, columns = (_tile_starts(n, m) for n, m in zip(size, tile, strict=True))
    return [
        Window(top, left, *tile, skip_top, skip_left)
        for top, skip_top in rows
        for left, skip_left in columns
    ]


def _tile_starts(length: int, tile: int) -> list[tuple[int, int]]:
    """(start, pixels counted by the tile before); the last tile is moved back inside."""
    starts = range(0, length, tile)
    return [(max(0, min(n, length - tile)), n - max(0, min(n, length - tile))) for n in starts]


def fit_image(image: np.ndarray, resize: Resize) -> np.ndarray:
    """RGB (H, W, 3) uint8 of any size -> the network's size."""
    size = image.shape[:2]
    content = resize_image(image, resize.content_size(size))
    return pad(content, resize.padding(size), mean_colour(resize.input_format))


def fit_target(target: np.ndarray, resize: Resize) -> np.ndarray:
    """Class ids (H, W) uint8 -> those of the fitted picture, 255 in its padding."""
    size = target.shape
    return pad(resize_target(target, resize.content_size(size)), resize.padding(size))


def eval_transform(image: np.ndarray, resize: Resize) -> Tensor:
    """RGB (H, W, 3) uint8 -> (3, *resize.image_size) float32."""
    return to_tensor(fit_image(image, resize), resize.input_format)
