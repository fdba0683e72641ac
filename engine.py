"""The training and evaluation loops: the algorithm, nothing else."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from config import IGNORE_INDEX, LR_DECAY, WEIGHT_DECAY
from geometry import Resize
from losses import Criterion, cross_entropy
from metrics import ConfusionMatrix
from resampling import upsample


def build_optimizer(
    model: nn.Module, lr: float, milestones: Sequence[int]
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW on what is trainable; the rate falls to LR_DECAY of itself after each milestone."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr, weight_decay=WEIGHT_DECAY)
    return optimizer, torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, LR_DECAY)


def to_labels(logits: Tensor) -> Tensor:
    """(B, K, H, W) -> (B, H, W) int64 class ids."""
    if logits.shape[1] == 2:
        return (logits[:, 1] > logits[:, 0]).long()
    return logits.max(dim=1).indices  # on a CPU several times faster than argmax


def train_one_epoch(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    num_classes: int,
    device: torch.device,
    criterion: Criterion = cross_entropy,
    amp: bool = False,
) -> dict[str, float]:
    """One pass over (inputs, targets) batches; targets are (B, H, W) class ids at image size.

    Returns `loss` (mean over samples), `pixel_acc` and `miou` of the predictions made on the way.
    """
    model.train()
    matrix = ConfusionMatrix(num_classes, IGNORE_INDEX)
    total_loss, samples = 0.0, 0
    for inputs, targets in loader:
        inputs = inputs.to(device, non_blocking=True)
        targets = targets.to(device, non_blocking=True).long()
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            logits = model(inputs)
        logits = upsample(logits.float(), targets.shape[-2:])
        loss = criterion(logits, targets)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss became {loss.item()}; try a lower --lr")

        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

        total_loss += loss.item() * len(targets)
        samples += len(targets)
        matrix.update(to_labels(logits.detach()), targets)
    return {"loss": total_loss / max(samples, 1), **matrix.compute()}


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, list[Tensor]]],
    num_classes: int,
    resize: Resize,
    device: torch.device,
    criterion: Criterion = cross_entropy,
) -> dict[str, float | Tensor]:
    """Scores at each target's own size: logits are resized, labels never.

    loader gives inputs fitted by `resize` and a list of targets (H', W'), each of its own size.
    Returns `loss` (mean over samples), `pixel_acc`, `miou`, `iou` (K,) and `predicted` (K,), the
    number of pixels that each class was given.
    """
    model.eval()
    matrix = ConfusionMatrix(num_classes, IGNORE_INDEX)
    losses = []
    for inputs, targets in loader:
        for logits, target in zip(model(inputs.to(device)), targets, strict=True):
            target = target.to(device).long()[None]
            size = tuple(target.shape[-2:])
            logits = upsample(logits[None].float(), resize.content_size(size), size)
            losses.append(criterion(logits, target).item())
            matrix.update(to_labels(logits), target)
    scores = {"loss": sum(losses) / max(len(losses), 1), **matrix.compute()}
    return scores | {"predicted": matrix.matrix.sum(0)}


@torch.inference_mode()
def predict_labels(model: nn.Module, images: Tensor) -> Tensor:
    """Class ids (B, H, W) int64 of normalised images (B, 3, H, W), in their own size."""
    model.eval()
    return to_labels(upsample(model(images).float(), images.shape[-2:]))
