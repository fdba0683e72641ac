"""What the values of all masks together mean: their classes, and how each is read."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from config import IGNORE_INDEX
from data.labels.class_entries import ClassFile
from data.labels.class_files import read_classes
from data.labels.classes import (
    PRESETS,
    VOC_PALETTE,
    Classes,
    Colour,
    default_classes,
    default_palette,
)
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

SHOWN_COLOURS = 5  # in a message
SHADES = 16  # different values at least between those of two classes, where edges are soft
SOFT = 0.03  # at most, of a mask's pixels, that are between two class colours
NEARLY_ALL = 0.9
NEAR = 16  # by which compression moves a value
TINT = 24  # at most, between the channels of a grey
VOC_CLASSES = 6  # at least, with VOC's colours, to be VOC's classes
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
BORDER = (224, 224, 192)  # VOC's colour of 255


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
    if class_file is None and is_voc and _has_voc_colours(found):
        class_file = read_classes("voc2012")
        decisions.append("classes are those of Pascal VOC, told by the colours of the masks")
    if _is_open(class_file) and (line := _black_and_white(found)):
        classes = class_file.classes if class_file else default_classes(2)
        return Meaning(classes, replace(CUT, class_names=classes.names), [*decisions, line])
    colours = class_file.colours if class_file else {}
    if not colours:
        colours, class_file, lines = _colours_told(class_file, scans)
        decisions += lines
    values = {value for scan in found for value in _numbers(scan, colours)}
    if not (class_file and class_file.is_preset):
        _ask_about_255(class_file, found, colours)
    encoding = _choose_encoding(class_file, values)
    if encoding.class_names and class_file is None:  # named after their values
        classes = Classes(encoding.class_names, default_palette(encoding.class_names))
        decisions.append(
            f"the masks hold {len(values)} values alone, each a class: {encoding.class_names[0]} to "
            f"{encoding.class_names[-1]}; name them in a dataset.yaml: {encoding.entries()}"
        )
    else:
        num_classes = len(set(encoding.values.values()))
        classes = class_file.classes if class_file else default_classes(num_classes)
    encoding = replace(encoding, colours=colours, class_names=classes.names)
    if colours and (line := _soft_colours(encoding, found)):
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


def _colours_told(
    class_file: ClassFile | None, scans: Mapping[Pair, Scan]
) -> tuple[dict[Colour, int], ClassFile | None, list[str]]:
    """{colour: class} that masks show where no class file lists colours, and why.

    Raises InputError where only a class file can explain the colours.
    """
    palettes = {pair: scan for pair, scan in scans.items() if scan.kind == "palette"}
    by_index = _colour_by_index(palettes)
    colours = _pixels_of_colours(scan for scan in scans.values() if scan.is_colour)
    coloured = [scan for scan in scans.values() if scan.needs_colours]
    if by_index is None:
        if {colour_of(c) for s in palettes.values() for c in s.palette.values()} <= {BLACK, WHITE}:
            line = "palettes list black and white in both orders: white is 1 in each file"
            return {BLACK: 0, WHITE: 1}, class_file, [line]
        _ask_about_palettes(class_file, palettes)
    if not coloured:
        return {}, class_file, []
    if palettes and by_index and colours.keys() <= set(by_index.values()):
        line = "masks are palette files and RGB; the colours of the palettes explain the RGB files"
        return {colour: index for index, colour in by_index.items()}, class_file, [line]
    if class_file:
        order = VOC_PALETTE[: class_file.classes.num_classes]
        if colours.keys() <= {*order, BORDER}:
            found = {colour: k for k, colour in enumerate(order)} | {BORDER: IGNORE_INDEX}
            return found, class_file, ["colours of the masks are numbered in Pascal VOC's order"]
    elif len(colours) == 2 and BLACK in colours and len(coloured) == _with_values(scans):
        other = next(colour for colour in colours if colour != BLACK)
        found = {BLACK: 0, other: 1}
        line = f"masks hold two colours: black is background, {list(other)} foreground"
        return found, ClassFile(default_classes(2), colours=found), [line]
    _ask_about_colours(class_file, coloured, colours)
    return {}, class_file, []


def _with_values(scans: Mapping[Pair, Scan]) -> int:
    """The number of masks that are not black throughout."""
    return sum(any(scan.values) for scan in scans.values() if scan.problem is None)


def _pixels_of_colours(scans: Iterable[Scan]) -> Counter[Colour]:
    pixels: Counter[Colour] = Counter()
    for scan in scans:
        pixels.update({colour_of(code): count for code, count in scan.values.items()})
    return pixels


def _colour_by_index(palettes: Mapping[Pair, Scan]) -> dict[int, Colour] | None:
    """{index: colour} of palette masks; None if the files do not agree."""
    found: dict[int, Colour] = {}
    for scan in palettes.values():
        for index, code in scan.palette.items():
            if found.setdefault(index, colour_of(code)) != colour_of(code):
                return None
    return found


def _ask_about_palettes(class_file: ClassFile | None, palettes: Mapping[Pair, Scan]) -> None:
    """Raise InputError that shows two palettes which give one index two colours."""
    first: dict[int, tuple[Pair, Colour]] = {}
    for pair, scan in palettes.items():
        for index, code in scan.palette.items():
            other, colour = first.setdefault(index, (pair, colour_of(code)))
            if colour != colour_of(code):
                shown = sorted(
                    {colour_of(c) for s in palettes.values() for c in s.palette.values()}
                )
                raise InputError(
                    f"{pair.mask}: its palette gives {index} the colour {list(colour_of(code))}, "
                    f"that of {other.mask} {list(colour)}, so that indices are no classes; list "
                    f"the colours in a dataset.yaml:\n{_paste(class_file, shown)}"
                )


def _ask_about_colours(
    class_file: ClassFile | None, coloured: Collection[Scan], colours: Counter[Colour]
) -> None:
    """Raise InputError: RGB masks, whose colours only a class file can explain."""
    shown = ", ".join(str(list(colour)) for colour, _ in colours.most_common(SHOWN_COLOURS))
    few = [colour for colour, _ in colours.most_common(32)]
    advice = "list their meaning as LABEL_COLORS_LIST in a dataset.yaml"
    if len(colours) <= len(few):
        advice += f":\n{_paste(class_file, few)}"
    fitting = [name for name, classes in PRESETS.items() if _fits(classes, colours)]
    if fitting:
        advice = f"they look like those of --classes {fitting[0]}"
    raise InputError(
        f"{len(coloured)} masks are RGB with {len(colours)} colours (mostly {shown}), and no class "
        f"colours are known; {advice}"
    )


def _paste(class_file: ClassFile | None, colours: Collection[Colour]) -> str:
    """Lines of a class file that lists colours; names are to be replaced."""
    names = class_file.classes.names if class_file else ()
    if len(names) != len(colours):
        names = ["background" if c == BLACK else f"colour_{k}" for k, c in enumerate(colours)]
    listed = ", ".join(str(list(colour)) for colour in colours)
    return f"  ALL_CLASSES: [{', '.join(names)}]\n  LABEL_COLORS_LIST: [{listed}]"


def _fits(classes: Classes, pixels: Counter) -> bool:
    """Whether nearly all pixels have one of several colours of these classes."""
    known = set(classes.palette) & set(pixels)
    return len(known) >= VOC_CLASSES and sum(pixels[c] for c in known) > 0.9 * pixels.total()


def _has_voc_colours(scans: Collection[Scan]) -> bool:
    """Whether palette or RGB masks hold several of VOC's colours and no others."""
    palettes = {i: colour_of(c) for scan in scans for i, c in scan.palette.items()}
    own = {i: colour for i, colour in palettes.items() if i != IGNORE_INDEX}
    is_order = len(own) >= VOC_CLASSES and all(
        i < 21 and colour == VOC_PALETTE[i] for i, colour in own.items()
    )
    return is_order or _fits(
        PRESETS["voc2012"], _pixels_of_colours(scan for scan in scans if scan.is_colour)
    )


