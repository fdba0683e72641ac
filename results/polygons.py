"""Outlines of the classes in a map of class ids, as polygons on the pixel grid.

A point is a position: pixel 0 covers 0 to 1, so an outline runs between pixels, and drawing it by
"the pixel's centre is inside" gives the same pixels again. Parts of a class that touch at a corner
are one part. A hole is joined to its outline by a cut there and back, since few formats have holes.
"""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from data.labels.classes import count_pixels

# Of a step, by its y and x (-1 is the last entry): eighths of a turn, clockwise from east.
HEADINGS = np.array([[0, 0, 4], [2, 1, 3], [6, 7, 5]])
CORNERS = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])  # of a pixel, clockwise


def trace(
    labels: np.ndarray, ids: Iterable[int], simplify: float, min_area: int
) -> tuple[list[tuple[int, np.ndarray]], int]:
    """The connected parts of classes in labels (H, W) uint8, and how many of them are left out.

    A part is its class id and ring (n, 2) of x, y. simplify: pixels by which an outline may be off.
    min_area: in pixels; parts with fewer are left out, holes with fewer are filled.
    """
    parts, left_out, counts = [], 0, count_pixels(labels)
    mask = np.empty(labels.shape, np.uint8)  # one for all, since new memory takes time
    for class_id in (k for k in ids if counts[k]):
        np.equal(labels, class_id, out=mask.view(bool))
        borders, family = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        rings, parents = _outlines(borders), family.reshape(-1, 4)[:, 3]
        areas = [cv2.contourArea(ring, oriented=True) for ring in rings]  # below 0 of holes
        for outer in np.flatnonzero(parents < 0):
            whole = [outer, *np.flatnonzero(parents == outer)]
            if sum(areas[k] for k in whole) < min_area:
                left_out += 1
                continue
            kept = [rings[k] for k in whole if abs(areas[k]) >= min_area]
            parts.append((class_id, _joined(*(_simplified(ring, simplify) for ring in kept))))
    return parts, left_out


def _outlines(borders: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The rings (n, 2) around pixels on walks (m, 1, 2) that have the outside on their right."""
    pixels = np.concatenate(borders)[::-1, 0]  # now it is on their left
    lengths = np.array([len(border) for border in borders[::-1]])
    ends = np.cumsum(lengths)
    following = np.arange(1, len(pixels) + 1)
    following[ends - 1] = ends - lengths
    step = pixels[following] - pixels
    leaving = HEADINGS[step[:, 1], step[:, 0]]
    coming = np.empty_like(leaving)
    coming[following] = leaving
    turn = (leaving - coming + 3) % 8 - 3  # from -3, sharply left, to 4, back again
    turn[ends[lengths == 1] - 1] = 7  # around a pixel alone
    # A walk that comes with heading h is at corner h // 2, and leaves at (h + 3) // 2.
    bends = (coming + turn + 3) // 2 - coming // 2
    straight = (leaving % 2 == 0) & (bends > 0) & (bends[following] > 0)
    # The last corner of a straight side is left out, since the side goes on.
    which, place = np.nonzero(np.arange(4) < (bends - straight)[:, None])
    points = pixels[which] + CORNERS[(coming[which] // 2 + place + 1) % 4]
    return np.split(points, np.searchsorted(which, ends[:-1]))[::-1]


def _simplified(ring: np.ndarray, tolerance: float) -> np.ndarray:
    """The ring with fewer points; with all of them where no area would be left."""
    if not tolerance:  # OpenCV leaves out corners even then
        return ring
    fewer = cv2.approxPolyDP(ring[:, None], tolerance, True)[:, 0]
    return fewer if len(fewer) > 2 else ring


def _joined(ring: np.ndarray, *holes: np.ndarray) -> np.ndarray:
    """One ring of an outline and its holes, from left to right, by level cuts to their left."""
    for hole in sorted(holes, key=lambda hole: hole[:, 0].min()):
        hole = np.roll(hole, -hole[:, 0].argmin(), axis=0)
        (x, y), sides = hole[0], np.roll(ring, -1, axis=0) - ring
        rise = np.where(sides[:, 1] == 0, np.inf, sides[:, 1])
        share = ((y - ring[:, 1]) / rise).clip(0, 1)
        feet = ring + share[:, None] * sides  # of each side, the point nearest to the hole's level
        is_left = np.isclose(feet[:, 1], y) & (feet[:, 0] <= x)
        side = np.where(is_left, feet[:, 0], -np.inf).argmax()
        foot = feet[[side]]
        ring = np.concatenate([ring[: side + 1], foot, hole, hole[:1], foot, ring[side + 1 :]])
    return ring
