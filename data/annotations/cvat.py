"""CVAT XML 1.1, "CVAT for images": one file, or several, with the shapes of many pictures.

Overlaps: shapes are drawn by z_order, then in the order of the file. Background: what no shape
covers. Boxes and ellipses are filled, polylines are 10 pixels wide; points are left out.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from data.annotations.dataset import AnnotationSet
from data.annotations.shapes import (
    LINE_WIDTH,
    Annotation,
    Shape,
    ellipse,
    line,
    polygon,
    rectangle,
)
from data.labels.class_entries import class_name
from utils import InputError

VOC_BOXES = "Pascal VOC boxes"
HEAD = 4096  # bytes in which the outermost element begins
LEFT_OUT = "left out"
TOLD = {  # kinds that are not exact regions, and what becomes of them
    "box": "drawn as filled rectangles",
    "polyline": f"drawn as lines of {LINE_WIDTH} pixels",
} | dict.fromkeys(("points", "skeleton", "cuboid", "tag"), LEFT_OUT)


class _Builder(ElementTree.TreeBuilder):
    """Refuses documents that define names of their own: these may expand without an end."""

    def doctype(self, *_) -> None:
        raise ValueError("a DOCTYPE, which CVAT does not write; remove it")


def load_cvat(path: Path) -> Element | str | None:
    """What an XML file of CVAT holds, or VOC_BOXES, or None; InputError for that of a video."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    if b"<annotations" not in head:
        return VOC_BOXES if b"<annotation" in head else None
    try:
        parser = ElementTree.XMLParser(target=_Builder())
        top = ElementTree.parse(path, parser).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{path}: not a readable XML file ({error})") from error
    if top.find("track") is not None:
        raise InputError(
            f"{path}: tracks of a video, whose frames are not here; export the task from CVAT as "
            "'CVAT for images 1.1' with its images"
        )
    return top


def is_cvat(content: object) -> bool:
    return isinstance(content, Element) and content.find("image") is not None


def read_cvat(found: AnnotationSet, files: Mapping[Path, Element]) -> None:
    """The pictures of CVAT's files; the split is told by their `subset`, files and folders."""
    images = ((path, image) for path, top in files.items() for image in top.iter("image"))
    for path, image in images:
        statements = path.relative_to(found.inventory.root), Path(image.get("subset") or "")
        entry = f"image {image.get('id')}: "
        if not (picture := found.find(path, [image.get("name") or ""], *statements, entry=entry)):
            continue
        try:
            size = int(image.attrib["height"]), int(image.attrib["width"])
        except (KeyError, ValueError):
            size = None
        entries = (
            (f"{picture[0].name}: shape {number} ({entry.tag})", entry)
            for number, entry in sorted(enumerate(image, 1), key=lambda item: _z_order(item[1]))
        )
        shapes = found.shapes(path, entries, partial(_shapes, found, picture[0]))
        found.add(Annotation(picture[0], path, picture[1], size, shapes))


def _z_order(entry: Element) -> int:
    order = entry.get("z_order") or "0"
    return int(order) if order.lstrip("-").isdigit() else 0


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
