"""Find and read class files: YAML, JSON, text and CSV."""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path

import yaml

from config import SPLIT_WORDS
from data.labels.class_entries import FOLDER_KEYS, IGNORE_LABEL, ClassFile, parse_classes
from data.labels.classes import PRESET_FOLDER, PRESETS, VOC_PALETTE, Colour
from utils import InputError

NUMBERED = re.compile(r"(\d+)[\s:,;=]+(?=\S)")  # as in "0 road", or "0: road"
RGB = r"\(?(?P<r>\d+)[\s,;]+(?P<g>\d+)[\s,;]+(?P<b>\d+)\)?"
COLOURED = (  # "road 128 64 128", CVAT's "road:128,64,128:parts:actions", and "128 64 128 road"
    re.compile(rf"(?P<name>.*?\S)[\s:,;=]+{RGB}(?::.*)?"),
    re.compile(rf"{RGB}[\s:,;=]+(?P<name>\S.*)"),
)
UNREADABLE = (
    OSError, ValueError, TypeError, LookupError, RecursionError, yaml.YAMLError, csv.Error,
)  # fmt: skip
MAX_BYTES = 100_000  # of a list of colours
# Looked for in a data folder; the first one found is used.
CLASS_FILES = (
    "dataset.yaml", "dataset.yml", "classes.yaml", "classes.json", "id2label.json",
    "labelmap.txt", "classes.txt", "class_names.txt", "class.txt", "labels.txt", "class_dict.csv",
    "_classes.csv", "train/_classes.csv",
)  # fmt: skip


def find_class_file(folder: Path) -> Path | None:
    """The class file in a folder, or a list of class colours of any name.

    YOLO's data.yaml under one of these names is none.
    """
    named = [folder / name for name in CLASS_FILES]
    others = (p for p in sorted(folder.glob("*.[ct][sx][vt]")) if _lists_colours(p))
    found = (path for path in named if path.is_file() and load_data_yaml(path) is None)
    return next(chain(found, others), None)


def _lists_colours(path: Path) -> bool:
    """Whether a table or text of any name lists names with a colour each, all different."""
    if path.stat().st_size > MAX_BYTES:
        return False
    colours = load_mapping(path).get("LABEL_COLORS_LIST", [])
    return len(colours) > 1 and len({*map(tuple, colours)}) == len(colours)


def load_data_yaml(path: Path) -> Mapping | None:
    """What a YOLO data.yaml of any name holds: class names and pictures of a split; else None."""
    content = load_mapping(path) if path.suffix.lower() in (".yaml", ".yml") else {}
    words = {word for names in SPLIT_WORDS.values() for word in names}
    return content if "names" in content and words & content.keys() else None


def load_mapping(path: Path) -> Mapping:
    """The keys of a YAML or JSON file; {} where it has none or cannot be read."""
    with suppress(InputError):
        content = load_content(path)
        return content if isinstance(content, Mapping) else {}
    return {}


def read_classes(source: str | Path) -> ClassFile:
    """The classes of a preset's name or of a file; input/README.md lists the keys."""
    is_preset = str(source) in PRESETS
    path = PRESET_FOLDER / f"{source}.json" if is_preset else Path(source)
    content = load_content(path)
    try:
        return replace(parse_classes(content), is_preset=is_preset)
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError) as error:
        raise InputError(f"{path}: {error}") from error


def class_file_text(names: Sequence[str], palette: Sequence[Colour], **more: list[str]) -> str:
    """A dataset.yaml of these classes; more: its other keys."""
    content = {"ALL_CLASSES": [*names], "VIS_LABEL_MAP": [[*colour] for colour in palette]}
    return yaml.safe_dump(content | more, default_flow_style=None, allow_unicode=True)


def read_folders(path: Path) -> tuple[Path | None, ...]:
    """The folders that a class file names, in the order of FOLDER_KEYS; None where it does not.

    They are relative to the file, else to the working directory.
    """
    content, found = load_mapping(path), []
    for keys in FOLDER_KEYS:
        named = next((str(content[key]) for key in keys if content.get(key)), None)
        below = path.parent / (named or "")
        found.append(named and (below if below.is_dir() else Path(named)))
    return tuple(found)


def load_content(path: Path) -> object:
    """What a YAML, JSON, text or CSV file holds; raises InputError where it cannot be parsed."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".txt":
            return _parse_text(text)
        if path.suffix == ".csv":
            return _parse_csv(text)
        if path.suffix == ".json":
            return json.loads(text)
        return yaml.safe_load(text)
    except FileNotFoundError as error:
        known = ", ".join(PRESETS)
        raise InputError(f"{path}: no such class file, and no preset ({known})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text; save it with the encoding UTF-8") from error
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a readable class file ({reason})") from error


def _parse_text(text: str) -> dict:
    """One name per line, perhaps between a number from 0 and a colour, as YAML keys."""
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]  # a comment
    if lines and lines[0] == IGNORE_LABEL:  # labelme counts it as -1
        lines = lines[1:]
    numbers = [match[1] for line in lines if (match := NUMBERED.match(line))]
    if numbers == [*map(str, range(len(lines)))]:
        lines = [NUMBERED.sub("", line, count=1) for line in lines]
    for form in COLOURED:
        if all(rows := [form.fullmatch(line) for line in lines]):
            colours = [[int(n) for n in row.group("r", "g", "b")] for row in rows]
            return {"names": [row["name"] for row in rows], "LABEL_COLORS_LIST": colours}
    if any(":::" in line for line in lines):  # CVAT's without colours, which are then VOC's
        names = [line.partition(":::")[0] for line in lines]
        return {"names": names, "LABEL_COLORS_LIST": VOC_PALETTE[: len(names)]}
    return {"names": lines}


def rows_of(text: str) -> list[list[str]]:
    """The rows of a table that are not empty, its cells between commas, semicolons or tabs."""
    lines = text.splitlines()
    delimiter = max(",;\t", key=next(iter(lines), "").count)
    rows = ([cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter))
    return [row for row in rows if any(row)]


def _parse_csv(text: str) -> dict:
    """CamVid's `name,r,g,b` or Roboflow's `Pixel Value, Class`, as YAML keys that say the same."""
    header, *rows = rows_of(text)
    columns = {name.lower(): place for place, name in enumerate(header)}
    name = next((columns[key] for key in ("name", "class", "label") if key in columns), None)
    if name is not None and {"r", "g", "b"} <= columns.keys():
        rgb = [columns[channel] for channel in "rgb"]
        colours = [[int(row[place]) for place in rgb] for row in rows]
        return {"names": [row[name] for row in rows], "LABEL_COLORS_LIST": colours}
    value = next((columns[key] for key in ("pixel value", "value", "id") if key in columns), None)
    if name is None or value is None:
        raise ValueError(
            f"its columns are {', '.join(header)}; expected name, r, g, b or Pixel Value, Class"
        )
    return {"classes": {int(row[value]): row[name] for row in rows}}
