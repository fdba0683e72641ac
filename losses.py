"""Losses of logits against targets (B, H, W) of class ids, 255 ignored."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from common.distributed import global_sum
from config import IGNORE_INDEX
from networks.resampling import strips

SOME_WEIGHT = 1e-6  # divisors of less than this are 0: no pixel counts
FOCUS = 2.0  # focal loss: exponent of (1 - p)

Upsample = Callable[..., Tensor]  # SegmentationModel.upsample


class Criterion:
    """`ce`, `ce+dice` or `focal`; class_weights: (K,) weights of the classes' pixels.

    The loss is the weighted mean over pixels, plus that of OVERLAP_LOSSES. Ignored pixels do not
    count; it is 0 where there are no others. Logits on a grid are upsampled to the targets' size in
    strips: for a whole batch, K numbers per pixel would not fit into memory.

    upsample: SegmentationModel.upsample of the model whose logits these are.
    """

    def __init__(self, upsample: Upsample, name: str = "ce", class_weights: Tensor | None = None):
        self.pixel_loss = PIXEL_LOSSES[name]
        self.overlap = OVERLAP_LOSSES.get(name)
        self.class_weights = class_weights
        self.upsample = upsample

    def at_full_size(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The definition: the loss of logits of the targets' size, all at once."""
        return self._loss(self._sums(logits, targets))

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of a training batch: logits (B, K, h, w), targets (B, H, W) of the input's size.

        It is that of all processes' batches together. The mean of the processes' gradients, which
        DistributedDataParallel takes, is then the gradient of one process with the whole batch.
        """
        return self._loss(global_sum(self._sums_in_strips(logits, targets, targets.shape[-2:])))

    def of_picture(self, logits: Tensor, target: Tensor, content_size: Sequence[int]) -> Tensor:
        """The loss of one picture in evaluation.

        target: (1, H', W') of the mask's own size. content_size: of the picture within the input.
        """
        return self._loss(self._sums_in_strips(logits, target, content_size))

    def _sums_in_strips(
        self, logits: Tensor, targets: Tensor, content_size: Sequence[int]
    ) -> Tensor:
        size = targets.shape[-2:]
        parts = []
        for images, rows in strips(logits, *size):

            def of_strip(grid: Tensor, images: slice = images, rows: slice = rows) -> Tensor:
                upsampled = self.upsample(grid, content_size, size, rows)
                return self._sums(upsampled, targets[images, rows])

            grid = logits[images]
            if not grid.requires_grad:
                parts.append(of_strip(grid))
            elif self.overlap:  # its gradient needs the sums over all strips
                parts.append(
                    checkpoint(of_strip, grid, use_reentrant=False, preserve_rng_state=False)
                )
            else:
                parts.append(_WithGradient.apply(grid, of_strip))
        return torch.stack(parts).sum(0)

    def _sums(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Sums over pixels that _loss is made of: losses, weights, and overlaps if needed."""
        classes = _without_ignored(targets)
        losses = self.pixel_loss(logits, classes)
        weights = (targets != IGNORE_INDEX).to(losses.dtype)
        if self.class_weights is not None:
            weights = weights * self.class_weights[classes]
        sums = torch.stack([(losses * weights).sum(), weights.sum()])
        return torch.cat([sums, overlaps(logits, targets).flatten()]) if self.overlap else sums

    def _loss(self, sums: Tensor) -> Tensor:
        loss, weight = sums[:2]
        mean = loss / weight.clamp(min=SOME_WEIGHT)
        return mean + self.overlap(sums[2:].unflatten(0, (3, -1))) if self.overlap else mean


class _WithGradient(torch.autograd.Function):
    """function(grid), whose first element alone has a gradient, which is computed at once.

    Unlike checkpoint, the backward pass then does not call the function again.
    """

    @staticmethod
    def forward(ctx, grid: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.enable_grad():
            grid = grid.detach().requires_grad_()
            sums = function(grid)
            (gradient,) = torch.autograd.grad(sums[0], grid)
        ctx.save_for_backward(gradient)
        return sums.detach()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient[0] * ctx.saved_tensors[0], None


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """(B, H, W) of logits (B, K, H, W) and int64 targets, none of them ignored.

    F.cross_entropy has no deterministic form for such logits on CUDA.
    """
    return -logits.log_softmax(1).gather(1, targets[:, None])[:, 0]


def focal(logits: Tensor, targets: Tensor) -> Tensor:
    """(B, H, W): cross-entropy times (1 - p)^2, p the probability of the target's class.

    Source: Lin et al. 2017, arXiv 1708.02002.
    """
    losses = cross_entropy(logits, targets)
    return (1 - torch.exp(-losses)) ** FOCUS * losses


# Logits (B, K, H, W) and targets (B, H, W) to the loss of each pixel (B, H, W).
PIXEL_LOSSES = {"ce": cross_entropy, "ce+dice": cross_entropy, "focal": focal}


def overlaps(logits: Tensor, targets: Tensor) -> Tensor:
    """(3, K) sums over the pixels that count of P * T, P and T.

    P: probabilities of logits (B, K, H, W). T: 1 for the target's class, else 0.
    """
    counted = targets != IGNORE_INDEX
    probabilities = logits.softmax(1) * counted[:, None]
    truth = F.one_hot(_without_ignored(targets), logits.shape[1]).permute(0, 3, 1, 2)
    truth = truth * counted[:, None]
    parts = (probabilities * truth, probabilities, truth.float())
    return torch.stack([part.sum((0, 2, 3)) for part in parts])


def dice(sums: Tensor) -> Tensor:
    """1 - the mean of 2 PT / (P + T) over classes in the targets, from overlaps; 0 without any."""
    both, predicted, truth = sums
    scores = 2 * both / (predicted + truth).clamp(min=1e-6)
    present = truth > 0
    return ((1 - scores) * present).sum() / present.sum().clamp(min=1)


# What is added to the mean over pixels, computed from `overlaps` of all pixels.
OVERLAP_LOSSES = {"ce+dice": dice}


def _without_ignored(targets: Tensor) -> Tensor:
    """Targets as int64 with class 0 in place of ignored pixels, for look-ups."""
    return targets.long().masked_fill(targets == IGNORE_INDEX, 0)


def build_criterion(
    name: str,
    upsample: Upsample,
    pixels: Sequence[int] | None = None,
    device: torch.device | None = None,
) -> Criterion:
    """A Criterion; with pixels, the number of each class in training, weighted by class_weights."""
    weights = None if pixels is None else class_weights(pixels).to(device)
    return Criterion(upsample, name, weights)


def class_weights(pixels: Sequence[int]) -> Tensor:
    """(K,) weights proportional to 1 / sqrt(pixels of the class).

    Their mean over all pixels is 1, so that learning rates stay comparable. A class without pixels
    gets the largest weight of the others.
    """
    counts = torch.tensor(pixels, dtype=torch.float64)
    present = counts > 0
    weights = counts.clamp(min=1).rsqrt()
    weights[~present] = weights[present].max() if present.any() else 1.0
    mean = (weights * counts).sum() / counts.sum().clamp(min=1)
    return (weights / mean if present.any() else weights).float()
