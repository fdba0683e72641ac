"""CVAT XML 1.1, "CVAT for images": one file, or several, with the shapes of many pictures.

Overlaps: shapes are drawn by z_order, then in the order of the file. Background: what no shape
covers. Boxes and ellipses are filled, polylines are 10 pixels wide; points are left out.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from data.annotations.dataset import AnnotationSet, PictureIndex, split_of
from data.annotations.labelme import LINE_WIDTH
from data.annotations.shapes import Annotation, Shape, ellipse, polygon, rectangle, ring_of
from data.labels.class_checks import class_name
from utils import InputError

HEAD = 4096  # bytes in which the outermost element begins
DRAWN = {  # kinds that are not exact regions, and how they are drawn
    "box": "filled rectangles",
    "polyline": f"lines of {LINE_WIDTH} pixels",
}
LEFT_OUT = ("points", "skeleton", "cuboid", "tag")


class _Builder(ElementTree.TreeBuilder):
    """Refuses documents that define names of their own: these may expand without an end."""

    def doctype(self, *_) -> None:
        raise ValueError("a DOCTYPE, which CVAT does not write; remove it")


def load_cvat(paths: Sequence[Path]) -> dict[Path, Element]:
    """The XML files of CVAT among these, parsed; raises InputError for those of videos."""
    found = {}
    for path in paths:
        with path.open("rb") as file:
            if b"<annotations" not in file.read(HEAD):
                continue
        try:
            parser = ElementTree.XMLParser(target=_Builder())
            top = ElementTree.parse(path, parser).getroot()
        except (ElementTree.ParseError, ValueError, LookupError) as error:
            raise InputError(f"{path}: not a readable XML file ({error})") from error
        if top.find("track") is not None:
            raise InputError(
                f"{path}: tracks of a video, whose frames are not here; export the task from CVAT "
                "as 'CVAT for images 1.1' with its images"
            )
        if top.find("image") is not None:
            found[path] = top
    return found


def read_cvat(root: Path, files: Mapping[Path, Element], pictures: PictureIndex) -> AnnotationSet:
    """The pictures of CVAT's files; the split is told by their `subset`, files and folders."""
    found = AnnotationSet(f"CVAT XML ({next(iter(files)).relative_to(root)})")
    kinds: Counter[str] = Counter()
    for path, top in files.items():
        for image in top.iter("image"):
            _read_image(found, path, image, pictures, kinds)
    found.add_labels(sorted({s.label for a in found.annotations for s in a.shapes}))
    for kind, count in kinds.items():
        what = f"drawn as {DRAWN[kind]}" if kind in DRAWN else "left out"
        found.notes.append(f"{count} shapes of the kind {kind} are {what}")
    return found


def _read_image(
    found: AnnotationSet,
    path: Path,
    image: Element,
    pictures: PictureIndex,
    kinds: Counter[str],
) -> None:
    statements = path.relative_to(pictures.root), Path(image.get("subset") or "")
    split = next(filter(None, map(split_of, reversed(statements))), None)
    try:
        picture = pictures.named(image.get("name") or "", path.parent, split)
    except ValueError as error:
        found.unmatched.append((path, f"image {image.get('id')}: {error}"))
        return
    shapes = []
    for number, entry in enumerate(image, 1):
        if entry.tag in LEFT_OUT or entry.tag in DRAWN:
            kinds[entry.tag] += 1
        if entry.tag in LEFT_OUT:
            continue
        try:
            shapes.append((int(entry.get("z_order") or 0), _shape(entry)))
        except (ValueError, TypeError, KeyError) as error:
            found.problems.append((path, f"{picture.name}: shape {number} ({entry.tag}): {error}"))
    ordered = [shape for _, shape in sorted(shapes, key=lambda item: item[0])]
    try:
        size = int(image.attrib["height"]), int(image.attrib["width"])
    except (KeyError, ValueError):
        size = None
    split = pictures.split_of(picture, *statements)
    found.add(Annotation(picture, path, split, size, ordered))


def _shape(entry: Element) -> Shape:
    """The shape of an element; raises ValueError or KeyError where it is not whole."""
    label, kind = class_name(entry.attrib["label"]), entry.tag
    angle = np.deg2rad(float(entry.get("rotation") or 0))
    if kind in ("polygon", "polyline"):
        points = [pair.split(",") for pair in entry.attrib["points"].split(";") if pair.strip()]
        if kind == "polygon":
            return polygon(label, points)
        return Shape(label, (ring_of([*points, points[-1]]),), width=LINE_WIDTH)
    if kind == "box":
        return rectangle(label, _numbers(entry, "xtl ytl xbr ybr"), angle)
    if kind == "ellipse":
        cx, cy, rx, ry = _numbers(entry, "cx cy rx ry")
        return ellipse(label, (cx, cy), (rx, ry), angle)
    if kind == "mask":
        runs = np.array([int(run) for run in entry.attrib["rle"].split(",")])
        left, top, width, height = map(int, _numbers(entry, "left top width height"))
        if runs.min() < 0 or runs.sum() != width * height:
            raise ValueError(f"its runs cover {runs.sum()} pixels, its box has {width * height}")
        return Shape(label, runs=runs, box=(height, width), corner=(left, top))
    raise ValueError("a kind of shape that is not known")


def _numbers(entry: Element, names: str) -> list[float]:
    return [float(entry.attrib[name]) for name in names.split()]
