"""Class names and colours of known data sets, and defaults for all others."""

from collections.abc import Sequence
from dataclasses import dataclass

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


# fmt: off
# Magenta can be told from grass and sky, by colour-blind people too.
PERSON = Classes(names=("background", "person"), palette=((0, 0, 0), (225, 35, 160)))

VOC2012 = Classes(
    names=(
        "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat",
        "chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant",
        "sheep", "sofa", "train", "tvmonitor",
    ),
    palette=VOC_PALETTE[:21],
)

# In the label files 0 means unlabelled; the ids here are the files' values minus one.
# Road (6) and skyscraper (48) share a colour, so colours do not identify classes.
ADE20K = Classes(
    names=(
        "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane",
        "grass", "cabinet", "sidewalk", "person", "earth", "door", "table", "mountain", "plant",
        "curtain", "chair", "car", "water", "painting", "sofa", "shelf", "house", "sea", "mirror",
        "rug", "field", "armchair", "seat", "fence", "desk", "rock", "wardrobe", "lamp", "bathtub",
        "railing", "cushion", "base", "box", "column", "signboard", "chest of drawers", "counter",
        "sand", "sink", "skyscraper", "fireplace", "refrigerator", "grandstand", "path", "stairs",
        "runway", "case", "pool table", "pillow", "screen door", "stairway", "river", "bridge",
        "bookcase", "blind", "coffee table", "toilet", "flower", "book", "hill", "bench",
        "countertop", "stove", "palm", "kitchen island", "computer", "swivel chair", "boat", "bar",
        "arcade machine", "hovel", "bus", "towel", "light", "truck", "tower", "chandelier",
        "awning", "streetlight", "booth", "television receiver", "airplane", "dirt track",
        "apparel", "pole", "land", "bannister", "escalator", "ottoman", "bottle", "buffet",
        "poster", "stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer",
        "plaything", "swimming pool", "stool", "barrel", "basket", "waterfall", "tent", "bag",
        "minibike", "cradle", "oven", "ball", "food", "step", "tank", "trade name", "microwave",
        "pot", "animal", "bicycle", "lake", "dishwasher", "screen", "blanket", "sculpture", "hood",
        "sconce", "vase", "traffic light", "tray", "ashcan", "fan", "pier", "crt screen", "plate",
        "monitor", "bulletin board", "shower", "radiator", "glass", "clock", "flag",
    ),
    palette=(
        (120, 120, 120), (180, 120, 120), (6, 230, 230), (80, 50, 50), (4, 200, 3), (120, 120, 80),
        (140, 140, 140), (204, 5, 255), (230, 230, 230), (4, 250, 7), (224, 5, 255), (235, 255, 7),
        (150, 5, 61), (120, 120, 70), (8, 255, 51), (255, 6, 82), (143, 255, 140), (204, 255, 4),
        (255, 51, 7), (204, 70, 3), (0, 102, 200), (61, 230, 250), (255, 6, 51), (11, 102, 255),
        (255, 7, 71), (255, 9, 224), (9, 7, 230), (220, 220, 220), (255, 9, 92), (112, 9, 255),
        (8, 255, 214), (7, 255, 224), (255, 184, 6), (10, 255, 71), (255, 41, 10), (7, 255, 255),
        (224, 255, 8), (102, 8, 255), (255, 61, 6), (255, 194, 7), (255, 122, 8), (0, 255, 20),
        (255, 8, 41), (255, 5, 153), (6, 51, 255), (235, 12, 255), (160, 150, 20), (0, 163, 255),
        (140, 140, 140), (250, 10, 15), (20, 255, 0), (31, 255, 0), (255, 31, 0), (255, 224, 0),
        (153, 255, 0), (0, 0, 255), (255, 71, 0), (0, 235, 255), (0, 173, 255), (31, 0, 255),
        (11, 200, 200), (255, 82, 0), (0, 255, 245), (0, 61, 255), (0, 255, 112), (0, 255, 133),
        (255, 0, 0), (255, 163, 0), (255, 102, 0), (194, 255, 0), (0, 143, 255), (51, 255, 0),
        (0, 82, 255), (0, 255, 41), (0, 255, 173), (10, 0, 255), (173, 255, 0), (0, 255, 153),
        (255, 92, 0), (255, 0, 255), (255, 0, 245), (255, 0, 102), (255, 173, 0), (255, 0, 20),
        (255, 184, 184), (0, 31, 255), (0, 255, 61), (0, 71, 255), (255, 0, 204), (0, 255, 194),
        (0, 255, 82), (0, 10, 255), (0, 112, 255), (51, 0, 255), (0, 194, 255), (0, 122, 255),
        (0, 255, 163), (255, 153, 0), (0, 255, 10), (255, 112, 0), (143, 255, 0), (82, 0, 255),
        (163, 255, 0), (255, 235, 0), (8, 184, 170), (133, 0, 255), (0, 255, 92), (184, 0, 255),
        (255, 0, 31), (0, 184, 255), (0, 214, 255), (255, 0, 112), (92, 255, 0), (0, 224, 255),
        (112, 224, 255), (70, 184, 160), (163, 0, 255), (153, 0, 255), (71, 255, 0), (255, 0, 163),
        (255, 204, 0), (255, 0, 143), (0, 255, 235), (133, 255, 0), (255, 0, 235), (245, 0, 255),
        (255, 0, 122), (255, 245, 0), (10, 190, 212), (214, 255, 0), (0, 204, 255), (20, 0, 255),
        (255, 255, 0), (0, 153, 255), (0, 41, 255), (0, 255, 204), (41, 0, 255), (41, 255, 0),
        (173, 0, 255), (0, 245, 255), (71, 0, 255), (122, 0, 255), (0, 255, 184), (0, 92, 255),
        (184, 255, 0), (0, 133, 255), (255, 214, 0), (25, 194, 194), (102, 255, 0), (92, 0, 255),
    ),
)

# The 19 evaluated classes; the ids are Cityscapes' trainIds.
CITYSCAPES = Classes(
    names=(
        "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
        "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train",
        "motorcycle", "bicycle",
    ),
    palette=(
        (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153),
        (153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152),
        (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100),
        (0, 80, 100), (0, 0, 230), (119, 11, 32),
    ),
)
# fmt: on

# Cityscapes is published with labelIds; a script of its makers writes trainIds. Others are ignored.
CITYSCAPES_LABEL_IDS = {
    7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12,
    26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18,
}  # fmt: skip

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
