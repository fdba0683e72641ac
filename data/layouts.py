"""Which reading fits: the pairs of a data folder and their splits, decided from top to bottom.

Names of folders are the first guess, then annotation files, then what names, values and sizes of
the files show. One reading is taken and told; two are a question.
"""

import os
import re
import shlex
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from config import VALID_FRACTION
from data.annotated import annotated_splits, named_objects, objects_in_folders
from data.evidence import MASK, PHOTO, SAMPLE, Twin, find_twins, kind_of, sides_of
from data.inventory import Inventory, evenly, take_inventory
from data.labels.class_files import find_class_file, read_folders
from data.labels.classes import PRESETS
from data.names import NoFit, from_sides, side_at
from data.pairs import PENN_FUDAN, SPLIT_NAMES, VOC, Splits, with_validation
from data.splits import split_of
from data.stated import flags_of_all, joined, with_stated
from data.told import ask, flags_of, seen, tell, unreadable
from data.ultralytics import read_ultralytics
from utils import InputError, first_of

DEFAULT_ROOT = Path("input/PennFudanPed")
PENN_FUDAN_VALID = 24 / 170
PLAIN = "images, masks"
MASKS = ("masks", "labels", "annotations")
# Folders of images, and of masks, the first that is there; * stands for one of SPLIT_WORDS.
FOLDERS = {
    PENN_FUDAN: ("PNGImages", ["PedMasks"]),
    VOC: ("JPEGImages", ["SegmentationClass"]),
    "Cityscapes": ("leftImg8bit/*", ["gtFine/*"]),
    "images/SPLIT, masks/SPLIT": ("images/*", [f"{name}/*" for name in MASKS]),
    "SPLIT/images, SPLIT/masks": ("*/images", [f"*/{name}" for name in MASKS]),
    "SPLIT_images, SPLIT_masks": ("*_images", [f"*_{name}" for name in MASKS]),
    "SPLIT, SPLIT_masks": ("*", [*(f"*_{name}" for name in MASKS), "*annot"]),
    PLAIN: ("images", MASKS),
}
SHOWN_LAYOUTS = (
    "images/train + masks/train, train/images + train/masks, or train_images + train_masks, and so "
    "on for val and test (input/README.md), or photographs and masks with the same names in two "
    "folders, or in one as x.jpg and x_mask.png; --train-images and --train-masks name any others"
)
VOC_NAME = re.compile(r"20\d\d_\d+")
MAX_BELOW = 40  # folders that are looked at below the root


def find_splits(
    root: Path | None = None,
    folders: Sequence[Path | None] = (),
    valid_fraction: float | None = None,
    classes: str | Path | None = None,
    allow_unmatched: bool = False,
) -> Splits:
    """The pairs of a data set by split; a missing validation set is split off the training pairs.

    folders: images and masks of training, validation and test, if given by hand, as folders or
    patterns of files; else those that the class file names, else what fits below root.
    valid_fraction: share of the pairs to validate on. classes: a class file or a preset, instead of
    the one in root. allow_unmatched: leave out files without a partner, and pairs whose sizes
    differ, instead of listing them as problems.
    """
    by_hand, given, layout = any(folders), root, "folders given by hand"
    root = root or DEFAULT_ROOT
    if not classes and (given or not by_hand):
        classes = find_class_file(root)
    if not by_hand and classes and str(classes) not in PRESETS:
        folders, layout = read_folders(Path(classes)), f"folders named in {classes}"
    inventory = take_inventory(root)
    if any(folders):
        splits = _from_folders(layout, folders)
        whole = Path(os.path.abspath(root))
        if given and all(whole in Path(os.path.abspath(p.image)).parents for p in splits.pairs):
            splits = with_stated(splits, inventory)
    elif not root.is_dir():
        downloads = {"PennFudanPed": "pennfudan", "VOC2012": "voc2012"}
        advice = "--data expects the folder of a data set (input/README.md)"
        if root.is_file():  # a data.yaml, say
            advice = f"it is a file; give --data {root.parent}"
        elif root.name in downloads:
            advice = f"`python check_data.py --download {downloads[root.name]}` fetches it"
        raise InputError(f"{root}: no such folder; {advice}")
    else:
        splits = replace(_read(inventory, classes), root=root)
        if splits.pairs and not (classes or splits.classes_from):
            files = [path for pair in splits.pairs for path in pair.files]
            classes = find_class_file(Path(os.path.commonpath(files)))
    classes = classes or splits.classes_from
    splits = replace(splits, classes_from=classes, allow_unmatched=allow_unmatched)
    if not by_hand:
        splits = tell(splits, inventory)
    default = PENN_FUDAN_VALID if splits.layout == PENN_FUDAN else VALID_FRACTION
    return with_validation(splits, valid_fraction, default).without_orphans()


