"""Segmentation scores over a whole data set: from one confusion matrix, and along boundaries."""

import math
from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor

NUM_IDS = 256  # class ids are bytes
CHUNK_PIXELS = 2**20  # counted at a time, which bounds the memory of their indices
BOUNDARY_RATIO = 0.02  # width of a boundary, as a part of the picture's diagonal
NO_CLASS = 255  # beyond the picture's border; never a class id


class ConfusionMatrix:
    """Counts pixels by (target, prediction); divides once, at the end.

    counts: (257, 257) int64, on the device of what is counted, targets in rows. The last row and
    the last column count values that are not in 0..255. Counting all ids needs no comparison for
    each pixel; which of them are classes matters at the end alone.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255):
        if num_classes > NUM_IDS or not 0 <= ignore_index < NUM_IDS:
            raise ValueError(f"{num_classes} classes, {ignore_index} ignored: ids are 0..255")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.counts = torch.zeros(NUM_IDS + 1, NUM_IDS + 1, dtype=torch.int64)

    @property
    def matrix(self) -> Tensor:
        """(K, K) int64 on the CPU, targets in rows and predictions in columns."""
        return self.of_classes()[:, : self.num_classes]

    def update(self, preds: Tensor, targets: Tensor) -> None:
        """Add integer class maps of one shape; pixels whose target is ignore_index do not count."""
        if preds.shape != targets.shape:
            raise ValueError(
                f"preds {tuple(preds.shape)} and targets {tuple(targets.shape)} differ"
            )
        self.counts = self.counts.to(targets.device)
        chunks = (tensor.flatten().split(CHUNK_PIXELS) for tensor in (targets, preds))
        for rows, columns in zip(*chunks, strict=True):
            cells = _ids(rows) * len(self.counts) + _ids(columns)
            if cells.device.type == "cpu":
                self.counts += cells.bincount(minlength=self.counts.numel()).view_as(self.counts)
            else:  # bincount makes a GPU wait, to learn the largest number
                cells = cells.long()
                self.counts.view(-1).scatter_add_(0, cells, torch.ones_like(cells))

    def compute(self) -> dict[str, float | Tensor]:
        """`miou`, `pixel_acc` in 0..1 and `iou`, `precision`, `recall`, `f1`, each (K,) float64.

        IoU = TP / (TP + FP + FN), NaN for a class in neither targets nor predictions; mIoU is the
        mean of the others. Both means are NaN before any pixel has been counted. A prediction that
        is no class is a false negative of its target.

        Precision = TP / (TP + FP), NaN for a class that was never predicted. Recall =
        TP / (TP + FN), NaN for a class in no target. F1 = 2 TP / (2 TP + FP + FN), NaN where the
        IoU is.
        """
        counts = self.of_classes().double()
        hits = counts.diagonal()
        predicted = counts[:, : self.num_classes].sum(0)
        actual = counts.sum(1)
        iou = hits / (actual + predicted - hits)  # 0 / 0 is NaN: absent
        return {
            "miou": iou.nanmean().item(),
            "pixel_acc": (hits.sum() / counts.sum()).item(),
            "iou": iou,
            "precision": hits / predicted,
            "recall": hits / actual,
            "f1": 2 * hits / (actual + predicted),
        }

    def of_classes(self) -> Tensor:
        """(K, K + 1) int64 on the CPU; the last column counts predictions that are no class."""
        K = self.num_classes
        counts = self.counts.cpu().clone()
        counts[self.ignore_index] = 0
        if counts[K:].any():
            raise ValueError(f"some targets are none of {K} classes")
        return torch.cat([counts[:K, :K], counts[:K, K:].sum(1, keepdim=True)], dim=1)


def _ids(values: Tensor) -> Tensor:
    """int32 of integers, 256 for those that are not in 0..255."""
    if values.dtype == torch.uint8:
        return values.int()
    return torch.where((values >= 0) & (values < NUM_IDS), values, NUM_IDS).int()


class BoundaryIoU:
    """Counts the pixels near each class's contour; divides once, at the end.

    The boundary of a class holds its pixels from which a pixel of another class, or the outside of
    the picture, is at most d pixels away, in the larger of the two directions. d is 2 % of the
    picture's diagonal, at least 1. Pixels whose target is ignore_index never count and belong to
    no class, in target and prediction alike: they make no contour.

    Source: Cheng et al., Boundary IoU, CVPR 2021, arXiv 2103.16562, for the mask of each class.

    counts: (3, K) int64: boundary pixels in the target, in the prediction, and in both.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255):
        if num_classes > NO_CLASS:
            raise ValueError(f"{num_classes} classes: class ids must be below {NO_CLASS}")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.counts = torch.zeros(3, num_classes, dtype=torch.int64)

    def update(self, preds: np.ndarray, targets: np.ndarray) -> None:
        """Add the class ids (H, W) uint8 of one picture."""
        if preds.shape != targets.shape:
            raise ValueError(f"preds {preds.shape} and targets {targets.shape} differ")
        distance = max(1, round(BOUNDARY_RATIO * math.hypot(*targets.shape)))
        ignored = targets == self.ignore_index
        of_target = boundary(targets, ignored, distance)
        of_preds = boundary(preds, ignored, distance)
        both = of_target & of_preds & (preds == targets)
        counted = targets[of_target], preds[of_preds], targets[both]
        for row, ids in zip(self.counts, counted, strict=True):
            row += torch.from_numpy(np.bincount(ids, minlength=256)[: self.num_classes])

    def compute(self) -> Tensor:
        """(K,) float64 in 0..1; NaN for a class in neither targets nor predictions."""
        target, predicted, both = self.counts.double()
        return both / (target + predicted - both)


def boundary(labels: np.ndarray, ignored: np.ndarray, distance: int) -> np.ndarray:
    """(H, W) bool: pixels that are not ignored and near another class or the outside.

    Near: at most `distance` pixels away. A pixel is not on a boundary if the smallest and the
    largest class id around it are equal, so the cost does not depend on the number of classes.
    """
    width = 2 * distance + 1
    row, column = np.ones((1, width), np.uint8), np.ones((width, 1), np.uint8)
    outside = {"borderType": cv2.BORDER_CONSTANT, "borderValue": NO_CLASS}
    lowest = np.where(ignored, np.uint8(NO_CLASS), labels)
    highest = np.where(ignored, np.uint8(0), labels)
    for kernel in (row, column):
        lowest = cv2.erode(lowest, kernel)
        highest = cv2.dilate(highest, kernel, **outside)
    return (lowest != highest) & ~ignored


Scores = dict[str, float | Tensor | ConfusionMatrix]
# Is given class ids and target (H, W) of a picture, and its place among those that are scored.
Observer = Callable[[np.ndarray, np.ndarray, int], None]
