"""The keys of a class file: names, colours, and which mask values mean which class."""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from common.checkpoints import short
from config import IGNORE_INDEX, MAX_CLASSES
from data.labels.classes import Classes, Colour, default_palette, is_background
from utils import first_of

LISTS = ("ALL_CLASSES", "classes", "names", "id2label", "label2id")
FOLDER_KEYS = tuple(
    keys
    for split in ("TRAIN", "VALID", "TEST")
    for keys in ((f"{split}_IMAGES",), (f"{split}_MASKS", f"{split}_LABELS"))
)
KEYS = (
    *LISTS, "LABEL_COLORS_LIST", "VIS_LABEL_MAP", "ignore", "ignore_classes", "ignore_colors",
    "instances", "zero_is", *(key for keys in FOLDER_KEYS for key in keys),
)  # fmt: skip
OTHERS = "others"  # as `labels` or `ignore`: every mask value that the file does not name
IGNORE_LABEL = "__ignore__"  # labelme's name for regions that are not to be used


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


@dataclass
class _Entry:
    """A class as the file lists it, or what it ignores.

    values: of masks, with OTHERS. names: labels of annotation files. color: to draw.
    """

    file_id: int
    name: str
    values: list[int | str]
    colours: list[Colour] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    color: Colour | None = None
    has_labels: bool = False
    class_id: int = IGNORE_INDEX