def _from_folders(layout: str, folders: Sequence[Path | None]) -> Splits:
    """The pairs of images and masks of each split, where they are given; folders or patterns."""
    sides = []
    for split, images, masks in zip(SPLIT_NAMES, folders[::2], folders[1::2], strict=False):
        if bool(images) != bool(masks):
            raise InputError(
                f"{layout}: give both --{split}-images and --{split}-masks "
                f"({split.upper()}_IMAGES and {split.upper()}_MASKS in a class file)"
            )
        if images:
            sides.append((split, side_at(images), side_at(masks)))
    return from_sides(layout, sides)


def _read(inventory: Inventory, classes: str | Path | None) -> Splits:
    """The one reading that fits the folder, or one below it."""
    splits, problem = _read_by_names(inventory, classes)
    splits = splits or _read_below(inventory, classes) or objects_in_folders(inventory)
    splits = splits or _read_by_evidence(inventory) or named_objects(inventory)
    if splits:
        return splits
    if problem:
        raise InputError("; ".join([str(problem), *unreadable(inventory)]))
    raise InputError(
        f"{inventory.root}: no known layout in it, expected {SHOWN_LAYOUTS}; {seen(inventory)}"
    )


def _odd_splits(inventory: Inventory) -> dict[Path, str]:
    """{folder of rasters: the split that it states}."""
    root = inventory.root
    stated = {f: split_of(f.relative_to(root)) for f in inventory.by_folder if f != root}
    return {folder: split for folder, split in stated.items() if split}


def _read_by_names(
    inventory: Inventory, classes: str | Path | None
) -> tuple[Splits | None, InputError | None]:
    """What names of folders say, then annotation files, with the splits of lists.

    Where nothing fits, None and what is wrong with the last that nearly did.
    """
    splits = problem = None
    try:
        splits = read_ultralytics(inventory) or _known_folders(inventory, bool(classes))
    except NoFit as error:
        problem = error
    try:
        splits = splits or annotated_splits(inventory, classes)
    except InputError as error:
        problem = error
    return (with_stated(splits, inventory) if splits else None), problem


def _known_folders(inventory: Inventory, is_told: bool) -> Splits | None:
    """The first of FOLDERS that fits, unless it leaves a split or pictures to train on aside.

    is_told: a class file says that there are masks.
    """
    plain = inventory.first(["images"]), inventory.first(MASKS)
    is_plain = all(folder in inventory.by_folder for folder in plain)
    odd = _odd_splits(inventory)
    for layout, (images, masks) in FOLDERS.items():
        folders, notes = _folders_of(inventory, images, masks)
        left = {*odd.values()} - {*folders} - ({"test"} if notes else set())
        if not folders or left or (is_plain and "*" in images and "train" not in folders):
            continue
        if layout == PLAIN:  # which photographs alone do not make
            sample = evenly(inventory.at(folders["train"][1]).rasters, SAMPLE)
            if odd or not (is_told or any(kind_of(path) != PHOTO for path in sample)):
                continue
        sides = [(split, *map(side_at, both)) for split, both in folders.items()]
        splits = _with_preset(from_sides(layout, sides), inventory)
        return replace(splits, notes=[*splits.notes, *notes])
    return None


def _folders_of(
    inventory: Inventory, images: str, masks: Sequence[str]
) -> tuple[dict[str, tuple[Path, Path]], list[str]]:
    """{split: (images, masks)} of the folders that the patterns name, and notes.

    Raises InputError for a split with two folders, or with images but no masks.
    """
    found, without_masks = {}, {}
    for split in SPLIT_NAMES if "*" in images else ("train",):
        image_folder, mask_folder = (inventory.first(names, split) for names in ([images], masks))
        if image_folder and mask_folder:
            found[split] = image_folder, mask_folder
        elif image_folder:
            without_masks[split] = image_folder
    for split, folder in without_masks.items():
        if found and split != "test":
            raise NoFit(f"{folder}: pictures without a folder of masks; expected {masks[0]}")
    return found, [f"{folder} has no masks; it is left out" for folder in without_masks.values()]


