"""Files that say which pictures belong to which split.

They are lists such as val.txt, tables with a column of splits, and JSON or YAML that maps the two.
"""

import codecs
import csv
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import yaml

from config import SPLIT_WORDS
from data.annotations.dataset import composed
from data.images import IMAGE_SUFFIXES
from data.inventory import Inventory
from data.labels.class_files import rows_of
from data.splits import split_of_name
from utils import InputError

# Lists of all pictures, those of other lists included.
ALL = ("trainval", "train_val", "default", "all")
SPLIT_OF_WORD = {word: split for split, words in SPLIT_WORDS.items() for word in words}
ANY_WORD = re.compile(rf"\b({'|'.join(SPLIT_OF_WORD)})", re.IGNORECASE)
LINES_OF_JSON = (".jsonl", ".ndjson")
MAX_BYTES = 20_000_000
MAX_DEPTH = 3  # of nested keys
SAMPLE = 20  # entries of a list that are looked up, to tell whether it names pictures
YES, NO = {"1", "true", "yes"}, {"0", "false", "no", ""}  # in columns such as is_test
PREFERRED = "segmentation"  # of Pascal VOC's folders with lists
PLACES = ("", "splits", "split", "lists", "list", PREFERRED)  # elsewhere val.txt may be anything
NAMING = ("im", "file", "name", "path")  # how the key begins that has a picture's name
HEADER = re.compile(rf"({'|'.join(NAMING)}|id)[a-z_ ]*", re.IGNORECASE)  # of a column of pictures


@dataclass(frozen=True)
class Listing:
    """The names that a file lists for a split, or for ALL of them (split is "")."""

    path: Path
    split: str
    names: Sequence[object]


class Names:
    """Finds files by the names, paths or numbers that lists give them."""

    def __init__(self, root: Path, files: Iterable[Path]):
        self._found: dict[str, list[Path]] = defaultdict(list)
        self._by_number: dict[int, list[Path]] = defaultdict(list)
        for path in files:
            below = Path(os.path.relpath(path, root)).with_suffix("")
            parts = PurePosixPath(composed(below.as_posix())).parts
            for k in range(len(parts)):
                self._found["/".join(parts[k:])].append(path)
            numbers = re.findall(r"\d+", path.stem)
            if len(numbers) == 1:
                self._by_number[int(numbers[0])].append(path)

    def are_most(self, numbers: Iterable[int]) -> bool:
        """Whether these are the numbers of half of the files; others are no names, but counts."""
        return 2 * len(self._by_number.keys() & numbers) >= len(self._by_number)

    def find(self, entry: object) -> list[Path]:
        """The files of an entry: a line of text, a number, or a row such as {image: a}."""
        if isinstance(entry, Mapping):
            return next(filter(None, map(self.find, names_in(entry))), [])
        if isinstance(entry, int) and str(entry) not in self._found:
            return self._by_number.get(entry, [])
        # Some lists have a second column, such as the mask; names may have spaces.
        for name in (str(entry), re.split(r"[\s,;]", str(entry).strip(), maxsplit=1)[0]):
            path = PurePosixPath(name.strip().replace("\\", "/"))
            parts = (path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path).parts
            for k in range(len(parts)):
                if found := self._found.get("/".join(parts[k:])):
                    return found
        return []


def names_in(row: Mapping) -> list:
    """What may be the picture's name in a row."""
    named = [value for key, value in row.items() if str(key).lower().startswith(NAMING)]
    return named or [value for key, value in row.items() if key and isinstance(value, str)]


def find_listings(inventory: Inventory) -> list[Listing]:
    """The lists of splits that name pictures; [] if there are none.

    Raises InputError where train.txt and the like name none.
    """
    names = Names(inventory.root, inventory.pictures)
    labels = {path.with_suffix(".txt") for path in inventory.pictures}  # of a picture called train
    found = []
    for path in inventory.texts:
        listings = [] if path in labels else read_listings(path)
        numbers = {n for listing in listings for n in listing.names if isinstance(n, int)}
        if numbers and not names.are_most(numbers):
            continue
        sample = [entry for listing in listings for entry in listing.names[:SAMPLE]]
        is_list = path.suffix.lower() == ".txt" and path.stem.lower() in {*ALL, *SPLIT_OF_WORD}
        place = path.parent.relative_to(inventory.root).name.lower()
        known = sum(bool(names.find(entry)) for entry in sample)
        is_table = path.suffix.lower() not in (".txt", ".lst")  # it says itself what its names are
        if 2 * known >= len(sample) or (is_table and known):
            found += listings
        elif is_list and place in PLACES:
            raise InputError(
                f"{path}: its name is that of a split's list, but {sample[0]} is no picture here; "
                "correct the names, or rename the file"
            )
    return [e for e in found if e.path.parent.name.lower() == PREFERRED] or found


