"""What the colours of RGB and palette masks mean, told from all masks together."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from config import IGNORE_INDEX
from data.labels.class_entries import ClassFile
from data.labels.classes import PRESETS, VOC_PALETTE, Colour, default_classes
from data.labels.masks import MaskEncoding, colour_of, distance
from data.pairs import Pair
from data.scans import Scan
from utils import InputError

SHOWN_COLOURS = 5  # in a message
SHADES = 16  # different values at least between those of two classes, where edges are soft
SOFT = 0.1  # at most, of a mask's pixels, that are between two class colours
NEARLY_ALL, MOST = 0.9, 0.7
NEAR, APART = 16, 48  # of values: moved by compression; of two classes
ROUNDING = 3  # of a mixture of two colours
RARE, FEW = 0.002, 0.02  # of the pixels; a class has more, and more if between two others
MAX_PASTED = 32  # colours in an advice
PRESET_COLOURS = 15  # at least, but black, to be a preset's; many tools draw with VOC's first ones
BLACK, WHITE = (0, 0, 0), (255, 255, 255)

Told = tuple[dict[Colour, int], ClassFile | None, list[str]]


def told_colours(class_file: ClassFile | None, scans: Mapping[Pair, Scan]) -> Told:
    """{colour: class} that masks show where no class file lists colours, and why.

    Raises InputError where only a class file can explain the colours.
    """
    by_index, clash = _colour_by_index(scans)
    in_palettes = {colour_of(c) for scan in scans.values() for c in scan.palette.values()}
    white_first = by_index.get(0) == WHITE and not (class_file and class_file.values)
    if (clash or white_first) and in_palettes <= {BLACK, WHITE}:
        line = "palettes that list white first are read by their colours: white is 1"
        return {BLACK: 0, WHITE: 1}, class_file, [line]
    if clash:
        raise InputError(
            f"{clash}, so that indices are no classes; list the colours in a dataset.yaml:\n"
            f"{_paste(class_file, sorted(in_palettes))}"
        )
    coloured = sum(scan.needs_colours for scan in scans.values())
    if not coloured:
        return {}, class_file, []
    colours = _pixels_of_colours(scans.values())
    if by_index and colours.keys() <= set(by_index.values()):
        line = "masks are palette files and RGB; the colours of the palettes explain the RGB files"
        return {colour: index for index, colour in by_index.items()}, class_file, [line]
    ids = (*range(class_file.classes.num_classes), IGNORE_INDEX) if class_file else ()
    in_order = {VOC_PALETTE[k]: k for k in ids}
    if colours.keys() <= in_order.keys():
        return in_order, class_file, ["colours of the masks are numbered in Pascal VOC's order"]
    not_black = sum(any(s.values) for s in scans.values() if s.problem is None)
    main = _main_colours(colours)
    if not class_file and len(main) == 2 and BLACK in main and coloured == not_black:
        (other,) = {*main} - {BLACK}
        found = {BLACK: 0, other: 1}
        if len(colours) == 2 or soft_colours(MaskEncoding("", colours=found), scans.values()):
            line = f"masks hold two colours: black is background, {list(other)} foreground"
            return found, ClassFile(default_classes(2), colours=found), [line]
    raise InputError(_question(class_file, coloured, colours))


def _pixels_of_colours(scans: Iterable[Scan]) -> Counter[Colour]:
    """{colour: pixels} of RGB masks."""
    pixels: Counter[Colour] = Counter()
    for scan in scans:
        if scan.is_colour:
            pixels.update({colour_of(code): count for code, count in scan.values.items()})
    return pixels


def _colour_by_index(scans: Mapping[Pair, Scan]) -> tuple[dict[int, Colour], str]:
    """{index: colour} of palette masks, and two files that do not agree, or ""."""
    first: dict[int, tuple[Colour, Pair]] = {}
    for pair, scan in scans.items():
        for index, code in scan.palette.items():
            colour, other = first.setdefault(index, (colour_of(code), pair))
            if colour != colour_of(code):
                return {}, (
                    f"{pair.mask}: its palette gives {index} the colour {list(colour_of(code))}, "
                    f"that of {other.mask} {list(colour)}"
                )
    return {index: colour for index, (colour, _) in first.items()}, ""


def _question(class_file: ClassFile | None, coloured: int, colours: Counter[Colour]) -> str:
    """What to ask about RGB masks, whose colours only a class file can explain."""
    shown = ", ".join(str(list(colour)) for colour, _ in colours.most_common(SHOWN_COLOURS))
    fitting = [name for name in PRESETS if _fits(name, colours)]
    preset = f"they look like those of --classes {fitting[0]}; else " if fitting else ""
    return (
        f"{coloured} masks are RGB with {len(colours)} colours (mostly {shown}), and no class "
        f"colours are known; {preset}list their meaning as LABEL_COLORS_LIST in a "
        f"dataset.yaml:\n{_paste(class_file, _main_colours(colours))}"
    )


def _main_colours(colours: Counter[Colour]) -> list[Colour]:
    """The frequent colours that lie far apart: those from which the others are shades."""
    found: list[Colour] = []
    for colour, count in colours.most_common():
        is_shade = len(found) > 1 and _is_between(colour, found) and count < FEW * colours.total()
        is_new = all(distance(colour, other) > APART for other in found) and not is_shade
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


def _fits(preset: str, pixels: Counter[Colour]) -> bool:
    """Whether nearly all pixels but black have one of many colours of a preset's classes."""
    known = {*PRESETS[preset].palette} & {*pixels} - {BLACK}
    share = sum(pixels[colour] for colour in known)
    return len(known) >= PRESET_COLOURS and share > NEARLY_ALL * (pixels.total() - pixels[BLACK])


