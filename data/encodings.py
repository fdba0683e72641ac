"""What the values of all masks together mean: their classes, and how each is read."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from config import IGNORE_INDEX
from data.colours import NEAR, NEARLY_ALL, SHADES, has_voc_colours, soft_colours, told_colours
from data.labels.class_entries import IGNORE_LABEL, ClassFile
from data.labels.class_files import read_classes
from data.labels.classes import VOC_PALETTE, Classes, Colour, default_classes, default_palette
from data.labels.masks import CUT, MaskEncoding, colour_of, guess_encoding, levels_of
from data.pairs import Pair
from data.scans import Scan
from utils import InputError

LEVELS = 16  # values at most, far apart, that are classes by themselves
TINT = 24  # at most, between the channels of a grey


def choose_meaning(
    class_file: ClassFile | None, scans: Mapping[Pair, Scan], is_voc: bool = False
) -> tuple[Classes, MaskEncoding, list[str]]:
    """Classes, encoding, and a line for each thing that the values of all masks together show.

    What a class file says comes first. is_voc: the folders are Pascal VOC's. Raises InputError, a
    question with its answers, where the values have several meanings or none.
    """
    decisions: list[str] = []
    found = [scan for scan in scans.values() if scan.problem is None]
    if class_file is None and is_voc and has_voc_colours(found):
        class_file = read_classes("voc2012")
        decisions.append("classes are those of Pascal VOC, told by the colours of the masks")
    if _is_open(class_file) and (line := _black_and_white(found)):
        classes = class_file.classes if class_file else default_classes(2)
        return classes, replace(CUT, class_names=classes.names), [*decisions, line]
    colours = class_file.colours if class_file else {}
    if not colours:
        colours, class_file, lines = told_colours(class_file, scans)
        decisions += lines
    if not (class_file and class_file.is_preset):
        border = VOC_PALETTE[IGNORE_INDEX]  # which VOC ignores
        others = (s for s in found if colour_of(s.palette.get(IGNORE_INDEX, 0)) != border)
        _ask_about_255(class_file, [own for s in others if (own := _numbers(s, colours))])
    encoding = _encoding(class_file, [_numbers(scan, colours) for scan in found])
    if encoding.class_names:  # named after their values
        classes = Classes(encoding.class_names, default_palette(encoding.class_names))
        decisions.append(
            f"the masks hold the values {', '.join(map(str, encoding.values))} alone, each of them "
            f"a class; to name them, write in a dataset.yaml: {encoding.entries()}"
        )
    else:
        num_classes = len(set(encoding.values.values()))
        classes = class_file.classes if class_file else default_classes(num_classes)
    encoding = replace(encoding, colours=colours, class_names=classes.names)
    if colours and (line := soft_colours(encoding, found)):
        encoding = replace(encoding, nearest=True)
        decisions.append(line)
    by_colour = [s for s in found if s.is_colour or encoding.reads_colours_of(s.stored[1])]
    if colours and by_colour:
        singles = len(by_colour) < len(found)
        name = f"{encoding.name}, or class colours" if singles else "class colours"
        encoding = replace(encoding, name=name)
    return classes, encoding, decisions


def _is_open(class_file: ClassFile | None) -> bool:
    """Whether nothing says what values mean, but for two names perhaps."""
    return class_file is None or (
        class_file.classes.num_classes == 2
        and not (class_file.values or class_file.colours or class_file.instances)
        and class_file.others is None
    )


def _numbers(scan: Scan, colours: Mapping[Colour, int]) -> Counter[int]:
    """{number: pixels} of a single-channel mask, or of RGB of greys alone."""
    if not scan.is_colour:
        return Counter(scan.values)
    is_numbers = scan.is_grey and not colours
    return Counter({v & 255: n for v, n in scan.values.items()} if is_numbers else {})


def _encoding(class_file: ClassFile | None, masks: Sequence[Counter[int]]) -> MaskEncoding:
    """What the numbers in single-channel masks mean; masks: {number: pixels} of each."""
    values = {value for mask in masks for value in mask}
    if class_file is None:
        return levels_of(values) if _are_levels(masks) else guess_encoding(values, None, {})
    if class_file.instances:
        # 255 is an object too, if larger numbers occur; else it is ignored.
        named = {0: 0, IGNORE_INDEX: 1} if max(values, default=0) > IGNORE_INDEX else {0: 0}
        return MaskEncoding("instance ids of one class", named, others=1)
    if class_file.values or class_file.others is not None:
        return MaskEncoding("the class file's values", class_file.values, others=class_file.others)
    return guess_encoding(values, class_file.classes.num_classes, class_file.colours)


def _are_levels(masks: Sequence[Counter[int]]) -> bool:
    """Whether a few greys, far apart, are in many masks each."""
    count = Counter(value for mask in masks for value in mask)
    is_few = len(count) <= LEVELS and min(count, default=-1) >= 0 and IGNORE_INDEX not in count
    is_sparse = is_few and len(count) < max(count) / 2
    return is_sparse and min(count.values()) >= max(2, 0.2 * len(masks))


def _black_and_white(scans: Collection[Scan]) -> str | None:
    """A line if the masks are black and white with soft edges, None if they are anything else.

    Nearly all pixels are 0 or 255, or near them in lossy files; the rest has SHADES on both sides
    of 128, as only smoothing makes.
    """
    greys: Counter[int] = Counter()
    soft = 0
    for scan in scans:
        if scan.kind == "palette" or scan.spread > TINT:
            return None
        own: Counter[int] = Counter()
        for value, count in scan.values.items():
            own[value >> 8 & 255 if scan.is_colour else value] += count
        soft += any(0 < value < 255 for value in own)
        greys.update(own)
    if not soft or not {0, 255} <= greys.keys() or max(greys) > 255 or min(greys) < 0:
        return None
    shades = greys.keys() - {0, 255}
    between = sum(greys[value] for value in shades)
    near = sum(n for v, n in greys.items() if min(v, 255 - v) <= NEAR)
    is_lossy = any(scan.lossy for scan in scans) and near >= NEARLY_ALL * greys.total()
    is_smooth = len(shades) >= SHADES and min(shades) < 128 <= max(shades)
    if not is_lossy and not (is_smooth and between <= (1 - NEARLY_ALL) * greys.total()):
        return None
    return (
        f"masks are black and white with soft edges, cut at 128: {between} pixels "
        f"({between / greys.total():.2%}) in {soft} masks are between 0 and 255"
    )


def _ask_about_255(class_file: ClassFile | None, masks: Sequence[Counter[int]]) -> None:
    """Raise InputError where 255, ignored unless a class file names it, looks like a class.

    It does where it is a quarter of all that is not 0, or a mask holds 0 and 255 alone.
    masks: {number: pixels} of each.
    """
    pixels: Counter[int] = Counter()
    for mask in masks:
        pixels.update(mask)
    is_binary = pixels.keys() <= {0, IGNORE_INDEX} and _is_open(class_file)
    is_named = class_file and (
        IGNORE_INDEX in class_file.values
        or class_file.instances
        or IGNORE_LABEL in class_file.left_out
    )
    if is_binary or is_named:
        return
    alone = sum(mask.keys() == {0, IGNORE_INDEX} for mask in masks)
    not_0 = pixels.total() - pixels[0]
    if not pixels[IGNORE_INDEX] or not (alone or 4 * pixels[IGNORE_INDEX] > not_0):
        return
    question = (
        f"255 is {pixels[IGNORE_INDEX] / not_0:.0%} of what is not 0 ({pixels[IGNORE_INDEX]} "
        f"pixels; with 0 alone in {alone} of {len(masks)} masks): is it a class, or to be ignored?"
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
        f"  {levels_of(without).entries()}\n  ignore: [255]"
    )


def mask_problem(scan: Scan, encoding: MaskEncoding) -> str | None:
    """Why a mask cannot be used: values without a class, or values that compression has changed."""
    if encoding.cut or (encoding.nearest and scan.is_colour):
        return None
    problem = encoding.problem(*scan.stored, np.array([list(scan.values.values())]))
    if problem and scan.lossy:
        return f"{problem}; its compression, as in JPEG, makes such values: save masks as PNG"
    numbers = _numbers(scan, encoding.colours).keys()
    if problem is None and scan.lossy and not numbers <= {0, IGNORE_INDEX}:
        return "small numbers, which compression as in JPEG changes; save masks as PNG"
    return problem
