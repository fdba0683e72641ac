"""Outlines of the classes in a map of class ids, as polygons on the pixel grid.

A point is a position: pixel 0 covers 0 to 1, so an outline runs between pixels, and drawing it by
"the pixel's centre is inside" gives the same pixels again. Parts of a class that touch at a corner
are one part. A hole is joined to its outline by a cut there and back, since few formats have holes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

EAST, SOUTH, WEST, NORTH, NOWHERE = 0, 2, 4, 6, 8  # headings clockwise; odd ones are diagonal
HEADINGS = np.array([[5, 6, 7], [4, 8, 0], [3, 2, 1]])  # by the step's y + 1 and x + 1
# Where a walk with the outside on its right leaves each side of a pixel, from its top left corner.
LEAVES = {EAST: (1, 0), SOUTH: (1, 1), WEST: (0, 1), NORTH: (0, 0)}


def _corners(arrival: int, departure: int) -> list[tuple[int, int]]:
    """The corners that a border's outline passes at a pixel that it enters and leaves so."""
    if NOWHERE in (arrival, departure):  # the border is this pixel alone
        return [LEAVES[side] for side in (EAST, NORTH, WEST, SOUTH)]
    # What lies outside, turning from where the walk came from to where it goes.
    swept = [(arrival + 3 - k) % 8 for k in range((arrival + 3 - departure) % 8)]
    return [LEAVES[side] for side in swept if side in LEAVES]


COUNTS = np.array([[len(_corners(a, d)) for d in range(9)] for a in range(9)])
CORNERS = np.array(
    [[(_corners(a, d) + 4 * [(0, 0)])[:4] for d in range(9)] for a in range(9)], np.int32
)


@dataclass(frozen=True)
class Tracing:
    """simplify: pixels by which an outline may be off. min_area: of a part or hole, in pixels."""

    simplify: float = 1.0
    min_area: int = 16


class Part(NamedTuple):
    """A connected region of a class. ring: (n, 2) of x, y. area: in pixels."""

    class_id: int
    ring: np.ndarray
    area: int


def trace(labels: np.ndarray, ids: Iterable[int], tracing: Tracing) -> tuple[list[Part], int]:
    """The parts of the classes `ids` in labels (H, W) uint8, and how many were left out as small.

    A hole smaller than min_area is filled.
    """
    parts, left_out = [], 0
    for class_id in ids:
        mask = (labels == class_id).view(np.uint8)
        x, y, width, height = cv2.boundingRect(mask)
        if not width:
            continue
        borders, family = cv2.findContours(
            mask[y : y + height, x : x + width], cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE,
            offset=(x, y),
        )  # fmt: skip
        rings = _outlines([border.reshape(-1, 2) for border in borders])
        areas = [int(cv2.contourArea(ring)) for ring in rings]
        parents = family.reshape(-1, 4)[:, 3]
        for outer in np.flatnonzero(parents < 0):
            holes = np.flatnonzero(parents == outer)
            area = areas[outer] - sum(areas[hole] for hole in holes)
            if area < tracing.min_area:
                left_out += 1
                continue
            kept = [rings[hole] for hole in holes if areas[hole] >= tracing.min_area]
            simple = [_simplified(ring, tracing.simplify) for ring in (rings[outer], *kept)]
            parts.append(Part(class_id, _joined(*simple), area))
    return parts, left_out


def _outlines(borders: list[np.ndarray]) -> list[np.ndarray]:
    """Rings (n, 2) int32 around or within borders, which are chains of neighbouring pixels."""
    pixels = np.concatenate(borders)
    ends = np.cumsum([len(border) for border in borders])
    starts = np.concatenate([[0], ends[:-1]])
    following, before = np.arange(1, len(pixels) + 1), np.arange(-1, len(pixels) - 1)
    following[ends - 1], before[starts] = starts, ends - 1
    step = pixels[following] - pixels
    departure = HEADINGS[step[:, 1] + 1, step[:, 0] + 1]
    arrival = departure[before]
    counts = COUNTS[arrival, departure]
    last = np.cumsum(counts)
    which = np.repeat(np.arange(len(pixels)), counts)
    place = np.arange(last[-1]) - np.repeat(last - counts, counts)
    points = pixels[which] + CORNERS[arrival[which], departure[which], place]
    return np.split(points, last[ends[:-1] - 1])


def _simplified(ring: np.ndarray, tolerance: float) -> np.ndarray:
    """The ring with fewer points; with its corners where no area would be left."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    ring = ring[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]
    if not tolerance:  # OpenCV leaves out corners even then
        return ring
    fewer = cv2.approxPolyDP(ring[:, None], tolerance, True)[:, 0]
    return fewer if len(fewer) > 2 else ring


def _joined(ring: np.ndarray, *holes: np.ndarray) -> np.ndarray:
    """One ring of an outline and its holes, from left to right, by level cuts to their left."""
    ring = ring.astype(np.float64)
    for hole in sorted(holes, key=lambda hole: tuple(hole[:, 0].min(keepdims=True))):
        first = np.lexsort((hole[:, 1], hole[:, 0]))[0]
        (x, y), turned = hole[first], np.roll(hole, -first, axis=0)
        end = np.roll(ring, -1, axis=0)
        crossed = (np.minimum(ring, end)[:, 1] <= y) & (y < np.maximum(ring, end)[:, 1])
        with np.errstate(divide="ignore", invalid="ignore"):
            where = ring[:, 0] + (y - ring[:, 1]) * (end - ring)[:, 0] / (end - ring)[:, 1]
        where = np.where(crossed & (where <= x), where, -np.inf)
        edge = int(where.argmax())
        foot = [[where[edge], y]] if np.isfinite(where[edge]) else ring[edge : edge + 1]
        cut = [ring[: edge + 1], foot, turned, turned[:1], foot, ring[edge + 1 :]]
        ring = np.concatenate(cut)
    return ring[(ring != np.roll(ring, 1, axis=0)).any(axis=1)]
