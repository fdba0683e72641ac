"""YOLO segmentation: a data.yaml, and a text file for each picture with a polygon a line.

Overlaps: the format has no order, so polygons are drawn by falling area, small ones on top.
Background: what no polygon covers, and pictures without a text file. It has no ignored regions, and
no holes: exporters cut a polygon open to make one.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from config import SPLIT_WORDS
from data.annotations.dataset import AnnotationSet, as_id, composed, reading
from data.annotations.shapes import Annotation, Shape, polygon, ring_of
from data.images import upright_size
from data.inventory import Inventory
from data.labels.class_entries import class_name
from data.labels.class_files import find_class_file, load_content, load_data_yaml
from data.splits import split_of
from utils import InputError, first_of

SHOWN = 3  # label files that are looked at
BOX = 5  # numbers in a line: a class, and a box
POLYGONS, BOXES = "YOLO label files", "YOLO boxes"


def find_yaml(inventory: Inventory) -> tuple[Path, Mapping] | None:
    """The YAML file in the root that names classes and folders of YOLO, and what it holds."""
    here = (path for path in inventory.texts if path.parent == inventory.root)
    found = {path: content for path in here if (content := load_data_yaml(path))}
    usual = sorted(found, key=lambda path: path.stem != "data")
    if len(found) > 1 and usual[0].stem != "data":
        shown = " and ".join(path.name for path in found)
        raise InputError(
            f"{inventory.root}: {shown} both name classes and folders; remove all but one"
        )
    return (usual[0], found[usual[0]]) if found else None


def find_names(inventory: Inventory) -> tuple[Path, Mapping] | None:
    """A file of class names beside label files, which stands for a data.yaml, and what it holds."""
    data_yaml = inventory.root / "data.yaml"
    path = data_yaml if data_yaml.is_file() else find_class_file(inventory.root)
    is_yolo = path and POLYGONS in label_files(inventory).values()
    content = load_content(path) if is_yolo else None
    return (path, content) if isinstance(content, dict) and "names" in content else None


def label_files(inventory: Inventory) -> dict[Path, str]:
    """Of the first text files with names of pictures, those of polygons or boxes, and which."""
    stems = {picture.stem for picture in inventory.pictures}
    below = [path for path in inventory.texts if path.suffix == ".txt" and path.stem in stems]
    kinds = {}
    for path in below[:SHOWN]:
        words = path.read_text(encoding="utf-8", errors="replace").split("\n")[0].split()
        if len(words) >= BOX and all(word.replace(".", "", 1).isdigit() for word in words):
            kinds[path] = BOXES if len(words) == BOX else POLYGONS
    return kinds


def read_yolo(inventory: Inventory, path: Path, content: Mapping) -> AnnotationSet:
    """The pictures of a data.yaml, at path."""
    root = inventory.root
    found = AnnotationSet(f"YOLO ({path.relative_to(root)})", inventory, small_on_top=True)
    names = _names(path, content["names"])
    found.add_labels(names.values())
    known = {composed(str(text)): text for text in inventory.texts}
    without: list[Path] = []
    for image, split in _split_pictures(found, path, content).items():
        places = (composed(str(place)) for place in _label_places(root, image))
        labels = next((known[place] for place in places if place in known), None)
        if labels is None:
            without.append(image)
        annotation = Annotation(image, labels or path, split, upright_size(image))
        lines = _lines(labels) if labels else ()
        found.add(annotation, lines, partial(_shapes, names, annotation.size))
    found.bare.update(without)
    if len(without) == len(found.by_picture):
        example = "; correct its paths"
        if without:
            example = f"; that of {without[0]} would be {_label_places(root, without[0])[0]}"
        raise InputError(f"{path}: no picture has a label file{example}")
    if without:
        what = "pictures have no label file, which means background in YOLO's format"
        found.seen[what].extend(without)
    return found


def stated_entries(content: Mapping) -> list[tuple[str, object]]:
    """(split, entry) of each of train, val, test and the like: folders, lists or more."""
    stated = []
    for split, words in SPLIT_WORDS.items():
        entries = next((content[word] for word in words if content.get(word)), [])
        stated += [(split, e) for e in (entries if isinstance(entries, list) else [entries])]
    return stated


def _split_pictures(found: AnnotationSet, path: Path, content: Mapping) -> dict[Path, str]:
    """{picture: split} as a data.yaml says, or where it does not, as the folders do.

    Raises InputError where it contradicts the folders.
    """
    root = found.inventory.root
    own = {p: split_of(p.parent.relative_to(root)) or "train" for p in found.inventory.pictures}
    splits, entry_of, taken = {}, {}, {}
    stated = stated_entries(content)
    for split, entry in stated:
        entry = str(entry).replace("\\", "/")
        if (first := taken.setdefault(entry, split)) != split:
            found.notes.append(f"{path}: {entry} is of {first} and {split}; used as {first}")
            continue
        place = place_below(root, entry, str(content.get("path") or ""))
        missing = f"{path}: {entry}: no such folder below {root}"
        if place is None and split != "test":
            raise InputError(f"{missing}; correct the path")
        if place is None:
            found.notes.append(f"{missing}; there is no test set")
        for image in _pictures(found, place) if place else ():
            if (other := entry_of.setdefault(image, entry)) != entry:
                raise InputError(
                    f"{path}: {other} and {entry} both lead to {image.parent}; correct the "
                    "paths, so that no picture is in two splits"
                )
            splits[image] = split
    for image, split in splits.items():
        if split == "train" and own[image] != "train":
            raise InputError(
                f"{path}: {entry_of[image]} is to be trained on, but {image.parent} is a folder of "
                "another split; correct the path or rename the folder"
            )
    return splits if stated else own


def _names(path: Path, names: object) -> dict[str, str]:
    """{class id: name} of a list, or of numbers and names."""
    items = dict(enumerate(names)) if isinstance(names, list) else names
    with reading(path, "a list of names, or numbers and names"):
        numbers = sorted((int(as_id(number)), name) for number, name in items.items())
        return {str(number): class_name(name) for number, name in numbers}


def place_below(root: Path, entry: str, base: str = "") -> Path | None:
    """Where a path leads below root; programs write paths of their own machines."""
    whole = Path(base.replace("\\", "/"), entry.replace("\\", "/"))
    parts = [part for part in whole.parts if part not in ("..", ".", "/")]
    tried = [root.joinpath(*parts[k:]) for k in range(max(1, len(parts)))]
    return next((place for place in tried if os.path.exists(place)), None)


def _pictures(found: AnnotationSet, place: Path) -> list[Path]:
    """The pictures of a folder, or those that a list file names."""
    known = {picture.resolve(): picture for picture in found.inventory.pictures}
    if place.is_dir():
        return [p for real, p in known.items() if place.resolve() in real.parents]
    try:
        lines = place.read_text(encoding="utf-8-sig").replace("\\", "/").split("\n")
        listed = [(place.parent / line.strip()).resolve() for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise InputError(f"{place}: cannot be read as a list of pictures ({error})") from error
    missing = [str(picture) for picture in listed if picture not in known]
    if missing:
        raise InputError(f"{place}: {missing[0]}: no such picture below {found.inventory.root}")
    return [known[picture] for picture in listed]


def _label_places(root: Path, image: Path) -> list[Path]:
    """labels/.../x.txt for images/.../x.jpg, and x.txt beside x.jpg."""
    folder = in_place_of_images(root, image.parent, "labels") or image.parent
    return [(place / image.name).with_suffix(".txt") for place in (folder, image.parent)]


def in_place_of_images(root: Path, folder: Path, name: str) -> Path | None:
    """The path of a folder with another name for the last images in it below root, if any."""
    parts = list(folder.relative_to(root).parts)
    if "images" not in parts:
        return None
    parts[len(parts) - 1 - parts[::-1].index("images")] = name
    return root.joinpath(*parts)


def _lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """(name, words) of each line that is not empty."""
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        if words := line.split():
            yield f"line {number}", words


def _shapes(
    names: Mapping[str, str], size: tuple[int, int], words: Sequence[str]
) -> Iterator[Shape]:
    """The polygon of a line `class x1 y1 x2 y2 ...`, x and y from 0 to 1."""
    if len(words) == BOX:
        raise ValueError("a box (5 numbers), not a polygon; export segmentation labels")
    class_id = as_id(words[0])
    if class_id not in names:
        raise ValueError(
            f"class {class_id} is not in data.yaml, which has {first_of(list(names))}; where "
            "labels count from 1, write names: {1: a, 2: b} there"
        )
    points = ring_of(np.array(words[1:], np.float64)) * size[::-1]
    yield polygon(names[class_id], points, border=False)
