"""The keys of a class file: names, colours, and which mask values mean which class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from common.checkpoints import short
from config import IGNORE_INDEX, MAX_CLASSES
from data.labels.class_checks import (
    OTHERS,
    Entry,
    as_list,
    check_contradictions,
    class_name,
    whole_number,
)
from data.labels.classes import Classes, Colour, default_palette, is_background
from utils import first_of

LISTS = ("ALL_CLASSES", "classes", "names", "id2label", "label2id")
FOLDER_KEYS = tuple(
    keys
    for split in ("TRAIN", "VALID", "TEST")
    for keys in ((f"{split}_IMAGES",), (f"{split}_MASKS", f"{split}_LABELS"))
)
IGNORE_LABEL = "__ignore__"  # labelme's name for regions that are not to be used
MASK_KEYS = ("ignore", "zero_is", "instances")
KEYS = (
    *LISTS, "LABEL_COLORS_LIST", "VIS_LABEL_MAP", "ignore", "ignore_classes", "ignore_colors",
    "instances", "zero_is", *(key for keys in FOLDER_KEYS for key in keys),
)  # fmt: skip


@dataclass(frozen=True)
class ClassFile:
    """Classes, and how masks store them. An empty field means that the file does not say.

    values: stored value -> class id. colours: RGB mask colour -> class id. Both map what is
    ignored to IGNORE_INDEX. others: the class of all values that are not named, or None.
    instances: every value but 0 is class 1. left_out: names of classes of which all is ignored.
    merged: {label of annotation files: name of its class}, of `labels` that are names.
    keys_for_masks: the keys that speak of mask values, for messages. is_preset: of PRESETS.
    """

    classes: Classes
    values: dict[int, int] = field(default_factory=dict)
    others: int | None = None
    colours: dict[Colour, int] = field(default_factory=dict)
    instances: bool = False
    left_out: tuple[str, ...] = ()
    merged: dict[str, str] = field(default_factory=dict)
    keys_for_masks: str = ""
    is_preset: bool = False


def parse_classes(content: object) -> ClassFile:
    """The classes in what a YAML or JSON file holds; raises ValueError and the like."""
    if isinstance(content, list):
        content = {"names": content}
    if not isinstance(content, Mapping):
        raise ValueError(f"expected keys such as ALL_CLASSES, found {type(content).__name__}")
    if content and all(str(key).isdigit() for key in content):  # {"0": "wall", "1": "building"}
        content = {"id2label": content}
    unknown = [str(key) for key in content if key not in KEYS]
    if unknown and "id2label" not in content:  # a Hugging Face config.json has many other keys
        raise ValueError(f"unknown key {unknown[0]}; known: {', '.join(KEYS)}")
    entries = _entries(content)
    drawn = _colours(content, "VIS_LABEL_MAP", entries)
    in_masks = _colours(content, "LABEL_COLORS_LIST", entries)
    check_contradictions(content, entries)
    left_out = {class_name(item) for item in as_list(content.get("ignore_classes"))}
    left_out |= {IGNORE_LABEL} | {e.name for e in entries if _is_ignored(e, content)}
    kept = [entry for entry in entries if not {str(entry.file_id), entry.name} & left_out]
    if not 2 <= len(kept) <= MAX_CLASSES - 1:
        ignored = first_of([entry.name for entry in entries if entry not in kept])
        shown = f" without {ignored}, which is ignored" if ignored else ""
        raise ValueError(f"{len(kept)} classes{shown}; expected 2 to {MAX_CLASSES - 1}")
    ids = {entry.file_id: k for k, entry in enumerate(kept)}  # class ids have no gaps
    names = tuple(entry.name for entry in kept)
    listed = drawn or in_masks
    palette = tuple(
        entry.colour or listed.get(entry.file_id) or default
        for entry, default in zip(kept, default_palette(names), strict=True)
    )
    return ClassFile(
        Classes(names, palette),
        *_values(content, entries, ids),
        colours=_mask_colours(content, entries, ids, in_masks),
        instances=_instances(content, ids),
        left_out=tuple(entry.name for entry in entries if entry.file_id not in ids),
        merged={label: entry.name for entry in kept for label in entry.name_labels},
        keys_for_masks=", ".join(
            [key for key in MASK_KEYS if content.get(key) not in (None, False, "background", [])]
            + [f"labels (of {e.name})" for e in entries if e.labels is not None and e.value_labels]
        ),
    )


def _is_ignored(entry: Entry, content: Mapping) -> bool:
    """Whether `ignore` has the one mask value of a class, its id."""
    ignored = [str(item) for item in as_list(content.get("ignore"))]
    return entry.labels is None and str(entry.file_id) in ignored


def _entries(content: Mapping) -> list[Entry]:
    """The classes in the order of their ids."""
    found = [key for key in LISTS if content.get(key)]
    if not found and any(key in content for key in LISTS):
        raise ValueError("no class is named in it; name the classes, or remove the file")
    if len(found) != 1 and found != ["id2label", "label2id"]:
        raise ValueError(f"exactly one of {', '.join(LISTS)} must list the classes")
    key, listed = found[0], content[found[0]]  # check_contradictions compares id2label, label2id
    if isinstance(listed, list):
        if len(listed) == 1 and isinstance(listed[0], str) and not is_background(listed[0]):
            listed = ["background", *listed]
        listed = dict(enumerate(listed))
    elif not isinstance(listed, Mapping):
        raise ValueError(f"{key}: expected a list or a mapping")
    items = [(v, k) for k, v in listed.items()] if key == "label2id" else listed.items()
    entries = [_entry(whole_number(number, f"class id in {key}"), value) for number, value in items]
    return sorted(entries, key=lambda entry: entry.file_id)


def _entry(file_id: int, value: object) -> Entry:
    if not isinstance(value, Mapping):
        return Entry(file_id, class_name(value))
    unknown = value.keys() - {"name", "labels", "color"}
    if unknown or "name" not in value:
        raise ValueError(f"class {file_id} must have the key name, and may have labels and color")
    colour = _colour(value["color"]) if "color" in value else None
    return Entry(file_id, class_name(value["name"]), value.get("labels"), colour)


def _colours(content: Mapping, key: str, entries: Sequence[Entry]) -> dict[int, Colour]:
    """{id in the file: colour}, of a list with a colour for each class; {} without the key."""
    colours = [_colour(c) for c in content.get(key) or []]
    if colours and len(colours) != len(entries):
        raise ValueError(f"{len(entries)} classes but {len(colours)} colours in {key}")
    return {entry.file_id: colour for entry, colour in zip(entries, colours, strict=False)}


def _mask_colours(
    content: Mapping, entries: Sequence[Entry], ids: dict[int, int], listed: dict[int, Colour]
) -> dict[Colour, int]:
    """RGB mask colour -> class id: from LABEL_COLORS_LIST, else from `labels`, else `color`."""
    if listed:
        owners = [(listed[entry.file_id], entry) for entry in entries]
    else:
        owners = [(_colour(label), e) for e in entries for label in e.colour_labels]
    if all(entry.colour and entry.labels is None for entry in entries):
        owners = owners or [(entry.colour, entry) for entry in entries]
    ignored = [_colour(i) for i in as_list(content.get("ignore")) if isinstance(i, list)]
    ignored += [_colour(item) for item in as_list(content.get("ignore_colors"), of_colours=True)]
    colours = dict.fromkeys(ignored, IGNORE_INDEX)
    for colour, entry in owners:
        class_id = ids.get(entry.file_id, IGNORE_INDEX)
        if colour in ignored and class_id != IGNORE_INDEX:
            raise ValueError(
                f"colour {colour} belongs to {entry.name} and to ignore_colors or ignore"
            )
        if colours.setdefault(colour, class_id) != class_id:
            raise ValueError(f"colour {colour} belongs to two classes")
    return colours


def _values(
    content: Mapping, entries: Sequence[Entry], ids: dict[int, int]
) -> tuple[dict[int, int], int | None]:
    """{mask value: class id} and the class of all other values; ({}, None) for plain indices."""
    if content.get("zero_is", "background") not in ("background", "ignore"):
        raise ValueError(f"zero_is: {short(content['zero_is'])}; expected background or ignore")
    if content.get("zero_is") == "ignore":
        shifted = {e.file_id + 1: ids.get(e.file_id, IGNORE_INDEX) for e in entries}
        return {0: IGNORE_INDEX} | shifted, None
    listed = as_list(content.get("ignore"))
    numbers = [item for item in listed if not isinstance(item, list) and item != OTHERS]
    ignored = [item if _is_integer(item) else _value(item) for item in numbers]
    others = IGNORE_INDEX if OTHERS in listed else None
    values: dict[int, int] = {}
    for entry in entries:
        class_id = ids.get(entry.file_id, IGNORE_INDEX)
        if entry.labels == OTHERS:
            if others is not None:
                raise ValueError(f"{OTHERS} can go to one class only")
            others = class_id
        for label in entry.value_labels:
            if values.setdefault(_value(label), class_id) != class_id:
                raise ValueError(f"mask value {label} belongs to two classes")
    if values == {k: k for k in range(len(entries))} and not ignored and others is None:
        return {}, None
    return values | dict.fromkeys(ignored, IGNORE_INDEX), others


def _is_integer(item: object) -> bool:
    """Whether it is a number that may be ignored: -1 and -9999 mark pixels without data."""
    return isinstance(item, int) and not isinstance(item, bool)


def _value(item: object) -> int:
    value = whole_number(item, "mask value")
    if value >= 2**16:
        raise ValueError(f"mask value {value}: masks hold whole numbers from 0 to 65535")
    return value


def _instances(content: Mapping, ids: dict[int, int]) -> bool:
    instances = content.get("instances", False)
    if not isinstance(instances, bool):
        raise ValueError(f"instances: {short(instances)}; expected true or false")
    if instances and len(ids) != 2:
        raise ValueError(f"instances: true needs two classes, found {len(ids)}")
    return instances


def _colour(value: object) -> Colour:
    """A list of red, green and blue, 0..255."""
    try:
        colour = tuple(whole_number(channel, "colour") for channel in value)
    except (TypeError, ValueError):
        colour = ()
    if len(colour) != 3 or max(colour) > 255:
        raise ValueError(f"{short(value)} is not a colour [r, g, b] of 0..255")
    return colour
