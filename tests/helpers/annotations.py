"""Annotation files as their tools write them."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from data.layouts import find_splits
from data.pairs import read_pair, read_target
from data.survey import load_data
from utils import InputError

HEIGHT, WIDTH = 60, 80
STAR = [[10.5, 5.25], [40.75, 12.5], [35.5, 50.5], [22.25, 30.5], [8.5, 44.75]]
BOX = [[20.5, 20.5], [30.5, 20.5], [30.5, 28.5], [20.5, 28.5]]


def save_image(path, seed=0, size=(HEIGHT, WIDTH), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)


def save_images(root, count):
    """0.jpg, 1.jpg, ..., which differ."""
    paths = [root / f"{k}.jpg" for k in range(count)]
    for seed, path in enumerate(paths):
        save_image(path, seed)
    return paths


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    dump = yaml.safe_dump if path.suffix == ".yaml" else json.dumps
    path.write_text(content if isinstance(content, str) else dump(content))


def flat(points):
    return [[n for point in points for n in point]]


def targets(root, **options):
    """{image name: class ids} of all splits, and the data."""
    data = load_data(find_splits(root, **options))
    found = {}
    for pair in data.splits.pairs:
        image, target = read_pair(pair, data.encoding)
        assert image.shape[:2] == target.shape
        assert np.array_equal(read_target(pair, data.encoding), target)
        found[pair.image.name] = target
    return found, data


def refused(root, words, *arguments, **options) -> str:
    """The message, in which `words` are found, that a data set is refused with."""
    with pytest.raises(InputError, match=words) as error:
        load_data(find_splits(root, *arguments, **options))
    return str(error.value)


def coco(names, annotations, categories=((3, "cat"), (17, "dog"))):
    return {
        "images": [{"id": k, "file_name": name, "height": HEIGHT, "width": WIDTH}
                   for k, name in enumerate(names)],
        "annotations": [{"id": k, "iscrowd": 0, **a} for k, a in enumerate(annotations)],
        "categories": [{"id": k, "name": name} for k, name in categories],
    }  # fmt: skip


def labelme(shapes, **more):
    return {"version": "5.0", "imageHeight": HEIGHT, "imageWidth": WIDTH, "imagePath": "a\\b.jpg",
            "imageData": "x", "shapes": shapes, **more}  # fmt: skip


def shape(label, points, kind="polygon", **more):
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, **more}


def yolo_line(class_id, points):
    return " ".join([str(class_id), *(f"{x / WIDTH:.6f} {y / HEIGHT:.6f}" for x, y in points)])


def draw_yolo(root, **paths):
    for split in ("train", "val", "test"):
        for k in range(2):
            save_image(root / "images" / split / f"{split}{k}.jpg", 10 * len(split) + k)
        text = f"{yolo_line(0, BOX)}\n{yolo_line(1, STAR)}\n"
        write(root / "labels" / split / f"{split}0.txt", text)
    content = {"path": "/home/someone/datasets/x", "names": {0: "cat", 1: "dog"}, "nc": 2}
    folders = {s: f"images/{s}" for s in ("train", "val", "test")}
    write(root / "data.yaml", content | folders | paths)
