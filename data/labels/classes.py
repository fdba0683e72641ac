"""Class names and colours of known data sets, and defaults for all others."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from config import IGNORE_INDEX

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Classes:
    names: tuple[str, ...]
    palette: tuple[Colour, ...]  # RGB, 0..255; the index is the class id

    def __post_init__(self):
        if len(self.names) != len(self.palette):
            raise ValueError(f"{len(self.names)} class names but {len(self.palette)} colours")

    @property
    def num_classes(self) -> int:
        return len(self.names)


def _voc_colour(class_id: int) -> Colour:
    """Bits 0, 3, 6 of an id are red's bits 7, 6, 5; 1, 4, 7 are green's; 2, 5 are blue's."""
    return tuple(
        sum((class_id >> bit & 1) << (7 - bit // 3) for bit in range(channel, 8, 3))
        for channel in range(3)
    )


VOC_PALETTE = tuple(_voc_colour(class_id) for class_id in range(256))  # all are different
# Okabe & Ito, "Color Universal Design" (2008), without black: colour-blind people tell them apart.
OKABE_ITO = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
    (204, 121, 167),
)  # fmt: skip
# Each is the colour farthest from those before it, for the people of each kind of colour vision.
MORE_COLOURS = (
    (64, 0, 160), (96, 32, 0), (192, 224, 192), (64, 0, 96), (0, 64, 64), (224, 32, 64),
    (128, 64, 224), (0, 224, 128), (160, 32, 128), (128, 224, 96), (32, 32, 64), (0, 32, 224),
)  # fmt: skip
BACKGROUND_NAMES = ("background", "_background_", "__background__")


def is_background(name: str) -> bool:
    return name.strip().lower() in BACKGROUND_NAMES


def default_palette(names: Sequence[str]) -> tuple[Colour, ...]:
    """A colour for each class, no two alike; only a class called background is black."""
    colours = iter(dict.fromkeys(OKABE_ITO + MORE_COLOURS + VOC_PALETTE[1:]))
    background = next((k for k, name in enumerate(names) if is_background(name)), None)
    return tuple((0, 0, 0) if k == background else next(colours) for k in range(len(names)))


def default_classes(num_classes: int) -> Classes:
    """Names and colours for masks that come without a class file."""
    names = tuple(f"class_{k}" for k in range(num_classes))
    if num_classes == 2:
        names = ("background", "foreground")
    return Classes(names, default_palette(names))


PRESET_FOLDER = Path(__file__).parent / "presets"  # their class files


def _preset(name: str) -> Classes:
    content = json.loads((PRESET_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    colours = content.get("LABEL_COLORS_LIST") or content["VIS_LABEL_MAP"]
    return Classes(tuple(content["names"]), tuple(map(tuple, colours)))


PERSON = _preset("person")  # magenta, which colour-blind people too can tell from grass and sky
VOC2012 = _preset("voc2012")
# In the label files 0 means unlabelled; the ids here are the files' values minus one.
# Road (6) and skyscraper (48) share a colour, so colours do not identify classes.
ADE20K = _preset("ade20k")
# The 19 evaluated classes; the ids are Cityscapes' trainIds. It is published with labelIds; a
# script of its makers writes trainIds.
CITYSCAPES = _preset("cityscapes")
PRESETS = {
    "person": PERSON,
    "voc2012": VOC2012,
    "ade20k": ADE20K,
    "cityscapes": CITYSCAPES,
    "cityscapes_label_ids": CITYSCAPES,
}
IGNORED_COLOUR = (128, 128, 128)


def colour_table(palette: Sequence[Colour]) -> np.ndarray:
    """(256, 3) uint8 colours by class id; ids without a colour, 255 among them, are grey."""
    table = np.full((IGNORE_INDEX + 1, 3), IGNORED_COLOUR, np.uint8)
    table[: len(palette)] = palette
    return table


def count_pixels(labels: np.ndarray) -> np.ndarray:
    """(256,) float64: pixels by class id of a map (H, W) uint8; above 2**24 to seven digits.

    It takes an eighth of the time of np.bincount, which converts the map to int64.
    """
    return cv2.calcHist([labels], [0], None, [256], [0, 256]).ravel().astype(np.float64)
