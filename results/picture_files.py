"""Find the pictures to segment and write the files of each result."""

import io
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from errno import EDQUOT, EIO, ENOSPC, EROFS
from glob import glob
from itertools import chain, count
from pathlib import Path

import numpy as np
from PIL import Image

from data.images import (
    IMAGE_SUFFIXES,
    is_picture,
    list_images,
    num_frames,
    range_note,
    read_image,
    write_image,
    write_mask,
)
from data.labels.classes import Classes
from data.numbers import ValueRange
from inference.windows import Prediction
from results.annotation_files import AnnotationFiles, annotation_files
from results.overlays import contact_sheet, overlay
from results.tables import NAMES, RECORD, RESULTS_CSV, ResultsTable, picture_key
from utils import InputError, result_name, write_atomically
from video.source import is_film

PICTURE_ENDINGS = {
    "overlay": "_overlay.jpg",
    "mask": "_mask.png",
    "side-by-side": "_side_by_side.jpg",
    "confidence": "_confidence.png",
    "probabilities": "_probabilities.npz",
}
MAX_SIDE = 32_000  # pixels; a JPEG holds two such pictures side by side
NAME_ROOM = len("_999_probabilities.npz")  # bytes after a picture's own name
WILDCARDS = re.compile(r"[*?[]")
SHEET_PICTURES = 60  # on the contact sheet
CONTACT_SHEET = "contact_sheet.jpg"
THUMBNAIL = (640, 480)  # width, height in pixels, at least


def find_pictures(sources: Sequence[str] | None) -> dict[Path, Path]:
    """The pictures of folders, files and patterns: path -> path relative to its source."""
    if not sources:
        raise InputError("--input is missing; give folders, pictures or patterns")
    found = {}
    for path, below in chain(*map(_expand, sources)):
        found.setdefault(os.path.abspath(path), (path, below))  # once, even if named twice
    return dict(found.values())


def _expand(source: str) -> list[tuple[Path, Path]]:
    path = Path(source)
    if os.path.isfile(source):
        return [(path, Path(path.name))]
    if os.path.isdir(source):
        root, paths = path, list_images(path)
    elif WILDCARDS.search(source) and not os.path.exists(source):
        root, paths = _matches(path)
    else:
        found = "a pipe or a device" if os.path.exists(source) else "no such file or folder"
        raise InputError(f"{source}: {found}; --input wants pictures")
    if not paths:
        raise InputError(f"{source}: no pictures in it ({' '.join(sorted(IMAGE_SUFFIXES))})")
    return [(p, p.relative_to(root)) for p in paths]


def _matches(pattern: Path) -> tuple[Path, list[Path]]:
    """The folder before the first wildcard, and the pictures that match, alone or in a folder.

    Brackets of a folder that exists are no wildcards: its files match "trip [2024]/*.jpg".
    """
    root = Path(pattern.anchor)
    rest = list(pattern.parts[len(root.parts) :])
    while os.path.isdir(root / rest[0]) or not WILDCARDS.search(rest[0]):
        root /= rest.pop(0)
    found = [root / name for name in sorted(glob(str(Path(*rest)), root_dir=root, recursive=True))]
    paths = [path for path in found if is_picture(path)]
    if not paths:
        paths = [path for folder in found if folder.is_dir() for path in list_images(folder)]
    return root, list(dict.fromkeys(paths))


def names_of_results(
    pictures: Mapping[Path, Path], folder: Path, kinds: Collection[str]
) -> dict[Path, Path]:
    """See output_names; names.json keeps them for later starts into the folder."""
    earlier = {}
    with suppress(OSError, ValueError, TypeError, AttributeError):
        kept = json.loads((folder / NAMES).read_bytes())
        earlier = {key: name for key, name in kept.items() if isinstance(name, str)}
    names = output_names(pictures, folder, earlier)
    _check_no_input_is_lost(names, folder, kinds)
    kept = earlier | {picture_key(path): name.as_posix() for path, name in names.items()}
    text = json.dumps(kept, indent=0, sort_keys=True, ensure_ascii=False)
    write_atomically(folder / NAMES, text.encode())
    return names


def output_names(
    pictures: Mapping[Path, Path], folder: Path, earlier: Mapping[str, str]
) -> dict[Path, Path]:
    """The result's unique path relative to the output folder, without extension, per picture.

    Sub-folders are kept. Pictures that differ only in their extension keep it in the name; pictures
    of one name from several sources are numbered. earlier: names of results by `picture_key`, which
    their own pictures keep. Names of other files in the folder are never taken.
    """
    stems = Counter(_folded(below.with_suffix("")) for below in pictures.values())
    names, taken = {}, {name.casefold() for name in earlier.values()}
    for path, below in pictures.items():
        if known := earlier.get(picture_key(path)):
            names[path] = Path(known)
            continue
        bare, long = below.with_suffix(""), below.with_name(below.name.replace(".", "_"))
        usual = _named(long if stems[_folded(bare)] > 1 else bare)
        numbered = (usual.with_name(f"{usual.name}_{number}") for number in count(2))
        for name in chain([usual], numbered):
            if _folded(name) not in taken and not _is_taken(folder / name):
                break
        names[path] = name
        taken.add(_folded(name))
    return names


def _named(below: Path) -> Path:
    return Path(*(result_name(part, NAME_ROOM) for part in below.parts))


def _is_taken(target: Path) -> bool:
    return any(map(os.path.lexists, result_paths(target, PICTURE_ENDINGS).values()))


