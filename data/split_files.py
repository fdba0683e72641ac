"""Files that say which pictures belong to which split: lists, tables, JSON and YAML."""

import codecs
import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from config import SPLIT_WORDS
from data.annotations.dataset import composed
from data.splits import split_of_name

ALL = ("trainval", "default", "all")  # lists of all pictures, those of other lists included
SPLIT_OF_WORD = {word: split for split, words in SPLIT_WORDS.items() for word in words}
ANY_WORD = re.compile(rf"\b({'|'.join(SPLIT_OF_WORD)})", re.IGNORECASE)
MAX_BYTES = 20_000_000
MAX_DEPTH = 3  # of nested keys


@dataclass(frozen=True)
class Listing:
    """The names that a file lists for a split, or for ALL of them (split is "")."""

    path: Path
    split: str
    names: Sequence[object]

    @property
    def is_plain(self) -> bool:
        """Whether the file is called after its split and nothing else, as in train.txt."""
        return self.path.stem.lower() in {*ALL, *SPLIT_OF_WORD}


def read_listings(path: Path) -> list[Listing]:
    """The listings in a file; [] if it is none."""
    suffix = path.suffix.lower()
    if path.stat().st_size > MAX_BYTES:
        return []
    split = "" if path.stem.lower() in ALL else split_of_name(path.stem)
    if suffix in (".txt", ".lst", ".csv") and split is not None:
        return [Listing(path, split, read_lines(path))]
    try:
        if suffix == ".csv":
            content = _table([*csv.reader(read_text(path).splitlines())])
        elif suffix in (".json", ".yaml", ".yml"):
            text = path.read_text(encoding="utf-8-sig")
            if not ANY_WORD.search(text):
                return []  # which spares parsing large annotation files
            content = json.loads(text) if suffix == ".json" else yaml.safe_load(text)
        else:
            return []
    except (OSError, ValueError, csv.Error, yaml.YAMLError, RecursionError):
        return []
    return [Listing(path, *each) for each in _stated(content).items()]


def _table(rows: list[list[str]]) -> object:
    """Rows as mappings, or {split: names} of a table with a column for each split."""
    header, *rows = [row for row in rows if any(row)] or [[]]
    splits = [name for name in header if _split(name)]
    if len(splits) > 1:
        places = {name: header.index(name) for name in splits}
        return {n: [row[k] for row in rows if row[k:] and row[k]] for n, k in places.items()}
    if splits:  # no header, but the first picture
        header, rows = [str(k) for k in range(len(header))], [header, *rows]
    return [dict(zip(header, row, strict=False)) for row in rows]


def _stated(content: object, depth: int = MAX_DEPTH) -> dict[str, list]:
    """{split: names} of {split: names}, of {name: split}, of rows with both, or of what has them.

    Of the last three, at least two splits must be stated.
    """
    if isinstance(content, Mapping):
        by_key: dict[str, list] = {}
        for key, value in content.items():
            if isinstance(value, list) and value and (split := split_of_name(str(key))):
                by_key[split] = by_key.get(split, []) + value
        if found := by_key or _grouped(content.items()):
            return found
        below = content.values()
    elif isinstance(content, list) and content and all(isinstance(r, Mapping) for r in content):
        tables = (_grouped((row, row.get(key)) for row in content) for key in content[0])
        return next(filter(None, tables), {})
    else:
        return {}
    return next(filter(None, (_stated(value, depth - 1) for value in below)), {}) if depth else {}


def _grouped(items: Iterable[tuple[object, object]]) -> dict[str, list]:
    """{split: names} of (name, split); {} if fewer than two splits occur."""
    found: dict[str, list] = defaultdict(list)
    for name, value in items:
        if split := _split(value):
            found[split].append(name)
    return found if len(found) > 1 else {}


def _split(value: object) -> str | None:
    return SPLIT_OF_WORD.get(value.strip().lower()) if isinstance(value, str) else None


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, UTF-16 or Latin-1."""
    content = path.read_bytes()
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    return composed(text)


def read_lines(path: Path) -> list[str]:
    """The lines of a list that say something."""
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if path.suffix.lower() == ".csv":
        lines = [row[0] for row in csv.reader(lines) if row]
        lines = lines[1:] if len(lines) > 1 and "." not in lines[0] and "." in lines[1] else lines
    return lines