def _ask_about_255(
    class_file: ClassFile | None, scans: Collection[Scan], colours: Mapping[Colour, int]
) -> None:
    """Raise InputError where 255, which is ignored unless a class file names it, looks like a class.

    It does where it is more than half of all that is not 0, or a mask holds 0 and 255 alone.
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
    if not pixels[IGNORE_INDEX] or is_binary or not (alone or pixels[IGNORE_INDEX] > others):
        return
    share = pixels[IGNORE_INDEX] / (others + pixels[IGNORE_INDEX])
    question = (
        f"255 is {share:.0%} of what is not 0 ({pixels[IGNORE_INDEX]} pixels; with 0 alone in "
        f"{alone} of {len(scans)} masks): is it a class, or to be ignored?"
    )
    if class_file:
        raise InputError(
            f"{question} Write `ignore: [255]` in the class file, or give 255 to a class: "
            "`labels: [255]`"
        )
    values = sorted(pixels)
    without = [value for value in values if value != IGNORE_INDEX]
    raise InputError(
        f"{question} The masks hold {', '.join(map(str, values[:20]))}; write one of these in a "
        f"dataset.yaml, with names of your own:\n  {levels_of(values).entries()}\n"
        f"  {levels_of(without).entries()}, ignore: [255]".replace("}}, ignore", "}}\n  ignore")
    )


def _soft_colours(encoding: MaskEncoding, scans: Collection[Scan]) -> str | None:
    """A line if masks hold shades between class colours, from smoothing or compression; else None.

    In lossy files nearly all pixels are near a class colour. In others the shades are few pixels of
    each mask and of many colours, each on the line between two class colours.
    """
    known = encoding.colours
    off: Counter[Colour] = Counter()
    masks = total = 0
    for scan in (scan for scan in scans if scan.is_colour):
        own = Counter(
            {colour_of(v): n for v, n in scan.values.items() if colour_of(v) not in known}
        )
        size = sum(scan.values.values()) + scan.dropped
        far = scan.dropped + sum(n for c, n in own.items() if encoding.distance(c) > NEAR)
        if scan.lossy and far > (1 - NEARLY_ALL) * size:
            return None
        if not scan.lossy and own.total() > SOFT * size:
            return None
        if not scan.lossy and not all(encoding.is_between(colour) for colour in own):
            return None
        masks += bool(own)
        total += size
        off.update(own)
    if not off or (len(off) < SHADES and not any(scan.lossy for scan in scans)):
        return None
    ignored = sum(n for colour, n in off.items() if encoding.nearest_class(colour) == IGNORE_INDEX)
    return (
        f"{off.total()} pixels ({off.total() / total:.2%}) in {masks} masks are shades of class "
        f"colours: each has the class of the nearest colour, but {ignored} pixels between two are "
        "ignored"
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
        problem += (
            "; it is a JPEG or the like, whose compression makes such values: save masks as PNG"
        )
    if problem is None and scan.lossy and not is_colour and not set(counts) <= {0, IGNORE_INDEX}:
        problem = (
            "a JPEG or the like of small numbers, which compression changes; save masks as PNG"
        )
    if problem or not scan.dropped or encoding.others is not None:
        return problem
    return f"more than {len(scan.values)} different values; that is a photograph, not a mask"
