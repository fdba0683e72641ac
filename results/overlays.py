"""Draw class maps: overlays with contours, names and a legend; contact sheets."""

import math
from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np

from config import IGNORE_INDEX
from data.labels.classes import IGNORED_COLOUR, Classes, Colour, colour_table, count_pixels
from results.legend import (
    draw_legend,
    fitted_text,
    legend_box,
    letters,
    max_legend_rows,
    stamp,
    text_size,
)

LINE_WIDTH = 1 / 400  # of contours, as part of the shorter side
MANY_CLASSES = 8  # with more, colours look alike and class names are written into the picture
LABEL_GRID = 256  # pixels; the long side of the small map on which places for names are searched
SHEET_TEXT = 14  # pixels; height of a caption on a contact sheet


def class_colours(labels: np.ndarray, classes: Classes) -> np.ndarray:
    """Class ids (H, W) -> RGB (H, W, 3) uint8."""
    return cv2.applyColorMap(np.uint8(labels), colour_table(classes.palette)[:, None])


def overlay(
    image: np.ndarray, labels: np.ndarray, classes: Classes, alpha: float = 0.5
) -> np.ndarray:
    """A picture with class colours, contours, and a legend of the classes that occur.

    Ignored pixels are hatched. With more than MANY_CLASSES classes, their names are written into
    the picture too. Class 0 is not drawn if its colour is black.

    Args:
        image: RGB (H, W, 3) uint8.
        labels: class ids (H, W), ignored ones 255.
        alpha: opacity of the colours, 0..1; 0 draws only the contours.
    """
    labels = np.uint8(labels)
    line = max(1, round(LINE_WIDTH * min(labels.shape)))  # pixels
    colours = class_colours(labels, classes)
    drawn = cv2.addWeighted(colours, alpha, image, 1 - alpha, 0)
    edges = cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, np.ones((2 * line + 1,) * 2, np.uint8))
    drawn = cv2.copyTo(colours, edges, drawn)
    shown = count_pixels(labels)
    if shown[IGNORE_INDEX]:
        gaps = ~_stripes(labels.shape, 4 * line) & (labels == IGNORE_INDEX)
        drawn = cv2.copyTo(image, gaps.astype(np.uint8), drawn)
    if tuple(classes.palette[0]) == (0, 0, 0):
        drawn = cv2.copyTo(image, (labels == 0).astype(np.uint8), drawn)
        shown[0] = 0
    legend = _legend_rows(shown, classes, max_legend_rows(drawn))
    if classes.num_classes > MANY_CLASSES:
        _write_names(drawn, labels, shown, classes, below=legend_box(drawn, legend[0]))
    return draw_legend(drawn, *legend)


def _stripes(shape: tuple[int, int], width: int) -> np.ndarray:
    """Diagonal stripes of `width` pixels, alternately True and False, (H, W)."""
    rows, columns = (np.arange(length) for length in shape)
    return (rows[:, None] + columns) // width % 2 == 0


def _legend_rows(
    shown: np.ndarray, classes: Classes, max_rows: int
) -> tuple[list[str], list[Colour]]:
    """Names and colours of the largest classes in the order of their ids.

    shown: pixels (256,) by class id.
    """
    present = np.flatnonzero(shown)
    if len(present) > max_rows:
        largest = np.argsort(-shown, kind="stable")[: max(0, max_rows - 1)]
        rest = f"and {len(present) - len(largest)} more"
        present = np.sort(largest)
    else:
        rest = None
    known = [k for k in present if k < classes.num_classes]
    names, colours = [classes.names[k] for k in known], [classes.palette[k] for k in known]
    if len(known) < len(present):
        names, colours = [*names, "ignored"], [*colours, IGNORED_COLOUR]
    if rest and max_rows:
        names, colours = [*names, rest], [*colours, (0, 0, 0)]
    return names, colours


def _write_names(
    image: np.ndarray,
    labels: np.ndarray,
    shown: np.ndarray,
    classes: Classes,
    below: tuple[int, int],
) -> None:
    """Write class names into each class's largest region if they fit, largest class first.

    shown: pixels (256,) by class id. below: (width, height) of the legend in the upper left corner.
    """
    size = text_size(image)
    stroke = max(1, size // 8)
    taken = [(0, 0, *below)]
    ids = [k for k in np.argsort(-shown, kind="stable") if shown[k] and k < classes.num_classes]
    ids = [k for k in ids if len(classes.names[k]) <= image.shape[1]]  # a letter takes a pixel
    for k, x, y, room in _largest_regions(labels, ids):
        dark = letters(classes.names[k], size, stroke)
        height, width = dark.shape
        if width > min(room, image.shape[1]) or height > len(image):
            continue
        left = int(np.clip(x - width // 2, 0, image.shape[1] - width))
        top = int(np.clip(y - height // 2, 0, len(image) - height))
        box = (left, top, left + width, top + height)
        if any(_overlap(box, other) for other in taken):
            continue
        taken.append(box)
        stamp(image, dark, left, top, (0, 0, 0))
        white = letters(classes.names[k], size)
        stamp(image, white, left + stroke, top + stroke, (255, 255, 255))


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    """Whether two boxes (left, top, right, bottom) share a pixel."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _largest_regions(labels: np.ndarray, ids: Sequence[int]) -> Iterator[tuple[int, int, int, int]]:
    """Yield (class id, x, y, width) of each class's largest region.

    (x, y) is its pixel farthest from the border, nearest to the middle if there are several.
    """
    step = math.ceil(max(labels.shape) / LABEL_GRID)
    small = labels[::step, ::step]
    for k in ids:
        region = np.uint8(small == k)
        count, regions, stats, centres = cv2.connectedComponentsWithStats(region)
        if count == 1:
            continue
        largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
        inside = cv2.copyMakeBorder(np.uint8(regions == largest), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
        depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1]
        deep = np.argwhere(depth >= 0.8 * depth.max())
        y, x = deep[np.abs(deep - centres[largest][::-1]).sum(axis=1).argmin()]
        yield k, int(x) * step, int(y) * step, int(stats[largest, cv2.CC_STAT_WIDTH]) * step


def contact_sheet(
    pictures: Iterable[np.ndarray], captions: Iterable[str], columns: int = 5, width: int = 320
) -> np.ndarray:
    """Small pictures in rows, each with a line of text below it, as one picture.

    pictures: (H, W, 3), shrunk one at a time, so a generator holds one in memory. width: of a cell
    in pixels, its caption included; a cell is three quarters as high, and the caption comes on top.
    """
    cells = [
        _sheet_cell(picture, caption, width)
        for picture, caption in zip(pictures, captions, strict=True)
    ]
    columns = min(columns, len(cells))
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % columns)
    starts = range(0, len(cells), columns)
    return np.vstack([np.hstack(cells[start : start + columns]) for start in starts])


def _sheet_cell(picture: np.ndarray, caption: str, width: int) -> np.ndarray:
    height, line = width * 3 // 4, 2 * SHEET_TEXT
    cell = np.full((height + line, width, 3), 255, np.uint8)
    scale = min((width - 8) / picture.shape[1], (height - 8) / picture.shape[0], 1)
    size = tuple(max(1, round(side * scale)) for side in picture.shape[1::-1])
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    cell[top : top + size[1], left : left + size[0]] = small
    if text := fitted_text(caption, SHEET_TEXT, width - 8):
        stamp(cell, letters(text, SHEET_TEXT), 4, height, (0, 0, 0))
    return cell
