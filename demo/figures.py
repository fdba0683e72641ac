"""All figures: people, trees, cars, dogs, posts, boxes, buildings. `FIGURES` draws each kind.

Lengths are pixels, times are seconds, angles are radians. Each draw_* function draws one Thing with
its feet at (x, foot_y).
"""

import math
from collections.abc import Callable
from random import Random

import numpy as np

from demo.canvas import HAIR, Canvas, Colour, Point, Thing, muted_colour, random_colour, shade

GREENS = (
    (40, 110, 40), (70, 130, 50), (110, 130, 40), (30, 80, 50), (170, 110, 40), (200, 140, 50),
)  # fmt: skip
SKIN = ((255, 219, 190), (236, 188, 150), (198, 134, 66), (141, 85, 36), (92, 58, 40), (60, 40, 30))
STRIDE_PER_HEIGHT = 0.9  # length of one full walking cycle, in body heights


def _along(start: Point, length: float, angle: float) -> Point:
    """The point at a length from the start; at angle 0 straight below it."""
    return start[0] + length * math.sin(angle), start[1] + length * math.cos(angle)


def _leg(canvas, hip: Point, length: float, swing: float, bend: float, ink: Colour, shoe: Colour):
    thigh = 0.52 * length
    knee = _along(hip, thigh, swing)
    ankle = _along(knee, length - thigh, swing - bend)
    canvas.limb("person", hip, knee, 0.19 * length, ink)
    canvas.limb("person", knee, ankle, 0.155 * length, ink)
    toe = (ankle[0] + 0.12 * length, ankle[1])
    canvas.limb("person", ankle, toe, 0.11 * length, shoe)


def _arm(canvas, shoulder: Point, length: float, swing: float, sleeve: Colour, skin: Colour):
    elbow = _along(shoulder, 0.5 * length, swing)
    hand = _along(elbow, 0.5 * length, swing + 0.4)
    canvas.limb("person", shoulder, elbow, 0.2 * length, sleeve)
    canvas.limb("person", elbow, hand, 0.16 * length, skin)


def draw_person(canvas: Canvas, thing: Thing, time: float) -> None:
    """A person in mid-step: legs, arms, torso or coat, head with hair, sometimes a hat or a bag."""
    rng = Random(thing.seed)
    skin, hair = rng.choice(SKIN), rng.choice(HAIR)
    shirt, trousers = random_colour(rng), random_colour(rng, 10, 200)
    shoe = random_colour(rng, 5, 120)
    facing_camera = rng.random() < 0.3
    stride = rng.uniform(0.25, 0.6) * (0.35 if facing_camera else 1.0)
    heading = -1 if (thing.speed or rng.uniform(-1, 1)) < 0 else 1
    h = thing.height
    x = thing.x + thing.speed * time
    phase = 2 * math.pi * (rng.random() + abs(thing.speed) * time / (STRIDE_PER_HEIGHT * h))
    build = rng.uniform(0.85, 1.25)
    swing = stride * math.sin(phase)
    bob = 0.01 * h * math.cos(2 * phase)

    def at(dx: float, up: float) -> Point:
        return x + heading * dx * h, thing.foot_y - up * h + bob

    apart = 0.05 * build if facing_camera else 0.0
    arm_gap = (0.12 if facing_camera else 0.03) * build
    sleeve = shirt if rng.random() < 0.6 else skin
    far = 0.8  # the limbs on the far side are darker
    lift = max(0.0, math.cos(phase)) * stride
    _arm(canvas, at(-arm_gap, 0.79), 0.36 * h, heading * swing * 1.1, shade(sleeve, far), skin)
    _leg(
        canvas, at(-apart, 0.49), 0.46 * h, heading * -swing,
        heading * (stride - lift), shade(trousers, far), shoe,
    )  # fmt: skip
    _leg(canvas, at(apart, 0.49), 0.46 * h, heading * swing, heading * lift, trousers, shoe)
    wide = (0.12 if facing_camera else 0.085) * build
    hem = 0.24 if rng.random() < 0.25 else 0.45  # a coat or a skirt, else a shirt
    flare = wide * (1.5 if hem < 0.4 else 1.0)
    canvas.polygon(
        "person", [at(-wide, 0.8), at(-wide * 0.6, 0.84), at(wide * 0.6, 0.84), at(wide, 0.8),
                   at(flare, hem), at(-flare, hem)], shirt,
    )  # fmt: skip
    if rng.random() < 0.3:
        canvas.ellipse("person", at(-wide - 0.03, 0.68), (0.07 * h, 0.12 * h), random_colour(rng))
    canvas.limb("person", at(0, 0.82), at(0.01, 0.87), 0.07 * h, skin)
    canvas.ellipse("person", at(-0.006, 0.925), (0.07 * h, 0.082 * h), hair)
    canvas.ellipse("person", at(0.012, 0.912), (0.055 * h, 0.066 * h), skin)
    if rng.random() < 0.25:
        canvas.ellipse("person", at(0.01, 0.965), (0.1 * h, 0.035 * h), random_colour(rng))
    _arm(canvas, at(arm_gap, 0.79), 0.36 * h, heading * -swing * 1.1, sleeve, skin)


