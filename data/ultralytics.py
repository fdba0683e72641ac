"""Files of other programs that say where images and masks are and what the masks' values mean.

Ultralytics' data.yaml (path, train, val, test, masks_dir, names, label_mapping) and LightlyTrain's
data (train and val with images and masks, classes, ignore_classes).
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import yaml

from config import IGNORE_INDEX, SPLIT_WORDS
from data.inventory import Inventory
from data.labels.class_checks import class_name
from data.labels.class_entries import ClassFile, parse_classes
from data.labels.classes import Classes, default_palette
from data.names import Side, from_sides
from data.pairs import Splits
from utils import InputError

OF_ULTRALYTICS = ("masks_dir", "label_mapping")


def read_ultralytics(inventory: Inventory) -> Splits | None:
    """The data set that such a file in the root describes; None without one."""
    for path in inventory.texts:
        if path.parent != inventory.root or path.suffix.lower() not in (".yaml", ".yml", ".json"):
            continue
        content = _load(path)
        stated = {
            s: content[w] for s, words in SPLIT_WORDS.items() for w in words if content.get(w)
        }
        if not stated:
            continue
        try:
            if "names" in content and any(key in content for key in OF_ULTRALYTICS):
                return _ultralytics(inventory, path, content, stated)
            if all(isinstance(v, Mapping) and "masks" in v for v in stated.values()):
                return _lightly(inventory, path, content, stated)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise InputError(f"{path}: {error}") from error
    return None


def _load(path: Path) -> Mapping:
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    return content if isinstance(content, Mapping) else {}


def _ultralytics(
    inventory: Inventory, path: Path, content: Mapping, stated: Mapping[str, object]
) -> Splits:
    masks_dir = str(content.get("masks_dir") or "masks")
    sides = []
    for split, entries in stated.items():
        for entry in entries if isinstance(entries, list) else [entries]:
            images = _folder(inventory, path, str(entry), str(content.get("path") or ""))
            below = list(images.relative_to(inventory.root).parts)
            if "images" not in below:
                raise ValueError(f"{split}: {entry}: no folder of this path is called images, for "
                                 f"which {masks_dir} would stand")  # fmt: skip
            place = len(below) - 1 - below[::-1].index("images")
            masks = inventory.root.joinpath(*below[:place], masks_dir, *below[place + 1 :])
            sides.append((split, _side(inventory, images), _side(inventory, masks)))
    names = content["names"]
    names = dict(enumerate(names)) if isinstance(names, list) else dict(names)
    names = {int(k): class_name(name) for k, name in names.items()}
    ids = {k: place for place, k in enumerate(sorted(names))}
    mapping = content.get("label_mapping") or {k: k for k in names}
    values = {int(value): ids.get(_target(k), IGNORE_INDEX) for value, k in mapping.items()}
    listed = tuple(names[k] for k in sorted(names))
    if len(listed) < 2:
        raise ValueError(f"names: {len(listed)} classes; expected 2 at least, background included")
    class_file = ClassFile(Classes(listed, default_palette(listed)), values)
    splits = from_sides(f"Ultralytics ({path.name})", sides)
    return replace(splits, class_file=class_file, sources=[path])


def _target(value: object) -> int:
    """A class number of label_mapping; below 0 for what it ignores, a text."""
    return int(value) if not isinstance(value, str) or value.lstrip("-").isdigit() else -1


def _lightly(
    inventory: Inventory, path: Path, content: Mapping, stated: Mapping[str, Mapping]
) -> Splits:
    sides = []
    for split, each in stated.items():
        folders = [_folder(inventory, path, str(each[kind])) for kind in ("images", "masks")]
        sides.append((split, *(_side(inventory, folder) for folder in folders)))
    entries = {}
    for number, entry in content["classes"].items():
        if isinstance(entry, Mapping):
            labels = entry.get("labels", entry.get("values"))
            entry = {"name": entry["name"], **({"labels": list(labels)} if labels else {})}
        entries[number] = entry
    keys = {"classes": entries}
    if ignored := content.get("ignore_classes"):
        keys["ignore_classes"] = [str(number) for number in ignored]
    splits = from_sides(f"LightlyTrain ({path.name})", sides)
    return replace(splits, class_file=parse_classes(keys), sources=[path])


def _folder(inventory: Inventory, path: Path, entry: str, base: str = "") -> Path:
    """A folder below the root; programs write paths of their own machines."""
    entry, base = entry.replace("\\", "/"), base.replace("\\", "/")
    parts = [part for part in Path(base, entry).parts if part not in ("..", ".", "/")]
    for k in range(len(parts)):
        if inventory.below(inventory.root.joinpath(*parts[k:])):
            return inventory.root.joinpath(*parts[k:])
    raise InputError(
        f"{path}: {entry}: no such folder of pictures below {inventory.root}; correct the path"
    )


def _side(inventory: Inventory, folder: Path) -> Side:
    files = inventory.below(folder)
    if not files:
        raise InputError(f"{folder}: no pictures in it")
    return Side(folder, files)
