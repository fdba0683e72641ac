"""A ViT backbone, a small head, and the model that joins them for images of any size."""

import argparse
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from fractions import Fraction
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchinfo import summary

import config
from common.exits import exits_cleanly
from common.flags import add_image_size, add_model_flags
from common.parser import Parser, positive_int
from networks import openvino_runtime
from networks.backbones import check_compiler, list_backbones, load_backbone, trainable_blocks
from networks.heads import MaskHead, SharpHead, SpreadHead, batch_norm_conv
from networks.resampling import labels_at, pad_to_multiple, upsample
from utils import InputError

# Bytes of images that a CPU takes through the backbone at a time: one image of 640x640. Larger
# activations are returned to the system after each layer, and allocating them again is slow.
CPU_IMAGE_BYTES = 4 * 2**20
# Parts of DINOv2 and DINOv3 without gradients here; DistributedDataParallel would wait for them.
PRETRAINING_ONLY = ("mask_token", "cls_norm", "local_cls_norm")


class LinearHead(nn.Module):
    """BatchNorm and a 1x1 convolution: `ms` on four blocks, `linear` on one.

    Layout and initial values are those of DINOv2's published segmentation heads.
    """

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.conv_seg = classifier(channels, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        if self.training:  # the same function, faster
            return batch_norm_conv(features, self.bn, self.conv_seg)
        return self.conv_seg(self.bn(features.to(self.bn.weight.dtype)))


class TokenHead(nn.Module):
    """A 1x1 convolution on four blocks, without normalisation."""

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.conv_seg = classifier(channels, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.conv_seg(features.to(self.conv_seg.weight.dtype))


class ConvHead(nn.Module):
    """3x3 convolution to 256 channels, ReLU and a 1x1 convolution, on the last block."""

    def __init__(self, channels: int, num_classes: int, hidden: int = 256):
        super().__init__()
        self.conv = nn.Conv2d(channels, hidden, kernel_size=3, padding=1)
        self.conv_seg = classifier(hidden, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.conv_seg(F.relu(self.conv(features.to(self.conv.weight.dtype))))


# The class of each head, and how many of the backbone's blocks it reads: the last ones, unless its
# attribute `spread` is true.
HEADS = {
    "ms": (LinearHead, 4),
    "linear": (LinearHead, 1),
    "token": (TokenHead, 4),
    "conv": (ConvHead, 1),
    "sharp": (SharpHead, 4),
    "spread": (SpreadHead, 4),
    "mask": (MaskHead, 4),
}


def classifier(channels: int, num_classes: int) -> nn.Conv2d:
    """A 1x1 convolution to one logit per class, initialised as in DINOv2's published heads."""
    conv = nn.Conv2d(channels, num_classes, kernel_size=1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)
    return conv


class SegmentationModel(nn.Module):
    """`head(backbone(images))`: (B, 3, H, W) of any size -> logits on a grid (B, K, s*h, s*w).

    backbone: maps images to a tuple of L feature maps (B, D, h, w), one cell for each p x p pixels;
        see `load_backbone` for its attributes. Unless fine_tune, it is frozen: no gradients, no
        graph, never in training mode.
    head: any module that maps features (B, L*D, h, w) to logits (B, K, s*h, s*w); s is its
        attribute `scale`, 1 if it has none. Features may be of any float type, such as the float16
        of cached ones; the head converts them to the type of its weights.

    Attributes:
        amp: the type that it computes in by autocast; None: that of its weights throughout.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, fine_tune: bool = False):
        super().__init__()
        self.backbone = backbone.requires_grad_(fine_tune)
        for name in PRETRAINING_ONLY:
            if (part := getattr(backbone, name, None)) is not None:
                part.requires_grad_(False)
        self.head = head
        self.fine_tune = fine_tune
        self.amp: torch.dtype | None = None
        self._runtime: Callable[[Tensor], tuple[Tensor, ...]] | None = None

    @property
    def input_format(self) -> config.InputFormat:
        """What the backbone expects of images; mean and std are ImageNet's if it has none."""
        mean = getattr(self.backbone, "mean", config.IMAGENET_MEAN)
        std = getattr(self.backbone, "std", config.IMAGENET_STD)
        return config.InputFormat(self.backbone.patch_size, mean, std)

    @property
    def output_stride(self) -> Fraction:
        """Pixels of the padded input per cell of the logits' grid, along an axis."""
        return Fraction(self.backbone.patch_size, getattr(self.head, "scale", 1))

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def set_up_training(
        self,
        unfreeze_blocks: int | None,
        checkpoint_activations: bool,
        compile_backbone: bool,
        amp: torch.dtype | None,
    ) -> None:
        """Set how the backbone takes part in training, and mixed precision.

        unfreeze_blocks: train only that many of its last blocks, and the final norm.
        checkpoint_activations: keep each block's input only, and recompute the rest in backward.
        """
        needed = unfreeze_blocks or int(checkpoint_activations)
        blocks = trainable_blocks(self.backbone, needed) if self.fine_tune else []
        if unfreeze_blocks:
            self.backbone.requires_grad_(False)
            final_norm = getattr(self.backbone, "norm", nn.Identity())
            for module in (final_norm, *blocks[-unfreeze_blocks:]):
                module.requires_grad_(True)
        if checkpoint_activations:
            for block in blocks:
                block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        if compile_backbone:
            check_compiler(self.device)
            self.backbone.compile()
        self.amp = amp

    def use_runtime(
        self, name: str, dtype: torch.dtype = torch.float32, auto_after: int = 0
    ) -> bool:
        """Let OpenVINO run the backbone, whose weights must no longer change; returns whether.

        name: "torch", "openvino", or "auto" for OpenVINO on a CPU where it is installed and faster.
        dtype: of OpenVINO's arithmetic; features stay float32.
        auto_after: images of a size that "auto" lets torch run first, so that a short job need not
            wait for the compiler.
        """
        device, after = self.device, auto_after if name == "auto" else None
        if name == "auto":
            usable = device.type == "cpu" and dtype in openvino_runtime.PRECISIONS
            name = "openvino" if usable and openvino_runtime.pays() else "torch"
        if name == "torch":
            return False
        if device.type != "cpu":
            raise InputError("--runtime openvino runs on a CPU; pass --device cpu")
        self._runtime = openvino_runtime.OpenVinoBackbone(self.backbone, dtype, after)
        return True

    @property
    def compile_seconds(self) -> float:
        """Spent so far on compiling the backbone for OpenVINO."""
        return getattr(self._runtime, "compile_seconds", 0.0)

    def train(self, mode: bool = True) -> "SegmentationModel":
        super().train(mode)
        if not self.fine_tune:
            self.backbone.eval()
        return self

    def extract(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> features (B, L*D, h, w), blocks in order; B may be 0."""
        if len(images) == 0:  # most backbones cannot take an empty batch
            return self.extract(images.new_zeros(1, *images.shape[1:]))[:0]
        with_graph = self.fine_tune and torch.is_grad_enabled()
        parts = [images]
        if len(images) > 1 and images.device.type == "cpu" and not with_graph:
            parts = images.split(max(1, CPU_IMAGE_BYTES // (4 * images[0].numel())))
        # Not inference_mode: the head's backward must be able to save these tensors.
        run = self.backbone if with_graph or self._runtime is None else self._runtime
        with torch.set_grad_enabled(with_graph), self._autocast():
            patch = self.backbone.patch_size
            parts = [torch.cat(run(pad_to_multiple(part, patch)), 1) for part in parts]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def forward(self, inputs: Tensor) -> Tensor:
        """Images (B, 3, H, W), or their features (B, L*D, h, w) -> float32 logits on a grid."""
        with self._autocast():
            features = self.extract(inputs) if inputs.shape[1] == 3 else inputs
            return self.head(features).float()

    def _autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, self.amp) if self.amp else nullcontext()

    def upsample(
        self,
        logits: Tensor,
        content_size: Sequence[int],
        size: Sequence[int] | None = None,
        rows: slice = slice(None),
    ) -> Tensor:
        """Logits on the grid to (B, K, *size), without the padding; see resampling.upsample."""
        return upsample(logits, content_size, size, rows, output_stride=self.output_stride)

    def labels(
        self, logits: Tensor, content_size: Sequence[int], size: Sequence[int] | None = None
    ) -> Tensor:
        """Class ids (B, *size) uint8 of logits on the grid; see resampling.labels_at."""
        return labels_at(logits, content_size, size, output_stride=self.output_stride)

    def trained(self) -> dict[str, Tensor]:
        """The weights to save: all of them after fine-tuning, else the head's."""
        state = self.state_dict()
        return {k: v for k, v in state.items() if self.fine_tune or k.startswith("head.")}

    def load_trained(self, state_dict: dict[str, Tensor]) -> None:
        """Load the result of trained(); raises RuntimeError on other keys or shapes."""
        frozen = {} if self.fine_tune else self.backbone.state_dict(prefix="backbone.")
        self.load_state_dict(frozen | state_dict, strict=True)


def build_model(spec: config.ModelConfig) -> SegmentationModel:
    """The backbone and head that spec names; the head's width follows from the backbone's."""
    head_class, num_blocks = HEADS[spec.head]
    spread = getattr(head_class, "spread", False)
    backbone = load_backbone(spec.backbone, num_blocks, spec.hub_repo, spec.weights, spread)
    head = head_class(num_blocks * backbone.embed_dim, spec.num_classes)
    check_grid(head, num_blocks * backbone.embed_dim, spec.num_classes)
    return SegmentationModel(backbone, head, spec.fine_tune)


@torch.no_grad()
def check_grid(head: nn.Module, channels: int, num_classes: int) -> None:
    """Raise InputError if a head's logits are not those of its `scale`: they would be misplaced."""
    scale = getattr(head, "scale", 1)
    found = tuple(head.eval()(torch.zeros(1, channels, 2, 3)).shape)
    head.train()
    expected = (1, num_classes, 2 * scale, 3 * scale)
    if found != expected:
        raise InputError(
            f"{type(head).__name__}: logits {found} of features (1, {channels}, 2, 3), expected "
            f"{expected}; its attribute `scale`, here {scale}, says how much finer its grid is"
        )


# fmt: off
def get_args_parser() -> argparse.ArgumentParser:
    parser = Parser("Print the layers, parameters and output shape of a model.")
    add_model_flags(parser, HEADS, "none")
    parser.add_argument("--num-classes", type=positive_int, default=21, help="number of classes")
    add_image_size(parser, (640, 640))
    parser.add_argument("--list-backbones", action="store_true",
        help="print name, parameters, patch, width, licence and source of each backbone, and exit")
    return parser
# fmt: on


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = get_args_parser().parse_args(argv)
    if args.list_backbones:
        print(list_backbones())
        return
    spec = config.ModelConfig(
        args.backbone, args.head, args.num_classes, args.weights, args.hub_repo
    )
    print(summary(build_model(spec), (1, 3, *args.imgsz), depth=2))


if __name__ == "__main__":
    main()