def _with_preset(splits: Splits, inventory: Inventory) -> Splits:
    """The splits with the classes of a known data set, where folders and names are its own."""
    images, masks = ([pair.files[k].stem for pair in splits.pairs] for k in (0, 1))
    if splits.layout == PENN_FUDAN:
        return replace(splits, classes_from="person")
    if splits.layout == VOC:
        is_voc_s = all(map(VOC_NAME.fullmatch, images))
        return replace(splits, classes_from="voc2012" if is_voc_s else None)
    if splits.layout == "Cityscapes":
        kinds = {name.rpartition("_")[2] for name in masks}
        if "labelIds" in kinds and len(kinds) > 1:
            raise InputError(
                "Cityscapes: some masks are labelTrainIds and some labelIds; make the "
                "labelTrainIds of all splits, or remove them all"
            )
        presets = {"labelIds": "cityscapes_label_ids", "labelTrainIds": "cityscapes"}
        return replace(splits, classes_from=presets.get(kinds.pop()) if len(kinds) == 1 else None)
    places = {pair.mask.relative_to(inventory.root).parts[0].lower() for pair in splits.pairs}
    if places == {"annotations"} and all(name.startswith("ADE_") for name in images):
        return replace(splits, layout="ADE20K", classes_from="ade20k")
    return splits


def _read_below(inventory: Inventory, classes: str | Path | None) -> Splits | None:
    """What names say of the one folder below the root that they say something of."""
    here = sum(path.parent == inventory.root for path in inventory.pictures)
    if 10 * here > len(inventory.pictures):
        return None
    fitting: dict[Path, Splits] = {}
    for folder in inventory.folders[:MAX_BELOW]:
        if fitting and len(folder.parts) > len(next(iter(fitting)).parts):
            break
        if split_of(folder.relative_to(inventory.root)):
            continue
        splits, _ = _read_by_names(inventory.at(folder), classes)
        if splits:
            fitting[folder] = splits
    if len(fitting) > 1 and (splits := joined(fitting)):
        return splits
    if len(fitting) > 1:
        answers = [f"--data {shlex.quote(str(folder))}" for folder in fitting]
        answers += flags_of_all(inventory.root, fitting)
        question = f"{len(fitting)} folders below it hold a data set each; which one?"
        ask(f"{inventory.root}: {question}", answers)
    for folder, splits in fitting.items():
        line = f"the data set is in {folder}"
        return replace(splits, decisions=[line, *splits.decisions])
    return None


def _read_by_evidence(inventory: Inventory) -> Splits | None:
    """The one way in which photographs and masks belong together; None if there is none.

    Raises InputError that asks where there are several.
    """
    root = inventory.root
    twins = find_twins(inventory)
    of_masks = [twin for twin in twins if twin.masks.kind == MASK != twin.images.kind]
    sure = list(filter(Twin.is_sure, of_masks))
    taken = {side.where for twin in sure for side in (twin.images, twin.masks)}
    sure += [t for t in of_masks if not {t.images.where, t.masks.where} & taken]
    rivals = sure if any(one.is_rival_of(other) for one in sure for other in sure) else []
    if rivals or (twins and not sure):
        by_roles: dict[tuple[str, str], list[Twin]] = defaultdict(list)
        for twin in rivals or twins:
            by_roles[twin.roles].append(twin)
        readings = [sides_of(each) for each in by_roles.values()]
        splits_of = {images.where: split for split, images, _ in sides_of(rivals)}
        if rivals and len(rivals) == len(splits_of) == len({*splits_of.values()}):
            readings = [sides_of(rivals)]  # pictures of one split each, with masks in one folder
        ask(
            f"{root}: names and values do not tell which of these are the images and their masks; "
            "choose one",
            [flags_of(root, sides) for sides in readings],
        )
    if not sure:
        return None
    sides = [[side.shown(root) for side in (t.images, t.masks)] for t in sure]
    layout = first_of(list(dict.fromkeys(map(" + ".join, sides))), 3)
    splits = from_sides(layout, sides_of(sure))
    if {None, "train"} <= {twin.split for twin in sure}:
        raise InputError(
            f"{root}: {layout}: some of these folders state a split, others none; use folders "
            "called train, val and test for all"
        )
    for folder, split in _odd_splits(inventory).items():
        if splits.pairs_of(split) or kind_of(inventory.by_folder[folder][0]) == MASK:
            continue
        note = f"{folder}: pictures without a folder of masks"
        if split != "test":
            raise InputError(f"{note}; add their masks, or move them elsewhere")
        splits.notes.append(f"{note}; left out")
    line = f"images and masks, told by names, values and sizes: {layout}"
    return with_stated(replace(splits, decisions=[line, *splits.decisions]), inventory)