def has_voc_colours(scans: Collection[Scan]) -> bool:
    """Whether palette or RGB masks hold many of VOC's colours and hardly any others."""
    colours = _pixels_of_colours(scans)
    for scan in scans:
        colours.update(colour_of(c) for i, c in scan.palette.items() if i != IGNORE_INDEX)
    return _fits("voc2012", colours)


def soft_colours(encoding: MaskEncoding, scans: Collection[Scan]) -> str | None:
    """A line if masks hold shades between class colours, from smoothing or compression; else None.

    In lossy files most pixels are near a class colour, nearly all not far. In others the shades are
    few pixels of each mask and of many colours, each on the line between two class colours.
    """
    known = encoding.colours
    off: Counter[Colour] = Counter()
    masks = total = 0
    for scan in (scan for scan in scans if scan.is_colour):
        colours = {colour_of(code): count for code, count in scan.values.items()}
        own = Counter({colour: n for colour, n in colours.items() if colour not in known})
        size = sum(scan.values.values()) + scan.dropped
        if scan.lossy:
            off_by = {c: min(distance(c, other) for other in known) for c in own}
            for limit, share in ((NEAR, MOST), (APART, NEARLY_ALL)):
                far = sum(own[c] for c in own if off_by[c] > limit)
                if scan.dropped + far > (1 - share) * size:
                    return None
        else:
            astray = sum(n for colour, n in own.items() if not _is_between(colour, known))
            if own.total() > SOFT * size or astray > (1 - NEARLY_ALL) * own.total():
                return None
        masks += bool(own)
        total += size
        off.update(own)
    if not off or (len(off) < SHADES and not any(scan.lossy for scan in scans)):
        return None
    classes = encoding.nearest_classes(np.array(list(off)))
    ignored = sum(n for n, k in zip(off.values(), classes, strict=True) if k == IGNORE_INDEX)
    return (
        f"{off.total()} pixels ({off.total() / total:.2%}) in {masks} masks are shades of class "
        f"colours: each has the class of the nearest colour, but {ignored} pixels between two are "
        "ignored"
    )


def _is_between(colour: Colour, colours: Iterable[Colour]) -> bool:
    """Whether a colour is a mixture of two others, but for rounding."""
    known = np.array(list(colours), float)
    line = known[None] - known[:, None]
    along = ((np.array(colour) - known[:, None]) * line).sum(-1) / (line**2).sum(-1).clip(min=1)
    closest = known[:, None] + along.clip(0, 1)[..., None] * line
    return bool((np.abs(closest - np.array(colour)).max(-1) <= ROUNDING).any())
