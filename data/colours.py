"""What the colours of RGB and palette masks mean, told from all masks together."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from config import IGNORE_INDEX
from data.labels.class_entries import ClassFile
from data.labels.classes import PRESETS, VOC_PALETTE, Classes, Colour, default_classes
from data.labels.masks import MaskEncoding, colour_of
from data.pairs import Pair
from data.scans import Scan
from utils import InputError

SHOWN_COLOURS = 5  # in a message
SHADES = 16  # different values at least between those of two classes, where edges are soft
SOFT = 0.1  # at most, of a mask's pixels, that are between two class colours
NEARLY_ALL = 0.9
NEAR, APART = 16, 48  # of values: moved by compression; of two classes
RARE = 0.002  # of the pixels; a class has more
MAX_PASTED = 32  # colours in an advice
VOC_CLASSES = 6  # at least, with VOC's colours, to be VOC's classes
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
BORDER = (224, 224, 192)  # VOC's colour of 255


def told_colours(
    class_file: ClassFile | None, scans: Mapping[Pair, Scan]
) -> tuple[dict[Colour, int], ClassFile | None, list[str]]:
    """{colour: class} that masks show where no class file lists colours, and why.

    Raises InputError where only a class file can explain the colours.
    """
    palettes = {pair: scan for pair, scan in scans.items() if scan.kind == "palette"}
    by_index = _colour_by_index(palettes)
    colours = _pixels_of_colours(scan for scan in scans.values() if scan.is_colour)
    coloured = [scan for scan in scans.values() if scan.needs_colours]
    if by_index is None or (by_index.get(0) == WHITE and not (class_file and class_file.values)):
        if {colour_of(c) for s in palettes.values() for c in s.palette.values()} <= {BLACK, WHITE}:
            line = "palettes that list white first are read by their colours: white is 1"
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
    main = _main_colours(colours)
    advice = (
        f"list their meaning as LABEL_COLORS_LIST in a dataset.yaml:\n{_paste(class_file, main)}"
    )
    fitting = [name for name, classes in PRESETS.items() if _fits(classes, colours)]
    if fitting:
        advice = f"they look like those of --classes {fitting[0]}"
    raise InputError(
        f"{len(coloured)} masks are RGB with {len(colours)} colours (mostly {shown}), and no class "
        f"colours are known; {advice}"
    )


def _main_colours(colours: Counter[Colour]) -> list[Colour]:
    """The frequent colours that lie far apart: those from which the others are shades."""
    found: list[Colour] = []
    for colour, count in colours.most_common():
        is_new = all(max(abs(a - b) for a, b in zip(colour, c, strict=True)) > APART for c in found)
        if is_new and (count >= RARE * colours.total() or len(colours) <= MAX_PASTED):
            found.append(colour)
    return found[:MAX_PASTED]


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


def has_voc_colours(scans: Collection[Scan]) -> bool:
    """Whether palette or RGB masks hold several of VOC's colours and no others."""
    palettes = {i: colour_of(c) for scan in scans for i, c in scan.palette.items()}
    own = {i: colour for i, colour in palettes.items() if i != IGNORE_INDEX}
    is_order = len(own) >= VOC_CLASSES and all(
        i < 21 and colour == VOC_PALETTE[i] for i, colour in own.items()
    )
    return is_order or _fits(
        PRESETS["voc2012"], _pixels_of_colours(scan for scan in scans if scan.is_colour)
    )


def soft_colours(encoding: MaskEncoding, scans: Collection[Scan]) -> str | None:
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
        astray = sum(n for colour, n in own.items() if not encoding.is_between(colour))
        if not scan.lossy and astray > (1 - NEARLY_ALL) * own.total():
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