def draw_tree(canvas: Canvas, thing: Thing, time: float) -> None:
    rng = Random(thing.seed)
    h, leaf = thing.height, rng.choice(GREENS)
    base, fork = (thing.x, thing.foot_y), (thing.x, thing.foot_y - 0.5 * h)
    width = rng.uniform(0.04, 0.1) * h
    canvas.limb("tree", base, fork, width, shade((110, 75, 45), rng.uniform(0.5, 1.3)))
    if rng.random() < 0.35:
        for level in range(3):
            y, half = thing.foot_y - (0.25 + 0.22 * level) * h, (0.26 - 0.06 * level) * h
            cone = [(thing.x - half, y), (thing.x, y - 0.34 * h), (thing.x + half, y)]
            canvas.polygon("tree", cone, shade(leaf, 0.8 + 0.12 * level))
        return
    for _ in range(9):
        centre = (thing.x + rng.uniform(-0.2, 0.2) * h, thing.foot_y - rng.uniform(0.5, 0.88) * h)
        radius = rng.uniform(0.09, 0.17) * h
        canvas.ellipse("tree", centre, (radius, radius), shade(leaf, rng.uniform(0.7, 1.3)))


def draw_bush(canvas: Canvas, thing: Thing, time: float) -> None:
    rng = Random(thing.seed)
    h, leaf = thing.height, rng.choice(GREENS)
    for _ in range(8):
        centre = (thing.x + rng.uniform(-0.25, 0.25) * h, thing.foot_y - rng.uniform(0.05, 0.3) * h)
        radius = rng.uniform(0.06, 0.14) * h
        canvas.ellipse("bush", centre, (radius, radius), shade(leaf, rng.uniform(0.6, 1.3)))


def draw_car(canvas: Canvas, thing: Thing, time: float) -> None:
    rng = Random(thing.seed)
    paint, glass = random_colour(rng), (60, 80, 95)
    h = thing.height * 0.75
    x = thing.x + thing.speed * time
    low, mid, top = thing.foot_y - 0.15 * h, thing.foot_y - 0.55 * h, thing.foot_y - 0.95 * h
    nose, tail = x - 1.25 * h, x + 1.25 * h
    body = [
        (nose, low), (nose, mid), (x - 0.7 * h, mid), (x - 0.4 * h, top),
        (x + 0.5 * h, top), (x + 0.85 * h, mid), (tail, mid), (tail, low),
    ]  # fmt: skip
    canvas.polygon("car", body, paint)
    window = [
        (x - 0.6 * h, mid), (x - 0.36 * h, top + 0.07 * h),
        (x + 0.45 * h, top + 0.07 * h), (x + 0.75 * h, mid),
    ]  # fmt: skip
    canvas.polygon("car", window, glass)
    for wheel in (-0.75, 0.75):
        for radius, ink in ((0.23, (25, 25, 28)), (0.12, (150, 150, 155))):
            centre = (x + wheel * h, thing.foot_y - 0.2 * h)
            canvas.ellipse("car", centre, (radius * h, radius * h), ink)


