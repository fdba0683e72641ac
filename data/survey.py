"""Check a data set's files, classes and encoding before anything is trained."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path

from config import IGNORE_INDEX
from data.annotations.shapes import Annotation
from data.encodings import choose_meaning, mask_problem
from data.labels.class_entries import ClassFile
from data.labels.class_files import read_classes
from data.labels.classes import Classes, default_classes
from data.labels.masks import MaskEncoding
from data.numbers import ValueRange
from data.pairs import PENN_FUDAN, SPLIT_NAMES, VOC, Pair, Splits
from data.scans import Scan, keep_scans, scan_pairs
from utils import InputError, first_of

SHOWN = 5  # offenders named in a message


@dataclass(frozen=True)
class SegmentationData:
    """Pairs, what their files hold, their classes, and how their masks are read.

    problems: a line for each file or setting that training would fail on.
    """

    splits: Splits
    scans: dict[Pair, Scan]
    classes: Classes
    encoding: MaskEncoding
    problems: list[str]

    @property
    def source(self) -> str:
        """The data set's folder and layout, for people."""
        root, layout = self.splits.root, self.splits.layout
        return f"{root} ({layout})" if root else layout

    @property
    def used_splits(self) -> list[str]:
        """Those of SPLIT_NAMES that have pairs."""
        return [split for split in SPLIT_NAMES if self.splits.pairs_of(split)]

    @property
    def numbers(self) -> dict[Path, tuple[int, int]]:
        """{picture of more than 8 bits: its lowest and highest number}."""
        return {pair.image: scan.numbers for pair, scan in self.scans.items() if scan.numbers}

    @property
    def value_range(self) -> ValueRange | None:
        """The numbers that become black and white in pictures of more than 8 bits."""
        return next((pair.value_range for pair in self.scans), None)

    def with_value_range(self, value_range: ValueRange | None) -> "SegmentationData":
        """The same data, their pictures read in this range: that of a checkpoint, say."""
        changed = {pair: pair._replace(value_range=value_range) for pair in self.scans}
        pairs = {s: [changed[p] for p in self.splits.pairs_of(s)] for s in SPLIT_NAMES}
        scans = {changed[pair]: scan for pair, scan in self.scans.items()}
        return replace(self, splits=replace(self.splits, **pairs), scans=scans)

    def pixels(self, split: str) -> list[int]:
        """Pixels per class in one of SPLIT_NAMES."""
        counts = [0] * self.classes.num_classes
        for scan in (self.scans[pair] for pair in self.splits.pairs_of(split)):
            for value, class_id in self.class_ids(scan).items():
                if 0 <= class_id < len(counts):  # neither ignored nor unknown
                    counts[class_id] += scan.values[value]
        return counts

    def class_ids(self, scan: Scan) -> dict[int, int]:
        """{value in the scan: class id}, UNKNOWN or IGNORE_INDEX where it has none."""
        ids = self.encoding.look_up(*scan.stored)[0]
        return dict(zip(scan.values, ids.tolist(), strict=True))

    def raise_problems(self) -> None:
        """Raise InputError with the problem, or with the number of several and the first five."""
        if len(self.problems) == 1:
            raise InputError(self.problems[0])
        if self.problems:
            shown = "\n  ".join(self.problems[:SHOWN])
            number = f"{len(self.problems)} problems in {len(self.scans)} pairs"
            raise InputError(f"{number}, first:\n  {shown}")

    def check_trainable(self) -> None:
        """Raise InputError unless there is something to learn and something to score."""
        layout = self.splits.layout
        if not self.splits.train:
            raise InputError(f"{layout}: no pairs to train on; --test-only scores the others")
        for split in ("train", "valid"):
            if not any(self.pixels(split)):
                raise InputError(
                    f"{layout}: the masks of the {split} split have no labelled pixel, all is "
                    "ignored; there is nothing to learn or score. Check the masks and the class "
                    "file"
                )

    @cached_property
    def told_files(self) -> dict[str, list[str]]:
        """{what the user should know of some files: these files}."""
        scans, pairs = self.scans.items(), self.splits.pairs_of
        numbers, value_range = self.numbers, self.value_range
        told = {
            "images have an EXIF rotation and were turned as viewers turn them":
                [pair.image for pair, scan in scans if scan.turned == "turned"],
            "images have an EXIF rotation that their masks do not share; left as stored":
                [pair.image for pair, scan in scans if scan.turned == "raw"],
            f"images have more than 8 bits or a sign; their numbers {value_range} become black to "
            "white": list(numbers) if value_range != ValueRange(0, 65535) else [],
            "images are nearly of one colour":
                [f"{p}: {text}" for p in numbers if (text := value_range.misfit(numbers[p]))],
            "pairs have several frames or pages; the first is used":
                [pair.image for pair, scan in scans if scan.frames > 1],
            "masks are compressed as JPEG is, which changes values at edges":
                [pair.mask for pair, scan in scans if scan.lossy],
            "masks are smaller copies, enlarged to their pictures' sizes":
                [pair.mask for pair, scan in scans if scan.enlarged],
        }  # fmt: skip
        for one, other in combinations(SPLIT_NAMES, 2):
            seen = {self.scans[p].digest: p.image for p in pairs(one) if self.scans[p].digest}
            both = [(seen.get(self.scans[pair].digest), pair.image) for pair in pairs(other)]
            told[f"images of {other} are also in {one}"] = [f"{a} = {b}" for a, b in both if a]
        return {what: list(map(str, files)) for what, files in told.items() if files}

    @cached_property
    def warnings(self) -> list[str]:
        told = [
            f"{len(files)} {what}, first: {files[0]}" for what, files in self.told_files.items()
        ]
        return [*self.splits.notes, *told, *_class_warnings(self)]

    def __str__(self) -> str:
        names = self.classes.names
        source = f" ({self.splits.classes_from})" if self.splits.classes_from else ""
        statement = (
            f"{self.splits.layout}: {len(self.splits.train)} pairs to train on, "
            f"{len(self.splits.valid)} to validate, {len(self.splits.test)} to test; "
            f"{_masks_hold(self)}; "
            f"{len(names)} classes{source}: {first_of(names)}"
        )
        lines = [f"read as: {line}" for line in self.splits.decisions]
        return "\n".join([statement, *lines, *(f"warning: {line}" for line in self.warnings)])


