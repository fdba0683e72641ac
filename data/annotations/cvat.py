"""CVAT XML 1.1, "CVAT for images": one file, or several, with the shapes of many pictures.

Overlaps: shapes are drawn by z_order, then in the order of the file. Background: what no shape
covers. Boxes and ellipses are filled, polylines are 10 pixels wide; points are left out.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from data.annotations.dataset import AnnotationSet, reading, size_of
from data.annotations.shapes import LINE_WIDTH, Shape, ellipse, line, polygon, rectangle
from data.labels.class_entries import class_name

LEFT_OUT = "left out"
TOLD = {  # kinds that are not exact regions, and what becomes of them
    "box": "drawn as filled rectangles",
    "polyline": f"drawn as lines of {LINE_WIDTH} pixels",
} | dict.fromkeys(("points", "skeleton", "cuboid", "tag"), LEFT_OUT)


def is_cvat(content: object) -> bool:
    return isinstance(content, Element) and content.find("image") is not None


def read_cvat(found: AnnotationSet, files: Mapping[Path, Element]) -> None:
    """The pictures of CVAT's files; the split is told by their `subset`, files and folders."""
    for path, top in files.items():
        with reading(path, "a file of CVAT"):
            for image in top.iter("image"):
                _read_image(found, path, image)


def _read_image(found: AnnotationSet, path: Path, image: Element) -> None:
    statements = path.relative_to(found.inventory.root), Path(image.get("subset") or "")
    entry, size = f"image {image.get('id')}: ", size_of(image.get("height"), image.get("width"))
    names = [image.get("name") or ""]
    if picture := found.find(path, names, *statements, entry=entry, size=size):
        name = picture.image.name
        elements = sorted(enumerate(image, 1), key=lambda item: int(item[1].get("z_order") or 0))
        entries = ((f"{name}: shape {k} ({each.tag})", each) for k, each in elements)
        found.add(picture, entries, partial(_shapes, found, picture.image))


def _shapes(found: AnnotationSet, image: Path, entry: Element) -> Iterator[Shape]:
    """The shape of an element; raises ValueError or KeyError where it is not whole."""
    kind = entry.tag
    if kind in TOLD:
        found.seen[f"shapes of the kind {kind} are {TOLD[kind]}"].append(image)
    if TOLD.get(kind) == LEFT_OUT:
        return
    label = class_name(entry.attrib["label"])
    angle = np.deg2rad(float(entry.get("rotation") or 0))
    if kind in ("polygon", "polyline"):
        points = [pair.split(",") for pair in entry.attrib["points"].split(";") if pair.strip()]
        yield polygon(label, points) if kind == "polygon" else line(label, points)
    elif kind == "box":
        yield rectangle(label, _numbers(entry, "xtl ytl xbr ybr"), angle)
    elif kind == "ellipse":
        cx, cy, rx, ry = _numbers(entry, "cx cy rx ry")
        yield ellipse(label, (cx, cy), (rx, ry), angle)
    elif kind == "mask":
        runs = np.array([int(run) for run in entry.attrib["rle"].split(",")])
        left, top, width, height = map(int, _numbers(entry, "left top width height"))
        if runs.min() < 0 or runs.sum() != width * height:
            raise ValueError(f"its runs cover {runs.sum()} pixels, its box has {width * height}")
        yield Shape(label, runs=runs, box=(height, width), corner=(left, top))
    else:
        raise ValueError("a kind of shape that is not known")


def _numbers(entry: Element, names: str) -> list[float]:
    return [float(entry.attrib[name]) for name in names.split()]
