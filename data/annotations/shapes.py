"""Shapes of one picture, and their drawing as a mask.

Two conventions for polygons are in use. Points with fractions are positions on the pixel grid,
pixel 0 covering 0 to 1: a pixel is inside if its centre is. Points that are all whole numbers are
pixels of the border, as OpenCV's findContours gives them: the border belongs to the shape.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from utils import InputError

LINE_WIDTH = 10  # pixels, of lines that are drawn as regions


@dataclass(frozen=True, eq=False)
class Shape:
    """A region with a label.

    ring: a polygon (n, 2) of x, y in pixels. border: its points are pixels of the border. width: of
    a line along it, which is open, in pixels; 0 fills. In place of a ring: runs, lengths of runs of
    pixels outside and inside in turn, down the columns of the picture, or with box (h, w) along the
    rows of that, whose first pixel is at x, y = corner; or path, a picture of the whole size, not 0
    inside, which is read when it is drawn.
    """

    label: str
    ring: np.ndarray | None = None
    border: bool = False
    width: int = 0
    runs: np.ndarray | None = None
    box: tuple[int, int] | None = None
    corner: tuple[int, int] = (0, 0)
    path: Path | None = None

    @cached_property
    def area(self) -> float:
        """Pixels, roughly: the order in which shapes are drawn."""
        if self.runs is not None:
            return self.runs[1::2].sum()
        return cv2.contourArea(self.ring.astype(np.float32))

    @property
    def content(self) -> list:
        """What is alike in two shapes that are drawn alike."""
        values = (getattr(self, each.name) for each in fields(self))
        return [value.tobytes() if isinstance(value, np.ndarray) else value for value in values]

    def load(self, size: tuple[int, int]) -> "Shape":
        """The shape with the runs of its path; ValueError if that is not of size (H, W)."""
        if self.path is None:
            return self
        try:
            with Image.open(self.path) as image:
                shape = from_bitmap(self.label, image)
        except Exception as error:  # damaged files raise errors of many kinds
            raise ValueError(f"in {self.path}: not a readable picture ({error})") from error
        if shape.box != size:
            (h, w), (height, width) = shape.box, size
            raise ValueError(f"in {self.path}: {w}x{h} pixels, the picture has {width}x{height}")
        return shape

    def draw(self, mask: np.ndarray, value: int) -> None:
        """Set the pixels of a mask (H, W) uint8 that are inside; ValueError if it lies beyond."""
        size, ring = mask.shape[::-1], self.ring
        outside = f"is outside the picture of {size[0]}x{size[1]} pixels"
        if self.runs is not None:
            if self.box is None:
                _set_runs(mask, self.runs, value)
                return
            bitmap, (x, y) = np.zeros(self.box, bool), self.corner
            _set_runs(bitmap.T, self.runs, True)
            inside = bitmap[max(0, -y) :, max(0, -x) :]  # a part may lie beyond the picture
            part = mask[max(0, y) :, max(0, x) :][: inside.shape[0], : inside.shape[1]]
            part[inside[: part.shape[0], : part.shape[1]]] = value
            return
        if (ring.max(axis=0) < 0).any() or (ring.min(axis=0) >= size).any():
            raise ValueError(f"at {ring[0, 0]:g}, {ring[0, 1]:g} {outside}")
        if self.width or self.border:
            limit = 4 * max(size)  # far beyond the picture; OpenCV draws 32-bit numbers
            points = [ring.round().clip(-limit, limit).astype(np.int32)]
            if self.width:
                cv2.polylines(mask, points, False, value, self.width)
            else:
                cv2.fillPoly(mask, points, value)
        else:
            low = np.floor(ring.min(axis=0)).clip(0, size).astype(int)
            high = np.ceil(ring.max(axis=0)).clip(0, size).astype(int)
            part = mask[low[1] : high[1], low[0] : high[0]]
            part[_fill(part.shape, ring - low)] = value


@dataclass(frozen=True, eq=False)
class Annotation:
    """What a mask file would hold: the shapes of a picture.

    file: where they were read. split: one of SPLIT_WORDS, or None. size: (H, W) that the file gives
    for the picture, or None. small_on_top: shapes are drawn by falling area, not in their order.
    values: {label: value to draw}; what no shape covers is 0.
    """

    image: Path
    file: Path
    split: str | None = None
    size: tuple[int, int] | None = None
    shapes: list[Shape] = field(default_factory=list)
    small_on_top: bool = False
    values: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return str(self.file)

    @property
    def content(self) -> list:
        """What is alike in two annotations that are drawn alike."""
        return [self.split, self.size, *(shape.content for shape in self.shapes)]

    def draw(self, size: tuple[int, int]) -> np.ndarray:
        """The mask (H, W) uint8; later shapes cover earlier ones.

        Raises InputError for a shape that cannot be drawn, or lies outside the picture.
        """
        mask = np.zeros(size, np.uint8)
        shapes: list[Shape] = []
        try:
            for shape in self.shapes:
                shapes.append(shape.load(size))
            if self.small_on_top:
                shapes.sort(key=lambda shape: -shape.area)
            for shape in shapes:
                shape.draw(mask, self.values[shape.label])
        except ValueError as error:
            raise InputError(f"{self.file}: {self.image.name}: a {shape.label} {error}") from error
        return mask


def from_bitmap(label: str, image: Image.Image, corner: tuple[int, int] = (0, 0)) -> Shape:
    """The pixels of a picture that are not 0; corner: x, y of its first pixel."""
    bitmap = np.array(image.convert("L")) > 0
    changes = np.flatnonzero(np.diff(bitmap.ravel(), prepend=False))
    runs = np.diff(changes, prepend=0, append=bitmap.size)
    return Shape(label, runs=runs, box=bitmap.shape, corner=corner)


def polygon(label: str, points: object, border: bool | None = None) -> Shape:
    """A filled ring of [x, y] pairs; raises ValueError unless it has three finite points.

    border: whether the points are border pixels; by default, if all are whole numbers.
    """
    ring = ring_of(points)
    return Shape(label, ring, bool((ring == ring.round()).all()) if border is None else border)


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


def line(label: str, points: Sequence) -> Shape:
    """A line of LINE_WIDTH along [x, y] pairs."""
    return Shape(label, ring_of([*points, points[-1]]), width=LINE_WIDTH)  # three points at least


def ellipse(
    label: str, centre: Sequence[float], radii: Sequence[float], angle: float = 0.0
) -> Shape:
    """An ellipse as a polygon of 64 points; angle: of its first radius, in radians clockwise."""
    turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    offsets = np.stack([np.cos(turn), np.sin(turn)], axis=1) * np.asarray(radii, np.float64)
    return _turned(label, np.asarray(centre, np.float64), offsets, angle)


def rectangle(label: str, corners: Sequence[float], angle: float = 0.0) -> Shape:
    """A rectangle x1, y1, x2, y2 on the pixel grid; angle: in radians, clockwise."""
    x1, y1, x2, y2 = np.asarray(corners, np.float64)
    centre = np.array([x1 + x2, y1 + y2]) / 2
    return _turned(
        label, centre, np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]]) - centre, angle
    )


def _turned(label: str, centre: np.ndarray, offsets: np.ndarray, angle: float) -> Shape:
    """A polygon of points at offsets (n, 2) from a centre, turned clockwise, as y points down."""
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return polygon(label, centre + offsets @ turn, border=False)


def _fill(size: tuple[int, int], ring: np.ndarray) -> np.ndarray:
    """(H, W) bool: the pixels whose centre lies inside a ring.

    Each edge flips all pixels to the right of where it crosses a row of centres.
    """
    height, width = size
    mask = np.zeros((height, width + 1), bool)
    start, end = ring, np.roll(ring, -1, axis=0)
    sides = np.sort([start[:, 1], end[:, 1]], axis=0)
    first, last = np.ceil(sides - 0.5).clip(0, height).astype(np.int64)  # row y's centre: y + 0.5
    counts = last - first
    edge = np.repeat(np.arange(len(ring)), counts)
    rows = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts - first, counts)
    slope = (end[edge, 0] - start[edge, 0]) / (end[edge, 1] - start[edge, 1])
    x = start[edge, 0] + (rows + 0.5 - start[edge, 1]) * slope
    columns = np.ceil(x - 0.5).clip(0, width).astype(np.int64)
    np.logical_xor.at(mask, (rows, columns), True)
    return np.logical_xor.accumulate(mask, axis=1)[:, :width]


def _set_runs(mask: np.ndarray, runs: np.ndarray, value: int) -> None:
    """Set the pixels (H, W) of runs down the columns, outside and inside in turn, to a value."""
    if runs.sum() != mask.size:
        raise ValueError(f"whose runs cover {runs.sum()} pixels, the picture has {mask.size}")
    height, runs = len(mask), runs.copy()
    left = runs[0] // height  # whole columns before the shape, and those behind it, cost nothing
    runs[0] -= left * height
    if len(runs) % 2:
        runs[-1] %= height
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(-1, height).T
    part = mask[:, left:][:, : inside.shape[1]]
    part[inside] = value
