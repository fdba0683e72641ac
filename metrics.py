"""Segmentation scores from one confusion matrix over a whole data set."""

import torch
from torch import Tensor


class ConfusionMatrix:
    """Counts pixels by (target, prediction); divides once, at the end.

    `matrix` is (K, K) int64 with targets in rows and predictions in columns. A prediction that is
    no class (outside 0..K-1) is a miss for its target and a false alarm for none.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255):
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self._counts = torch.zeros(num_classes, num_classes + 1, dtype=torch.int64)

    @property
    def matrix(self) -> Tensor:
        return self._counts[:, : self.num_classes]

    def update(self, preds: Tensor, targets: Tensor) -> None:
        """Add integer class maps of one shape; pixels whose target is ignore_index do not enter."""
        if preds.shape != targets.shape:
            raise ValueError(
                f"preds {tuple(preds.shape)} and targets {tuple(targets.shape)} differ"
            )
        K = self.num_classes
        valid = targets != self.ignore_index
        targets, preds = targets[valid].long(), preds[valid].long()
        preds = torch.where((preds >= 0) & (preds < K), preds, K)
        counts = torch.bincount(targets * (K + 1) + preds, minlength=K * (K + 1))
        if len(counts) != K * (K + 1):
            raise ValueError(f"target {int(targets.max())} is not one of {K} classes")
        self._counts += counts.reshape(K, K + 1).cpu()

    def compute(self) -> dict[str, float | Tensor]:
        """`miou`, `pixel_acc` in 0..1 and `iou` (K,) float64.

        IoU = TP / (TP + FP + FN), NaN for a class in neither targets nor predictions; mIoU is the
        mean of the others. Both means are NaN before any pixel has been counted.
        """
        counts = self._counts.double()
        hits = self.matrix.diagonal().double()
        union = counts.sum(1) + self.matrix.sum(0) - hits
        iou = hits / union  # 0 / 0 is NaN: absent
        return {
            "miou": iou.nanmean().item(),
            "pixel_acc": (hits.sum() / counts.sum()).item(),
            "iou": iou,
        }
