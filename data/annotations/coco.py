"""COCO JSON: one file, or one a split, with images, annotations and categories.

Overlaps: the format has no order, so shapes are drawn by falling area, small ones on top.
Background: what no annotation covers. Crowds (iscrowd) are regions of their class. There are no
ignored regions. The parts of a polygon are joined; they cut no holes.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from data.annotations.dataset import AnnotationSet, PictureIndex, as_id, split_of
from data.annotations.shapes import Annotation, Shape, polygon
from data.labels.class_checks import class_name
from utils import InputError

Size = tuple[int, int]  # (H, W)
LAST_BIT, SIGN_BIT = 0x20, 0x10  # of a character that holds five bits of a run's length


def is_coco(content: object) -> bool:
    """Whether a JSON file holds instances; captions have no categories, panoptic sets no shapes."""
    if not (isinstance(content, Mapping) and content.get("categories")):
        return False
    lists = [content.get("images"), content.get("annotations")]
    if not all(isinstance(part, list) for part in lists):
        return False
    first = next((a for a in lists[1] if isinstance(a, Mapping)), {})
    return "segments_info" not in first


def read_coco(root: Path, files: Mapping[Path, dict], pictures: PictureIndex) -> AnnotationSet:
    """The pictures of COCO files.

    COCO's own folder has several files of the same pictures, of which instances_* has all classes:
    a file whose pictures are all in such files is left out.
    """
    files = dict(sorted(files.items(), key=lambda item: not _is_first_choice(item[0])))
    found = AnnotationSet(f"COCO ({next(iter(files)).relative_to(root)})")
    for path, content in files.items():
        try:
            _read_file(found, path, content, pictures)
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise InputError(f"{path}: not a COCO file (near {error})") from error
    return found


def _is_first_choice(path: Path) -> bool:
    return path.name.startswith("instances_")


def _read_file(found: AnnotationSet, path: Path, content: dict, pictures: PictureIndex) -> None:
    images, unmatched = _pictures_of(path, content["images"], pictures)
    others = {found.files.get(picture) for picture in images.values()}
    if others and not _is_first_choice(path) and all(o and _is_first_choice(o) for o in others):
        found.notes.append(f"{path} is left out: {min(others).name} lists its pictures too")
        return
    found.unmatched += unmatched
    shapes = _shapes_of_images(found, path, content)
    for image in content["images"]:
        image_id = as_id(image["id"])
        if (picture := images.get(image_id)) is None:
            continue
        split = pictures.split_of(picture, path.relative_to(pictures.root))
        size, parts = _size(image), shapes[image_id]
        found.add(Annotation(picture, path, split, size, parts, small_on_top=True))


def _pictures_of(
    path: Path, images: list[dict], pictures: PictureIndex
) -> tuple[dict[str, Path], list[tuple[Path, str]]]:
    """{id: picture} of the images in a file, and what those lack that are not found."""
    found, unmatched = {}, []
    split = split_of(path.relative_to(pictures.root))
    for image_id, name in _by_id(
        path, "images", [(i["id"], i["file_name"]) for i in images]
    ).items():
        try:
            found[image_id] = pictures.named(str(name), path.parent, split)
        except ValueError as error:
            unmatched.append((path, f"image {image_id}: {error}"))
    return found, unmatched


def _shapes_of_images(found: AnnotationSet, path: Path, content: dict) -> dict[str, list[Shape]]:
    """{id of an image: its shapes}; what cannot be drawn becomes a problem."""
    categories = sorted(content["categories"], key=lambda category: int(as_id(category["id"])))
    names = _by_id(path, "categories", [(c["id"], class_name(c["name"])) for c in categories])
    found.add_labels(names.values())
    sizes = {as_id(image["id"]): _size(image) for image in content["images"]}
    shapes: dict[str, list[Shape]] = defaultdict(list)
    for annotation in content["annotations"]:
        image_id, category_id = as_id(annotation["image_id"]), as_id(annotation["category_id"])
        try:
            if image_id not in sizes:
                raise ValueError(f"no image {image_id} in the file")
            if category_id not in names:
                raise ValueError(f"no category {category_id} in the file")
            shapes[image_id] += list(_shapes(names[category_id], annotation, sizes[image_id]))
        except (ValueError, TypeError, OverflowError) as error:
            found.problems.append((path, f"annotation {annotation.get('id')}: {error}"))
    return shapes


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


def _size(image: Mapping) -> Size | None:
    """(H, W) that the file gives for an image."""
    if not image.get("height"):
        return None
    height, width = int(image["height"]), int(image["width"])
    if min(height, width) < 1:
        raise ValueError(f"image {image['id']} of {width}x{height} pixels")
    return height, width


def _shapes(label: str, annotation: Mapping, size: Size | None) -> Iterator[Shape]:
    """The parts of an annotation; raises ValueError where it has none that can be drawn.

    size: (H, W) of its image.
    """
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
