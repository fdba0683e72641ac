"""What a user's class file says: names, colours, and which mask values mean which class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from config import IGNORE_INDEX
from errors import InputError
from presets import MAX_CLASSES, PRESETS, Classes, default_classes

KEYS = (
    "ALL_CLASSES", "LABEL_COLORS_LIST", "VIS_LABEL_MAP", "classes", "names", "id2label",
    "ignore", "ignore_classes", "ignore_colors", "instances", "zero_is",
)  # fmt: skip


@dataclass(frozen=True)
class ClassFile:
    """Classes and what the file says of the masks; empty fields mean that it says nothing.

    values: stored value -> class id. colours: RGB mask colour -> class id. Both use IGNORE_INDEX
    for what is to be ignored. instances: every value but 0 is class 1.
    """

    classes: Classes
    values: dict[int, int] = field(default_factory=dict)
    colours: dict[tuple[int, int, int], int] = field(default_factory=dict)
    instances: bool = False


def read_classes(source: str | Path) -> ClassFile:
    """A preset's name or a YAML (or JSON) file.

    Known keys: `ALL_CLASSES` (names), `LABEL_COLORS_LIST` (colours in the masks), `VIS_LABEL_MAP`
    (colours to draw), `names` or `id2label`, `classes` ({id: name} or
    {id: {name, labels: [mask values], color}}), `ignore` (mask values), `ignore_colors`,
    `instances: true`, `zero_is: ignore` (0 is void, 1 is the first class).
    """
    if str(source) in PRESETS:
        return _preset(str(source))
    path = Path(source)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        known = ", ".join(PRESETS)
        raise InputError(f"{path}: no such class file, nor a preset ({known})") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a readable class file ({reason})") from error
    try:
        return _from_mapping(content)
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: {error}") from error


def _preset(name: str) -> ClassFile:
    classes = PRESETS[name]
    if name == "ade20k":  # its palette has one colour twice, and its masks hold numbers anyway
        return ClassFile(classes, values=_shifted(classes.num_classes))
    colours = {colour: k for k, colour in enumerate(classes.palette)}
    if name == "voc2012":
        colours[224, 224, 192] = IGNORE_INDEX  # the border around every object
    return ClassFile(classes, colours=colours)


def _shifted(num_classes: int) -> dict[int, int]:
    return {0: IGNORE_INDEX} | {k + 1: k for k in range(num_classes)}


def _from_mapping(content: object) -> ClassFile:
    if not isinstance(content, Mapping):
        raise ValueError(f"expected keys such as ALL_CLASSES, found {type(content).__name__}")
    unknown = [str(key) for key in content if key not in KEYS]
    if unknown:
        raise ValueError(f"unknown key {unknown[0]}; known: {', '.join(KEYS)}")
    entries = _entries(content)
    defaults = default_classes(max(len(entries), 2)).palette
    mask_colours = [_colour(c) for c in content.get("LABEL_COLORS_LIST") or []]
    drawn = [_colour(c) for c in content.get("VIS_LABEL_MAP") or []] or mask_colours
    for key, colours in (("LABEL_COLORS_LIST", mask_colours), ("VIS_LABEL_MAP", drawn)):
        if colours and len(colours) != len(entries):
            raise ValueError(f"{len(entries)} classes but {len(colours)} colours in {key}")
    palette = tuple(
        _colour(entry["color"]) if "color" in entry else (drawn or defaults)[k]
        for k, entry in enumerate(entries)
    )
    classes = Classes(tuple(entry["name"] for entry in entries), palette)
    own_colours = {_colour(e["color"]): k for k, e in enumerate(entries) if "color" in e}
    colours = {c: k for k, c in enumerate(mask_colours)} or own_colours
    if mask_colours and len(colours) != len(mask_colours):
        raise ValueError("LABEL_COLORS_LIST gives one colour to two classes")
    colours |= {_colour(c): IGNORE_INDEX for c in content.get("ignore_colors") or []}
    return ClassFile(classes, _values(content, entries), colours, _instances(content, entries))


def _entries(content: Mapping) -> list[dict]:
    """One {name, labels?, color?} per class, in the order of the ids."""
    found = [key for key in ("ALL_CLASSES", "classes", "names", "id2label") if content.get(key)]
    if len(found) != 1:
        raise ValueError(
            "exactly one of ALL_CLASSES, classes, names, id2label must list the classes"
        )
    listed = content[found[0]]
    if isinstance(listed, Mapping):
        by_id = {int(key): value for key, value in listed.items()}
        if sorted(by_id) != list(range(len(by_id))):
            raise ValueError(f"{found[0]}: class ids must run from 0 without gaps")
        listed = [by_id[k] for k in range(len(by_id))]
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise ValueError(f"{found[0]}: expected a list or a mapping")
    if not 2 <= len(listed) <= MAX_CLASSES - 1:
        raise ValueError(f"{len(listed)} classes; expected 2 to {MAX_CLASSES - 1}")
    return [dict(item) if isinstance(item, Mapping) else {"name": str(item)} for item in listed]


def _values(content: Mapping, entries: list[dict]) -> dict[int, int]:
    ignored = content.get("ignore") or content.get("ignore_classes") or []
    if content.get("zero_is", "background") not in ("background", "ignore"):
        raise ValueError(f"zero_is: {content['zero_is']}; expected background or ignore")
    values = {}
    if content.get("zero_is") == "ignore":
        values = _shifted(len(entries))
    elif ignored or any("labels" in entry for entry in entries):
        for k, entry in enumerate(entries):
            for value in entry.get("labels", [k]):
                if values.setdefault(int(value), k) != k:
                    raise ValueError(f"mask value {value} belongs to two classes")
    return values | {int(value): IGNORE_INDEX for value in ignored}


def _instances(content: Mapping, entries: list[dict]) -> bool:
    instances = bool(content.get("instances", False))
    if instances and len(entries) != 2:
        raise ValueError(f"instances: true wants two classes, found {len(entries)}")
    return instances


def _colour(value: Sequence[int]) -> tuple[int, int, int]:
    colour = tuple(int(channel) for channel in value)
    if len(colour) != 3 or not all(0 <= channel <= 255 for channel in colour):
        raise ValueError(f"{value} is not a colour [r, g, b] of 0..255")
    return colour
