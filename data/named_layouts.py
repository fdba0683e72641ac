"""Data sets that the names of their folders tell."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from config import SPLIT_WORDS
from data.evidence import PHOTO, SAMPLE, kind_of
from data.inventory import Inventory, evenly
from data.names import LABEL_IDS, TRAIN_IDS, Side, masks_beside
from data.pairs import Splits
from data.sides import Folders, NoFit, from_folders, from_sides
from data.splits import split_of
from data.ultralytics import read_ultralytics
from utils import InputError

MASKS = ("masks", "labels", "annotations")
# Folders of images and masks; * stands for one of SPLIT_WORDS.
FOLDERS = {
    "Cityscapes": ("leftImg8bit/*", ("gtFine/*",)),
    "images/SPLIT, masks/SPLIT": ("images/*", tuple(f"{name}/*" for name in MASKS)),
    "SPLIT/images, SPLIT/masks": ("*/images", tuple(f"*/{name}" for name in MASKS)),
    "SPLIT_images, SPLIT_masks": ("*_images", tuple(f"*_{name}" for name in MASKS)),
    "SPLIT, SPLIT_masks": ("*", (*(f"*_{name}" for name in MASKS), "*annot")),
    "SPLIT with masks beside the images": ("*", ("*",)),
}
SHOWN_LAYOUTS = (
    "images/train + masks/train, train/images + train/masks, or train_images + train_masks, and so "
    "on for val and test (input/README.md), or two folders of photographs and of masks with the "
    "same names; --train-images and --train-masks name any others"
)
PENN_FUDAN = "Penn-Fudan"
VOC_NAME = re.compile(r"20\d\d_\d+")


def penn_fudan(inventory: Inventory) -> Splits | None:
    images, masks = inventory.root / "PNGImages", inventory.root / "PedMasks"
    if not (inventory.has_rasters(images) and inventory.has_rasters(masks)):
        return None
    splits = from_folders(PENN_FUDAN, {"train": (images, masks)})
    return replace(splits, classes_from="person", instances=True)


def voc(inventory: Inventory) -> Splits | None:
    """Pascal VOC's folders, with lists or without; its classes if the pictures' names are VOC's."""
    images, masks = inventory.root / "JPEGImages", inventory.root / "SegmentationClass"
    if not (inventory.has_rasters(images) and inventory.has_rasters(masks)):
        return None
    splits = from_folders("VOC", {"train": (images, masks)})
    is_voc_s = all(VOC_NAME.fullmatch(pair.image.stem) for pair in splits.pairs)
    lists = inventory.root / "ImageSets" / "Segmentation"
    if lists.is_dir() and not any(path.parent == lists for path in inventory.texts):
        raise InputError(
            f"{lists}: expected train.txt, val.txt or test.txt; a VOC folder lists its splits there"
        )
    return replace(splits, classes_from="voc2012" if is_voc_s else None, is_voc=True)


def known_folders(inventory: Inventory) -> Splits | None:
    """The first of FOLDERS that fits, unless pictures to train on lie in folders of no split."""
    plain = [_first(inventory, ["images"]), _first(inventory, MASKS)]
    is_plain = all(folder in inventory.by_folder for folder in plain)
    for layout, patterns in FOLDERS.items():
        folders, notes = _split_folders(inventory, *patterns)
        if folders and is_plain and "train" not in folders:
            return None
        if folders:
            splits = _with_preset(from_folders(layout, folders), folders)
            return replace(splits, notes=[*splits.notes, *notes])
    return None


def images_and_masks(inventory: Inventory) -> Splits | None:
    """One folder of images and one of masks, without splits."""
    if odd_splits(inventory):
        return None
    images, masks = _first(inventory, ["images"]), _first(inventory, MASKS)
    if not (images and masks):
        return None
    if all(kind_of(path) == PHOTO for path in evenly(inventory.rasters_below(masks), SAMPLE)):
        return None
    return from_folders("images, masks", {"train": (images, masks)})


