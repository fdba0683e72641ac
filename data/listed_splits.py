"""Pairs that files list: the text files of Pascal VOC and CVAT, and annotation files."""

import codecs
from dataclasses import replace
from pathlib import Path

from config import IGNORE_INDEX, SPLIT_WORDS
from data.annotations.dataset import AnnotationSet, composed
from data.images import IMAGE_SUFFIXES, list_images
from data.labels.class_entries import IGNORE_LABEL, ClassFile
from data.labels.classes import Classes, default_palette, is_background
from data.pairs import Orphan, Pair, Splits, name_below
from utils import InputError

MAX_LABELS = 254  # of bytes, 0 is what no shape covers and 255 is ignored
DEFAULT_LIST = "default"  # CVAT's name for a list of all pictures


def voc_splits(root: Path) -> Splits:
    """The pairs that ImageSets/Segmentation/{train,val,test}.txt list.

    Without train.txt, the names in trainval.txt or default.txt that val.txt and test.txt lack.
    """
    lists = root / "ImageSets" / "Segmentation"
    names = {path.stem: _read_list(path) for path in lists.glob("*.txt")}
    held_out = {*names.get("val", []), *names.get("test", [])}
    train = next((stem for stem in ("train", "trainval", DEFAULT_LIST) if stem in names), "")
    if not (train or held_out):
        raise InputError(f"{lists}: expected train.txt, val.txt or test.txt; a VOC folder lists "
                         "its splits there")  # fmt: skip
    if train != "train":
        names[train] = [name for name in names.get(train, []) if name not in held_out]
    files = {
        folder: {name_below(folder, path): path for path in list_images(folder)}
        for folder in (root / "JPEGImages", root / "SegmentationClass")
    }
    masks = files[root / "SegmentationClass"]
    splits = Splits("VOC", classes="voc2012")
    for split, stem in (("train", train), ("valid", "val"), ("test", "test")):
        listing, listed = lists / f"{stem}.txt", names.get(stem, [])
        if split == "test" and listed and not masks.keys() & set(listed):
            note = f"none of the {len(listed)} pictures in {listing} has a mask; left out"
            splits.notes.append(note)
            continue
        found, orphans = _listed_pairs(listing, listed, files)
        splits.pairs_of(split).extend(found)
        splits.orphans.extend(orphans)
    return splits


def _listed_pairs(
    listing: Path, names: list[str], files: dict[Path, dict[str, Path]]
) -> tuple[list[Pair], list[Orphan]]:
    """files: {name: file} below the folder of the images, and below that of the masks."""
    (image_folder, images), (_, masks) = files.items()
    # VOC's lists of one class have a second column; names may have spaces.
    stems = [name if name in images else _without_suffix(name.split()[0]) for name in names]
    orphans = [
        Orphan(folder / stem, f"no such picture, but {listing} lists it")
        for folder, found in files.items()
        for stem in stems
        if stem not in found
    ]
    pairs = [Pair(images[s], masks[s]) for s in stems if s in images and s in masks]
    if names and not pairs:
        raise InputError(f"{listing}: none of its {len(stems)} names is in {image_folder}")
    return pairs, orphans


def _without_suffix(name: str) -> str:
    path = Path(name.replace("\\", "/"))
    known = path.suffix.lower() in IMAGE_SUFFIXES
    return (path.with_suffix("") if known else path).as_posix()


def _read_list(path: Path) -> list[str]:
    """The names in a list, without extensions; UTF-8, UTF-16 or Latin-1."""
    content = path.read_bytes()
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    lines = composed(text).splitlines()
    return [_without_suffix(line.strip()) for line in lines if line.strip()]


def annotated_splits(found: AnnotationSet, class_file: ClassFile | None) -> Splits:
    """The pairs that annotation files describe; their masks are drawn when they are read.

    What no shape covers is the class called background. Without a class file that class is added,
    and the labels follow in the order of their ids. With one, each label must be in it; if it has
    no background, what no shape covers is ignored.
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
        orphans=[Orphan(path, problem) for path, problem in found.unmatched],
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
    names = class_file.classes.names
    if len(names) < 2:
        raise InputError(
            f"{found.layout}: no shape has a label, so that all is background; annotate something, "
            "or name the classes in a class file"
        )
    background = next((k for k, name in enumerate(names) if is_background(name)), IGNORE_INDEX)
    ids = {name: k for k, name in enumerate(names)}
    ids |= dict.fromkeys((IGNORE_LABEL, *class_file.left_out), IGNORE_INDEX)
    unknown = [label for label in labels if label not in ids]
    if unknown:
        raise InputError(
            f"{found.layout}: the label {unknown[0]} is no class of the class file, which has "
            f"{', '.join(names)}; add it there, or to ignore_classes"
        )
    values = {k: ids.get(label, background) for k, label in enumerate(found.labels, 1)}
    return ClassFile(class_file.classes, {0: background} | values)
