"""YOLO segmentation: a data.yaml, and a text file for each picture with a polygon a line.

Overlaps: the format has no order, so polygons are drawn by falling area, small ones on top.
Background: what no polygon covers, and pictures without a text file. It has no ignored regions, and
no holes: exporters cut a polygon open to make one.
"""

import os
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import yaml

from config import SPLIT_WORDS
from data.annotations.dataset import AnnotationSet, as_id, split_of
from data.annotations.shapes import Annotation, Shape, polygon, ring_of
from data.labels.class_checks import class_name
from utils import InputError

SizeOf = Callable[[Path], tuple[int, int]]  # a picture's upright (H, W)


def load_data_yaml(path: Path) -> dict | None:
    """What a data.yaml of any name holds: class names and the pictures of a split; else None."""
    if path.suffix.lower() not in (".yaml", ".yml"):
        return None
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None  # as a class file it will be read, and refused, later
    words = {word for names in SPLIT_WORDS.values() for word in names}
    is_one = isinstance(content, Mapping) and "names" in content and words & content.keys()
    return content if is_one else None


def read_yolo(
    root: Path, path: Path, content: dict, pictures: list[Path], size_of: SizeOf
) -> AnnotationSet:
    """The pictures of a data.yaml."""
    found = AnnotationSet(f"YOLO ({path.relative_to(root)})")
    names = _names(path, content["names"])
    found.add_labels(names.values())
    without = []
    for image, split in _split_pictures(found, root, path, content, pictures).items():
        labels, size, shapes = _label_file(root, image), size_of(image), []
        if labels.is_file():
            shapes = list(_shapes(found, labels, names, size))
        else:
            labels = path
            without.append(image)
        found.add(Annotation(image, labels, split, size, shapes, small_on_top=True))
    if without:
        found.notes.append(
            f"{len(without)} pictures have no label file, which means background in YOLO's format, "
            f"first: {without[0]}"
        )
    if not found.annotations:
        raise InputError(f"{path}: no pictures in the folders that it names; correct its paths")
    if len(without) == len(found.annotations):
        raise InputError(
            f"{path}: no picture has a label file; that of {without[0]} would be "
            f"{_label_file(root, without[0])}"
        )
    return found


def _split_pictures(
    found: AnnotationSet, root: Path, path: Path, content: dict, pictures: list[Path]
) -> dict[Path, str]:
    """{picture: split} as a data.yaml says; raises InputError where a folder says otherwise."""
    splits, entry_of, taken = {}, {}, {}
    for split, words in SPLIT_WORDS.items():
        entries = next((content[word] for word in words if content.get(word)), [])
        for entry in entries if isinstance(entries, list) else [entries]:
            if (first := taken.setdefault(str(entry), split)) != split:
                found.notes.append(f"{path}: {entry} is of {first} and {split}; used as {first}")
                continue
            try:
                images = _pictures(root, path, content, str(entry), pictures)
            except FileNotFoundError as error:
                if split != "test":
                    raise InputError(f"{path}: {error}; correct the path") from error
                found.notes.append(f"{path}: {error}; there is no test set")
                continue
            for image in images:
                folder = image.parent
                if (other := entry_of.setdefault(image, entry)) != entry:
                    raise InputError(
                        f"{path}: {other} and {entry} both lead to {folder}; correct the paths, so "
                        "that no picture is in two splits"
                    )
                splits[image] = split
    for image, split in splits.items():
        own = split_of(image.parent.relative_to(root))
        if split == "train" and own in ("valid", "test"):
            raise InputError(
                f"{path}: {entry_of[image]} is to be trained on, but {image.parent} is a folder of "
                "another split; correct the path or rename the folder"
            )
    return splits


def _names(path: Path, names: object) -> dict[str, str]:
    """{class id: name} of a list, or of numbers and names."""
    items = dict(enumerate(names)) if isinstance(names, list) else names
    try:
        numbers = sorted((int(as_id(number)), name) for number, name in items.items())
        return {str(number): class_name(name) for number, name in numbers}
    except (AttributeError, ValueError, TypeError) as error:
        raise InputError(
            f"{path}: names: {error}; expected a list, or numbers and names"
        ) from error


def _pictures(
    root: Path, path: Path, content: dict, entry: str, pictures: list[Path]
) -> list[Path]:
    """The pictures of a folder or of a list file; exporters write paths of their own machines.

    Raises FileNotFoundError where there is no such folder below root.
    """
    if not os.path.exists(root / entry):
        entry = entry.replace("\\", "/")
    base = str(content.get("path") or "")
    tried = [root / base / entry, root / entry, path.parent / entry]
    parts = [part for part in Path(entry).parts if part not in ("..", ".", "/")]
    tried += [root.joinpath(*parts[k:]) for k in range(len(parts))]
    place = next((p for p in tried if os.path.exists(p) and _is_below(p, root)), None)
    if place is None:
        raise FileNotFoundError(f"{entry}: no such folder below {root}")
    if place.is_dir():
        return [picture for picture in pictures if _is_below(picture, place)]
    known = {picture.resolve(): picture for picture in pictures}
    try:
        lines = place.read_text(encoding="utf-8-sig").replace("\\", "/").split("\n")
        listed = [(place.parent / line.strip()).resolve() for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise InputError(f"{place}: cannot be read as a list of pictures ({error})") from error
    missing = [str(picture) for picture in listed if picture not in known]
    if missing:
        raise InputError(f"{place}: {missing[0]}: no such picture below {root}")
    return [known[picture] for picture in listed]


def _is_below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _label_file(root: Path, image: Path) -> Path:
    """labels/.../x.txt for images/.../x.jpg, else x.txt beside x.jpg; the first if there is none.

    Only a folder below the root counts as images.
    """
    parts = list(image.relative_to(root).parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    places = [root.joinpath(*parts).with_suffix(".txt"), image.with_suffix(".txt")]
    forms = [p.with_name(unicodedata.normalize(f, p.name)) for p in places for f in ("NFC", "NFD")]
    return next((file for file in (*places, *forms) if file.is_file()), places[0])


def _shapes(
    found: AnnotationSet, path: Path, names: Mapping[str, str], size: tuple[int, int]
) -> Iterator[Shape]:
    """A polygon for each line `class x1 y1 x2 y2 ...`, x and y from 0 to 1."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from error
    for number, words in enumerate(map(str.split, lines), 1):
        if not words:
            continue
        try:
            if len(words) == 5:
                raise ValueError("a box (5 numbers), not a polygon; export segmentation labels")
            class_id = as_id(words[0])
            if class_id not in names:
                known = list(names)[:: max(1, len(names) - 1)]
                raise ValueError(
                    f"class {class_id} is not in data.yaml, whose {len(names)} classes have the "
                    f"numbers {' to '.join(known)}"
                )
            points = ring_of(np.array(words[1:], np.float64)) * size[::-1]
            yield polygon(names[class_id], points, border=False)
        except ValueError as error:
            found.problems.append((path, f"line {number}: {error}"))
