"""Find a data set's pairs: the layouts of mask folders that are known, each with its splits."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from config import SPLIT_WORDS, VALID_FRACTION
from data.annotations.find import read_annotations
from data.images import is_picture, list_images, upright_size
from data.labels.class_files import find_class_file, read_classes, read_folders
from data.labels.classes import PRESETS
from data.listed_splits import annotated_splits, voc_splits
from data.pairs import LABEL_IDS, SPLIT_NAMES, Pair, Splits, masks_beside, pair_by_stem
from utils import InputError, first_of

DEFAULT_ROOT = Path("input/PennFudanPed")
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
    "on for val and test (input/README.md)"
)
PENN_FUDAN, PENN_FUDAN_VALID = "Penn-Fudan", 24 / 170
Folders = tuple[Path | None, Path | None]


def find_splits(
    root: Path | None = None,
    folders: Sequence[Path | None] = (),
    valid_fraction: float | None = None,
    classes: str | Path | None = None,
    allow_unmatched: bool = False,
) -> Splits:
    """The pairs of a data set by split; a missing validation set is split off the training pairs.

    folders: images and masks of training, validation and test, if given by hand; else those that
    the class file names, else a known layout below root. valid_fraction: share of the pairs to
    validate on. classes: a class file or a preset, instead of the one in root. allow_unmatched:
    leave out files without a partner instead of listing them as orphans.
    """
    by_hand = any(folders)
    if not classes and (root or not by_hand):
        classes = find_class_file(root or DEFAULT_ROOT)
    root = root or DEFAULT_ROOT
    layout = "folders given by hand"
    if not by_hand and classes and str(classes) not in PRESETS:
        folders, layout = read_folders(Path(classes)), f"folders named in {classes}"
    if any(folders):
        splits = _from_folders(layout, _by_split(layout, folders))
    elif not root.is_dir():
        raise InputError(f"{root}: no such folder; {_how_to_get(root)}")
    else:
        splits = replace(_find_known_layout(root, classes), root=root)
    splits = _with_validation(splits, valid_fraction)
    splits = replace(splits, classes=classes or splits.classes)
    return _without_orphans(splits) if allow_unmatched else splits


def _how_to_get(root: Path) -> str:
    downloads = {"PennFudanPed": "pennfudan", "VOC2012": "voc2012"}
    if root.name in downloads:
        return f"`python check_data.py --download {downloads[root.name]}` fetches it"
    return "--data expects the folder of a data set (input/README.md)"


def _with_validation(splits: Splits, fraction: float | None) -> Splits:
    """The splits with a validation set, split off the training pairs if there is none."""
    if splits.valid and fraction is not None:
        raise InputError(
            f"--valid-fraction: {splits.layout} has a validation set, which begins with "
            f"{splits.valid[0].image}; leave the flag out"
        )
    if splits.valid or not splits.train:
        return splits
    default = PENN_FUDAN_VALID if splits.layout == PENN_FUDAN else VALID_FRACTION
    train, valid = split_pairs(splits.train, fraction or default)
    return replace(splits, train=train, valid=valid)


def split_pairs(pairs: Sequence[Pair], fraction: float) -> tuple[list[Pair], list[Pair]]:
    """Training and validation pairs, chosen by a hash of the names: alike on every machine."""
    if len(pairs) < 2:
        raise InputError(f"{pairs[0].image}: one pair cannot be split; add pictures")
    count = min(max(1, round(fraction * len(pairs))), len(pairs) - 1)
    by_hash = sorted(pairs, key=lambda p: hashlib.sha256(os.fsencode(p.image.stem)).hexdigest())
    chosen = set(by_hash[:count])
    return [p for p in pairs if p not in chosen], [p for p in pairs if p in chosen]


def _without_orphans(splits: Splits) -> Splits:
    """The splits without their orphans, and a note of how many there were."""
    if not splits.orphans:
        return splits
    note = f"{len(splits.orphans)} files without a partner are left out, first: "
    return replace(splits, orphans=[], notes=[*splits.notes, note + str(splits.orphans[0].path)])


def _by_split(layout: str, folders: Sequence[Path | None]) -> dict[str, Folders]:
    """{split: (images, masks)} of folders by hand; raises InputError where one of the two lacks."""
    pairs = zip(SPLIT_NAMES, folders[::2], folders[1::2], strict=False)
    found = {split: (images, masks) for split, images, masks in pairs if images or masks}
    for split, (images, masks) in found.items():
        if not (images and masks):
            raise InputError(
                f"{layout}: give both --{split}-images and --{split}-masks "
                f"({split.upper()}_IMAGES and {split.upper()}_MASKS in a class file)"
            )
    return found


def _find_known_layout(root: Path, classes: str | Path | None) -> Splits:
    if (root / "PNGImages").is_dir() and (root / "PedMasks").is_dir():
        splits = _from_folders(PENN_FUDAN, {"train": (root / "PNGImages", root / "PedMasks")})
        return replace(splits, classes="person", instances=True)
    if (root / "ImageSets" / "Segmentation").is_dir():
        return voc_splits(root)
    for layout, patterns in FOLDERS.items():
        folders, notes = _split_folders(root, *patterns)
        if folders:
            return replace(_with_preset(_from_folders(layout, folders), folders), notes=notes)
    pictures = list_images(root)
    if annotated := read_annotations(root, pictures, upright_size):
        class_file = read_classes(classes) if classes else None
        return annotated_splits(annotated, class_file)
    _refuse_odd_splits(root)
    images, masks = _first(root, ["images"]), _first(root, MASKS)
    if images and masks:
        return _from_folders("images, masks", {"train": (images, masks)})
    if any(is_picture(path) for path in root.iterdir()):
        return _from_folders("masks beside the images", {"train": (root, root)})
    raise InputError(f"{root}: no known layout in it, expected {SHOWN_LAYOUTS}; {_seen(root)}")


def _split_folders(
    root: Path, images: str, masks: Sequence[str]
) -> tuple[dict[str, Folders], list[str]]:
    """{split: (images, masks)} of the folders that match the patterns, and notes.

    Raises InputError for a split with two folders, or with images but no masks.
    """
    found, without_masks = {}, {}
    beside = masks == (images,)
    for split, words in SPLIT_WORDS.items():
        image_folder = _only(root, images, words)
        mask_folder = next(filter(None, (_only(root, mask, words) for mask in masks)), None)
        if beside and image_folder and not masks_beside(image_folder, list_images(image_folder)):
            continue
        if image_folder and mask_folder:
            found[split] = image_folder, mask_folder
        elif image_folder:
            without_masks[split] = image_folder
    notes = []
    for split, folder in without_masks.items():
        if found and split != "test":
            raise InputError(f"{folder}: pictures without a folder of masks; expected {masks[0]}")
        notes.append(f"{folder} has no masks; it is left out")
    return found, notes


def _only(root: Path, pattern: str, words: Sequence[str]) -> Path | None:
    """The folder with pictures that the pattern with one of the words names."""
    found = {}
    for word in words:
        if folder := _first(root, [pattern.replace("*", word)]):
            found[os.path.realpath(folder)] = folder
    if len(found) > 1:
        shown = " and ".join(map(str, found.values()))
        raise InputError(f"{shown} both look like one split; remove or rename one")
    return next(iter(found.values()), None)


def _first(root: Path, names: Sequence[str]) -> Path | None:
    """The first folder with pictures of these names; upper and lower case are alike."""
    for name in names:
        folder = root
        for part in name.split("/"):
            alike = [below for below in _folders(folder) if below.name.lower() == part.lower()]
            folder = alike[0] if alike else folder / part
        if list_images(folder):
            return folder
    return None


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted; hidden ones are left out."""
    return sorted(path for path in folder.glob("[!.]*") if path.is_dir())