def read_listings(path: Path) -> list[Listing]:
    """The listings in a file that have names; [] if it is none."""
    is_lines = path.suffix.lower() in (".txt", ".lst")
    split = split_of_name(path.stem)
    if path.stem.lower() in ALL:
        split = "" if is_lines else None
    is_loose = is_lines and split is None  # such as my_train_list, but not val_loss
    if is_loose:
        split = split_of_name(path.stem, strict=False)
    if (is_lines and split is None) or path.stat().st_size > MAX_BYTES:
        return []
    try:
        content = _content(path, is_lines, bool(split))
    except (OSError, ValueError, csv.Error, yaml.YAMLError, RecursionError):
        return []
    if not is_lines and (stated := _stated(content)):
        return [Listing(path, *each) for each in stated.items()]
    if split is None or not (isinstance(content, list) and content):
        return []
    is_of_words = not is_loose or all(len(line.split()) == 1 for line in content)
    return [Listing(path, split, content)] if is_of_words else []


def _content(path: Path, is_lines: bool, is_of_split: bool) -> object:
    """Lines, rows of a table, or what a JSON or YAML file holds that may speak of splits."""
    text = _text(path)
    lines = [line for line in text.splitlines() if line.strip() and line[0] != "#"]
    suffix = path.suffix.lower()
    if is_lines:
        return [line.strip() for line in lines]
    if suffix in LINES_OF_JSON:
        return [json.loads(line) for line in lines]
    if suffix in (".csv", ".tsv"):
        return _table(rows_of("\n".join(lines)))
    if suffix == ".xml" or not (is_of_split or ANY_WORD.search(text)):
        return None  # a large annotation file need not be parsed
    return json.loads(text) if suffix == ".json" else yaml.safe_load(text)


def _table(rows: list[list[str]]) -> object:
    """Rows as mappings, or {split: names} of a table with a column for each split."""
    header, *rest = rows
    exact = [name for name in header if _split(name)]
    first, second = "".join(header), "".join(rest[0]) if rest else ""
    is_header = len(exact) > 1 or any(map(HEADER.fullmatch, header)) or "." in second
    if len(exact) == 1 or "." in first or not is_header:  # but the first picture
        rest = rows
        header = [f"name {k}" if "." in cell else str(k) for k, cell in enumerate(header)]
    mappings = [dict(zip(header, row, strict=False)) for row in rest]
    flags = {name: split for name in header if (split := _split(name.lower().removeprefix("is_")))}
    cells = {row.get(name, "").lower() for row in mappings for name in flags}
    if flags and len(rest) > 2 and cells <= YES | NO:
        for row in mappings:
            own = (split for name, split in flags.items() if row.get(name, "").lower() in YES)
            row["split"] = next(own, "train")
    elif len(exact) > 1:
        return {name: [row[name] for row in mappings if row.get(name)] for name in exact}
    return mappings


def _stated(content: object, depth: int = MAX_DEPTH) -> dict[str, list]:
    """{split: names} of {split: names}, of {name: split}, of rows with both, or of what has them.

    Of the last three, at least two splits must be stated.
    """
    if isinstance(content, Mapping):
        by_key: dict[str, list] = defaultdict(list)
        for key, value in content.items():
            if isinstance(value, Mapping):  # {images: [...], masks: [...]}
                value = next((v for v in names_in(value) if isinstance(v, list)), value)
            split = None if str(key).lower() in ALL else split_of_name(str(key))
            if isinstance(value, list) and value and split:
                by_key[split] += value
        if found := by_key or _grouped(content.items()):
            return found
        below = content.values()
    elif isinstance(content, list) and content and all(isinstance(r, Mapping) for r in content):
        tables = (_grouped((row, row.get(key)) for row in content) for key in content[0])
        if found := _joined(tables):
            return found
        below = content
    else:
        return {}
    return _joined(_stated(value, depth - 1) for value in below) if depth else {}


def _joined(statements: Iterable[dict[str, list]]) -> dict[str, list]:
    """All statements together; where they contradict each other, as folds do, none is chosen."""
    found: dict[str, list] = defaultdict(list)
    for each in statements:
        for split, names in each.items():
            found[split] += names
    return found


def _grouped(items: Iterable[tuple[object, object]]) -> dict[str, list]:
    """{split: names} of (name, split); {} if fewer than two splits occur."""
    found: dict[str, list] = defaultdict(list)
    for name, value in items:
        if split := _split(value):
            found[split].append(name)
    return found if len(found) > 1 else {}


def _split(value: object) -> str | None:
    return SPLIT_OF_WORD.get(value.strip().lower()) if isinstance(value, str) else None


def _text(path: Path) -> str:
    """The text of a file in UTF-8, UTF-16 or Latin-1."""
    content = path.read_bytes()
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    return composed(text)
