"""Every way in which a mask stores classes, decoded pixel by pixel."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from data.encodings import choose_meaning
from data.images import read_mask
from data.labels.class_entries import ClassFile
from data.labels.classes import VOC2012, default_classes
from data.labels.masks import MaskEncoding, count_values, guess_encoding, index_encoding
from data.pairs import Pair
from data.scans import Scan
from utils import InputError

OBJECTS = ClassFile(default_classes(2), instances=True)
PAIR = Pair(Path("0.png"), Path("0_mask.png"))
SHAPES = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)
COLOURS = MaskEncoding(
    "class colours",
    colours={colour: k for k, colour in enumerate(VOC2012.palette)} | {(224, 224, 192): 255},
    class_names=VOC2012.names,
)


@settings(max_examples=30, deadline=None)
@given(
    ids=arrays(np.uint8, SHAPES, elements=st.integers(0, 20) | st.just(255)),
    colours=st.binary(min_size=768, max_size=768),
)
def test_indices_come_back(ids, colours, tmp_path_factory):
    """As grey, as RGB of greys, and as a palette of any colours."""
    coloured = Image.fromarray(ids, mode="P")
    coloured.putpalette(colours)
    path = tmp_path_factory.mktemp("mask") / "mask.png"
    for image in (Image.fromarray(ids), Image.fromarray(ids).convert("RGB"), coloured):
        image.save(path)
        assert np.array_equal(index_encoding(21).decode(read_mask(path)[0]), ids)


@settings(max_examples=30, deadline=None)
@given(objects=arrays(np.uint16, SHAPES, elements=st.integers(0, 2**16 - 1)))
def test_instances_of_one_class_come_back(objects, tmp_path_factory):
    path = tmp_path_factory.mktemp("mask") / "mask.png"
    Image.fromarray(objects).save(path)
    stored = read_mask(path)[0]
    for values, ignored in (({256}, 0), ({0, 1, 254, 255}, 255)):
        _, encoding, _ = choose_meaning(OBJECTS, {PAIR: Scan(dict.fromkeys(values, 1))})
        expected = np.where(objects == ignored, ignored, objects > 0)
        assert np.array_equal(encoding.decode(stored), expected)


@pytest.mark.parametrize("value", [-1, 2, 254, 65536, 2**31 - 1])
def test_a_value_of_no_class_is_an_error_and_never_background(value):
    encoding = index_encoding(2)
    mask = np.int32([[0, 1], [value, value]])
    words = rf"value {value} \(2 pixels\) belongs to no class.* class indices 0\.\.1"
    with pytest.raises(InputError, match=words):
        encoding.decode(mask)
    assert (encoding.look_up(mask) == -1).sum() == 2


def test_numbers_of_any_size_that_a_class_file_names():
    encoding = MaskEncoding("values", {0: 0, 300: 1, 65535: 2, 70000: 1, -9999: 255})
    assert encoding.decode(np.uint16([[0, 300, 65535, 255]])).tolist() == [[0, 1, 2, 255]]
    assert encoding.decode(np.int32([[0, -9999, 65535, 70000]])).tolist() == [[0, 255, 2, 1]]


def test_several_unknown_colours_are_counted():
    mask = np.uint8([[[1, 0, 0], [1, 0, 0], [2, 0, 0], [0, 0, 0]]])
    with pytest.raises(InputError, match=r"\(2 pixels\) .* as do 1 more with 1 pixels"):
        COLOURS.decode(mask)


def test_rgb_without_known_colours_is_refused():
    with pytest.raises(InputError, match="no class colours are known"):
        index_encoding(2).decode(np.uint8([[[0, 0, 1]]]))


def test_two_values_far_apart_or_too_many_are_no_indices():
    for values in ({0, 38, 75}, set(range(256)), {7, 300}):
        with pytest.raises(InputError, match=r"give each to a class in a dataset\.yaml"):
            guess_encoding(values, None, {})
    assert guess_encoding({0, 1, 2, 4, 255}, None, {}) == index_encoding(5)
    assert guess_encoding({0}, None, {}) == index_encoding(2)
    binary = guess_encoding({0, 255}, None, {})
    assert binary == guess_encoding({0, 255}, 2, {})
    assert binary.decode(np.uint8([[0, 255]])).tolist() == [[0, 1]]
    assert guess_encoding({0, 255}, 3, {}) == index_encoding(3)  # 255 is ignored there


def test_greys_of_the_class_colours_are_those_classes():
    colours = {(0, 0, 0): 0, (128, 128, 128): 1, (200, 200, 200): 2}
    encoding = guess_encoding({0, 128, 200}, 3, colours)
    assert encoding.decode(np.uint8([[200, 0, 128, 255]])).tolist() == [[2, 0, 1, 255]]
    assert guess_encoding({0, 1, 2}, 3, colours) == index_encoding(3)


def test_a_palette_is_read_by_colour_only_where_it_contradicts_the_indices():
    red, green = VOC2012.palette[1], VOC2012.palette[2]
    encoding = MaskEncoding("", {k: k for k in range(21)}, COLOURS.colours)
    assert encoding.reads_colours_of({0: (0, 0, 0), 1: green})
    assert not encoding.reads_colours_of({0: (0, 0, 0), 1: red, 2: green})
    assert not encoding.reads_colours_of({1: red, 2: red})  # of a program that sets one colour
    assert not encoding.reads_colours_of({1: (1, 1, 1), 2: (2, 2, 2)})
    greys = MaskEncoding("", {0: 0, 1: 1, 2: 2}, {(1, 1, 1): 2, (2, 2, 2): 1})
    assert not greys.reads_colours_of({1: (1, 1, 1), 2: (2, 2, 2)})


@given(mask=arrays(np.uint8, SHAPES, elements=st.integers(0, 4)))
def test_value_counts_are_those_of_unique(mask):
    values, counts = np.unique(mask, return_counts=True)
    assert count_values(mask) == dict(zip(values.tolist(), counts.tolist(), strict=True))
