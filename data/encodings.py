"""Choose the classes and the encoding of masks, from a class file and from the masks."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace

from config import IGNORE_INDEX
from data.labels.class_entries import ClassFile
from data.labels.classes import PRESETS, Classes, default_classes
from data.labels.masks import MaskEncoding, colour_of, guess_encoding, instance_encoding
from data.pairs import Pair
from data.scans import Scan
from utils import InputError

SHOWN_COLOURS = 5  # in a message


def choose_classes(
    class_file: ClassFile | None, scans: Collection[Scan]
) -> tuple[Classes, MaskEncoding]:
    """Classes and the encoding of the masks: what the class file says, else what the masks show.

    Raises InputError where a class file is needed to tell what the masks' values mean.
    """
    colours = class_file.colours if class_file else {}
    if not colours:
        _refuse_colours(scans)
    values = {
        value & IGNORE_INDEX if scan.is_grey else value
        for scan in scans
        if not scan.is_colour or (scan.is_grey and not colours)
        for value in scan.values
    }
    encoding = _choose_encoding(class_file, values)
    num_classes = len(set(encoding.values.values()))
    classes = class_file.classes if class_file else default_classes(num_classes)
    encoding = replace(encoding, colours=colours, class_names=classes.names)
    by_colour = [scan for scan in scans if scan.is_colour or reads_colours(scan, encoding)]
    if colours and by_colour:
        singles = len(by_colour) < sum(scan.problem is None for scan in scans)
        name = f"{encoding.name}, or class colours" if singles else "class colours"
        encoding = replace(encoding, name=name)
    return classes, encoding


def _choose_encoding(class_file: ClassFile | None, values: set[int]) -> MaskEncoding:
    """What the numbers in single-channel masks mean."""
    if class_file is None:
        return guess_encoding(values, None, {})
    if class_file.instances:
        return instance_encoding(values)
    if class_file.values or class_file.others is not None:
        return MaskEncoding("the class file's values", class_file.values, others=class_file.others)
    return guess_encoding(values, class_file.classes.num_classes, class_file.colours)


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


def _refuse_colours(scans: Collection[Scan]) -> None:
    """Raise InputError if there are RGB masks, whose colours only a class file can explain."""
    coloured = [scan for scan in scans if scan.needs_colours]
    if not coloured:
        return
    pixels: Counter[tuple] = Counter()
    for scan in coloured:
        pixels.update({colour_of(code): count for code, count in scan.values.items()})
    shown = ", ".join(str(list(colour)) for colour, _ in pixels.most_common(SHOWN_COLOURS))
    advice = "list their meaning as LABEL_COLORS_LIST in a dataset.yaml"
    fitting = [name for name, classes in PRESETS.items() if _fits(classes, pixels)]
    if fitting:
        advice = f"they look like those of --classes {fitting[0]}"
    raise InputError(
        f"{len(coloured)} masks are RGB with {len(pixels)} colours (mostly {shown}), and no class "
        f"colours are known; {advice}"
    )


def _fits(classes: Classes, pixels: Counter) -> bool:
    """Whether nearly all pixels have one of several colours of these classes."""
    known = set(classes.palette) & set(pixels)
    return len(known) > SHOWN_COLOURS and sum(pixels[c] for c in known) > 0.9 * pixels.total()


def reads_colours(scan: Scan, encoding: MaskEncoding) -> bool:
    """Whether the encoding reads this palette mask by its colours."""
    palette = {index: colour_of(code) for index, code in scan.palette.items()}
    return bool(encoding.colours) and encoding.reads_colours_of(palette)


def as_stored(scan: Scan, encoding: MaskEncoding) -> tuple[dict[int, int], bool]:
    """{value in the scan: value or colour code as the encoding reads it}, and which it is."""
    if scan.is_grey and not encoding.colours:
        return {value: value & IGNORE_INDEX for value in scan.values}, False
    if reads_colours(scan, encoding):
        return {value: scan.palette.get(value, 0) for value in scan.values}, True
    return {value: value for value in scan.values}, scan.is_colour


def mask_problem(scan: Scan, encoding: MaskEncoding) -> str | None:
    """Why a mask cannot be used: values without a class, or values that a JPEG has changed."""
    stored, is_colour = as_stored(scan, encoding)
    counts: Counter[int] = Counter()
    for value, count in scan.values.items():
        counts[stored[value]] += count
    problem = encoding.unknown_values(counts, is_colour)
    if problem and scan.lossy:
        problem += "; it is a JPEG, whose compression makes such values: save masks as PNG"
    if problem is None and scan.lossy and not is_colour and not set(counts) <= {0, IGNORE_INDEX}:
        problem = "a JPEG of small numbers, which compression changes; save masks as PNG"
    if problem or not scan.dropped or encoding.others is not None:
        return problem
    return f"more than {len(scan.values)} different values; that is a photograph, not a mask"
