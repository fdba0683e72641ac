"""Shapes of one picture, and their drawing as a mask.

Two conventions for polygons are in use. Points with fractions are positions on the pixel grid,
pixel 0 covering 0 to 1: a pixel is inside if its centre is. Points that are all whole numbers are
pixels of the border, as OpenCV's findContours gives them: the border belongs to the shape.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from utils import InputError


@dataclass(frozen=True, eq=False)
class Shape:
    """A region with a label.

    rings: polygons (n, 2) of x, y in pixels; what an odd number of them encloses is inside.
    border: their points are pixels of the border. width: of the line along an open ring, in pixels;
    0 fills. runs, in place of rings: lengths of runs of pixels outside and inside in turn, down the
    columns. bitmap, in place of rings: (h, w) bool, whose first pixel is at x, y = corner.
    """

    label: str
    rings: tuple[np.ndarray, ...] = ()
    border: bool = False
    width: int = 0
    runs: np.ndarray | None = None
    bitmap: np.ndarray | None = None
    corner: tuple[int, int] = (0, 0)

    @cached_property
    def area(self) -> float:
        """Pixels, roughly: the order in which shapes are drawn."""
        if self.runs is not None:
            return self.runs[1::2].sum()
        if self.bitmap is not None:
            return self.bitmap.sum()
        return sum(cv2.contourArea(ring.astype(np.float32)) for ring in self.rings)

    def draw(self, mask: np.ndarray, value: int) -> None:
        """Set the pixels of a mask (H, W) uint8 that are inside to a value."""
        if self.runs is not None:
            mask[_mask_of_runs(self.runs, mask.shape) > 0] = value
        elif self.bitmap is not None:
            x, y = self.corner
            cut = self.bitmap[max(0, -y) :, max(0, -x) :]
            part = mask[max(0, y) :, max(0, x) :][: cut.shape[0], : cut.shape[1]]
            part[cut[: part.shape[0], : part.shape[1]]] = value
        elif self.width or self.border:
            limit = 4 * max(mask.shape)  # far beyond the picture; OpenCV draws 32-bit numbers
            points = [r.round().clip(-limit, limit).astype(np.int32) for r in self.rings]
            if self.width:
                cv2.polylines(mask, points, False, value, self.width)
            else:
                cv2.fillPoly(mask, points, value)
        else:
            points = np.concatenate(self.rings)
            low = np.floor(points.min(axis=0)).clip(0, mask.shape[::-1]).astype(int)
            high = np.ceil(points.max(axis=0)).clip(0, mask.shape[::-1]).astype(int)
            box = mask[low[1] : high[1], low[0] : high[0]]
            box[_fill(box.shape, [ring - low for ring in self.rings])] = value


@dataclass(frozen=True, eq=False)
class Annotation:
    """What a mask file would hold: the shapes of a picture, in the order of drawing.

    file: where they were read. split: one of SPLIT_WORDS, or None. size: (H, W) that the file gives
    for the picture, or None. values: {label: value to draw}; what no shape covers is 0.
    """

    image: Path
    file: Path
    split: str | None
    size: tuple[int, int] | None
    shapes: Sequence[Shape]
    values: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return str(self.file)

    @property
    def name(self) -> str:
        return self.file.name

    def draw(self, size: tuple[int, int]) -> np.ndarray:
        """The mask (H, W) uint8; later shapes cover earlier ones."""
        mask = np.zeros(size, np.uint8)
        for number, shape in enumerate(self.shapes, 1):
            try:
                shape.draw(mask, self.values[shape.label])
            except ValueError as error:
                raise InputError(f"{self.file}: shape {number} ({shape.label}): {error}") from error
        return mask


def polygon(label: str, points: object, border: bool | None = None) -> Shape:
    """A filled ring of [x, y] pairs; raises ValueError unless it has three finite points.

    border: whether the points are border pixels; by default, if all are whole numbers.
    """
    ring = ring_of(points)
    return Shape(label, (ring,), bool((ring == ring.round()).all()) if border is None else border)


def ring_of(points: object) -> np.ndarray:
    """(n, 2) float64 of [x, y] pairs or of a flat list; ValueError unless n >= 3 and all finite."""
    ring = np.asarray(points, np.float64)
    if ring.size % 2 or ring.ndim > 2:
        raise ValueError("its points are not pairs of numbers")
    ring = ring.reshape(-1, 2)
    if not np.isfinite(ring).all():
        raise ValueError("a point is not a finite number")
    if len(ring) < 3:
        raise ValueError(f"{len(ring)} points; a polygon has at least 3")
    return ring


def circle(label: str, centre: Sequence[float], radius: float) -> Shape:
    """A circle as a polygon of 64 points."""
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    offsets = radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return polygon(label, np.asarray(centre, np.float64) + offsets, border=False)


def is_outside(shape: Shape, size: tuple[int, int]) -> bool:
    """Whether no part of a shape's rings is in a picture of size (H, W)."""
    if not shape.rings:
        return False
    points = np.concatenate(shape.rings)
    low, high = points.min(axis=0), points.max(axis=0)
    return bool((high < 0).any() or (low >= np.array(size[::-1])).any())


def _fill(size: tuple[int, int], rings: Sequence[np.ndarray]) -> np.ndarray:
    """(H, W) bool: the pixels whose centre lies inside an odd number of rings.

    Each edge flips all pixels to the right of where it crosses a row of centres.
    """
    height, width = size
    mask = np.zeros(size, bool)
    for ring in rings:
        start, end = ring, np.roll(ring, -1, axis=0)
        low, high = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
        first = np.ceil(low - 0.5).clip(0, height).astype(np.int64)  # row y has its centre at y+0.5
        last = np.ceil(high - 0.5).clip(0, height).astype(np.int64)
        counts = last - first
        edge = np.repeat(np.arange(len(ring)), counts)
        rows = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts) + first[edge]
        slope = (end[edge, 0] - start[edge, 0]) / (end[edge, 1] - start[edge, 1])
        x = start[edge, 0] + (rows + 0.5 - start[edge, 1]) * slope
        columns = np.ceil(x - 0.5).clip(0, width).astype(np.int64)
        shown = columns < width
        np.logical_xor.at(mask, (rows[shown], columns[shown]), True)
    return np.logical_xor.accumulate(mask, axis=1)


def _mask_of_runs(runs: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    if runs.sum() != height * width:
        raise ValueError(f"its runs cover {runs.sum()} pixels, the picture has {height * width}")
    bits = np.repeat(np.arange(len(runs), dtype=np.uint8) & 1, runs)
    return bits.reshape(width, height).T
