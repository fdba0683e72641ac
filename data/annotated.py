"""Data sets whose masks are drawn: of annotation files, or of a picture for each object."""

import re
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from config import IGNORE_INDEX, SPLIT_WORDS
from data.annotations.dataset import AnnotationSet
from data.annotations.find import read_annotations
from data.annotations.shapes import Annotation, Shape
from data.images import read_mask, upright_size
from data.inventory import Inventory
from data.labels.class_entries import IGNORE_LABEL, ClassFile
from data.labels.class_files import find_class_file, read_classes
from data.labels.classes import Classes, default_palette, is_background
from data.labels.masks import value_codes
from data.pairs import LEAVE_OUT, Orphan, Pair, Splits
from data.splits import split_of
from utils import InputError

OBJECT = re.compile(r"(.+)_([^_\d][^_]*)_(\d+)")  # image, class, number
NO_CLASS = "object"
OVERLAP = 0.1  # at most, of the pixels of objects in folders; else they may be copies of one mask
MAX_LABELS = 254  # of bytes, 0 is what no shape covers and 255 is ignored


def annotated_splits(inventory: Inventory, classes: str | Path | None) -> Splits | None:
    """The pairs that annotation files below the root describe; None without such files.

    classes: a class file or a preset; else one beside the files is used.
    """
    found = read_annotations(inventory)
    if found is None:
        return None
    classes = classes or find_class_file(inventory.root)
    splits = splits_of(found, read_classes(classes) if classes else None)
    named = [p for p in inventory.texts if str(p.relative_to(inventory.root)) in found.layout]
    drawn = [path for path in inventory.pictures if path.stem.startswith("task-")]
    return replace(splits, classes_from=classes, sources=[*splits.sources, *named, *drawn])


def splits_of(found: AnnotationSet, class_file: ClassFile | None) -> Splits:
    """The pairs that annotation files describe; their masks are drawn when they are read.

    What no shape covers is the class called background. Without a class file that class is added,
    and the labels follow in the order of their ids. With one, each label must be in it.
    """
    if len(found.labels) > MAX_LABELS:
        raise InputError(f"{found.layout}: {len(found.labels)} labels, at most {MAX_LABELS}")
    _leave_out_bare_tests(found)
    values = {label: k for k, label in enumerate(found.labels, 1)}
    pairs: dict[str | None, list[Pair]] = {split: [] for split in (*SPLIT_WORDS, None)}
    for annotation in found.by_picture.values():
        drawn = replace(annotation, values=values, small_on_top=found.small_on_top)
        pairs[annotation.split].append(Pair(annotation.image, drawn))
    unsplit = pairs.pop(None)
    if unsplit and any(pairs.values()):
        raise InputError(
            f"{found.layout}: {unsplit[0].image} belongs to no split, others do; use folders or "
            "files called train, val and test"
        )
    pairs["train"] += unsplit
    return Splits(
        found.layout,
        **pairs,
        orphans=[Orphan(path, f"{problem}; {LEAVE_OUT}") for path, problem in found.unmatched],
        problems=[f"{path}: {problem}" for path, problem in found.problems],
        notes=found.notes,
        class_file=_classes_of_labels(found, class_file),
    )


def _leave_out_bare_tests(found: AnnotationSet) -> None:
    """Leave out the pictures of a test set that nobody has annotated, and note it."""
    root = found.inventory.root
    bare = {path for path in found.bare if split_of(path.relative_to(root)) == "test"}
    tests = {a.image for a in found.by_picture.values() if a.split == "test"}
    if not bare or not tests <= bare:
        return
    found.by_picture = {p: a for p, a in found.by_picture.items() if p not in bare}
    found.unmatched = [(path, problem) for path, problem in found.unmatched if path not in bare]
    found.notes.append(
        f"none of the {len(bare)} pictures of the test set is annotated; left out, first: "
        f"{min(bare)}"
    )