def _refuse_odd_splits(root: Path) -> None:
    """Raise InputError where folders are named like splits but fit no layout.

    Their pictures would be mixed, and those set aside for validation or test be trained on.
    """
    words = {word for words in SPLIT_WORDS.values() for word in words}
    below = [folder for top in _folders(root) for folder in (top, *_folders(top))]
    odd = [f for f in below if f.name.lower() in words and list_images(f)]
    if odd:
        shown = ", ".join(str(folder.relative_to(root)) for folder in odd[:4])
        raise InputError(
            f"{root}: {shown}: these look like splits, but images and masks do not both have them; "
            f"expected {SHOWN_LAYOUTS}"
        )


def _seen(root: Path) -> str:
    """What is in a folder, for a message."""
    folders = {f: "/" if list_images(f) else "/ (no pictures in it)" for f in _folders(root)}
    names = [path.name + folders.get(path, "") for path in sorted(root.glob("[!.]*"))]
    return f"found {first_of(names)}" if names else "it is empty"


def _with_preset(splits: Splits, folders: dict[str, Folders]) -> Splits:
    """The splits with the classes of ADE20K or Cityscapes, where the folders are theirs."""
    masks = {"/".join(masks.parts[-2:]) for _, masks in folders.values()}
    if masks <= {"annotations/training", "annotations/validation"}:
        return replace(splits, layout="ADE20K", classes="ade20k")
    if splits.layout != "Cityscapes":
        return splits
    kinds = {pair.mask.stem.endswith(LABEL_IDS) for pair in splits.pairs}
    if len(kinds) > 1:
        raise InputError(
            "Cityscapes: some masks are labelTrainIds and some labelIds; make the labelTrainIds of "
            "all splits, or remove them all"
        )
    return replace(splits, classes="cityscapes_label_ids" if kinds == {True} else "cityscapes")


def _from_folders(layout: str, folders: dict[str, Folders]) -> Splits:
    """The pairs of each split's (images, masks)."""
    pairs, orphans = {}, []
    for split, (images, masks) in folders.items():
        pairs[split], more = pair_by_stem(images, masks)
        orphans += more
    return Splits(layout, **pairs, orphans=orphans)
