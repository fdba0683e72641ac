"""Find the image and mask files of a data set, and pair them by name."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from errors import InputError
from images import list_images


class Pair(NamedTuple):
    image: Path
    mask: Path


@dataclass(frozen=True)
class Splits:
    """What was found: pairs to train and to validate on, and what the layout says of the masks."""

    layout: str
    train: list[Pair]
    valid: list[Pair]
    classes: str | Path | None = None  # a class file, or a preset of class_files
    instances: bool = False  # masks hold instance ids


IMAGE_ENDINGS = ("", "_leftImg8bit")
MASK_ENDINGS = (
    "", "_mask", "_masks", "_label", "_labels", "_gt", "_seg", "_labelTrainIds",
    "_gtFine_labelTrainIds",
)  # fmt: skip
# Cityscapes keeps other renderings of each mask beside it.
OTHER_RENDERINGS = ("_color", "_instanceIds", "_labelIds", "_instanceTrainIds")

# Train images, train masks, valid images, valid masks: each with its usual names.
FOLDERS = {
    "train_images, train_masks": (
        ("train_images",),
        ("train_masks", "train_labels"),
        ("valid_images", "val_images"),
        ("valid_masks", "valid_labels", "val_masks", "val_labels"),
    ),
    "train/images, train/masks": (
        ("train/images",),
        ("train/masks", "train/labels"),
        ("val/images", "valid/images"),
        ("val/masks", "val/labels", "valid/masks", "valid/labels"),
    ),
    "ADE20K": (
        ("images/training",),
        ("annotations/training",),
        ("images/validation",),
        ("annotations/validation",),
    ),
    "Cityscapes": (
        ("leftImg8bit/train",),
        ("gtFine/train",),
        ("leftImg8bit/val",),
        ("gtFine/val",),
    ),
    "images, masks": (("images",), ("masks", "labels", "annotations"), (), ()),
}
LAYOUT_CLASSES = {"ADE20K": "ade20k", "Cityscapes": "cityscapes"}
PENN_FUDAN_VALID = 24 / 170


def find_splits(
    root: Path,
    folders: Sequence[Path | None] = (None,) * 4,
    valid_fraction: float | None = None,
    classes: str | Path | None = None,
) -> Splits:
    """The pairs of a data set; a missing validation set is split off.

    folders: train images, train masks, valid images, valid masks, where they are given by hand
    (the last two may be None); else a known layout is looked for below root.
    """
    if any(folders):
        if not (folders[0] and folders[1]):
            raise InputError("give both --train-images and --train-masks, or --data alone")
        return Splits(
            "folders given by hand", *_pair_folders(folders, valid_fraction or 0.15), classes
        )
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; --data wants a data set (see input/README.md)")
    splits = _find_known_layout(root, valid_fraction or 0.15)
    if classes:
        return replace(splits, classes=classes)
    class_file = root / "dataset.yaml"
    return replace(splits, classes=class_file) if class_file.is_file() else splits


def _find_known_layout(root: Path, valid_fraction: float) -> Splits:
    if (root / "PNGImages").is_dir() and (root / "PedMasks").is_dir():
        pairs = pair_by_stem(root / "PNGImages", root / "PedMasks")
        train, valid = split_pairs(pairs, PENN_FUDAN_VALID)
        return Splits("Penn-Fudan", train, valid, classes="person", instances=True)
    if (root / "ImageSets" / "Segmentation").is_dir():
        train, valid = (_voc_pairs(root, name) for name in ("train", "val"))
        return Splits("VOC", train, valid, classes="voc2012")
    for layout, names in FOLDERS.items():
        folders = [_first_folder(root, candidates) for candidates in names]
        if folders[0] and folders[1]:
            train, valid = _pair_folders(folders, valid_fraction)
            return Splits(layout, train, valid, LAYOUT_CLASSES.get(layout))
    raise InputError(
        f"{root}: no known layout in it; expected train_images/ and train_masks/ (or another of "
        "input/README.md), or pass --train-images and --train-masks"
    )


def _pair_folders(
    folders: Sequence[Path | None], valid_fraction: float
) -> tuple[list[Pair], list[Pair]]:
    train_images, train_masks, valid_images, valid_masks = folders
    train = pair_by_stem(train_images, train_masks)
    if valid_images and valid_masks:
        return train, pair_by_stem(valid_images, valid_masks)
    if valid_images or valid_masks:
        raise InputError(
            f"{valid_images or valid_masks}: validation images and masks come together"
        )
    return split_pairs(train, valid_fraction)


def _first_folder(root: Path, candidates: Iterable[str]) -> Path | None:
    return next((root / name for name in candidates if (root / name).is_dir()), None)


def _voc_pairs(root: Path, split: str) -> list[Pair]:
    listing = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not listing.is_file():
        raise InputError(f"{listing}: no such file; a VOC folder lists its splits there")
    stems = listing.read_text(encoding="utf-8").split()
    pairs = [
        Pair(root / "JPEGImages" / f"{stem}.jpg", root / "SegmentationClass" / f"{stem}.png")
        for stem in stems
    ]
    missing = [path for pair in pairs for path in pair if not path.is_file()]
    if missing:
        raise InputError(f"{listing} names {len(missing)} missing files, first: {missing[0]}")
    return pairs


def pair_by_stem(image_folder: Path, mask_folder: Path) -> list[Pair]:
    """Images and masks of one name, sorted; a mask's name may have one of MASK_ENDINGS more."""
    images = _by_key(image_folder, IMAGE_ENDINGS)
    masks = _by_key(mask_folder, MASK_ENDINGS, known=set(images))
    for have, lack, what, other in (
        (images, masks, "images without a mask", mask_folder),
        (masks, images, "masks without an image", image_folder),
    ):
        orphans = [have[key].name for key in have if key not in lack]
        if orphans:
            shown = ", ".join(orphans[:5]) + (", ..." if len(orphans) > 5 else "")
            raise InputError(
                f"{len(orphans)} {what} of that name in {other}: {shown}; add or remove files"
            )
    return [Pair(images[key], masks[key]) for key in sorted(images)]


def _by_key(folder: Path, endings: Sequence[str], known: set[str] | None = None) -> dict[str, Path]:
    """Files below folder by relative name without extension and ending."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    paths = list_images(folder)
    if not paths:
        raise InputError(f"{folder}: no pictures in it")
    found: dict[str, Path] = {}
    for path in paths:
        if known is not None and path.stem.endswith(OTHER_RENDERINGS):
            continue
        key = _key(path.relative_to(folder).with_suffix("").as_posix(), endings, known)
        if key in found:
            raise InputError(f"{path} and {found[key].name} stand for one picture; remove one")
        found[key] = path
    return found


def _key(name: str, endings: Sequence[str], known: set[str] | None) -> str:
    """The name less an ending: the one that gives a known name, else the longest."""
    keys = [name.removesuffix(ending) for ending in endings if name.endswith(ending)]
    if known is not None:
        return next((key for key in keys if key in known), name)
    return min(keys, key=len)


def split_pairs(pairs: Sequence[Pair], valid_fraction: float) -> tuple[list[Pair], list[Pair]]:
    """Take a share for validation, the same on every machine: the order is that of a hash."""
    if len(pairs) < 2:
        raise InputError(f"{pairs[0].image}: one pair cannot be split; add pictures")
    count = min(max(1, round(valid_fraction * len(pairs))), len(pairs) - 1)
    by_hash = sorted(pairs, key=lambda p: hashlib.sha256(p.image.stem.encode()).hexdigest())
    chosen = set(by_hash[:count])
    return [p for p in pairs if p not in chosen], [p for p in pairs if p in chosen]
