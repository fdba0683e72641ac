"""labelme JSON: one file for each picture, with the same name; else its imagePath counts.

Overlaps: later shapes of the list cover earlier ones, as labelme draws them. Background: what no
shape covers, and shapes labelled _background_. Shapes labelled __ignore__ are ignored. Points count
as circles of radius 5 and lines as 10 pixels wide. Coordinates are those of the upright picture.
"""

import base64
import io
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from data.annotations.dataset import AnnotationSet, reading, size_of
from data.annotations.shapes import Shape, ellipse, from_bitmap, line, polygon
from data.labels.class_entries import class_name

POINT_RADIUS = 5  # pixels


def is_labelme(content: object) -> bool:
    return isinstance(content, Mapping) and isinstance(content.get("shapes"), list)


def read_labelme(found: AnnotationSet, files: Mapping[Path, dict]) -> None:
    """The pictures of labelme files; the split is told by their folders."""
    for path, content in files.items():
        stored = PurePosixPath(str(content.get("imagePath") or path.stem).replace("\\", "/"))
        names = [path.stem, str(stored.with_name(path.stem)), str(stored)]
        folder = path.parent.relative_to(found.inventory.root)
        with reading(path, "a file of labelme"):
            size = size_of(content.get("imageHeight"), content.get("imageWidth"))
        if picture := found.find(path, names, folder, size=size):
            entries = ((f"shape {k}", entry) for k, entry in enumerate(content["shapes"], 1))
            found.add(picture, entries, _shapes)
    without = [path for path in found.inventory.pictures if path not in found.by_picture]
    found.unmatched += [(path, "no annotation of this name") for path in without]
    found.bare.update(without)


def _shapes(entry: Mapping) -> Iterator[Shape]:
    label, points = class_name(entry["label"]), np.asarray(entry["points"], np.float64)
    kind = entry.get("shape_type") or "polygon"
    if kind == "rectangle" and len(points) == 2:  # X-AnyLabeling writes four corners
        (x1, y1), (x2, y2) = points
        yield polygon(label, [[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
    elif kind in ("polygon", "rectangle", "oriented_rectangle", "rotation"):
        yield polygon(label, points)
    elif kind == "circle":
        centre, edge = points
        yield ellipse(label, centre, (np.hypot(*(edge - centre)),) * 2)
    elif kind == "point":
        yield ellipse(label, points[0], (POINT_RADIUS,) * 2)
    elif kind in ("line", "linestrip"):
        yield line(label, points)
    elif kind == "mask":
        image = Image.open(io.BytesIO(base64.b64decode(entry["mask"])))
        corner = tuple(int(n) for n in points[0].round())
        yield from_bitmap(label, image, corner)
    else:
        raise ValueError(f"shape_type {kind} is not known")
