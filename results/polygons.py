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

# Of a step, by its y and x (-1 is the last entry): eighths of a turn, clockwise from east.
HEADINGS = np.array([[0, 0, 4], [2, 1, 3], [6, 7, 5]])
CORNERS = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])  # of a pixel, clockwise


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
        rings = [_outline(border[::-1, 0]) for border in borders]
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


def _outline(border: np.ndarray) -> np.ndarray:
    """The ring (n, 2) around pixels on a walk that has the outside on its left."""
    if len(border) == 1:
        return border + CORNERS
    step = np.roll(border, -1, axis=0) - border
    leaving = HEADINGS[step[:, 1], step[:, 0]]
    coming = np.roll(leaving, 1)
    turn = (leaving - coming + 3) % 8 - 3  # from -3, sharply left, to 4, back again
    bends = (turn != 0) | (leaving % 2 == 1)  # the others are on a straight side
    border, coming, turn = border[bends], coming[bends], turn[bends]
    # A walk that comes with heading h is at corner h // 2, and leaves at (h + 3) // 2.
    passed = (coming + turn + 3) // 2 - coming // 2
    corners = coming // 2 + np.minimum([[1], [2], [3], [4]], passed)
    ring = (border + CORNERS[corners % 4]).swapaxes(0, 1).reshape(-1, 2)
    return ring[(ring != np.roll(ring, 1, axis=0)).any(axis=1)]


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
    for hole in sorted(holes, key=lambda hole: hole[:, 0].min()):
        turned = np.roll(hole, -hole[:, 0].argmin(), axis=0)
        x, y = turned[0]
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
