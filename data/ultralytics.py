"""Files of other programs that say where images and masks are and what the masks' values mean.

Ultralytics' data.yaml (path, train, val, test, masks_dir, names, label_mapping) and LightlyTrain's
data (train and val with images and masks, classes, ignore_classes).
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from data.annotations.yolo import in_place_of_images, place_below, stated_entries
from data.inventory import Inventory
from data.labels.class_entries import parse_classes
from data.labels.class_files import load_mapping
from data.names import from_sides, side_at
from data.pairs import Splits
from utils import InputError

OF_ULTRALYTICS = ("masks_dir", "label_mapping")


def read_ultralytics(inventory: Inventory) -> Splits | None:
    """The data set that such a file in the root describes; None without one."""
    for path in inventory.texts:
        if path.parent != inventory.root or path.suffix.lower() not in (".yaml", ".yml", ".json"):
            continue
        content = load_mapping(path)
        stated = stated_entries(content)
        is_lightly = all(isinstance(_masks_of(entry), str) for _, entry in stated)
        is_ultralytics = "names" in content and any(key in content for key in OF_ULTRALYTICS)
        if not stated or not (is_lightly or is_ultralytics):
            continue
        try:
            if is_lightly:
                keys = {k: content[k] for k in ("classes", "ignore_classes") if k in content}
            else:
                keys = _ultralytics_keys(content)
            class_file = parse_classes(keys)
            folders = [(split, _folders(inventory.root, content, entry)) for split, entry in stated]
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise InputError(f"{path}: {error}") from error
        program = "LightlyTrain" if is_lightly else "Ultralytics"
        sides = [(split, *map(side_at, both)) for split, both in folders]
        splits = from_sides(f"{program} ({path.name})", sides)
        return replace(splits, class_file=class_file, sources=[path])
    return None


def _masks_of(entry: object) -> object:
    return entry.get("masks") if isinstance(entry, Mapping) else None


def _folders(root: Path, content: Mapping, entry: object) -> tuple[Path, Path]:
    """The folders of a split's images and masks; for Ultralytics masks_dir in place of images."""
    if isinstance(entry, Mapping):
        return _folder(root, entry["images"]), _folder(root, entry["masks"])
    images = _folder(root, entry, str(content.get("path") or ""))
    masks_dir = str(content.get("masks_dir") or "masks")
    masks = in_place_of_images(root, images, masks_dir)
    if masks is None:
        raise ValueError(f"{entry}: no folder is called images, for which {masks_dir} would stand")
    return images, masks


def _ultralytics_keys(content: Mapping) -> dict:
    """The keys of a class file that say the same as names and label_mapping.

    label_mapping has classes of values; what is no class there, as a text or -1, is ignored.
    """
    names = content["names"]
    names = dict(enumerate(names)) if isinstance(names, list) else names
    entries = {int(k): {"name": name, "labels": []} for k, name in names.items()}
    ignored = []
    for value, k in (content.get("label_mapping") or {k: k for k in entries}).items():
        is_class = str(k).isdigit() and int(k) in entries
        (entries[int(k)]["labels"] if is_class else ignored).append(int(value))
    return {"classes": entries, "ignore": ignored}


def _folder(root: Path, entry: object, base: str = "") -> Path:
    folder = place_below(root, str(entry), base)
    if folder is None:
        raise ValueError(f"{entry}: no such folder below {root}; correct the path")
    return folder
