"""Sharpen probabilities along the edges of the picture, without training: `--refine`.

A guided filter (He et al. 2013, Guided Image Filtering, TPAMI 35(6)): around each pixel, a class's
probability is fitted as a linear function of the colours, so it changes where the picture does.
The fits are made on a grid of half the picture's size and interpolated, which is several times
faster (He and Sun 2015, Fast Guided Filter, arXiv 1505.00996).
"""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from inference.windows import ViewLogits, mean_scores

RADIUS = 1 / 50  # of the picture's shorter side: about half a patch at 448 pixels
EPS = 1e-3  # colours, 0..1, that vary less than its square root are even
MIN_PROBABILITY = 0.05  # most of many classes are nowhere more probable
MAX_SCORES = 2**24  # classes x pixels that are filtered at a time; 64 MB


def refined_strips(
    view_logits: Sequence[ViewLogits], image: np.ndarray
) -> Iterator[tuple[slice, Tensor]]:
    """Yield (rows, probabilities (K, rows, W)) of one picture, as windows.row_strips does.

    image: RGB (H, W, 3) uint8.
    """
    height, width = image.shape[:2]
    radius = max(1, round(RADIUS / 2 * min(height, width)))
    halo = 2 * (2 * radius + 2)  # rows that the two means and the interpolation reach
    step = max(halo, MAX_SCORES // (len(view_logits[0].any_grid) * width) // 2)
    for top in range(0, height, 2 * step):  # even, as the rows of the half grid
        bottom = min(top + 2 * step, height)
        first, last = max(0, top - halo), min(bottom + halo, height)
        scores = mean_scores(view_logits, first, last, as_probabilities=True).cpu().numpy()
        refined = refine(scores, image[first:last], radius)
        yield slice(top, bottom), torch.from_numpy(refined[:, top - first : bottom - first])


def refine(probabilities: np.ndarray, image: np.ndarray, radius: int) -> np.ndarray:
    """Probabilities (K, H, W) float32, filtered along the edges of image (H, W, 3) uint8.

    radius: of the squares that are fitted, in cells of 2 x 2 pixels. Classes below
    MIN_PROBABILITY everywhere stay as they are, but for the sum of 1.
    """
    guide = _Guide(image, radius)
    if len(probabilities) == 2:
        second = guide.filter(probabilities[1]).clip(0, 1)
        return np.stack([1 - second, second])
    refined = probabilities.copy()
    for index in np.flatnonzero(probabilities.max(axis=(1, 2)) >= MIN_PROBABILITY):
        refined[index] = guide.filter(probabilities[index]).clip(0, 1)
    return refined / refined.sum(axis=0).clip(min=1e-6)


class _Guide:
    """What the filter needs to know of a picture, for all classes."""

    def __init__(self, image: np.ndarray, radius: int):
        self.side = 2 * radius + 1
        full = image.astype(np.float32) / 255
        self.colours_and_one = cv2.merge((*cv2.split(full), np.ones_like(full[..., 0])))
        self.colours = _halved(full)
        self.mean = self._box(self.colours)
        r, g, b = np.moveaxis(self.colours, -1, 0)
        products = [
            self._box(cv2.merge(part)) for part in ((r * r, g * g, b * b), (r * g, g * b, b * r))
        ]
        squares = products[0] - self.mean**2 + np.float32(EPS)
        mixed = products[1] - self.mean * np.roll(self.mean, -1, axis=-1)
        rr, gg, bb = np.moveaxis(squares, -1, 0)
        rg, gb, br = np.moveaxis(mixed, -1, 0)
        # The inverse of the symmetric 3 x 3 covariance at each pixel: cofactors by the determinant.
        cofactors = (
            gg * bb - gb * gb, rr * bb - br * br, rr * gg - rg * rg,
            br * gb - rg * bb, br * rg - rr * gb, rg * gb - gg * br,
        )  # fmt: skip
        determinant = rr * cofactors[0] + rg * cofactors[3] + br * cofactors[5]
        self.inverse = [cofactor / determinant for cofactor in cofactors]

    def filter(self, values: np.ndarray) -> np.ndarray:
        """(H, W) float32 -> (H, W)."""
        height, width = values.shape
        values = _halved(values)
        mean = self._box(values)
        covariance = self._box(self.colours * values[..., None]) - self.mean * mean[..., None]
        r, g, b = cv2.split(covariance)
        rr, gg, bb, rg, gb, br = self.inverse
        slopes = rr * r + rg * g + br * b, rg * r + gg * g + gb * b, br * r + gb * g + bb * b
        offset = mean - _sum_of_channels(cv2.merge(slopes) * self.mean)
        fits = cv2.resize(self._box(cv2.merge((*slopes, offset))), None, fx=2, fy=2)
        return _sum_of_channels(fits[:height, :width] * self.colours_and_one)

    def _box(self, values: np.ndarray) -> np.ndarray:
        """Means over squares."""
        return cv2.blur(values, (self.side, self.side))


def _halved(values: np.ndarray) -> np.ndarray:
    """(H, W[, C]) -> means of 2 x 2 pixels; the last row and column of an odd size are repeated."""
    height, width = values.shape[:2]
    even = cv2.copyMakeBorder(values, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return cv2.resize(even, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def _sum_of_channels(values: np.ndarray) -> np.ndarray:
    """(H, W, C) float32 -> (H, W); numpy's sum over a short last axis is several times slower."""
    return cv2.transform(values, np.ones((1, values.shape[-1]), np.float32))
