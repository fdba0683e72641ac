"""The keys of a class file: names, colours, and which mask values mean which class."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from common.checkpoints import short
from config import IGNORE_INDEX, MAX_CLASSES
from data.labels.classes import Classes, Colour, default_palette, is_background
from utils import first_of

LISTS = ("ALL_CLASSES", "classes", "names", "id2label")
FOLDER_KEYS = (
    ("TRAIN_IMAGES",), ("TRAIN_MASKS", "TRAIN_LABELS"), ("VALID_IMAGES",),
    ("VALID_MASKS", "VALID_LABELS"), ("TEST_IMAGES",), ("TEST_MASKS", "TEST_LABELS"),
)  # fmt: skip
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
    merged: {label of annotation files: class id}, of `labels` that are names.
    keys_for_masks: the keys that speak of mask values, for messages. is_preset: of PRESETS.
    """

    classes: Classes
    values: dict[int, int] = field(default_factory=dict)
    others: int | None = None
    colours: dict[Colour, int] = field(default_factory=dict)
    instances: bool = False
    left_out: tuple[str, ...] = ()
    merged: dict[str, int] = field(default_factory=dict)
    keys_for_masks: str = ""
    is_preset: bool = False


Label = int | str | Colour  # a mask value, OTHERS or a label of annotation files, or a colour


@dataclass
class _Entry:
    """A class as the file lists it, or what it ignores. color: to draw."""

    file_id: int
    name: str
    labels: list[Label] = field(default_factory=list)
    color: Colour | None = None
    has_labels: bool = False
    class_id: int = IGNORE_INDEX

    @property
    def names_values(self) -> bool:
        return any(isinstance(label, int) or label == OTHERS for label in self.labels)


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
    ignored = _Entry(-1, "ignore", _labels(content.get("ignore")))
    left_out = _left_out(content, entries, ignored)
    ignored.labels += map(_colour, _as_list(content.get("ignore_colors")))
    kept = [entry for entry in entries if entry.name not in left_out]
    if not 2 <= len(kept) <= MAX_CLASSES - 1:
        shown = f" without {first_of(left_out)}, which is ignored" if left_out else ""
        raise ValueError(f"{len(kept)} classes{shown}; expected 2 to {MAX_CLASSES - 1}")
    for k, entry in enumerate(kept):  # class ids have no gaps
        entry.class_id = k
    zero_is_ignored = _choice(content, "zero_is", "background", "ignore") == "ignore"
    instances = _choice(content, "instances", False, True)
    if instances and len(kept) != 2:
        raise ValueError(f"instances: true needs two classes, found {len(kept)}")
    said = {"zero_is: ignore": zero_is_ignored, "instances: true": instances}
    said |= {"ignore": ignored.names_values}
    said |= {f"labels (of {entry.name})": entry.names_values for entry in entries}
    ways = [way for way, is_said in said.items() if is_said]
    if (zero_is_ignored or instances) and len(ways) > 1:
        both = " and ".join(ways[:2])
        raise ValueError(f"{both} both say what mask values mean; keep one of them")
    if zero_is_ignored:
        ignored.labels.append(0)
    for entry in entries:
        if zero_is_ignored or not entry.has_labels:
            entry.labels.append(entry.file_id + zero_is_ignored)
    owned = _by_owner([ignored, *entries])
    others = owned.pop(OTHERS, None)
    values = _of(int, owned)
    is_plain = values == {k: k for k in range(len(entries))} and others is None
    names = tuple(entry.name for entry in kept)
    palette = zip([entry.color for entry in kept], default_palette(names), strict=True)
    return ClassFile(
        Classes(names, tuple(color or default for color, default in palette)),
        {} if is_plain else values,
        others,
        _of(tuple, owned),
        instances,
        left_out=tuple(left_out),
        merged=_of(str, owned),
        keys_for_masks=", ".join(ways),
    )


def _entries(content: Mapping) -> list[_Entry]:
    """The classes in the order of their ids, with the colours of LABEL_COLORS_LIST."""
    found = [key for key in LISTS if content.get(key)]
    if len(found) != 1:
        raise ValueError(f"exactly one of {', '.join(LISTS)} must list the classes")
    key, listed = found[0], content[found[0]]
    if isinstance(listed, list):
        if len(listed) == 1 and isinstance(listed[0], str) and not is_background(listed[0]):
            listed = ["background", *listed]
        listed = dict(enumerate(listed))
    if not isinstance(listed, Mapping):
        raise ValueError(f"{key}: expected a list or a mapping")
    entries = [_entry(_whole_number(k, f"class id in {key}"), v) for k, v in listed.items()]
    entries.sort(key=lambda entry: entry.file_id)
    names = [entry.name for entry in entries]
    if doubles := [name for k, name in enumerate(names) if name in names[:k]]:
        raise ValueError(f"two classes have the name {doubles[0]}; give each its own")
    drawn, stored = (_colours(content, k, entries) for k in ("VIS_LABEL_MAP", "LABEL_COLORS_LIST"))
    if not any(stored) and all(entry.color and not entry.labels for entry in entries):
        stored = [entry.color for entry in entries]
    for entry, to_draw, in_masks in zip(entries, drawn, stored, strict=True):
        entry.color = entry.color or to_draw or in_masks
        entry.labels += [in_masks] if in_masks else []
    return entries