def class_name(value: object) -> str:
    """A class name, in Unicode's composed form and without spaces around it.

    Raises ValueError for what is no text: YAML reads yes, no, null, 1.10 and dates as other things.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"the class name {short(value)} is not text; write it in quotes")
    name = unicodedata.normalize("NFC", str(value)).strip()
    if not name:
        raise ValueError("a class name is empty; give the class a name")
    return name


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
    ignored = _Entry(-1, "ignore", *_labels(content.get("ignore")))
    if ignored.names:
        raise ValueError(f"mask value {short(ignored.names[0])} is not a whole number")
    ignored.colours += map(_colour, _as_list(content.get("ignore_colors"), of_colours=True))
    left_out = _left_out(content, entries, ignored)
    kept = [entry for entry in entries if entry.name not in left_out]
    if not 2 <= len(kept) <= MAX_CLASSES - 1:
        shown = f" without {first_of(left_out)}, which is ignored" if left_out else ""
        raise ValueError(f"{len(kept)} classes{shown}; expected 2 to {MAX_CLASSES - 1}")
    for k, entry in enumerate(kept):  # class ids have no gaps
        entry.class_id = k
    names = tuple(entry.name for entry in kept)
    palette = zip([entry.color for entry in kept], default_palette(names), strict=True)
    zero_is, instances = _conventions(content, len(kept))
    said = {"zero_is: ignore": zero_is, "instances: true": instances, "ignore": ignored.values}
    said |= {f"labels (of {entry.name})": entry.has_labels and entry.values for entry in entries}
    ways = [way for way, is_said in said.items() if is_said]
    if (zero_is or instances) and len(ways) > 1:
        both = f"{ways[0]} and {ways[1]}"
        raise ValueError(f"{both} both say what mask values mean; keep one of them")
    if zero_is:
        ignored.values = [0]
        for entry in entries:
            entry.values = [entry.file_id + 1]
    owners = [ignored, *entries]
    values = _by_owner("mask value", [(e, e.values) for e in owners])
    others = values.pop(OTHERS, None)
    is_plain = values == {k: k for k in range(len(entries))} and others is None
    return ClassFile(
        Classes(names, tuple(color or default for color, default in palette)),
        {} if is_plain else values,
        others,
        _by_owner("colour", [(e, e.colours) for e in owners]),
        instances,
        left_out=tuple(left_out),
        merged={label: entry.name for entry in kept for label in entry.names},
        keys_for_masks=", ".join(ways),
    )


def _entries(content: Mapping) -> list[_Entry]:
    """The classes in the order of their ids, with the colours of LABEL_COLORS_LIST."""
    found = [key for key in LISTS if content.get(key)]
    if not found and any(key in content for key in LISTS):
        raise ValueError("no class is named in it; name the classes, or remove the file")
    if found == ["id2label", "label2id"]:  # of Hugging Face, which say the same
        found.pop()
    if len(found) != 1:
        raise ValueError(f"exactly one of {', '.join(LISTS)} must list the classes")
    key, listed = found[0], content[found[0]]
    if isinstance(listed, list):
        if len(listed) == 1 and isinstance(listed[0], str) and not is_background(listed[0]):
            listed = ["background", *listed]
        listed = dict(enumerate(listed))
    elif not isinstance(listed, Mapping):
        raise ValueError(f"{key}: expected a list or a mapping")
    items = [(v, k) for k, v in listed.items()] if key == "label2id" else listed.items()
    entries = [_entry(_whole_number(number, f"class id in {key}"), v) for number, v in items]
    entries.sort(key=lambda entry: entry.file_id)
    for what, own in (("id", [e.file_id for e in entries]), ("name", [e.name for e in entries])):
        if doubles := [x for k, x in enumerate(own) if x in own[:k]]:
            raise ValueError(f"two classes have the {what} {doubles[0]}; give each its own")
    drawn, stored = (_colours(content, k, entries) for k in ("VIS_LABEL_MAP", "LABEL_COLORS_LIST"))
    if not any(stored) and all(entry.color and not entry.has_labels for entry in entries):
        stored = [entry.color for entry in entries]
    for entry, to_draw, in_masks in zip(entries, drawn, stored, strict=True):
        entry.color = entry.color or to_draw or in_masks
        entry.colours += [in_masks] if in_masks else []
    return entries


def _entry(file_id: int, value: object) -> _Entry:
    if not isinstance(value, Mapping):
        return _Entry(file_id, class_name(value), [file_id])
    if "title" in value:  # Supervisely's
        value = {"name": value["title"], "color": value["color"]}
    unknown = value.keys() - {"name", "labels", "values", "color"}
    if unknown or "name" not in value:
        raise ValueError(f"class {file_id} must have the key name, and may have labels and color")
    color = _colour(value["color"]) if "color" in value else None
    listed = value.get("labels", value.get("values"))  # as LightlyTrain calls them
    labels = ([file_id], [], []) if listed is None else _labels(listed)
    return _Entry(file_id, class_name(value["name"]), *labels, color, listed is not None)


def _labels(listed: object) -> tuple[list[int | str], list[Colour], list[str]]:
    """Mask values, with OTHERS, colours, and labels of annotation files, in `labels`, `ignore`."""
    values, colours, names = [], [], []
    for label in _as_list(listed):
        if isinstance(label, list):
            colours.append(_colour(label))
        elif label == OTHERS:
            values.append(OTHERS)
        elif isinstance(label, str) and not label.strip().isdigit():
            names.append(label)
        else:
            values.append(_whole_number(label, "mask value", lowest=None))
    return values, colours, names


def _left_out(content: Mapping, entries: Sequence[_Entry], ignored: _Entry) -> list[str]:
    """Names of the classes that are ignored, by name or id, or by `ignore` of their only value."""
    listed = [class_name(item) for item in _as_list(content.get("ignore_classes"))]
    known = {entry.name for entry in entries} | {str(entry.file_id) for entry in entries}
    if unknown := [item for item in listed if item not in known]:
        raise ValueError(
            f"ignore_classes has {short(unknown[0])}, which is no class; the classes are "
            f"{first_of([entry.name for entry in entries])}"
        )
    return [
        entry.name
        for entry in entries
        if {str(entry.file_id), entry.name} & {*listed, IGNORE_LABEL}
        or (not entry.has_labels and entry.file_id in ignored.values)
    ]


def _conventions(content: Mapping, num_classes: int) -> tuple[bool, bool]:
    """Whether `zero_is` says that 0 is ignored and ids begin at 1, and what `instances` says."""
    zero_is, instances = content.get("zero_is", "background"), content.get("instances", False)
    if zero_is not in ("background", "ignore"):
        raise ValueError(f"zero_is: {short(zero_is)}; expected background or ignore")
    if not isinstance(instances, bool):
        raise ValueError(f"instances: {short(instances)}; expected true or false")
    if instances and num_classes != 2:
        raise ValueError(f"instances: true needs two classes, found {num_classes}")
    return zero_is == "ignore", instances


def _by_owner(what: str, owned: Iterable[tuple[_Entry, Sequence]]) -> dict:
    """{value or colour: class id}; raises ValueError for what belongs to two classes."""
    found: dict[object, _Entry] = {}
    for entry, items in owned:
        for item in items:
            if (other := found.setdefault(item, entry)).class_id != entry.class_id:
                raise ValueError(f"{what} {item} belongs to {other.name} and to {entry.name}")
    return {item: entry.class_id for item, entry in found.items()}


def _colours(content: Mapping, key: str, entries: Sequence[_Entry]) -> Sequence[Colour | None]:
    """The colour of each class in a list, None without the list."""
    colours = [_colour(c) for c in content.get(key) or []]
    if colours and len(colours) != len(entries):
        raise ValueError(f"{len(entries)} classes but {len(colours)} colours in {key}")
    return colours or [None] * len(entries)


def _as_list(value: object, of_colours: bool = False) -> list:
    """A list, also where the file has a single item; nothing for a missing key.

    of_colours: the items are colours, so that a list of three numbers is one item.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        return [value]
    return [value] if of_colours and value and not isinstance(value[0], list) else value


def _whole_number(value: object, what: str, lowest: int | None = 0) -> int:
    """A number, also as text of digits; int() would cut 2.7 to 2 and take True for 1."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or (lowest is not None and value < lowest):
        limit = "" if lowest is None else f" from {lowest}"
        raise ValueError(f"{what} {short(value)} is not a whole number{limit}")
    return value


def _colour(value: object) -> Colour:
    """A list of red, green and blue, 0..255, or #RRGGBB."""
    try:
        if isinstance(value, str):
            value = bytes.fromhex(value.removeprefix("#"))
        colour = tuple(_whole_number(channel, "colour") for channel in value)
    except (TypeError, ValueError):
        colour = ()
    if len(colour) != 3 or max(colour) > 255:
        raise ValueError(f"{short(value)} is not a colour [r, g, b] of 0..255")
    return colour
