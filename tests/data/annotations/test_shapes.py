"""Shapes are drawn where they are, pixel by pixel."""

import cv2
import numpy as np
import pytest

from data.annotations.shapes import polygon

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


def test_points_far_away_cost_nothing():
    far = [[-1e8, -1e8], [1e8, -1e8], [1e8, 1e8], [-1e8, 1e8]]
    assert drawn(polygon("a", far)).all()
    assert drawn(polygon("a", np.array(far) + 0.5)).all()
    with pytest.raises(ValueError, match="is outside the picture of 50x40"):
        drawn(polygon("a", np.array(far) + 3e8))
