"""YOLO segmentation: a data.yaml, and a text file for each picture with a polygon a line.

Overlaps: the format has no order, so polygons are drawn by falling area, small ones on top.
Background: what no polygon covers, and pictures without a text file. It has no ignored regions, and
no holes: exporters cut a polygon open to make one.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from config import SPLIT_WORDS
from data.annotations.dataset import AnnotationSet, as_id, composed
from data.annotations.shapes import Annotation, Shape, polygon, ring_of
from data.images import upright_size
from data.labels.class_entries import class_name
from data.labels.class_files import find_class_file, load_content, load_data_yaml
from data.splits import split_of
from utils import InputError

SHOWN = 3  # label files that are looked at
BOX = 5  # numbers in a line: a class, and a box
POLYGONS, BOXES = "YOLO label files", "YOLO boxes"


def find_data_yaml(root: Path, texts: Iterable[Path]) -> tuple[Path, Mapping] | None:
    """The YAML file in root that names classes and folders of YOLO, and what it holds."""
    here = (path for path in texts if path.parent == root)
    found = {path: content for path in here if (content := load_data_yaml(path))}
    usual = [path for path in found if path.stem == "data"]
    if len(found) > 1 and not usual:
        shown = " and ".join(path.name for path in found)
        raise InputError(f"{root}: {shown} both name classes and folders; remove all but one")
    return next(((path, found[path]) for path in [*usual, *found]), None)


def find_names(
    root: Path, pictures: Sequence[Path], texts: Sequence[Path]
) -> tuple[Path, Mapping] | None:
    """A file of class names beside label files, and the data.yaml that it stands for."""
    data_yaml = root / "data.yaml"
    path = data_yaml if data_yaml.is_file() else find_class_file(root)
    is_yolo = path and POLYGONS in label_files(pictures, texts).values()
    content = load_content(path) if is_yolo else None
    if not isinstance(content, dict) or "names" not in content:
        return None
    places = {picture.parent for picture in pictures}
    folders: dict[str, list[str]] = {}
    for place in sorted(p for p in places if not places & {*p.parents}):
        below = place.relative_to(root)
        folders.setdefault(split_of(below) or "train", []).append(str(below))
    return path, {"names": content["names"], **folders}


def label_files(pictures: Iterable[Path], texts: Iterable[Path]) -> dict[Path, str]:
    """Of the first text files with names of pictures, those of polygons or boxes, and which."""
    stems = {picture.stem for picture in pictures}
    below = [path for path in texts if path.suffix == ".txt" and path.stem in stems]
    lines = {
        p: p.read_text(encoding="utf-8", errors="replace").split("\n")[0] for p in below[:SHOWN]
    }
    words = {p: line.split() for p, line in lines.items()}
    kinds = {p: BOXES if len(w) == BOX else POLYGONS for p, w in words.items() if len(w) >= BOX}
    return {
        p: k for p, k in kinds.items() if all(n.replace(".", "", 1).isdigit() for n in words[p])
    }


def read_yolo(
    root: Path, pictures: Sequence[Path], texts: Sequence[Path], path: Path, content: Mapping
) -> AnnotationSet:
    """The pictures of a data.yaml, at path."""
    found = AnnotationSet(f"YOLO ({path.relative_to(root)})", root, pictures)
    names = _names(path, content["names"])
    found.add_labels(names.values())
    known = {composed(str(text)): text for text in texts}
    without: list[Path] = []
    for image, split in _split_pictures(found, path, content).items():
        places = map(str, _label_places(root, image))
        labels = next((known[p] for p in map(composed, places) if p in known), None)
        if labels is None:
            without.append(image)
        size = upright_size(image)
        shapes = (
            found.shapes(labels, _lines(labels), partial(_shapes, names, size)) if labels else []
        )
        found.add(Annotation(image, labels or path, split, size, shapes, small_on_top=True))
    if not found.annotations:
        raise InputError(f"{path}: no pictures in the folders that it names; correct its paths")
    if len(without) == len(found.annotations):
        raise InputError(
            f"{path}: no picture has a label file; that of {without[0]} would be "
            f"{_label_places(root, without[0])[0]}"
        )
    if without:
        what = "pictures have no label file, which means background in YOLO's format"
        found.seen[what].extend(without)
    return found


def _split_pictures(found: AnnotationSet, path: Path, content: Mapping) -> dict[Path, str]:
    """{picture: split} as a data.yaml says; raises InputError where a folder says otherwise."""
    splits, entry_of, taken = {}, {}, {}
    for split, words in SPLIT_WORDS.items():
        entries = next((content[word] for word in words if content.get(word)), [])
        for entry in entries if isinstance(entries, list) else [entries]:
            entry = str(entry).replace("\\", "/")
            if (first := taken.setdefault(entry, split)) != split:
                found.notes.append(f"{path}: {entry} is of {first} and {split}; used as {first}")
                continue
            place = place_below(found.root, entry, str(content.get("path") or ""))
            if place is None and split == "test":
                found.notes.append(
                    f"{path}: {entry}: no such folder below {found.root}; there is no test set"
                )
            elif place is None:
                raise InputError(
                    f"{path}: {entry}: no such folder below {found.root}; correct the path"
                )
            for image in _pictures(found, place) if place else ():
                if (other := entry_of.setdefault(image, entry)) != entry:
                    raise InputError(
                        f"{path}: {other} and {entry} both lead to {image.parent}; correct the "
                        "paths, so that no picture is in two splits"
                    )
                splits[image] = split
    for image, split in splits.items():
        own = split_of(image.parent.relative_to(found.root))
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


def place_below(root: Path, entry: str, base: str = "") -> Path | None:
    """Where a path leads below root; programs write paths of their own machines."""
    whole = Path(base.replace("\\", "/"), entry.replace("\\", "/"))
    parts = [part for part in whole.parts if part not in ("..", ".", "/")]
    tried = [root.joinpath(*parts[k:]) for k in range(max(1, len(parts)))]
    return next((place for place in tried if os.path.exists(place)), None)


def _pictures(found: AnnotationSet, place: Path) -> list[Path]:
    """The pictures of a folder, or those that a list file names."""
    known = {picture.resolve(): picture for picture in found.pictures}
    if place.is_dir():
        return [p for real, p in known.items() if place.resolve() in real.parents]
    try:
        lines = place.read_text(encoding="utf-8-sig").replace("\\", "/").split("\n")
        listed = [(place.parent / line.strip()).resolve() for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise InputError(f"{place}: cannot be read as a list of pictures ({error})") from error
    missing = [str(picture) for picture in listed if picture not in known]
    if missing:
        raise InputError(f"{place}: {missing[0]}: no such picture below {found.root}")
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
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from error
    for number, line in enumerate(lines, 1):
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
        known = list(names)[:: max(1, len(names) - 1)]
        raise ValueError(
            f"class {class_id} is not in data.yaml, whose {len(names)} classes have the numbers "
            f"{' to '.join(known)}; where labels count from 1, write names: {{1: a, 2: b}} there"
        )
    points = ring_of(np.array(words[1:], np.float64)) * size[::-1]
    yield polygon(names[class_id], points, border=False)
