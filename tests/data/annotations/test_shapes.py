"""Shapes are drawn where they are, pixel by pixel."""

import cv2
import numpy as np
import pytest
from PIL import Image

from data.annotations.shapes import Shape, ellipse, from_bitmap, polygon, ring_of

SIZE = (40, 50)


def drawn(shape, size=SIZE):
    mask = np.zeros(size, np.uint8)
    shape.draw(mask, 7)
    assert set(np.unique(mask)) <= {0, 7}
    return mask > 0


@pytest.mark.parametrize("seed", range(8))
def test_a_pixel_is_inside_if_its_centre_is(seed):
    """Polygons of many forms, partly beyond the picture, against a test of each pixel's centre."""
    rng = np.random.default_rng(seed)
    ring = rng.uniform([-10, -10], [60, 50], (rng.integers(3, 9), 2))
    assert np.array_equal(drawn(polygon("a", ring)), crossings(ring) % 2 == 1)


def crossings(ring):
    """Edges to the right of each pixel's centre, by another formula: a ray along x."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    count = np.zeros(SIZE, int)
    for (x1, y1), (x2, y2) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        spans = (y1 <= y) != (y2 <= y)
        count += spans & (x < x1 + (y - y1) / (y2 - y1) * (x2 - x1))
    return count


def test_border_pixels_of_opencv_give_the_mask_again():
    mask = np.zeros(SIZE, np.uint8)
    cv2.ellipse(mask, (22, 18), (15, 9), 20, 0, 360, 1, -1)
    (contour,), _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    assert np.array_equal(drawn(polygon("a", contour[:, 0])), mask > 0)


def test_runs_bitmaps_lines_and_circles():
    expected = np.random.default_rng(0).random(SIZE) < 0.5
    flat = np.concatenate([[False], expected.T.ravel(), [False]])
    changes = np.flatnonzero(np.diff(flat))
    runs = np.diff(np.concatenate([[0], changes, [expected.size]]))
    assert np.array_equal(drawn(Shape("a", runs=runs)), expected)
    bitmap = Image.fromarray(np.uint8(255 * expected[10:20, 10:15]))
    part = drawn(from_bitmap("a", bitmap, (40, 30)))
    assert np.array_equal(part[30:, 40:45], expected[10:20, 10:15])
    assert part.sum() == expected[10:20, 10:15].sum()
    for corner in ((-1, 0), (46, 0), (0, 31)):
        with pytest.raises(ValueError, match=r"of 5x10 pixels is outside the picture of 50x40"):
            drawn(from_bitmap("a", bitmap, corner))
    assert drawn(ellipse("a", (20, 20), (10, 10))).sum() == pytest.approx(np.pi * 100, rel=0.01)
    line = Shape("a", ring_of([[5, 20], [45, 20], [45, 20]]), width=10)
    assert drawn(line)[:, 25].sum() in (10, 11)


def test_points_far_away_cost_nothing():
    far = [[-1e8, -1e8], [1e8, -1e8], [1e8, 1e8], [-1e8, 1e8]]
    assert drawn(polygon("a", far)).all()
    assert drawn(polygon("a", np.array(far) + 0.5)).all()
    with pytest.raises(ValueError, match="is outside the picture of 50x40"):
        drawn(polygon("a", np.array(far) + 3e8))