def _masks_hold(data: SegmentationData) -> str:
    """The masks' encoding and the kinds of files that store it."""
    if data.splits.pairs and all(isinstance(p.mask, Annotation) for p in data.splits.pairs):
        return "masks are drawn from shapes"
    kinds = {scan.kind for scan in data.scans.values() if scan.problem is None}
    palettes = [scan for scan in data.scans.values() if scan.kind == "palette"]
    by_colour = sum(data.encoding.reads_colours_of(scan.stored[1]) for scan in palettes)
    shown = sorted(kinds - {"palette"})
    if by_colour:
        shown.append(f"{by_colour} palette files, read by their colours")
    if by_colour < len(palettes):
        shown.append("palette files, read by their indices")
    return f"masks hold {data.encoding.name} ({', '.join(shown)}), {IGNORE_INDEX} is ignored"


def load_data(splits: Splits) -> SegmentationData:
    """What inspect_data finds; raises InputError where training would fail."""
    data = inspect_data(splits)
    data.raise_problems()
    keep_scans(data.scans)
    return data


def inspect_data(splits: Splits) -> SegmentationData:
    """Read every file, choose classes and encoding; what is wrong is listed in `problems`."""
    class_file = _class_file(splits)
    if class_file and class_file.merged and not splits.class_file:
        label = next(iter(class_file.merged))
        raise InputError(
            f"{splits.classes_from}: mask value {label!r} is not a whole number; names are "
            "labels of annotation files"
        )
    splits, scans = _fitting(splits, scan_pairs(splits.pairs))
    problems = [f"{orphan.path}: {orphan.problem}" for orphan in splits.orphans]
    problems += splits.problems + [scan.problem for scan in scans.values() if scan.problem]
    classes, encoding = default_classes(2), MaskEncoding("values of unknown meaning")
    decisions: list[str] = []
    try:
        if not all(scan.problem for scan in scans.values()):
            classes, encoding, decisions = choose_meaning(class_file, scans, splits.layout == VOC)
            for pair, scan in scans.items():
                if problem := mask_problem(scan, encoding):
                    problems.append(f"{pair.mask}: {problem}")
    except InputError as error:
        # Masks of colours, then those of large values, are the least like class indices.
        values = {p: (s.needs_colours, max(s.values, default=0)) for p, s in scans.items()}
        problems.append(f"{error}\nsee {max(values, key=values.get).mask}")
    splits = replace(splits, decisions=[*splits.decisions, *decisions])
    data = SegmentationData(splits, scans, classes, encoding, problems)
    return data.with_value_range(ValueRange.of(data.numbers.values()))


def _fitting(splits: Splits, scans: dict[Pair, Scan]) -> tuple[Splits, dict[Pair, Scan]]:
    """The splits without pairs whose sizes differ, if such may be left out, and a note of them."""
    bad = [pair for pair, scan in scans.items() if scan.is_mismatch]
    if not (splits.allow_unmatched and bad):
        return splits, scans
    kept = {s: [p for p in splits.pairs_of(s) if p not in set(bad)] for s in SPLIT_NAMES}
    note = f"{len(bad)} pairs whose sizes differ are left out, first: {bad[0].mask}"
    scans = {pair: scan for pair, scan in scans.items() if not scan.is_mismatch}
    return replace(splits, **kept, notes=[*splits.notes, note]), scans


def _class_file(splits: Splits) -> ClassFile | None:
    """What the data set's class file or its annotation files say of the classes."""
    class_file = splits.class_file
    if not class_file and splits.classes_from:
        class_file = read_classes(splits.classes_from)
    if class_file and splits.layout == PENN_FUDAN and not class_file.values:
        return replace(class_file, instances=True)
    return class_file


def _class_warnings(data: SegmentationData) -> Iterable[str]:
    for split in data.used_splits:
        pixels = zip(data.classes.names, data.pixels(split), strict=True)
        missing = [name for name, count in pixels if count == 0]
        if missing:
            shown = first_of(missing, SHOWN)
            yield f"{len(missing)} classes have no pixel in the {split} split: {shown}"
    last = data.classes.num_classes - 1
    are_indices = all(value == k for value, k in data.encoding.values.items())
    if last > 1 and are_indices and not (data.splits.classes_from or data.splits.class_file):
        yield (
            f"there is no class file, so the mask values 0 to {last} are {last + 1} classes; if "
            f"one of them marks pixels without a label (often 0 or {last}), list the classes and "
            f"`ignore: [{last}]` in a dataset.yaml"
        )
