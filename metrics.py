"""Segmentation scores from one confusion matrix over a whole data set."""

import torch
import torch.nn.functional as F
from torch import Tensor


class ConfusionMatrix:
    """Counts pixels by (target, prediction); divides once, at the end.

    The counts stay on the device of what they count, which never has to wait for them.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255):
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        # A row more for ignored targets and one for impossible ones, a column more for predictions
        # that are no class: a miss for their target and a false alarm for none.
        self._counts = torch.zeros(num_classes + 2, num_classes + 1, dtype=torch.int64)

    @property
    def counts(self) -> Tensor:
        """(K, K + 1) int64, the last column for predictions that are no class."""
        counts = self._counts.cpu()
        if counts[self.num_classes + 1].any():
            raise ValueError(f"some targets are none of {self.num_classes} classes")
        return counts[: self.num_classes]

    @counts.setter
    def counts(self, counts: Tensor) -> None:
        self._counts = F.pad(counts, (0, 0, 0, 2))

    @property
    def matrix(self) -> Tensor:
        """(K, K) int64, targets in rows and predictions in columns."""
        return self.counts[:, : self.num_classes]

    def update(self, preds: Tensor, targets: Tensor) -> None:
        """Add integer class maps of one shape; pixels whose target is ignore_index do not enter."""
        if preds.shape != targets.shape:
            raise ValueError(
                f"preds {tuple(preds.shape)} and targets {tuple(targets.shape)} differ"
            )
        K = self.num_classes
        targets, preds = targets.flatten().long(), preds.flatten().long()
        rows = torch.where((targets >= 0) & (targets < K), targets, K + 1)
        rows = rows.masked_fill(targets == self.ignore_index, K)
        columns = torch.where((preds >= 0) & (preds < K), preds, K)
        cells = rows * (K + 1) + columns
        self._counts = self._counts.to(cells.device)
        # Not bincount, which makes a GPU wait to learn the largest number.
        self._counts.view(-1).scatter_add_(0, cells, torch.ones_like(cells))

    def compute(self) -> dict[str, float | Tensor]:
        """`miou`, `pixel_acc` in 0..1 and `iou` (K,) float64.

        IoU = TP / (TP + FP + FN), NaN for a class in neither targets nor predictions; mIoU is the
        mean of the others. Both means are NaN before any pixel has been counted.
        """
        counts = self.counts.double()
        predicted = counts[:, : self.num_classes].sum(0)
        hits = counts.diagonal()
        iou = hits / (counts.sum(1) + predicted - hits)  # 0 / 0 is NaN: absent
        return {
            "miou": iou.nanmean().item(),
            "pixel_acc": (hits.sum() / counts.sum()).item(),
            "iou": iou,
        }
