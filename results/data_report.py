"""What a data set holds: as text, as JSON, and as pictures."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from config import IGNORE_INDEX
from data.augment import Augment
from data.images import write_image, write_mask
from data.inventory import evenly
from data.labels.class_files import class_file_text
from data.labels.classes import colour_table
from data.labels.masks import UNKNOWN, colour_of
from data.pairs import Pair, read_pair, read_stored, read_target
from data.scans import Scan, keep_scans
from data.survey import SegmentationData
from results.overlays import contact_sheet, overlay
from utils import InputError, output_folder, progress, temporary_folder, write_atomically

SHEET_PAIRS = {"train": 5, "valid": 3, "test": 2}
PANEL_WIDTH = 420  # pixels
UNKNOWN_COLOUR = (255, 0, 255)
SHOWN_VALUES = 20
VARIATIONS = 3


def write_report(data: SegmentationData) -> None:
    """Print the report and write it to outputs/dataset_report: report.json, contact_sheet.png."""
    folder = output_folder("dataset_report")
    facts = describe(data)
    keep_scans(data.scans)
    write_atomically(folder / "report.json", json.dumps(facts, indent=1).encode())
    print(data)
    for split in data.used_splits:
        for pair in data.splits.pairs_of(split)[:1]:
            print(f"  {split} begins with {pair.image} + {pair.mask}; report.json lists all")
    print("\n".join([*_class_table(facts), *_value_table(facts)]))
    panels = [
        panel
        for split, count in SHEET_PAIRS.items()
        for chosen in choose(data, usable_pairs(data, split), count, most_bad=2)
        for panel in _panels_of_pair(data, *chosen)
    ]
    _write_sheet("contact_sheet.png", panels, columns=3)
    print(f"written to {folder}: report.json" + (", contact_sheet.png" if panels else ""))


def describe(data: SegmentationData) -> dict:
    """The report as plain data."""
    splits = data.used_splits
    pixels = {split: data.pixels(split) for split in splits}
    return {
        "layout": data.splits.layout,
        "classes_from": str(data.splits.classes_from) if data.splits.classes_from else None,
        "masks_hold": data.encoding.name,
        "decisions": data.splits.decisions,
        "unused": data.splits.unused,
        "pairs": {split: len(data.splits.pairs_of(split)) for split in splits},
        "classes": [
            {"id": k, "name": name, "pixels": {split: pixels[split][k] for split in splits}}
            for k, name in enumerate(data.classes.names)
        ],
        "mask_values": _mask_values(data),
        "problems": data.problems,
        "warnings": data.warnings,
        "files_of_warnings": data.told_files,
        "files": {
            split: [[str(pair.image), str(pair.mask)] for pair in data.splits.pairs_of(split)]
            for split in splits
        },
    }


def _mask_values(data: SegmentationData) -> list[dict]:
    """Each stored value or colour: its class, its pixels, and the number of masks with it."""
    names = {UNKNOWN: "no class", IGNORE_INDEX: "ignored"} | dict(enumerate(data.classes.names))
    rows: dict[tuple[bool, int, int], dict] = {}
    for scan in data.scans.values():
        for value, class_id in data.class_ids(scan).items():
            shown = list(colour_of(value)) if scan.is_colour else value
            row = {"value": shown, "becomes": names[class_id], "pixels": 0, "masks": 0}
            row = rows.setdefault((scan.is_colour, value, class_id), row)
            row["pixels"] += scan.values[value]
            row["masks"] += 1
    return [rows[key] for key in sorted(rows)]


def _class_table(facts: dict) -> Iterable[str]:
    splits = list(facts["pairs"])
    totals = {s: max(1, sum(c["pixels"][s] for c in facts["classes"])) for s in splits}
    width = max(len(c["name"]) for c in facts["classes"])
    yield f"  {'class':<{width}}" + "".join(f" {split + ' pixels':>22}" for split in splits)
    for entry in facts["classes"]:
        cells = (f" {entry['pixels'][s]:>14} {entry['pixels'][s] / totals[s]:7.2%}" for s in splits)
        yield f"  {entry['name']:<{width}}" + "".join(cells)


def _value_table(facts: dict) -> Iterable[str]:
    yield "  in the masks"
    values = sorted(facts["mask_values"], key=lambda row: row["pixels"], reverse=True)
    for row in values[:SHOWN_VALUES]:
        yield (
            f"  {row['value']!s:>15} is {row['becomes']}: "
            f"{row['pixels']} pixels in {row['masks']} masks"
        )
    if len(values) > SHOWN_VALUES:
        yield f"  and {len(values) - SHOWN_VALUES} more, see report.json"


def usable_pairs(data: SegmentationData, split: str) -> list[tuple[str, Pair, Scan]]:
    """The pairs of a split that can be read."""
    scanned = [(split, pair, data.scans[pair]) for pair in data.splits.pairs_of(split)]
    return [item for item in scanned if item[2].problem is None]


def choose(
    data: SegmentationData, usable: Sequence[tuple[str, Pair, Scan]], count: int, most_bad: int
) -> list[tuple[str, Pair, Scan]]:
    """`count` of these: at most `most_bad` with values of no class, then evenly spaced ones."""
    bad = [item for item in usable if has_unknown(data, item[2])][:most_bad]
    rest = [item for item in usable if item not in bad]
    return bad + evenly(rest, count - len(bad))


def has_unknown(data: SegmentationData, scan: Scan) -> bool:
    """Whether a mask holds values of no class."""
    return UNKNOWN in data.class_ids(scan).values()


def _panels_of_pair(
    data: SegmentationData, split: str, pair: Pair, scan: Scan
) -> list[tuple[np.ndarray, str]]:
    """(picture, caption) of the image, its mask in class colours, and the overlay."""
    image, mask, palette = read_stored(pair)
    ids = data.encoding.look_up(mask, palette)
    labels = np.where(ids == UNKNOWN, IGNORE_INDEX, ids).astype(np.uint8)
    colours = colour_table(data.classes.palette)[labels]
    blended = overlay(image, labels, data.classes)
    for panel in (colours, blended):
        panel[ids == UNKNOWN] = UNKNOWN_COLOUR
    note = "magenta: no class" if (ids == UNKNOWN).any() else scan.kind
    return [
        (image, f"{split}: {pair.image.name}"),
        (colours, f"{pair.files[1].name} ({note})"),
        (blended, "overlay"),
    ]


def _write_sheet(name: str, panels: Sequence[tuple[np.ndarray, str]], columns: int) -> None:
    if panels:
        sheet = contact_sheet(*zip(*panels, strict=True), columns=columns, width=PANEL_WIDTH)
        write_image(output_folder("dataset_report") / name, sheet)


def write_masks(data: SegmentationData, name: str) -> None:
    """Write a data set to outputs/NAME: SPLIT_images, SPLIT_masks (palette PNG), dataset.yaml.

    An interrupted job leaves the folder empty. Pictures keep the names and folders that they have
    below the folder of all of them.
    """
    folder = output_folder(name)
    if any(folder.iterdir()):
        raise InputError(f"{folder}: is not empty; --write-masks needs a new folder")
    try:
        with temporary_folder(folder) as part:
            _fill(part, data)
            folder.rmdir()
            os.replace(part, folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error})") from error
    print(f"written to {folder}; train with --data {folder}")


def _fill(folder: Path, data: SegmentationData) -> None:
    root = Path(os.path.commonpath([pair.image.parent for pair in data.splits.pairs]))
    for split in data.used_splits:
        for pair in progress(data.splits.pairs_of(split), f"writing {split}"):
            below = pair.image.relative_to(root)
            target = read_target(pair, data.encoding)
            mask = folder / f"{split}_masks" / below.with_suffix(".png")
            write_mask(mask, target, data.classes.palette)
            write_atomically(folder / f"{split}_images" / below, pair.image.read_bytes())
    text = class_file_text(data.classes.names, data.classes.palette)
    write_atomically(folder / "dataset.yaml", text.encode())


def write_augment_sheet(data: SegmentationData, augment: Augment) -> None:
    """outputs/dataset_report/augment.png: a few training pictures, VARIATIONS of each."""
    usable = [p for _, p, scan in usable_pairs(data, "train") if not has_unknown(data, scan)]
    if not usable:
        raise InputError("no usable training pair to show; correct the data set first")
    panels = []
    for i, pair in enumerate(usable[: SHEET_PAIRS["train"]]):
        image, target = read_pair(pair, data.encoding)
        for index in range(i, i + VARIATIONS * len(usable), len(usable)):
            varied, labels = augment(image, target, index)
            blended = overlay(varied, labels, data.classes)
            panels += [(varied, pair.image.name), (blended, "hatched pixels are ignored")]
    _write_sheet("augment.png", panels, columns=2 * VARIATIONS)
    print(f"written to {output_folder('dataset_report') / 'augment.png'}")