def beside(inventory: Inventory) -> Splits | None:
    """Masks beside the images, by the usual endings."""
    side = Side(inventory.root, inventory.rasters)
    here, count = masks_beside(side), len(side.files)
    is_one_folder = {*inventory.by_folder} == {inventory.root}
    if (not is_one_folder and 3 * len(here) < count) or not count or odd_splits(inventory):
        return None
    return from_sides("masks beside the images", [("train", side, side)])


READERS = (read_ultralytics, penn_fudan, voc, known_folders, images_and_masks, beside)


def odd_splits(inventory: Inventory) -> list[Path]:
    """The folders of rasters that state a split."""
    root = inventory.root
    return [f for f in inventory.by_folder if f != root and split_of(f.relative_to(root) / ".")]


def refuse_odd_splits(inventory: Inventory) -> None:
    """Raise InputError where folders are named like splits but fit no layout.

    Their pictures would be mixed, and those set aside for validation or test be trained on.
    """
    if odd := odd_splits(inventory):
        shown = ", ".join(str(folder.relative_to(inventory.root)) for folder in odd[:4])
        raise InputError(
            f"{inventory.root}: {shown}: these look like splits, but images and masks do not both "
            f"have them; expected {SHOWN_LAYOUTS}"
        )


def _split_folders(
    inventory: Inventory, images: str, masks: Sequence[str]
) -> tuple[dict[str, Folders], list[str]]:
    """{split: (images, masks)} of the folders that match the patterns, and notes.

    Raises InputError for a split with two folders, or with images but no masks.
    """
    found, without_masks = {}, {}
    is_beside = masks == (images,)
    for split, words in SPLIT_WORDS.items():
        image_folder = _only(inventory, images, words)
        mask_folder = next(filter(None, (_only(inventory, mask, words) for mask in masks)), None)
        if is_beside and image_folder:
            side = Side(image_folder, inventory.rasters_below(image_folder))
            if not masks_beside(side):
                continue
        if image_folder and mask_folder:
            found[split] = image_folder, mask_folder
        elif image_folder:
            without_masks[split] = image_folder
    notes = []
    for split, folder in without_masks.items():
        if found and split != "test":
            raise NoFit(f"{folder}: pictures without a folder of masks; expected {masks[0]}")
        notes.append(f"{folder} has no masks; it is left out")
    return found, notes


def _only(inventory: Inventory, pattern: str, words: Sequence[str]) -> Path | None:
    """The folder with pictures that the pattern with one of the words names."""
    found = {}
    for word in words:
        if folder := _first(inventory, [pattern.replace("*", word)]):
            found[folder.resolve()] = folder
    if len(found) > 1:
        shown = " and ".join(map(str, found.values()))
        raise InputError(f"{shown} both look like one split; remove or rename one")
    return next(iter(found.values()), None)


def _first(inventory: Inventory, names: Sequence[str]) -> Path | None:
    """The first folder with pictures of these names; upper and lower case are alike."""
    for name in names:
        parts = tuple(part.lower() for part in name.split("/"))
        for folder in inventory.folders:
            below = folder.relative_to(inventory.root).parts
            if tuple(part.lower() for part in below) == parts and inventory.has_rasters(folder):
                return folder
    return None


def _with_preset(splits: Splits, folders: dict[str, Folders]) -> Splits:
    """The splits with the classes of ADE20K or Cityscapes, where folders and names are theirs."""
    masks = {"/".join(masks.parts[-2:]) for _, masks in folders.values()}
    if masks <= {"annotations/training", "annotations/validation"}:
        if all(pair.image.stem.startswith("ADE_") for pair in splits.pairs):
            return replace(splits, layout="ADE20K", classes_from="ade20k")
        return splits
    if splits.layout != "Cityscapes":
        return splits
    kinds = {pair.mask.stem.endswith(LABEL_IDS) for pair in splits.pairs}
    if len(kinds) > 1:
        raise InputError(
            "Cityscapes: some masks are labelTrainIds and some labelIds; make the labelTrainIds of "
            "all splits, or remove them all"
        )
    if kinds == {True}:
        return replace(splits, classes_from="cityscapes_label_ids")
    are_theirs = all(pair.mask.stem.endswith(TRAIN_IDS) for pair in splits.pairs)
    return replace(splits, classes_from="cityscapes") if are_theirs else splits