def draw_dog(canvas: Canvas, thing: Thing, time: float) -> None:
    rng = Random(thing.seed)
    coat = shade(rng.choice(HAIR), 1.2)
    h = thing.height * 0.4
    x = thing.x + thing.speed * time
    heading = -1 if thing.speed < 0 else 1
    phase = 2 * math.pi * (rng.random() + abs(thing.speed) * time / max(h, 1e-6))

    def at(dx: float, up: float) -> Point:
        return x + dx * heading * h, thing.foot_y - up * h

    for leg, offset in ((-0.45, 0.0), (-0.35, math.pi), (0.4, math.pi), (0.5, 0.0)):
        step = 0.18 * heading * math.sin(phase + offset)
        canvas.limb("dog", at(leg, 0.5), at(leg + step, 0), 0.13 * h, coat)
    canvas.ellipse("dog", at(0, 0.6), (0.62 * h, 0.25 * h), coat)
    canvas.limb("dog", at(-0.55, 0.7), at(-0.85, 1), 0.1 * h, coat)
    canvas.ellipse("dog", at(0.68, 0.9), (0.25 * h, 0.2 * h), coat)
    canvas.ellipse("dog", at(0.9, 0.85), (0.15 * h, 0.1 * h), shade(coat, 0.8))
    canvas.ellipse("dog", at(0.55, 0.95), (0.08 * h, 0.2 * h), shade(coat, 0.6))


def draw_post(canvas: Canvas, thing: Thing, time: float) -> None:
    """A lamp or a sign, as tall and thin as a person: shape alone must not tell them apart."""
    rng = Random(thing.seed)
    metal, h = shade((120, 120, 125), rng.uniform(0.3, 1.5)), thing.height * rng.uniform(0.8, 1.4)
    top = (thing.x, thing.foot_y - h)
    canvas.limb("post", (thing.x, thing.foot_y), top, rng.uniform(0.025, 0.07) * h, metal)
    plate, size = random_colour(rng), rng.uniform(0.07, 0.15) * h
    if rng.random() < 0.5:
        canvas.ellipse("post", top, (size, size), plate)
    else:
        canvas.box("post", top[0] - size, top[1] - size, top[0] + size, top[1] + size, plate)


def draw_box(canvas: Canvas, thing: Thing, time: float) -> None:
    """A crate, a bin or a bench."""
    rng = Random(thing.seed)
    ink, h = random_colour(rng), thing.height * rng.uniform(0.25, 0.7)
    half = h * rng.uniform(0.25, 0.8)
    left, right, top = thing.x - half, thing.x + half, thing.foot_y - h
    if rng.random() < 0.35:
        for x in (left, right):
            canvas.limb("box", (x, thing.foot_y), (x, top), 0.08 * h, shade(ink, 0.6))
        for y in (top, thing.foot_y - 0.5 * h):
            canvas.limb("box", (left, y), (right, y), 0.12 * h, ink)
        return
    canvas.box("box", left, top, right, thing.foot_y, ink)
    canvas.box("box", left, top, right, top + 0.15 * h, shade(ink, 1.3))
    for x in np.linspace(left, right, rng.randint(2, 5)):
        canvas.limb("box", (x, top), (x, thing.foot_y), 0.03 * h, shade(ink, 0.7))


def draw_ball(canvas: Canvas, thing: Thing, time: float) -> None:
    rng = Random(thing.seed)
    radius = thing.height * rng.uniform(0.07, 0.16)
    centre, ink = (thing.x, thing.foot_y - radius), random_colour(rng)
    canvas.ellipse("ball", centre, (radius, radius), ink)
    canvas.ellipse("ball", centre, (radius * 0.4, radius), shade(ink, 0.6), tilt=0.5)


def draw_building(canvas: Canvas, thing: Thing, time: float) -> None:
    rng = Random(thing.seed)
    wall, glass = muted_colour(rng, 60, 220), muted_colour(rng, 20, 120)
    half, top = thing.height * rng.uniform(0.3, 0.8), thing.foot_y - thing.height
    canvas.box("building", thing.x - half, top, thing.x + half, thing.foot_y, wall)
    columns, rows = rng.randint(2, 6), rng.randint(2, 6)
    for column in range(columns):
        for row in range(rows):
            x = thing.x - half + 2 * half * (column + 0.3) / columns
            y = top + thing.height * (row + 0.25) / rows
            right, bottom = x + 0.8 * half / columns, y + 0.5 * thing.height / rows
            canvas.box("building", x, y, right, bottom, glass)


FIGURES: dict[str, Callable[[Canvas, Thing, float], None]] = {
    "person": draw_person, "tree": draw_tree, "bush": draw_bush, "car": draw_car, "dog": draw_dog,
    "post": draw_post, "box": draw_box, "ball": draw_ball, "building": draw_building,
}  # fmt: skip
CLUTTER = ("tree", "bush", "car", "dog", "post", "box", "ball")
