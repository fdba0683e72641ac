"""People in mid-step. Lengths are pixels, times are seconds, angles are radians."""

import math
from random import Random

from demo.canvas import HAIR, Canvas, Colour, Point, Thing, random_colour, shade

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
