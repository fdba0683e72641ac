"""Shapes of one picture, and their drawing as a mask.

Two conventions for polygons are in use. Points with fractions are positions on the pixel grid,
pixel 0 covering 0 to 1: a pixel is inside if its centre is. Points that are all whole numbers are
pixels of the border, as OpenCV's findContours gives them: the border belongs to the shape.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
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

    rings: polygons (n, 2) of x, y in pixels; what an odd number of them encloses is inside.
    border: their points are pixels of the border. width: of the line along an open ring, in pixels;
    0 fills. In place of rings: runs, lengths of runs of pixels outside and inside in turn, down the
    columns of the picture, or with box (h, w) along the rows of that; bitmap (h, w) bool; or path,
    a picture of the whole size, not 0 inside, which is read when it is drawn. The first pixel of
    box and bitmap is at x, y = corner.
    """

    label: str
    rings: tuple[np.ndarray, ...] = ()
    border: bool = False
    width: int = 0
    runs: np.ndarray | None = None
    box: tuple[int, int] | None = None
    bitmap: np.ndarray | None = None
    corner: tuple[int, int] = (0, 0)
    path: Path | None = None

    @cached_property
    def area(self) -> float:
        """Pixels, roughly: the order in which shapes are drawn."""
        if self.runs is not None:
            return self.runs[1::2].sum()
        if self.bitmap is not None:
            return self.bitmap.sum()
        return sum(cv2.contourArea(ring.astype(np.float32)) for ring in self.rings)

    @property
    def content(self) -> list:
        """What is alike in two shapes that are drawn alike."""
        values = [*self.rings, *(getattr(self, f.name) for f in fields(self) if f.name != "rings")]
        return [(v.shape, v.tobytes()) if isinstance(v, np.ndarray) else v for v in values]

    def load(self, size: tuple[int, int]) -> "Shape":
        """The shape with the bitmap of its path; ValueError if that is not of size (H, W)."""
        if self.path is None:
            return self
        try:
            with Image.open(self.path) as image:
                bitmap = np.array(image.convert("L")) > 0
        except Exception as error:  # damaged files raise errors of many kinds
            raise ValueError(f"in {self.path}: not a readable picture ({error})") from error
        if bitmap.shape != size:
            (h, w), (height, width) = bitmap.shape, size
            raise ValueError(f"in {self.path}: {w}x{h} pixels, the picture has {width}x{height}")
        return replace(self, bitmap=bitmap)

    def draw(self, mask: np.ndarray, value: int) -> None:
        """Set the pixels of a mask (H, W) uint8 that are inside; ValueError if it lies beyond."""
        if self.rings:
            points = np.concatenate(self.rings)
            if (points.max(axis=0) < 0).any() or (points.min(axis=0) >= mask.shape[::-1]).any():
                (height, width), place = mask.shape, ", ".join(f"{n:g}" for n in points[0])
                raise ValueError(f"at {place} is outside the picture of {width}x{height} pixels")
        if self.box is not None:
            bitmap = np.zeros(self.box, bool)
            _set_runs(bitmap.T, self.runs, True)
            self._draw_bitmap(mask, bitmap, value)
        elif self.runs is not None:
            _set_runs(mask, self.runs, value)
        elif self.bitmap is not None:
            self._draw_bitmap(mask, self.bitmap, value)
        elif self.width or self.border:
            limit = 4 * max(mask.shape)  # far beyond the picture; OpenCV draws 32-bit numbers
            points = [r.round().clip(-limit, limit).astype(np.int32) for r in self.rings]
            if self.width:
                cv2.polylines(mask, points, False, value, self.width)
            else:
                cv2.fillPoly(mask, points, value)
        else:
            low = np.floor(points.min(axis=0)).clip(0, mask.shape[::-1]).astype(int)
            high = np.ceil(points.max(axis=0)).clip(0, mask.shape[::-1]).astype(int)
            box = mask[low[1] : high[1], low[0] : high[0]]
            box[_fill(box.shape, [ring - low for ring in self.rings])] = value

    def _draw_bitmap(self, mask: np.ndarray, bitmap: np.ndarray, value: int) -> None:
        x, y = self.corner
        cut = bitmap[max(0, -y) :, max(0, -x) :]
        part = mask[max(0, y) :, max(0, x) :][: cut.shape[0], : cut.shape[1]]
        part[cut[: part.shape[0], : part.shape[1]]] = value


@dataclass(frozen=True, eq=False)
class Annotation:
    """What a mask file would hold: the shapes of a picture.

    file: where they were read. split: one of SPLIT_WORDS, or None. size: (H, W) that the file gives
    for the picture, or None. small_on_top: shapes are drawn by falling area, not in their order.
    values: {label: value to draw}; what no shape covers is 0.
    """

    image: Path
    file: Path
    split: str | None
    size: tuple[int, int] | None
    shapes: Sequence[Shape]
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


def line(label: str, points: Sequence) -> Shape:
    """A line of LINE_WIDTH along [x, y] pairs."""
    ring = ring_of([*points, points[-1]])  # three points at least
    return Shape(label, (ring,), width=LINE_WIDTH)


def ellipse(
    label: str, centre: Sequence[float], radii: Sequence[float], angle: float = 0.0
) -> Shape:
    """An ellipse as a polygon of 64 points; angle: of its first radius, in radians clockwise."""
    turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    offsets = np.stack([np.cos(turn), np.sin(turn)], axis=1) * np.asarray(radii, np.float64)
    return polygon(label, np.asarray(centre, np.float64) + offsets @ _rotation(angle), border=False)


def rectangle(label: str, corners: Sequence[float], angle: float = 0.0) -> Shape:
    """A rectangle x1, y1, x2, y2 on the pixel grid; angle: in radians, clockwise."""
    low, high = np.reshape(np.asarray(corners, np.float64), (2, 2))
    ring = np.array([low, [high[0], low[1]], high, [low[0], high[1]]])
    centre = (low + high) / 2
    return polygon(label, centre + (ring - centre) @ _rotation(angle), border=False)


def _rotation(angle: float) -> np.ndarray:
    """What turns rows of x, y clockwise, as y points down."""
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


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


def _set_runs(mask: np.ndarray, runs: np.ndarray, value: int) -> None:
    """Set the pixels (H, W) of runs down the columns, outside and inside in turn, to a value."""
    if runs.sum() != mask.size:
        raise ValueError(f"whose runs cover {runs.sum()} pixels, the picture has {mask.size}")
    height, ends = len(mask), runs.cumsum()
    inside = 2 * np.flatnonzero(runs[1::2]) + 1
    for start, end in zip(ends[inside - 1].tolist(), ends[inside].tolist(), strict=True):
        (left, top), (right, bottom) = divmod(start, height), divmod(end, height)
        if left == right:
            mask[top:bottom, left] = value
        else:
            mask[top:, left] = value
            mask[:, left + 1 : right] = value
            mask[:bottom, right : right + 1] = value
