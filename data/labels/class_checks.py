"""Refuse class files whose keys contradict each other."""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from common.checkpoints import short
from data.labels.classes import Colour

OTHERS = "others"  # as `labels` or `ignore`: every mask value that the file does not name


@dataclass
class Entry:
    """A class as the file lists it. labels: mask values and colours, OTHERS, or None."""

    file_id: int
    name: str
    labels: list | str | int | None = None
    colour: Colour | None = None

    @property
    def value_labels(self) -> list:
        """Its mask values; a class without `labels` has its id."""
        if self.labels is None:
            return [self.file_id]
        labels = [x for x in as_list(self.labels) if not isinstance(x, list) and x != OTHERS]
        return [label for label in labels if label not in self.name_labels]

    @property
    def name_labels(self) -> list[str]:
        """Its labels in annotation files, where `labels` has names."""
        labels = [x for x in as_list(self.labels) if isinstance(x, str) and x != OTHERS]
        return [label for label in labels if not label.strip().isdigit()]

    @property
    def colour_labels(self) -> list:
        return [label for label in as_list(self.labels) if isinstance(label, list)]


def as_list(value: object, of_colours: bool = False) -> list:
    """A list, also where the file has a single item; nothing for a missing key.

    of_colours: the items are colours, so that a list of three numbers is one item.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        return [value]
    return [value] if of_colours and value and not isinstance(value[0], list) else value


def whole_number(value: object, what: str) -> int:
    """A number from 0, also as text of digits; int() would cut 2.7 to 2 and take True for 1."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{what} {short(value)} is not a whole number from 0")
    return value


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


def check_contradictions(content: Mapping, entries: Sequence[Entry]) -> None:
    """Raise ValueError that names both keys where two say different things."""
    for contradiction in _contradictions(content, entries):
        raise ValueError(f"{contradiction}; keep one of them")


def _contradictions(content: Mapping, entries: Sequence[Entry]) -> Iterator[str]:
    explicit = [entry for entry in entries if entry.labels is not None]
    has_labels = f"labels (of {explicit[0].name})" if explicit else ""
    ignore = "ignore" if as_list(content.get("ignore")) else ""
    zero_is = "zero_is: ignore" if content.get("zero_is") == "ignore" else ""
    instances = "instances: true" if content.get("instances") is True else ""
    coloured = [entry for entry in entries if entry.colour_labels]
    drawn = [entry for entry in entries if entry.colour]
    for one, other in (
        (zero_is, has_labels),
        (zero_is, ignore),
        (zero_is, instances),
        (instances, has_labels),
        (instances, ignore),
        ("LABEL_COLORS_LIST" if content.get("LABEL_COLORS_LIST") else "",
         f"colours in labels (of {coloured[0].name})" if coloured else ""),
        ("VIS_LABEL_MAP" if content.get("VIS_LABEL_MAP") else "",
         f"color (of {drawn[0].name})" if drawn else ""),
    ):  # fmt: skip
        if one and other:
            yield f"{one} and {other} both say what mask values or colours mean"
    ignored = [str(item) for item in as_list(content.get("ignore")) if not isinstance(item, list)]
    for entry in explicit:
        for label in entry.value_labels:
            if str(label) in ignored:
                yield f"mask value {short(label)} is in labels (of {entry.name}) and in ignore"
    yield from _doubles(entries)
    if "id2label" in content and "label2id" in content:
        named = {str(k): str(v) for k, v in content["id2label"].items()}
        if named != {str(k): str(name) for name, k in content["label2id"].items()}:
            yield "id2label and label2id list different classes"
    known = {entry.name for entry in entries} | {str(entry.file_id) for entry in entries}
    for item in as_list(content.get("ignore_classes")):
        if class_name(item) not in known:
            names = ", ".join(entry.name for entry in entries[:8])
            yield f"ignore_classes has {short(item)}, which is no class; the classes are {names}"


def _doubles(entries: Sequence[Entry]) -> Iterator[str]:
    ids: dict[int, str] = {}
    names: dict[str, int] = {}
    for entry in entries:
        if entry.file_id in ids:
            yield f"{ids[entry.file_id]} and {entry.name} have one class id, {entry.file_id}"
        if entry.name in names:
            yield f"classes {names[entry.name]} and {entry.file_id} have one name, {entry.name}"
        ids[entry.file_id] = entry.name
        names[entry.name] = entry.file_id
