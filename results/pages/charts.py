"""Numbers as drawings: curves over epochs, shares over the time of a film, picture sizes.

Each function returns what a template takes. A tick at an axis is (place, label).
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

WIDTH, HEIGHT = 360, 190  # units of a curve's drawing
LEFT, TOP, BOTTOM = 54, 10, 24  # margins, for the numbers at the axes
DASH = 6  # half the length of a line of one point
STEPS = (1, 2, 2.5, 5, 10)  # between two numbers at an axis, times a power of ten
SIZE_LENGTH, SIZE_DOTS = 200, 500


def line_chart(
    title: str, axis: str, xs: Sequence[float], lines: Mapping[str, Sequence[float]]
) -> dict:
    """Lines over the same xs, the last of which is to be their end; NaN is left out.

    Of what is returned, lines: (name, points of an SVG polyline); script: what the page's script
    shows of a place.
    """
    every = [value for values in lines.values() for value in values if math.isfinite(value)]
    ticks = _round_numbers(min(every, default=0), max(every, default=1))
    low, high = ticks[0], ticks[-1]
    first, last = xs[0], xs[-1]

    def x_place(x: float) -> float:
        return round(LEFT + 8 + (WIDTH - LEFT - 20) * (x - first) / ((last - first) or 1), 1)

    def y_place(y: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (y - low) / (high - low), 1)

    drawn = []
    for name, values in lines.items():
        known = [
            (x_place(x), y_place(y)) for x, y in zip(xs, values, strict=True) if math.isfinite(y)
        ]
        if len(known) == 1:  # a dash, since a polyline of one point is invisible
            ((x, y),) = known
            known = [(x - DASH, y), (x + DASH, y)]
        drawn.append((name, " ".join(f"{x},{y}" for x, y in known)))
    shown = {
        name: [_label(y) if math.isfinite(y) else None for y in values]
        for name, values in lines.items()
    }
    ends = ", ".join(f"{name} {values[-1]}" for name, values in shown.items())
    places = np.unique(np.linspace(0, len(xs) - 1, min(len(xs), 6)).round().astype(int))
    return {
        "title": title,
        "summary": f"{axis} {first:g} to {last:g}, at the end {ends}",
        "lines": drawn,
        "x_ticks": [(x_place(xs[i]), f"{xs[i]:g}") for i in places],
        "y_ticks": [(y_place(y), f"{y:.4g}") for y in ticks],
        "script": {
            "axis": axis,
            "x": [x_place(x) for x in xs],
            "labels": [f"{x:g}" for x in xs],
            "lines": list(shown.items()),
        },
        "size": (WIDTH, HEIGHT, LEFT),
    }


def _label(value: float) -> str:
    return f"{value:.4f}" if 1e-3 <= abs(value) < 100 or value == 0 else f"{value:.3g}"


def _round_numbers(low: float, high: float) -> list[float]:
    """Three to seven round numbers, evenly spaced, from at most `low` to at least `high`."""
    span = (high - low) or abs(high) or 1.0
    size = 10 ** math.floor(math.log10(span / 4))
    step = next(size * step for step in STEPS if size * step * 4 >= span * 0.999)
    first = math.floor(low / step)
    last = max(math.ceil(high / step), first + 1)
    return [i * step for i in range(first, last + 1)]


def share_chart(times: Sequence[float], shares: np.ndarray, drawn: Sequence[bool]) -> dict:
    """Shares over time as areas on top of each other, in a drawing of 1000 x 100 units.

    Args:
        times: seconds at which columns begin, then the end.
        shares: (columns, classes) 0..1.
        drawn: by class; the others, such as a background, stay empty.

    Of what is returned, areas: (class id, points of an SVG polygon); top: the share at the upper
    edge.
    """
    times = np.asarray(times)
    visible = shares * np.asarray(drawn)
    top = math.ceil(20 * visible.sum(axis=1).max() - 1e-6) / 20 or 1.0  # in steps of 5 %
    x = 1000 * np.repeat(times / max(times[-1], 1e-9), 2)[1:-1]
    heights = 100 * (1 - np.cumsum(visible, axis=1) / top)
    areas, below = [], np.full(len(shares), 100.0)
    for k in range(shares.shape[1]):
        if visible[:, k].any():
            upper, lower = np.repeat(heights[:, k], 2), np.repeat(below, 2)
            outline = [*zip(x, upper, strict=True), *zip(x[::-1], lower[::-1], strict=True)]
            areas.append((k, " ".join(f"{px:.1f},{py:.1f}" for px, py in outline)))
        below = heights[:, k]
    return {
        "areas": areas,
        "top": top,
        "times": times.round(3).tolist(),
        "shares": shares.round(4).tolist(),
    }


def size_chart(sizes: Mapping[tuple[int, int], int]) -> dict:
    """Picture sizes as dots, from the lower left corner of a square of `length` units.

    sizes: pictures by (width, height); the most frequent are drawn. Of what is returned, dots: x,
    y, radius, text; ticks: the same along both axes.
    """
    common = sorted(sizes.items(), key=lambda item: -item[1])[:SIZE_DOTS]
    longest = max((max(size) for size, _ in common), default=1)

    def place(pixels: float) -> float:
        return round(SIZE_LENGTH * pixels / longest, 1)

    most = max((count for _, count in common), default=1)
    radii = [round(3 + 6 * math.sqrt(n / most) * (most > 1), 1) for _, n in common]
    dots = [
        (place(w), place(h), radius, f"{w} x {h}: {n}")
        for ((w, h), n), radius in zip(common, radii, strict=True)
    ]
    ticks = [(place(t), f"{t:g}") for t in _round_numbers(0, longest) if t <= longest]
    return {"dots": dots, "ticks": ticks, "length": SIZE_LENGTH}
