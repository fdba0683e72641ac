"""COCO JSON: one file, or one a split, with images, annotations and categories.

Overlaps: the format has no order, so shapes are drawn by falling area, small ones on top.
Background: what no annotation covers. Crowds (iscrowd) are regions of their class. There are no
ignored regions. The parts of a polygon are joined; they cut no holes.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from data.annotations.dataset import AnnotationSet, Size, as_id, reading, size_of
from data.annotations.shapes import Shape, polygon
from data.labels.class_entries import class_name
from utils import InputError

LAST_BIT, SIGN_BIT = 0x20, 0x10  # of a character that holds five bits of a run's length


def is_coco(content: object) -> bool:
    """Whether a JSON file holds instances; captions have no categories, panoptic sets no shapes."""
    if not isinstance(content, Mapping) or not content.get("categories"):
        return False
    annotations = content.get("annotations")
    return isinstance(annotations, list) and all(
        isinstance(first, Mapping) and "segments_info" not in first for first in annotations[:1]
    )


def read_coco(found: AnnotationSet, files: Mapping[Path, dict]) -> None:
    """The pictures of COCO files.

    COCO's own folder has several files of the same pictures, of which instances_* has all classes:
    a file whose pictures are all in such files is left out.
    """
    found.small_on_top = True
    for path, content in sorted(files.items(), key=lambda item: not _is_first_choice(item[0])):
        with reading(path, "a COCO file"):
            _read_file(found, path, content)


def _is_first_choice(path: Path) -> bool:
    return path.name.startswith("instances_")


def _read_file(found: AnnotationSet, path: Path, content: dict) -> None:
    names = _by_id(path, "images", [(i["id"], i["file_name"]) for i in content["images"]])
    sizes = {as_id(i["id"]): size_of(i.get("height"), i.get("width")) for i in content["images"]}
    unmatched = len(found.unmatched)
    pictures = {
        k: found.find(path, [str(name)], entry=f"image {k}: ", size=sizes[k])
        for k, name in names.items()
    }
    known = [found.by_picture.get(picture.image) for picture in pictures.values() if picture]
    others = {other and other.file for other in known}
    if others and not _is_first_choice(path) and all(o and _is_first_choice(o) for o in others):
        del found.unmatched[unmatched:]
        found.notes.append(f"{path} is left out: {min(others).name} lists its pictures too")
        return
    listed = sorted(content["categories"], key=lambda category: int(as_id(category["id"])))
    labels = _by_id(path, "categories", [(c["id"], class_name(c["name"])) for c in listed])
    # Roboflow puts a category above the others, which no annotation has.
    above = {c["supercategory"] for c in listed if c.get("supercategory", c["name"]) != c["name"]}
    used = {as_id(annotation["category_id"]) for annotation in content["annotations"]}
    found.add_labels(name for k, name in labels.items() if k in used or name not in above)
    if not content["annotations"]:  # image_info_test2017.json
        found.bare.update(picture.image for picture in pictures.values() if picture)
    entries: dict[str, list[tuple[str, Mapping]]] = defaultdict(list)
    for annotation in content["annotations"]:
        name, image_id = f"annotation {annotation.get('id')}", as_id(annotation["image_id"])
        entries[image_id].append((name, annotation))
        if image_id not in names:
            found.problems.append((path, f"{name}: no image {image_id} in the file"))
    for image_id, picture in pictures.items():
        if picture:
            found.add(picture, entries[image_id], partial(_shapes, labels, picture.size))


def _by_id(path: Path, what: str, items: list[tuple]) -> dict[str, str]:
    """{id: name} of pairs; raises InputError where one id has two names."""
    found: dict[str, str] = {}
    for number, name in items:
        if (other := found.setdefault(as_id(number), name)) != name:
            raise InputError(
                f"{path}: two {what} have the id {number}, {other} and {name}; give each an id of "
                "its own"
            )
    return found


def _shapes(labels: Mapping[str, str], size: Size, annotation: Mapping) -> Iterator[Shape]:
    """The parts of an annotation, of an image of size; ValueError if it has none to draw."""
    if (category := as_id(annotation["category_id"])) not in labels:
        raise ValueError(f"no category {category} in the file")
    label = labels[category]
    segmentation = annotation.get("segmentation")
    if not segmentation:
        raise ValueError("no segmentation, a box alone; export instance masks or polygons")
    if isinstance(segmentation, Mapping):
        stored = segmentation.get("size")
        if size and stored and tuple(stored) != size:
            raise ValueError(f"its run lengths are of {stored} pixels, its image of {[*size]}")
        yield Shape(label, runs=_runs(segmentation["counts"]))
    elif isinstance(segmentation[0], int | float):  # a flat list, of which some tools make one part
        yield polygon(label, segmentation)
    else:
        for part in segmentation:
            yield polygon(label, part)


def _runs(counts: object) -> np.ndarray:
    """Lengths of runs, from a list or from COCO's text; raises ValueError for negative ones."""
    runs = np.asarray(_decode(counts) if isinstance(counts, str) else counts, np.int64)
    if runs.ndim != 1 or (runs < 0).any():
        raise ValueError("its run lengths are not numbers from 0")
    return runs


def _decode(text: str) -> list[int]:
    """The numbers in COCO's text: five bits a character from 48 on, the lowest first.

    From the third run on, a number is the difference to the run before the last.
    """
    if text.startswith("b'"):  # str() of Python's bytes
        text = text[2:-1].replace("\\\\", "\\")
    numbers: list[int] = []
    value = shift = 0
    for character in text.encode("ascii", "replace"):
        bits = character - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & LAST_BIT:
            if bits & SIGN_BIT:
                value -= 1 << shift
            numbers.append(value + (numbers[-2] if len(numbers) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("its run lengths end within a number")
    return numbers
