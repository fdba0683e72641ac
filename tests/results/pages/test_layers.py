"""Previews and layers: exact class ids in files that a page opened from disk can use."""

import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers.page_folders import pixels, read_layers

from config import IGNORE_INDEX
from data.labels.classes import Classes
from results.pages.layers import PREVIEW_SIDE, url, write_layers

CLASSES = Classes(("background", "one"), ((0, 0, 0), (230, 159, 0)))


def test_layers_hold_the_class_ids(tmp_path):
    image = np.full((30, 40, 3), 200, np.uint8)
    prediction = np.zeros((30, 40), np.uint8)
    target = prediction.copy()
    prediction[:, 20:], target[:, 30:], target[:5] = 1, 1, IGNORE_INDEX
    maps = {"prediction": prediction, "target": target}
    write_layers(tmp_path, Path("a.b"), image, maps, CLASSES, np.full((30, 40), 0.5, np.float32))
    layers = read_layers(tmp_path / "page" / "a.b.js")
    assert np.array_equal(pixels(layers["prediction"]), prediction)
    assert np.array_equal(pixels(layers["target"]), np.where(target == IGNORE_INDEX, 2, target))
    wrong = (prediction != target) & (target != IGNORE_INDEX)
    assert np.array_equal(pixels(layers["errors"]), wrong)
    assert np.abs(pixels(layers["confidence"]) - 127.5).max() < 3
    picture = pixels(layers["picture"])
    assert picture.shape == (30, 40, 3)
    assert np.abs(picture.astype(int) - 200).max() < 4


def test_the_palette_has_an_alpha_for_each_class_and_for_ignored_pixels(tmp_path):
    labels = np.zeros((8, 8), np.uint8)
    write_layers(tmp_path, Path("x"), labels[..., None].repeat(3, 2), {"target": labels}, CLASSES)
    content, at, chunks = read_layers(tmp_path / "page" / "x.js")["target"], 8, {}
    while at < len(content):
        size = int.from_bytes(content[at : at + 4])
        kind, body = content[at + 4 : at + 8], content[at + 8 : at + 8 + size]
        assert int.from_bytes(content[at + 8 + size : at + 12 + size]) == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + size
    assert chunks[b"tRNS"] == b"\xff" * 3
    assert chunks[b"PLTE"] == bytes([0, 0, 0, 230, 159, 0, 128, 128, 128])


def test_large_pictures_become_small_ones_of_the_same_classes(tmp_path):
    labels = np.zeros((1500, 3000), np.uint8)
    labels[:, 1500:] = 1
    image = np.zeros((1500, 3000, 3), np.uint8)
    write_layers(tmp_path, Path("big"), image, {"target": labels}, CLASSES)
    ids = pixels(read_layers(tmp_path / "page" / "big.js")["target"])
    assert ids.shape == (PREVIEW_SIDE // 2, PREVIEW_SIDE)
    assert np.array_equal(np.unique(ids, axis=0), [[0] * 480 + [1] * 480])


@pytest.mark.parametrize(
    ("path", "address"),
    [("sub/a b.jpg", "sub/a%20b.jpg"), ("50%#?.jpg", "50%25%23%3F.jpg"), ("c:d", "c%3Ad")],
)
def test_addresses(path, address):
    assert url(path) == address
    assert url("\udcff.jpg") == "%FF.jpg"  # a name that is no UTF-8


@pytest.mark.parametrize("shape", [(1, 1), (4, 1), (1, 2000)])
def test_tiny_pictures(tmp_path, shape):
    labels = np.full(shape, IGNORE_INDEX, np.uint8)
    image, confidence = np.zeros((*shape, 3), np.uint8), np.ones(shape, np.float32)
    write_layers(tmp_path, Path("x"), image, {"target": labels}, CLASSES, confidence)
    layers = read_layers(tmp_path / "page" / "x.js")
    assert (pixels(layers["target"]) == 2).all()
    assert (pixels(layers["confidence"]) > 250).all()
