"""Data sets of annotation files: their labels as classes, their shapes as masks to draw."""

from dataclasses import replace
from pathlib import Path

from config import IGNORE_INDEX, SPLIT_WORDS
from data.annotations.dataset import AnnotationSet
from data.annotations.find import read_annotations
from data.inventory import Inventory
from data.labels.class_entries import IGNORE_LABEL, ClassFile
from data.labels.class_files import find_class_file, read_classes
from data.labels.classes import Classes, default_palette, is_background
from data.pairs import LEAVE_OUT, Orphan, Pair, Splits
from utils import InputError

MAX_LABELS = 254  # of bytes, 0 is what no shape covers and 255 is ignored


def annotated_splits(inventory: Inventory, classes: str | Path | None) -> Splits | None:
    """The pairs that annotation files below the root describe; None without such files.

    classes: a class file or a preset; else one beside the files is used.
    """
    found = read_annotations(inventory.root, inventory.pictures, inventory.texts)
    if found is None:
        return None
    classes = classes or find_class_file(inventory.root)
    splits = splits_of(found, read_classes(classes) if classes else None)
    named = [p for p in inventory.texts if str(p.relative_to(inventory.root)) in found.layout]
    drawn = [path for path in inventory.pictures if path.stem.startswith("task-")]
    return replace(splits, classes=classes, sources=[*splits.sources, *named, *drawn])


def splits_of(found: AnnotationSet, class_file: ClassFile | None) -> Splits:
    """The pairs that annotation files describe; their masks are drawn when they are read.

    What no shape covers is the class called background. Without a class file that class is added,
    and the labels follow in the order of their ids. With one, each label must be in it.
    """
    if len(found.labels) > MAX_LABELS:
        raise InputError(f"{found.layout}: {len(found.labels)} labels, at most {MAX_LABELS}")
    values = {label: k for k, label in enumerate(found.labels, 1)}
    pairs: dict[str | None, list[Pair]] = {split: [] for split in (*SPLIT_WORDS, None)}
    for annotation in found.annotations:
        pair = Pair(annotation.image, replace(annotation, values=values))
        pairs[annotation.split].append(pair)
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


def _classes_of_labels(found: AnnotationSet, class_file: ClassFile | None) -> ClassFile:
    """The classes of labels, and {value that Annotation.draw uses: class id}."""
    labels = [name for name in found.labels if not is_background(name) and name != IGNORE_LABEL]
    if class_file is None:
        names = ("background", *labels)
        class_file = ClassFile(Classes(names, default_palette(names)))
    elif useless := class_file.keys_for_masks:
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
        problem = next(iter([*found.problems, *found.unmatched]), None)
        if problem:
            raise InputError(f"{problem[0]}: {problem[1]}; so that no shape could be read")
        raise InputError(
            f"{found.layout}: no shape has a label, so that all is background; annotate something, "
            "or name the classes in a class file"
        )
    background = next((k for k, name in enumerate(names) if is_background(name)), IGNORE_INDEX)
    ids = {name: k for k, name in enumerate(names)}
    ids |= {label: ids[name] for label, name in class_file.merged.items()}
    ids |= dict.fromkeys((IGNORE_LABEL, *class_file.left_out), IGNORE_INDEX)
    unknown = [label for label in labels if label not in ids]
    if unknown:
        raise InputError(
            f"{found.layout}: the label {unknown[0]} is no class of the class file, which has "
            f"{', '.join(names)}; add it there, or to ignore_classes"
        )
    values = {k: ids.get(label, background) for k, label in enumerate(found.labels, 1)}
    return ClassFile(classes, {0: background} | values)
