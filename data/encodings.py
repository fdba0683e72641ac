"""What the values of all masks together mean: their classes, and how each is read."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from config import IGNORE_INDEX
from data.colours import (
    BORDER,
    NEAR,
    NEARLY_ALL,
    SHADES,
    has_voc_colours,
    soft_colours,
    told_colours,
)
from data.labels.class_entries import ClassFile
from data.labels.class_files import read_classes
from data.labels.classes import Classes, Colour, default_classes, default_palette
from data.labels.masks import (
    CUT,
    MaskEncoding,
    colour_of,
    guess_encoding,
    instance_encoding,
    levels_of,
)
from data.pairs import Pair
from data.scans import Scan
from utils import InputError

LEVELS = 16  # values at most, far apart, that are classes by themselves
TINT = 24  # at most, between the channels of a grey


@dataclass
class Meaning:
    """What masks store. decisions: a line each, of what the values showed."""

    classes: Classes
    encoding: MaskEncoding
    decisions: list[str] = field(default_factory=list)


def choose_meaning(
    class_file: ClassFile | None, scans: Mapping[Pair, Scan], is_voc: bool = False
) -> Meaning:
    """Classes and encoding of masks: what the class file says, else what all masks together show.

    is_voc: the folders are Pascal VOC's. Raises InputError, a question with its answers, where the
    values have several meanings or none.
    """
    decisions: list[str] = []
    found = [scan for scan in scans.values() if scan.problem is None]
    if class_file is None and is_voc and has_voc_colours(found):
        class_file = read_classes("voc2012")
        decisions.append("classes are those of Pascal VOC, told by the colours of the masks")
    if _is_open(class_file) and (line := _black_and_white(found)):
        classes = class_file.classes if class_file else default_classes(2)
        return Meaning(classes, replace(CUT, class_names=classes.names), [*decisions, line])
    colours = class_file.colours if class_file else {}
    if not colours:
        colours, class_file, lines = told_colours(class_file, scans)
        decisions += lines
    values = {value for scan in found for value in _numbers(scan, colours)}
    if not (class_file and class_file.is_preset):
        _ask_about_255(class_file, found, colours)
    encoding = _levels(class_file, values, found) or _choose_encoding(class_file, values)
    if encoding.class_names and class_file is None:  # named after their values
        classes = Classes(encoding.class_names, default_palette(encoding.class_names))
        decisions.append(
            f"the masks hold the values {', '.join(map(str, sorted(values)))} alone, each of them "
            f"a class; to name them, write in a dataset.yaml: {encoding.entries()}"
        )
    else:
        num_classes = len(set(encoding.values.values()))
        classes = class_file.classes if class_file else default_classes(num_classes)
    encoding = replace(encoding, colours=colours, class_names=classes.names)
    if colours and (line := soft_colours(encoding, found)):
        encoding = replace(encoding, nearest=True)
        decisions.append(line)
    by_colour = [scan for scan in found if scan.is_colour or reads_colours(scan, encoding)]
    if colours and by_colour:
        singles = len(by_colour) < len(found)
        name = f"{encoding.name}, or class colours" if singles else "class colours"
        encoding = replace(encoding, name=name)
    return Meaning(classes, encoding, decisions)


def _is_open(class_file: ClassFile | None) -> bool:
    """Whether nothing says what values mean, but for two names perhaps."""
    return class_file is None or (
        class_file.classes.num_classes == 2
        and not (class_file.values or class_file.colours or class_file.instances)
        and class_file.others is None
    )


def _numbers(scan: Scan, colours: Mapping) -> Iterable[int]:
    """The numbers that a single-channel mask holds, or RGB of greys alone."""
    if not scan.is_colour:
        return scan.values
    return {value & 255 for value in scan.values} if scan.is_grey and not colours else ()


def _choose_encoding(class_file: ClassFile | None, values: set[int]) -> MaskEncoding:
    """What the numbers in single-channel masks mean."""
    if class_file is None:
        return guess_encoding(values, None, {})
    if class_file.instances:
        return instance_encoding(values)
    if class_file.values or class_file.others is not None:
        return MaskEncoding("the class file's values", class_file.values, others=class_file.others)
    return guess_encoding(values, class_file.classes.num_classes, class_file.colours)


def _levels(
    class_file: ClassFile | None, values: set[int], scans: Collection[Scan]
) -> MaskEncoding | None:
    """A class for each value where a few greys, far apart, are in many masks; else None."""
    masks = Counter(value for scan in scans for value in _numbers(scan, {}))
    is_few = len(values) <= LEVELS and min(values, default=-1) >= 0 and max(values) > len(values)
    if class_file or not is_few or IGNORE_INDEX in values or len(values) >= max(values) / 2:
        return None
    return levels_of(values) if min(masks.values()) >= max(2, 0.2 * len(scans)) else None


def _black_and_white(scans: Collection[Scan]) -> str | None:
    """A line if the masks are black and white with soft edges, None if they are anything else.

    Nearly all pixels are 0 or 255, or near them in lossy files; the rest has SHADES on both sides
    of 128, as only smoothing makes.
    """
    greys: Counter[int] = Counter()
    between = 0
    for scan in scans:
        if scan.kind == "palette" or scan.spread > TINT:
            return None
        own: Counter[int] = Counter()
        for value, count in scan.values.items():
            own[value >> 8 & 255 if scan.is_colour else value] += count
        between += any(0 < value < 255 for value in own)
        greys.update(own)
    if not between or not {0, 255} <= greys.keys() or max(greys) > 255 or min(greys) < 0:
        return None
    shades = [value for value in greys if 0 < value < 255]
    exact = greys[0] + greys[255]
    near = sum(n for v, n in greys.items() if min(v, 255 - v) <= NEAR)
    is_lossy = any(scan.lossy for scan in scans)
    is_smooth = len(shades) >= SHADES and min(shades) < 128 <= max(shades)
    is_near = is_lossy and near >= NEARLY_ALL * greys.total()
    if not is_near and not (is_smooth and exact >= NEARLY_ALL * greys.total()):
        return None
    count = greys.total() - exact
    return (
        f"masks are black and white with soft edges, cut at 128: {count} pixels "
        f"({count / greys.total():.2%}) in {between} masks are between 0 and 255"
    )


def _ask_about_255(
    class_file: ClassFile | None, scans: Collection[Scan], colours: Mapping[Colour, int]
) -> None:
    """Raise InputError where 255, ignored unless a class file names it, looks like a class.

    It does where it is a quarter of all that is not 0, or a mask holds 0 and 255 alone.
    """
    if class_file and (IGNORE_INDEX in class_file.values or class_file.instances):
        return
    pixels: Counter[int] = Counter()
    alone = 0
    for scan in scans:
        if colour_of(scan.palette.get(IGNORE_INDEX, 0)) == BORDER or not _numbers(scan, colours):
            continue
        own = Counter({v & 255 if scan.is_colour else v: n for v, n in scan.values.items()})
        alone += own.keys() == {0, IGNORE_INDEX}
        pixels.update(own)
    is_binary = pixels.keys() <= {0, IGNORE_INDEX} and _is_open(class_file)
    others = pixels.total() - pixels[0] - pixels[IGNORE_INDEX]
    if not pixels[IGNORE_INDEX] or is_binary or not (alone or 3 * pixels[IGNORE_INDEX] > others):
        return
    share = pixels[IGNORE_INDEX] / (others + pixels[IGNORE_INDEX])
    question = (
        f"255 is {share:.0%} of what is not 0 ({pixels[IGNORE_INDEX]} pixels; with 0 alone in "
        f"{alone} of {len(scans)} masks): is it a class, or to be ignored?"
    )
    if class_file:
        raise InputError(
            f"{question} Write in a dataset.yaml, with the classes, `ignore: [255]`, or give 255 "
            "to a class, as in `classes: {0: {name: a, labels: [0]}, 1: {name: b, labels: [255]}}`"
        )
    values = sorted(pixels)
    without = [value for value in values if value != IGNORE_INDEX]
    raise InputError(
        f"{question} The masks hold {', '.join(map(str, values[:20]))}; write one of these in a "
        f"dataset.yaml, with names of your own:\n  {levels_of(values).entries()}\n"
        f"  {levels_of(without).entries()}, ignore: [255]".replace("}}, ignore", "}}\n  ignore")
    )


def mixed_binary_masks(scans: Mapping[Pair, Scan]) -> str | None:
    """A problem if some masks hold 0 and 1 and some 0 and 255, in a set without other values.

    Read together, 255 would be ignored in the latter. It is none where a mask has both 1 and 255.
    """
    found = {pair: set(scan.values) for pair, scan in scans.items()}
    ones = next((pair.mask for pair, values in found.items() if 1 in values), None)
    whites = next((pair.mask for pair, values in found.items() if IGNORE_INDEX in values), None)
    only_binary = all(values <= {0, 1} or values <= {0, IGNORE_INDEX} for values in found.values())
    if ones is None or whites is None or not only_binary:
        return None
    return (
        f"some masks hold 0 and 1 ({ones}), some 0 and 255 ({whites}); save all of them alike, "
        "or write `classes: {0: {name: ..., labels: [0]}, 1: {name: ..., labels: [1, 255]}}` "
        "in a dataset.yaml"
    )


def reads_colours(scan: Scan, encoding: MaskEncoding) -> bool:
    """Whether the encoding reads this palette mask by its colours."""
    palette = {index: colour_of(code) for index, code in scan.palette.items()}
    return bool(encoding.colours) and encoding.reads_colours_of(palette)


def as_stored(scan: Scan, encoding: MaskEncoding) -> tuple[dict[int, int], bool]:
    """{value in the scan: value or colour code as the encoding reads it}, and which it is."""
    if encoding.cut and scan.is_colour:
        return {value: value >> 8 & 255 for value in scan.values}, False
    if scan.is_grey and not encoding.colours:
        return {value: value & IGNORE_INDEX for value in scan.values}, False
    if reads_colours(scan, encoding):
        return {value: scan.palette.get(value, 0) for value in scan.values}, True
    return {value: value for value in scan.values}, scan.is_colour


def mask_problem(scan: Scan, encoding: MaskEncoding) -> str | None:
    """Why a mask cannot be used: values without a class, or values that compression has changed."""
    if encoding.cut or (encoding.nearest and scan.is_colour):
        return None
    stored, is_colour = as_stored(scan, encoding)
    counts: Counter[int] = Counter()
    for value, count in scan.values.items():
        counts[stored[value]] += count
    problem = encoding.unknown_values(counts, is_colour)
    if problem and scan.lossy:
        problem += "; its compression, as in JPEG, makes such values: save masks as PNG"
    if problem is None and scan.lossy and not is_colour and not set(counts) <= {0, IGNORE_INDEX}:
        problem = "small numbers, which compression as in JPEG changes; save masks as PNG"
    if problem or not scan.dropped or encoding.others is not None:
        return problem
    return f"more than {len(scan.values)} different values; that is a photograph, not a mask"