def _classes_of_labels(found: AnnotationSet, class_file: ClassFile | None) -> ClassFile:
    """The classes of labels, and {value that Annotation.draw uses: class id}."""
    labels = [name for name in found.labels if not is_background(name) and name != IGNORE_LABEL]
    if class_file is None:
        names = ("background", *labels)
        class_file = ClassFile(Classes(names, default_palette(names)))
    elif (useless := class_file.keys_for_masks) and not class_file.is_preset:
        raise InputError(
            f"{found.layout}: {useless} in the class file speaks of mask values and has no effect "
            "on shapes with labels; leave it out (`ignore_classes: [NAME]` ignores a label, and "
            "`labels: [NAME, NAME]` gives several to one class)"
        )
    classes = class_file.classes
    is_ignored = any(map(is_background, class_file.left_out))
    if not is_ignored and not any(map(is_background, classes.names)):
        names = ("background", *classes.names)
        found.notes.append(
            "the class file names no background; what no shape covers is class 0, background "
            "(to ignore it, name background first and write `ignore_classes: [background]`)"
        )
        classes = Classes(names, default_palette(names))
    names = classes.names
    if len(names) < 2:
        raise InputError(
            f"{found.layout}: no shape has a label, so that all is background; annotate something, "
            "or name the classes in a class file"
        )
    background = next((k for k, name in enumerate(names) if is_background(name)), IGNORE_INDEX)
    ids = {name: k for k, name in enumerate(names)}
    own = dict(enumerate(class_file.classes.names))
    ids |= {label: ids.get(own.get(k), IGNORE_INDEX) for label, k in class_file.merged.items()}
    ids |= dict.fromkeys((IGNORE_LABEL, *class_file.left_out), IGNORE_INDEX)
    unknown = [label for label in labels if label not in ids]
    if unknown:
        raise InputError(
            f"{found.layout}: the label {unknown[0]} is no class of the class file, which has "
            f"{', '.join(names)}; add it there, or to ignore_classes"
        )
    values = {k: ids.get(label, background) for k, label in enumerate(found.labels, 1)}
    return ClassFile(classes, {0: background} | values)


def named_objects(inventory: Inventory) -> Splits | None:
    """The pictures of which all other files are masks of an object, named IMAGE_CLASS_NUMBER."""
    pictures = {p.stem: p for p in inventory.pictures if not OBJECT.fullmatch(p.stem)}
    objects: dict[Path, list[tuple[str, Path]]] = {path: [] for path in pictures.values()}
    for path in inventory.pictures:
        if match := OBJECT.fullmatch(path.stem):
            if match[1] not in pictures:
                return None
            objects[pictures[match[1]]].append((match[2], path))
    return _drawn_objects(inventory, objects)


def objects_in_folders(inventory: Inventory) -> Splits | None:
    """The pictures that lie alone in a folder, beside one of masks of their objects.

    All these folders of pictures have one name, all those of masks another.
    """
    most: dict[str, int] = defaultdict(int)
    for folder, files in inventory.by_folder.items():
        most[folder.name] = max(most[folder.name], len(files))
    if len(most) != 2 or min(most.values()) > 1 or max(most.values()) == 1:
        return None
    images, masks = sorted(most, key=most.get)
    objects = {}
    for folder, files in inventory.by_folder.items():
        if folder.name == images:
            paths = inventory.by_folder.get(folder.parent / masks, [])
            objects[files[0]] = [(NO_CLASS, path) for path in paths]
    return _drawn_objects(inventory, objects) if len(objects) > 1 else None


def _drawn_objects(
    inventory: Inventory, objects: Mapping[Path, list[tuple[str, Path]]]
) -> Splits | None:
    """The pairs of {picture: (class, mask) of its objects}; small objects are drawn on top.

    None unless every mask has its picture's size and two values, and those of no class are apart.
    """
    first = next((files[0][1] for files in objects.values() if files), None)
    if first is None:
        return None
    layout = f"a picture for each object ({first.relative_to(inventory.root)})"
    found = AnnotationSet(layout, inventory, small_on_top=True)
    for image, files in objects.items():
        split, size = split_of(image.parent.relative_to(inventory.root)), upright_size(image)
        if not files:
            found.unmatched.append((image, "no mask of an object belongs to it"))
            found.bare.add(image)
            continue
        masks = [_object(path, size) for _, path in files]
        if any(mask is None for mask in masks):
            return None
        covered = np.sum(masks, axis=0)
        if files[0][0] == NO_CLASS and (covered > 1).sum() > OVERLAP * (covered > 0).sum():
            return None
        shapes = [Shape(label, path=path) for label, path in files]
        found.add(Annotation(image, files[0][1], split, size, shapes))
        found.add_labels(label for label, _ in files)
    found.labels.sort()
    splits = splits_of(found, None)
    splits.sources.extend(path for files in objects.values() for _, path in files)
    return splits


def _object(path: Path, size: tuple[int, int]) -> np.ndarray | None:
    """Where an object is, (H, W); None unless the file holds two values and has this size."""
    with suppress(InputError):
        codes = value_codes(read_mask(path)[0])
        if codes.shape == size and len(np.unique(codes)) <= 2:
            return codes > 0
    return None
