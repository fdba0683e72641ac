"""Losses of logits (B, K, H, W) against targets (B, H, W) of class ids, 255 ignored."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from config import IGNORE_INDEX

Criterion = Callable[[Tensor, Tensor], Tensor]

FOCUS = 2.0  # focal loss: the power by which well-classified pixels lose their weight


def build_criterion(
    name: str, pixels: Sequence[int] | None = None, device: torch.device | None = None
) -> Criterion:
    """`ce`, `ce+dice` or `focal`; weighted by class_weights where pixels per class are given."""
    weights = None if pixels is None else class_weights(pixels).to(device)
    losses = {"ce": cross_entropy, "ce+dice": _ce_and_dice, "focal": focal}
    return partial(losses[name], weights=weights)


def cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """(Weighted) mean over the pixels that are not ignored; 0 where all are."""
    total = F.cross_entropy(logits, targets, weights, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / _total_weight(targets, weights)


def focal(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy times (1 - p)^2, p the probability of the right class (Lin et al. 2017)."""
    losses = F.cross_entropy(logits, targets, ignore_index=IGNORE_INDEX, reduction="none")
    losses = (1 - torch.exp(-losses)) ** FOCUS * losses
    if weights is not None:
        losses = losses * weights[_without_ignored(targets)]
    return losses.sum() / _total_weight(targets, weights)


def dice(logits: Tensor, targets: Tensor) -> Tensor:
    """1 - the mean, over classes in the targets, of 2 |P and T| / (|P| + |T|); 0 without any."""
    counted = targets != IGNORE_INDEX
    probabilities = logits.softmax(1) * counted[:, None]
    truth = F.one_hot(_without_ignored(targets), logits.shape[1]).permute(0, 3, 1, 2)
    truth = truth * counted[:, None]
    shared = (probabilities * truth).sum((0, 2, 3))
    sizes = truth.sum((0, 2, 3))
    scores = 2 * shared / (probabilities.sum((0, 2, 3)) + sizes).clamp(min=1e-6)
    present = sizes > 0
    return (1 - scores)[present].sum() / present.sum().clamp(min=1)


def _ce_and_dice(logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    return cross_entropy(logits, targets, weights) + dice(logits, targets)


def _without_ignored(targets: Tensor) -> Tensor:
    """Ignored pixels as class 0, for look-ups whose result there does not count."""
    return targets.masked_fill(targets == IGNORE_INDEX, 0)


def _total_weight(targets: Tensor, weights: Tensor | None) -> Tensor:
    counted = targets != IGNORE_INDEX
    if weights is None:
        return counted.sum().clamp(min=1)
    return (weights[_without_ignored(targets)] * counted).sum().clamp(min=1e-6)


def class_weights(pixels: Sequence[int]) -> Tensor:
    """(K,) weights that fall with the square root of each class's share of the pixels.

    The mean over all pixels is 1, so that the learning rate keeps its meaning. A class without
    pixels gets the largest weight that another one has.
    """
    counts = torch.tensor(pixels, dtype=torch.float64)
    present = counts > 0
    weights = counts.clamp(min=1).rsqrt()
    weights[~present] = weights[present].max() if present.any() else 1.0
    mean = (weights * counts).sum() / counts.sum().clamp(min=1)
    return (weights / mean if present.any() else weights).float()
