from collections import Counter

import cv2
import numpy as np
import pytest

from config import MAX_CLASSES
from data.labels.classes import (
    ADE20K,
    CITYSCAPES,
    MORE_COLOURS,
    OKABE_ITO,
    PERSON,
    VOC2012,
    VOC_PALETTE,
    count_pixels,
    default_classes,
    default_palette,
)


def repeated(items) -> set:
    return {item for item, count in Counter(items).items() if count > 1}


def test_voc_palette_follows_the_formula():
    """Bits 0, 3, 6 of an index are red's bits from the top, 1, 4, 7 green's, 2, 5 blue's."""
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 4: (0, 0, 128), 15: (192, 128, 128),
             32: (0, 0, 64), 64: (32, 0, 0), 128: (0, 32, 0), 255: (224, 224, 192)}  # fmt: skip
    assert {index: VOC_PALETTE[index] for index in known} == known
    assert len(VOC_PALETTE) == 256
    assert not repeated(VOC_PALETTE)


@pytest.mark.parametrize(
    ("preset", "num_classes", "known"),
    [
        (PERSON, 2, {0: ("background", (0, 0, 0)), 1: ("person", (225, 35, 160))}),
        (VOC2012, 21, {15: ("person", (192, 128, 128)), 20: ("tvmonitor", (0, 64, 128))}),
        (ADE20K, 150, {0: ("wall", (120, 120, 120)), 6: ("road", (140, 140, 140)),
                       48: ("skyscraper", (140, 140, 140)), 85: ("chandelier", (0, 31, 255)),
                       126: ("animal", (255, 0, 122)), 149: ("flag", (92, 0, 255))}),
        (CITYSCAPES, 19, {0: ("road", (128, 64, 128)), 8: ("vegetation", (107, 142, 35)),
                          18: ("bicycle", (119, 11, 32))}),
    ],
)  # fmt: skip
def test_presets(preset, num_classes, known):
    assert preset.num_classes == len(preset.names) == len(preset.palette) == num_classes
    assert not repeated(preset.names)
    assert repeated(preset.palette) == ({(140, 140, 140)} if preset is ADE20K else set())
    assert all(type(n) is int and 0 <= n <= 255 for colour in preset.palette for n in colour)
    assert {k: (preset.names[k], preset.palette[k]) for k in known} == known


def test_only_a_class_called_background_is_black():
    assert default_classes(2).names == ("background", "foreground")
    assert default_classes(3).names == ("class_0", "class_1", "class_2")
    assert default_classes(2).palette == ((0, 0, 0), (230, 159, 0))
    assert default_classes(8).palette == (*OKABE_ITO, MORE_COLOURS[0])
    assert default_palette(["sky", "Background", "tree"]) == (OKABE_ITO[0], (0, 0, 0), OKABE_ITO[1])


# Machado et al. 2009, severity 1, applied to linear RGB.
COLOUR_BLIND = {
    "none": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
               [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


@pytest.mark.parametrize("matrix", COLOUR_BLIND.values(), ids=COLOUR_BLIND)
@pytest.mark.parametrize(
    "colours",
    [
        default_palette(["background", *map(str, range(19))]),
        [(75, 110, 60), (90, 140, 200), PERSON.palette[1]],
    ],
    ids=["default", "a person on grass, before the sky"],
)
def test_colours_are_told_apart_by_the_colour_blind(matrix, colours):
    linear = (np.array(colours) / 255) ** 2.2
    seen = (linear @ np.transpose(matrix)).clip(0, 1) ** (1 / 2.2)
    lab = cv2.cvtColor(np.float32(seen)[None], cv2.COLOR_RGB2Lab)[0]
    distances = np.linalg.norm(lab[:, None] - lab, axis=2)[~np.eye(len(lab), dtype=bool)]
    assert distances.min() > 14


def test_default_classes_repeat_nothing():
    for num_classes in range(2, MAX_CLASSES + 1):
        classes = default_classes(num_classes)
        assert classes.num_classes == num_classes
        assert not repeated(classes.names), num_classes
        assert not repeated(classes.palette), num_classes


def test_pixels_are_counted_in_any_view_of_a_map():
    labels = np.random.default_rng(0).integers(0, 256, (70, 90), dtype=np.uint8)
    for view in (labels, labels[3:40, 5:60], labels[::-1, ::-1], labels.T, labels[:0]):
        assert np.array_equal(count_pixels(view), np.bincount(view.ravel(), minlength=256))
