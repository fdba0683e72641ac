"""labelme JSON: one file beside each picture, with the same name.

Overlaps: later shapes of the list cover earlier ones, as labelme draws them. Background: what no
shape covers, and shapes labelled _background_. Shapes labelled __ignore__ are ignored. Points count
as circles of radius 5 and lines as 10 pixels wide. Coordinates are those of the upright picture.
"""

import base64
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from data.annotations.dataset import AnnotationSet, PictureIndex, split_of
from data.annotations.shapes import Annotation, Shape, ellipse, polygon, ring_of
from data.labels.class_checks import class_name

LINE_WIDTH, POINT_RADIUS = 10, 5  # pixels


def is_labelme(content: object) -> bool:
    return isinstance(content, Mapping) and isinstance(content.get("shapes"), list)


def read_labelme(root: Path, files: Mapping[Path, dict], pictures: PictureIndex) -> AnnotationSet:
    """The pictures of labelme files; the split is told by their folders."""
    found = AnnotationSet(f"labelme ({next(iter(files)).relative_to(root)})")
    labels: set[str] = set()
    for path, content in files.items():
        split = split_of(path.parent.relative_to(root))
        try:
            image = pictures.with_stem(path.stem, path.parent, split)
        except ValueError as error:
            found.unmatched.append((path, str(error)))
            continue
        shapes = []
        for number, entry in enumerate(content["shapes"], 1):
            try:
                shapes.append(_shape(entry))
                labels.add(shapes[-1].label)
            except Exception as error:  # of a foreign file's numbers and pictures
                found.problems.append((path, f"shape {number}: {error}"))
        size = (content.get("imageHeight"), content.get("imageWidth"))
        known = size if all(isinstance(side, int) and side > 0 for side in size) else None
        split = pictures.split_of(image, path.parent.relative_to(root))
        found.add(Annotation(image, path, split, known, shapes))
    found.add_labels(sorted(labels))
    without = [path for path in pictures.pictures if path not in found.files]
    found.unmatched += [(path, "no annotation of this name") for path in without]
    return found


def _shape(entry: Mapping) -> Shape:
    label, points = class_name(entry["label"]), np.asarray(entry["points"], np.float64)
    kind = entry.get("shape_type") or "polygon"
    if kind == "rectangle" and len(points) == 2:  # X-AnyLabeling writes four corners
        (x1, y1), (x2, y2) = points
        return polygon(label, [[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
    if kind in ("polygon", "rectangle", "oriented_rectangle", "rotation"):
        return polygon(label, points)
    if kind == "circle":
        centre, edge = points
        return ellipse(label, centre, (np.hypot(*(edge - centre)),) * 2)
    if kind == "point":
        return ellipse(label, points[0], (POINT_RADIUS,) * 2)
    if kind in ("line", "linestrip"):
        padded = ring_of(np.concatenate([points, points[-1:]]))  # a ring has three points
        return Shape(label, (padded,), width=LINE_WIDTH)
    if kind == "mask":
        image = Image.open(io.BytesIO(base64.b64decode(entry["mask"])))
        corner = tuple(int(n) for n in points[0].round())
        return Shape(label, bitmap=np.array(image.convert("L")) > 0, corner=corner)
    raise ValueError(f"shape_type {kind} is not known")
