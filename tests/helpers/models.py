"""Models that need no weights and next to no time."""

from functools import partial

import torch
from torch import nn

import config
from losses import Criterion
from model import HEADS, SegmentationModel
from networks.heads import MaskHead, SharpHead
from networks.resampling import upsample


class StripeBackbone(nn.Module):
    """(B, 3, H, W) -> two maps (B, 4, H/14, W/14), without a ViT's time."""

    def __init__(self):
        super().__init__()
        self.patch_size = 14
        self.proj = nn.Conv2d(3, 4, kernel_size=14, stride=14)
        self.dropout = nn.Dropout(0.5)

    def forward(self, images):
        maps = self.dropout(self.proj(images))
        return maps, -maps


def small_model(fine_tune=False, head="ms"):
    torch.manual_seed(0)
    return SegmentationModel(StripeBackbone(), HEADS[head][0](8, 3), fine_tune)


def criterion(output_stride=14, *settings):
    """The losses of logits on a grid whose cells have output_stride pixels."""
    return Criterion(partial(upsample, output_stride=output_stride), *settings)


def tiny_spec(**kwargs):
    return config.ModelConfig("dinov2_vitt14", "ms", 2, "none", **kwargs)


def decided_model(head="ms"):
    """A model whose classes differ by more than rounding."""
    model = small_model(head=head).eval()
    decide(model.head)
    return model


def decide(head: nn.Module) -> None:
    """Give the last layer of a head large weights."""
    last = head.classify if isinstance(head, SharpHead | MaskHead) else head.conv_seg
    nn.init.normal_(last.weight)
