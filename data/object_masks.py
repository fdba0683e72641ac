"""Sets with a black-and-white picture for each object, named IMAGE_CLASS_NUMBER."""

import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from data.annotated import splits_of
from data.annotations.dataset import AnnotationSet
from data.annotations.shapes import Annotation, Shape
from data.images import read_mask, upright_size
from data.inventory import Inventory
from data.labels.masks import is_grey
from data.pairs import Splits
from data.splits import split_of
from utils import InputError

NAME = re.compile(r"(.+)_([^_\d][^_]*)_(\d+)")  # image, class, number


def object_masks(inventory: Inventory) -> Splits | None:
    """The pictures of which all other files are such masks; small objects are drawn on top.

    None unless every mask names a picture of its size and holds two values at most.
    """
    pictures = {p.stem: p for p in inventory.pictures if not NAME.fullmatch(p.stem)}
    objects: dict[Path, list[tuple[str, Path]]] = defaultdict(list)
    for path in inventory.pictures:
        if match := NAME.fullmatch(path.stem):
            if match[1] not in pictures:
                return None
            objects[pictures[match[1]]].append((match[2], path))
    if not objects:
        return None
    first = next(iter(objects.values()))[0][1]
    found = AnnotationSet(f"a picture for each object ({first.relative_to(inventory.root)})")
    for image, files in objects.items():
        shapes = [shape for label, path in files if (shape := _shape(label, path, image))]
        if len(shapes) < len(files):
            return None
        split = split_of(image.parent.relative_to(inventory.root) / ".")
        shapes.sort(key=lambda shape: -shape.area)
        found.add(Annotation(image, files[0][1], split, upright_size(image), shapes))
        found.add_labels(label for label, _ in files)
    found.labels.sort()
    without = [path for path in pictures.values() if path not in objects]
    found.unmatched += [(path, "no mask of an object has its name") for path in without]
    splits = splits_of(found, None)
    splits.sources.extend(path for files in objects.values() for _, path in files)
    return splits


def _shape(label: str, path: Path, image: Path) -> Shape | None:
    """The object's box of bits; None unless the file holds two values and has the image's size."""
    try:
        mask, _ = read_mask(path)
        if mask.shape[:2] != upright_size(image) or (mask.ndim == 3 and not is_grey(mask)):
            return None
    except InputError:
        return None
    bits = mask if mask.ndim == 2 else mask[..., 0]
    if len(np.unique(bits)) > 2:
        return None
    rows, columns = np.nonzero(bits)
    if not len(rows):
        return Shape(label, bitmap=np.zeros((0, 0), bool))
    top, left = int(rows.min()), int(columns.min())
    box = bits[top : rows.max() + 1, left : columns.max() + 1] > 0
    return Shape(label, bitmap=box, corner=(left, top))
