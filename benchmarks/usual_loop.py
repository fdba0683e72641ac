"""The usual training loop of tutorials, with which `python -m benchmarks` compares the engine.

Everything is in float32 and at full size: batch normalisation, convolution and interpolation as
modules. The scores are copied from the device after each batch.
"""

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config import IGNORE_INDEX
from model import SegmentationModel


class PlainHead(nn.Module):
    """Features (B, C, h, w) to logits (B, K, *image_size)."""

    def __init__(self, channels: int, num_classes: int, image_size: tuple[int, int]):
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.conv_seg = nn.Conv2d(channels, num_classes, kernel_size=1)
        self.image_size = image_size

    def forward(self, features: Tensor) -> Tensor:
        logits = self.conv_seg(self.bn(features))
        return F.interpolate(logits, self.image_size, mode="bilinear", align_corners=False)


def plain_head_step(
    head: PlainHead, optimizer: torch.optim.Optimizer, features: Tensor, targets: Tensor
) -> Tensor:
    """One step on float32 features; returns the logits."""
    logits = head(features)
    loss = F.cross_entropy(logits, targets, ignore_index=IGNORE_INDEX)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return logits


def plain_epoch(
    model: SegmentationModel,
    head: PlainHead,
    optimizer: torch.optim.Optimizer | None,
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
) -> np.ndarray:
    """Train the head, or evaluate it if optimizer is None; return the confusion matrix (K, K)."""
    num_classes = head.conv_seg.out_channels
    matrix = np.zeros((num_classes, num_classes), np.int64)
    for images, targets in batches:
        images, targets = images.to(device), targets.to(device).long()
        with torch.no_grad():
            features = model.extract(images)
        if optimizer is not None:
            logits = plain_head_step(head, optimizer, features, targets)
        else:
            with torch.no_grad():
                logits = head(features)
                F.cross_entropy(logits, targets, ignore_index=IGNORE_INDEX).item()
        preds, truth = logits.argmax(dim=1).cpu().numpy(), targets.cpu().numpy()
        counted = truth != IGNORE_INDEX
        cells = num_classes * truth[counted] + preds[counted]
        matrix += np.bincount(cells, minlength=num_classes**2).reshape(matrix.shape)
    return matrix