def _folded(name: Path) -> str:
    return name.as_posix().casefold()  # some file systems ignore case


def result_paths(target: Path, kinds: Iterable[str]) -> dict[str, Path]:
    """The files of one picture by kind; target: path without extension."""
    endings = {kind: PICTURE_ENDINGS[kind] for kind in kinds if kind in PICTURE_ENDINGS}
    return {kind: target.with_name(target.name + ending) for kind, ending in endings.items()}


def _all_paths(folder: Path, name: Path, kinds: Collection[str]) -> Iterable[Path]:
    return (result_paths(folder / name, kinds) | annotation_files(folder, name, kinds)).values()


def begin(
    names: Mapping[Path, Path], table: ResultsTable, annotations: AnnotationFiles, folder: Path,
    kinds: Collection[str],
) -> list[Path]:  # fmt: skip
    """Begin table and data sets; the pictures without a row or whose files are not up to date."""
    todo = [
        picture
        for picture, name in names.items()
        if picture not in table
        or not all(table.is_current(file, picture) for file in _all_paths(folder, name, kinds))
    ]
    files = [
        file
        for picture in todo
        for file in annotation_files(folder, names[picture], kinds).values()
        if not (table.continues and table.is_current(file, picture))
    ]
    annotations.begin(files)
    table.begin()
    return todo


def _check_no_input_is_lost(
    names: Mapping[Path, Path], folder: Path, kinds: Collection[str]
) -> None:
    """Raise InputError if a file that is going to be written would overwrite an input picture."""
    inputs = {path.resolve() for path in names}
    joint = [folder / name for name in (RESULTS_CSV, RECORD, NAMES, CONTACT_SHEET)]
    for path in chain(joint, *(_all_paths(folder, name, kinds) for name in names.values())):
        if path.resolve() in inputs:
            raise InputError(
                f"{path} is an input and would be overwritten; choose another --out-dir"
            )


def ends_the_run(error: InputError) -> bool:
    """Whether no other picture could be written either, as on a full disk."""
    return getattr(error.__cause__, "errno", None) in (ENOSPC, EDQUOT, EROFS, EIO)


def read_pictures(
    paths: Iterable[Path],
    batch_size: int,
    problems: dict[Path, str],
    value_range: ValueRange | None,
) -> Iterator[list[tuple[Path, np.ndarray]]]:
    """Yield batches of (path, RGB picture); add unreadable pictures to `problems`.

    value_range: see read_image.
    """
    batch = []
    for path in paths:
        try:
            batch.append((path, _read(path, value_range)))
        except InputError as error:
            problems[path] = str(error)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _read(path: Path, value_range: ValueRange | None) -> np.ndarray:
    try:
        image = read_image(path, value_range=value_range)
    except InputError as error:
        if is_film(path):
            raise InputError(f"{path} is a film; it goes to infer_video.py") from error
        raise
    if max(image.shape) > MAX_SIDE:
        raise InputError(f"{path}: wider or higher than {MAX_SIDE} pixels; cut it into tiles")
    notes = [note] if (note := range_note(path, value_range)) else []
    if (count := num_frames(path)) > 1:
        others = "; infer_video.py takes all" if path.suffix.lower() in (".gif", ".png") else ""
        notes.append(f"only the first of its {count} frames or pages is segmented{others}")
    for note in notes:
        print(f"{path}: {note}", file=sys.stderr)
    return image


def save_prediction(
    target: Path, image: np.ndarray, prediction: Prediction, classes: Classes,
    kinds: Collection[str], alpha: float,
) -> None:  # fmt: skip
    """Write the wanted kinds of result of an RGB picture; target: path without extension."""
    paths = result_paths(target, kinds)
    if {"overlay", "side-by-side"} & paths.keys():
        drawn = overlay(image, prediction.labels, classes, alpha)
    if "overlay" in paths:
        write_image(paths["overlay"], drawn)
    if "side-by-side" in paths:
        write_image(paths["side-by-side"], np.hstack([image, drawn]))
    if "mask" in paths:
        write_mask(paths["mask"], prediction.labels, classes.palette)
    if "confidence" in paths:
        write_image(paths["confidence"], (255 * prediction.confidence).round().astype(np.uint8))
    if "probabilities" in paths:
        content = io.BytesIO()
        np.savez_compressed(content, probabilities=prediction.probabilities)
        write_atomically(paths["probabilities"], content.getvalue())


def write_contact_sheet(folder: Path, table: ResultsTable) -> list[str]:
    """Draw the overlays of the table's first rows on one picture, if there are any.

    Returns the messages of errors: a sheet that cannot be written costs none of the results.
    """
    captions = {}
    for row in table.rows.values():
        path = result_paths(folder / row[1], ["overlay"])["overlay"]
        if len(captions) < SHEET_PICTURES and table.is_current(path, Path(row[0])):
            captions[path] = f"{float(row[4]):.2f}  {row[1]}"
    if captions:
        sheet = contact_sheet(map(_thumbnail, captions), captions.values())
        try:
            write_image(folder / CONTACT_SHEET, sheet)
        except InputError as error:
            return [str(error)]
    return []


def _thumbnail(path: Path) -> np.ndarray:
    """One of our JPEGs as RGB, decoded at a fraction of its size if it is large."""
    with Image.open(path) as image:
        image.draft("RGB", THUMBNAIL)
        return np.array(image.convert("RGB"))
