"""Outlines of predicted classes, drawn again."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.annotations.shapes import polygon
from results.polygons import trace


@st.composite
def masks(draw) -> np.ndarray:
    """Blobs and noise of three classes, with holes, at the border and touching at corners."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    height, width = draw(st.integers(1, 30)), draw(st.integers(1, 30))
    noise = rng.random((3, height, width)).astype(np.float32)
    if draw(st.booleans()):
        noise = np.stack([cv2.GaussianBlur(one, (0, 0), 2.0) for one in noise])
    return noise.argmax(axis=0).astype(np.uint8)


def drawn_again(mask, simplify):
    parts, _ = trace(mask, [1, 2], simplify, min_area=0)
    again = np.zeros_like(mask)
    for class_id, ring in parts:
        polygon("", ring, border=False).draw(again, class_id)
    return again, parts


@settings(max_examples=200, deadline=None)
@given(masks())
def test_without_simplification_the_mask_is_the_same(mask):
    again, parts = drawn_again(mask, simplify=0)
    assert np.array_equal(again, mask)
    areas = [cv2.contourArea(ring.astype(np.float32)) for _, ring in parts]
    assert sum(areas) == (mask > 0).sum()  # holes are cut out


@settings(max_examples=100, deadline=None)
@given(masks())
def test_simplified_outlines_are_off_by_a_pixel_at_most(mask):
    again, _ = drawn_again(mask, simplify=1)
    around = np.ones((3, 3), np.uint8)
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    near_a_border = (cv2.dilate(padded, around) != cv2.erode(padded, around))[1:-1, 1:-1]
    near_a_border[[0, -1]] = near_a_border[:, [0, -1]] = True  # the picture's edge is a border
    assert not ((again != mask) & ~near_a_border).any()


def test_small_parts_are_counted_and_small_holes_are_filled():
    mask = np.zeros((40, 40), np.uint8)
    mask[5:35, 5:35] = 1
    mask[10:13, 10:13] = 0  # 9 pixels
    mask[20:25, 20:25] = 0
    mask[0:3, 0:3] = mask[22, 22] = 1
    ((class_id, ring),), left_out = trace(mask, [1], simplify=0, min_area=10)
    assert (class_id, left_out) == (1, 2)
    again = np.zeros_like(mask)
    polygon("", ring, border=False).draw(again, 1)
    assert again.sum() == 30 * 30 - 25
    assert again[11, 11] == 1
    assert again[21, 21] == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1)])
def test_a_line_keeps_its_area_when_it_is_simplified(shape):
    again, _ = drawn_again(np.ones(shape, np.uint8), simplify=5)
    assert again.all()
