"""A picture and its labels, drawn shape by shape; the figures of a scene as data, their colours.

Lengths are pixels, times are seconds, angles are radians.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import cv2
import numpy as np

KINDS = (
    "backdrop", "person", "ground", "building", "tree", "bush", "car", "dog", "post", "box", "ball",
)  # fmt: skip
HAIR = ((20, 15, 12), (60, 40, 25), (120, 80, 40), (200, 170, 90), (150, 150, 150), (150, 60, 30))

Colour = tuple[int, int, int]
Point = tuple[float, float]


@dataclass
class Thing:
    """One figure that stands at (x, foot_y); its colours and shape follow from `seed`."""

    kind: str
    x: float
    foot_y: float
    height: float
    seed: int
    speed: float = 0.0  # pixels per second, negative to the left


class Canvas:
    """Draws each shape twice: antialiased in colour into `image`, and as its kind into `kinds`."""

    SHIFT = 4  # fixed point of cv2: coordinates in sixteenths of a pixel

    def __init__(self, width: int, height: int):
        self.image = np.zeros((height, width, 3), np.uint8)
        self.kinds = np.zeros((height, width), np.uint8)

    def _fixed(self, points: Sequence[Point]) -> np.ndarray:
        return np.round(np.float64(points) * 2**self.SHIFT).astype(np.int32)

    def polygon(self, kind: str, points: Sequence[Point], colour: Colour) -> None:
        corners = [self._fixed(points)]
        cv2.fillPoly(self.image, corners, colour, cv2.LINE_AA, self.SHIFT)
        cv2.fillPoly(self.kinds, corners, KINDS.index(kind), cv2.LINE_8, self.SHIFT)

    def box(self, kind: str, left: float, top: float, right: float, bottom: float, colour: Colour):
        self.polygon(kind, [(left, top), (right, top), (right, bottom), (left, bottom)], colour)

    def ellipse(self, kind: str, centre: Point, axes: Point, colour: Colour, tilt: float = 0):
        outline = (*self._fixed([centre, axes]).tolist(), math.degrees(tilt), 0, 360)
        cv2.ellipse(self.image, *outline, colour, -1, cv2.LINE_AA, self.SHIFT)
        cv2.ellipse(self.kinds, *outline, KINDS.index(kind), -1, cv2.LINE_8, self.SHIFT)

    def limb(self, kind: str, start: Point, end: Point, thickness: float, colour: Colour) -> None:
        """A bar with round ends."""
        start, end, half = np.array(start), np.array(end), thickness / 2
        dx, dy = end - start
        normal = np.array([-dy, dx]) / max(math.hypot(dx, dy), 1e-6) * half
        self.polygon(kind, [start + normal, end + normal, end - normal, start - normal], colour)
        for joint in (start, end):
            self.ellipse(kind, joint, (half, half), colour)


def random_colour(rng: Random, low: int = 10, high: int = 245) -> Colour:
    return rng.randint(low, high), rng.randint(low, high), rng.randint(low, high)


def shade(colour: Colour, factor: float) -> Colour:
    return tuple(min(255, int(channel * factor)) for channel in colour)


def muted_colour(rng: Random, low: int, high: int) -> Colour:
    """The colour of a surface: mostly near grey, sometimes saturated."""
    colour, grey = random_colour(rng, low, high), rng.randint(low, high)
    share = rng.choice((0.2, 0.35, 0.5, 1.0))
    return tuple(int(grey + (channel - grey) * share) for channel in colour)
