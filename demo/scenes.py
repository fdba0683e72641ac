"""Street and park scenes drawn by code: people walking among trees, cars, dogs, posts and boxes.

A `Scene` is plain data made from a seed. `render` draws it at a moment in time, for pictures and
videos alike. Lengths are pixels, times are seconds.
"""

from dataclasses import dataclass
from random import Random

import cv2
import numpy as np

from demo.canvas import KINDS, Canvas, Thing, muted_colour, shade
from demo.figures import CLUTTER, FIGURES


@dataclass
class Scene:
    width: int
    height: int
    seed: int
    things: list[Thing]


def random_scene(
    seed: int, width: int, height: int, person_height: tuple[float, float], walking: bool = False
) -> Scene:
    """A scene with people and clutter, some cut by the frame; person_height: smallest, largest."""
    rng = Random(seed)
    low, high = person_height
    horizon = height * rng.uniform(0.25, 0.55)
    things = []
    for _ in range(rng.randint(0, 4)):
        size, x = rng.uniform(0.5, 1.6) * high, rng.uniform(0, width)
        things.append(Thing("building", x, horizon + 4, size, rng.getrandbits(32)))
    density = min(3.0, max(0.35, width * height / (2.2 * high * high)))
    people = 1 + round(rng.uniform(0.5, 3.5) * density)
    clutter = round(rng.uniform(1.0, 5.0) * density)
    kinds = ["person"] * people + rng.choices(CLUTTER, k=clutter)
    for kind in kinds:
        depth = rng.random()  # 0 far, 1 near
        size = low + (high - low) * depth
        foot_y = horizon + 0.2 * size + (height * 1.1 - horizon) * depth
        x = rng.uniform(-0.1, 1.1) * width
        moves = walking and kind in ("person", "dog", "car")
        speed = rng.choice((-1, 1)) * rng.uniform(0.35, 0.6) * size if moves else 0.0
        scale = rng.uniform(0.9, 1.1) * (rng.uniform(1.2, 2.2) if kind == "tree" else 1.0)
        things.append(Thing(kind, x, foot_y, size * scale, rng.getrandbits(32), speed))
    things.sort(key=lambda thing: (thing.kind != "building", thing.foot_y))  # near ones last
    return Scene(width, height, seed, things)


def _paint_backdrop(canvas: Canvas, rng: Random, horizon: int) -> None:
    """Sky or wall above, ground below, each a gradient, with stripes, tiles or blotches."""
    height, width = canvas.kinds.shape
    for kind, top, bottom in (("backdrop", 0, horizon), ("ground", horizon, height)):
        start, end = np.float32(muted_colour(rng, 40, 235)), np.float32(muted_colour(rng, 40, 235))
        ramp = np.linspace(0, rng.uniform(0.1, 0.6), max(bottom - top, 1), dtype=np.float32)
        rows = start + (end - start) * ramp[:, None]
        canvas.image[top:bottom] = rows[: bottom - top, None].astype(np.uint8)
        canvas.kinds[top:bottom] = KINDS.index(kind)
        ink = shade(tuple(int(c) for c in start), rng.uniform(0.75, 1.2))
        gap = rng.uniform(12, 60)
        if rng.random() < 0.35:  # stripes that meet at the horizon, or upright ones on a wall
            spread = 3.0 if kind == "ground" else 1.0
            for x in np.arange(-width * (spread - 1), width * spread, gap * spread):
                far = (x + (spread - 1) * width / 2) / spread
                canvas.limb(kind, (far, top), (x, bottom), 1.5, ink)
        if rng.random() < 0.35:
            for y in np.arange(top, bottom, gap):
                canvas.box(kind, 0, y, width, y + 1.5, ink)


def _blotches(generator: np.random.Generator, shape: tuple[int, int], cells: int) -> np.ndarray:
    """Smooth noise around 0, (H, W, 3) float32."""
    coarse = generator.standard_normal((cells, cells, 3)).astype(np.float32)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)


def _light(image: np.ndarray, rng: Random, grain_seed: int) -> np.ndarray:
    """Uneven light, colour cast, blur and sensor noise; (H, W, 3) uint8 in and out."""
    generator = np.random.default_rng(rng.getrandbits(32))
    shape = image.shape[:2]
    field_of_light = 1 + rng.uniform(0, 0.15) * _blotches(generator, shape, 4)[..., :1]
    left, right = rng.uniform(0.6, 1.1), rng.uniform(0.6, 1.1)
    field_of_light *= np.linspace(left, right, shape[1], dtype=np.float32)[:, None]
    cast = np.float32([rng.uniform(0.85, 1.15) for _ in range(3)])
    lit = image * (field_of_light * cast) + rng.uniform(0, 7) * _blotches(generator, shape, 24)
    if rng.random() < 0.4:
        lit = cv2.GaussianBlur(lit, (3, 3), rng.uniform(0.3, 1.0))
    grain = np.random.default_rng(grain_seed).standard_normal(shape, dtype=np.float32)
    return np.clip(lit + rng.uniform(0, 9) * grain[..., None], 0, 255).astype(np.uint8)


def render(scene: Scene, time: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """The scene at that time: RGB image (H, W, 3) uint8 and kinds (H, W) uint8."""
    rng = Random(scene.seed + 1)
    canvas = Canvas(scene.width, scene.height)
    horizon = int(scene.height * Random(scene.seed).uniform(0.25, 0.55))
    _paint_backdrop(canvas, rng, horizon)
    for thing in scene.things:
        _cast_shadow(canvas.image, thing, time)
        FIGURES[thing.kind](canvas, thing, time)
    return _light(canvas.image, rng, scene.seed + round(time * 1000)), canvas.kinds


def _cast_shadow(image: np.ndarray, thing: Thing, time: float) -> None:
    if thing.kind == "building":
        return
    x, y = int(thing.x + thing.speed * time), int(thing.foot_y)
    a, b = int(0.25 * thing.height) + 1, int(0.035 * thing.height) + 1
    top, bottom = max(y - b, 0), min(y + b + 1, image.shape[0])
    left, right = max(x - a, 0), min(x + a + 1, image.shape[1])
    if top >= bottom or left >= right:
        return
    patch = image[top:bottom, left:right]
    light = np.ones(patch.shape[:2], np.float32)
    cv2.ellipse(light, (x - left, y - top), (a, b), 0, 0, 360, 0.6, -1)
    patch[:] = (patch * light[..., None]).astype(np.uint8)