def _entry(file_id: int, value: object) -> _Entry:
    if not isinstance(value, Mapping):
        return _Entry(file_id, class_name(value))
    if "title" in value:  # Supervisely's
        value = {"name": value["title"], "color": value.get("color")}
    if "name" not in value or value.keys() - {"name", "labels", "values", "color"}:
        raise ValueError(f"class {file_id} must have the key name, and may have labels and color")
    color = _colour(value["color"]) if "color" in value else None
    listed = value.get("labels", value.get("values"))  # as LightlyTrain calls them
    return _Entry(file_id, class_name(value["name"]), _labels(listed), color, listed is not None)


def _labels(listed: object) -> list[Label]:
    """What `labels` or `ignore` lists."""
    labels = []
    for label in _as_list(listed):
        if isinstance(label, list):
            labels.append(_colour(label))
        elif isinstance(label, str) and not label.strip().isdigit():
            labels.append(label)
        else:
            labels.append(_whole_number(label, "mask value", lowest=None))
    return labels


def _left_out(content: Mapping, entries: Sequence[_Entry], ignored: _Entry) -> list[str]:
    """Names of the classes that are ignored, by name or id, or by `ignore` of their only value."""
    listed = [class_name(item) for item in _as_list(content.get("ignore_classes"))]
    listed += [label for label in ignored.labels if isinstance(label, str) and label != OTHERS]
    known = {entry.name for entry in entries} | {str(entry.file_id) for entry in entries}
    if unknown := [item for item in listed if item not in known]:
        raise ValueError(
            f"{short(unknown[0])} is to be ignored, but is no class; the classes are "
            f"{first_of([entry.name for entry in entries])}"
        )
    return [
        entry.name
        for entry in entries
        if {str(entry.file_id), entry.name} & {*listed, IGNORE_LABEL}
        or (not entry.has_labels and entry.file_id in ignored.labels)
    ]


def _choice(content: Mapping, key: str, *allowed: object) -> object:
    """The value of a key, the first that is allowed by default."""
    value = content.get(key, allowed[0])
    if value not in allowed:
        expected = " or ".join(str(each).lower() for each in allowed)
        raise ValueError(f"{key}: {short(value)}; expected {expected}")
    return value


def _by_owner(owners: Iterable[_Entry]) -> dict[Label, int]:
    """{label: class id}; raises ValueError for what belongs to two classes."""
    found: dict[Label, _Entry] = {}
    for entry in owners:
        for label in entry.labels:
            if (other := found.setdefault(label, entry)).class_id != entry.class_id:
                what = "colour" if isinstance(label, tuple) else "mask value"
                raise ValueError(f"{what} {label} belongs to {other.name} and to {entry.name}")
    return {label: entry.class_id for label, entry in found.items()}


def _of(kind: type, owned: Mapping[Label, int]) -> dict:
    return {label: class_id for label, class_id in owned.items() if isinstance(label, kind)}


def _colours(content: Mapping, key: str, entries: Sequence[_Entry]) -> Sequence[Colour | None]:
    """The colour of each class in a list, None without the list."""
    colours = [_colour(c) for c in content.get(key) or []]
    if colours and len(colours) != len(entries):
        raise ValueError(f"{len(entries)} classes but {len(colours)} colours in {key}")
    return colours or [None] * len(entries)


def _as_list(value: object) -> list:
    """A list, also where the file has a single item; nothing for a missing key."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _whole_number(value: object, what: str, lowest: int | None = 0) -> int:
    """A number, also as text of digits; int() would cut 2.7 to 2 and take True for 1."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or (lowest is not None and value < lowest):
        limit = "" if lowest is None else f" from {lowest}"
        raise ValueError(f"{what} {short(value)} is not a whole number{limit}")
    return value


def _colour(value: object) -> Colour:
    """A list of red, green and blue, 0..255, or #RRGGBB."""
    if isinstance(value, str) and re.fullmatch("#[0-9a-fA-F]{6}", value):
        value = [*bytes.fromhex(value[1:])]
    is_three = isinstance(value, list | tuple) and len(value) == 3
    if not is_three or not all(isinstance(n, int) and 0 <= n <= 255 for n in value):
        raise ValueError(f"{short(value)} is not a colour [r, g, b] of 0..255")
    return tuple(value)
