"""The pictures that a model gets most wrong, kept while it is scored."""

from collections import ChainMap
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from common import distributed
from data.labels.classes import Classes
from data.pairs import Pair, read_stored
from results.pages.gallery import show_picture
from results.pages.layers import PREVIEW_SIDE, fit
from utils import printable

KEPT = range(6, 25)  # one in KEPT_OF pictures, between these
KEPT_OF = 5


def picture_iou(labels: np.ndarray, target: np.ndarray, num_classes: int) -> float:
    """Mean IoU of a picture over the classes in target or prediction; 1 where all is ignored."""
    sizes, ranges = [256, 256], [0, 256, 0, 256]
    pixels = cv2.calcHist([target, labels], [0, 1], None, sizes, ranges)[:num_classes]
    hits = pixels.diagonal()
    union = pixels.sum(1) + pixels[:, :num_classes].sum(0) - hits
    present = union > 0
    return float((hits[present] / union[present]).mean()) if present.any() else 1.0


class WorstPictures:
    """Keeps the pictures of the lowest IoU, one in KEPT_OF; `draw` draws them for the page.

    pairs: those that are scored, of all processes.

    Attributes:
        pictures: entries of a gallery, in the main process, the worst first.
    """

    def __init__(self, folder: Path, classes: Classes, pairs: Sequence[Pair]):
        self._folder, self._classes = folder, classes
        self._count = min(max(len(pairs) // KEPT_OF, KEPT[0]), KEPT[-1])
        self._places = {pair: place for place, pair in enumerate(pairs)}
        # By IoU and place in pairs: pair, labels, target, image.
        self._kept: dict[tuple[float, int], tuple] = {}
        self.pictures: list[dict] = []

    def add(
        self, pair: Pair, labels: np.ndarray, target: np.ndarray, image: np.ndarray | None = None
    ) -> None:
        """Score the picture of a pair.

        labels, target: class ids (H, W) uint8. image: RGB (H, W, 3) uint8; without it the picture
        is read again if it is among the worst.
        """
        key = (picture_iou(labels, target, self._classes.num_classes), self._places[pair])
        small = None if image is None else fit(image, PREVIEW_SIDE)
        self._kept[key] = (pair, labels, target, small)
        if len(self._kept) > self._count:
            del self._kept[max(self._kept)]

    def draw(self) -> None:
        """Draw the worst of all processes' pictures. All processes call it together."""
        worst = sorted(key for keys in distributed.gathered(list(self._kept)) for key in keys)
        drawn = {
            key: self._draw(rank, key[0], *self._kept[key])
            for rank, key in enumerate(worst[: self._count])
            if key in self._kept
        }
        drawn = ChainMap(*distributed.gathered(drawn))
        self.pictures = [drawn[key] for key in sorted(drawn)]

    def _draw(
        self, rank: int, iou: float, pair: Pair, labels: np.ndarray, target: np.ndarray,
        image: np.ndarray | None,
    ) -> dict:  # fmt: skip
        if image is None:
            image, _, _ = read_stored(pair)
            if pair.window:
                image = pair.window.of_image(image, (0, 0, 0))
        return show_picture(
            self._folder, Path("worst", f"{rank:02d}"), image,
            {"prediction": labels, "target": target}, self._classes,
            name=pair.image.name, numbers=[round(iou, 4)], note=printable(pair.image),
        )  # fmt: skip
