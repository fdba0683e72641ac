"""A model as torch.export sees it: from a picture to logits at its size, for one size or any.

DINOv2's position embedding is resized by plain arithmetic: bicubic resizing is linear along each
axis, so it is one matrix per axis, computed from the size. vit.py calls torch's own function, which
is faster and equally exact.
"""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.func import functional_call

from networks.resampling import unpadding_weights

LARGEST_GRID, LARGEST_BATCH = 512, 1024  # patches along a side and pictures, in dynamic files


class PictureModel(nn.Module):
    """RGB (B, 3, H, W) float32, 0..255 -> logits (B, K, H, W); normalises and upsamples itself.

    image_size: (H, W); None for any size, which is padded to whole patches. stretch: see Protocol.
    """

    def __init__(self, model: nn.Module, image_size: tuple[int, int] | None, stretch: bool):
        super().__init__()
        self.model = model
        expects = model.input_format
        for name, values in (("mean", expects.mean), ("std", expects.std)):
            self.register_buffer(name, 255 * torch.tensor(values).reshape(1, 3, 1, 1))
        self.stretch, self.is_dynamic = stretch, image_size is None
        if not (stretch or self.is_dynamic):
            for name, length in zip(("rows", "columns"), image_size, strict=True):
                padded = -(-length // expects.patch_size) * expects.patch_size
                cells = int(padded / model.output_stride)
                weights = unpadding_weights(cells, length, length, model.output_stride)
                self.register_buffer(name, weights)

    def forward(self, images: Tensor) -> Tensor:
        images = (images - self.mean) / self.std
        if self.is_dynamic:
            return self._of_any_size(images)
        logits = self.model(images)
        if self.stretch:
            return F.interpolate(logits, size=images.shape[-2:], mode="bilinear")
        return self.rows @ logits @ self.columns.T

    def _of_any_size(self, images: Tensor) -> Tensor:
        """As `forward`, in operations that can be exported without a fixed size or batch."""
        height, width = images.shape[-2:]
        patch = self.model.input_format.patch_size
        rows, columns = ((side + patch - 1) // patch * patch for side in (height, width))
        top, left = (rows - height) // 2, (columns - width) // 2
        padding = (left, columns - width - left, top, rows - height - top)
        # Not self.model, which takes large batches in parts.
        features = torch.cat(self.model.backbone(F.pad(images, padding)), dim=1)
        logits = self.model.head(features)
        if self.stretch:
            return F.interpolate(logits, size=(height, width), mode="bilinear")
        logits = F.interpolate(logits, size=(rows, columns), mode="bilinear")
        # Not a slice, for which the exporter would settle whether it is the whole map.
        logits = logits.index_select(-2, torch.arange(height, device=logits.device) + top)
        return logits.index_select(-1, torch.arange(width, device=logits.device) + left)


class ClassIds(nn.Sequential):
    """A PictureModel with class ids (B, H, W) uint8 in place of logits."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).argmax(dim=1).to(torch.uint8)


class Float16Weights(nn.Module):
    """A copy of `model` that stores its matrices and kernels as float16 and computes in float32.

    Vectors, such as biases and those of normalisation layers, and buffers stay float32: they are
    small, and variances leave the range of float16.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = copy.deepcopy(model)
        for weight in self.model.parameters():
            if weight.ndim > 1:
                weight.data = weight.data.half()

    def forward(self, images: Tensor) -> Tensor:
        weights = {name: weight.float() for name, weight in self.model.named_parameters()}
        return functional_call(self.model, weights, (images,))


def traced(wrapped: nn.Module, image_size: tuple[int, int], patch: int | None) -> ExportedProgram:
    """A PictureModel's graph for one picture of image_size (H, W).

    patch: the patch size, for a graph of any batch, height and width.
    """
    if patch is None:
        return torch.export.export(wrapped, (torch.zeros(1, 3, *image_size),))
    height, width = (
        torch.export.Dim(name, min=patch + 1, max=LARGEST_GRID * patch)
        for name in ("height", "width")
    )
    batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    # One pixel more than whole patches, or the padding would be traced as none, and two pictures,
    # or the batch would be traced as one.
    sides = (-(-side // patch) * patch + 1 for side in image_size)
    return torch.export.export(
        wrapped,
        (torch.zeros(2, 3, *sides),),
        dynamic_shapes={"images": {0: batch, 2: height, 3: width}},
        # Checks that hold for all sizes, which the exporter cannot prove.
        prefer_deferred_runtime_asserts_over_guards=True,
    )


# -- positions -------------------------------------------------------------------------------------


def has_dinov2_positions(backbone: nn.Module) -> bool:
    return hasattr(backbone, "interpolate_pos_encoding") and hasattr(backbone, "pos_embed")


@contextmanager
def traceable_positions(
    backbone: nn.Module, image_size: tuple[int, int] | None = None
) -> Iterator[None]:
    """Within the block, the position embedding is a constant: that of image_size (H, W).

    image_size: padded to whole patches; None for plain arithmetic of any size. Other backbones than
    DINOv2's are left as they are.
    """
    if not has_dinov2_positions(backbone):
        yield
        return
    if image_size is None:
        backbone.interpolate_pos_encoding = partial(resized_positions, backbone)
    else:
        rows, columns = (-(-side // backbone.patch_size) for side in image_size)
        tokens = backbone.pos_embed.new_empty(1, 1 + rows * columns, backbone.embed_dim)
        height, width = rows * backbone.patch_size, columns * backbone.patch_size
        constant = backbone.interpolate_pos_encoding(tokens, width, height).detach().clone()
        backbone.interpolate_pos_encoding = lambda x, w, h: constant
    try:
        yield
    finally:
        del backbone.interpolate_pos_encoding  # the class's own shows again


def resized_positions(backbone: nn.Module, tokens: Tensor, width: int, height: int) -> Tensor:
    """The result of backbone.interpolate_pos_encoding for images of height x width pixels."""
    table = backbone.pos_embed.float()
    side = math.isqrt(table.shape[1] - 1)
    grid = table[0, 1:].reshape(side, side, -1)
    weights = antialiased_weights if backbone.interpolate_antialias else bicubic_weights
    lengths = [length // backbone.patch_size for length in (height, width)]
    # A tensor, since an `if` would be evaluated once, at export.
    unchanged = torch.stack([torch.scalar_tensor(length) == side for length in lengths]).all()
    rows, columns = (
        torch.where(
            unchanged, torch.eye(length, side), weights(side, length, backbone.interpolate_offset)
        )
        for length in lengths
    )
    resized = torch.einsum("rs,std,ct->rcd", rows, grid, columns).flatten(0, 1)
    return torch.cat([table[:, :1], resized[None]], dim=1).to(tokens.dtype)


def _inputs_per_output(in_size: int, out_size: int, offset: float) -> Tensor:
    return in_size / (torch.scalar_tensor(out_size, dtype=torch.float32) + offset)


def _cubic(distance: Tensor, a: float) -> Tensor:
    """Keys' cubic convolution (1981)."""
    x = distance.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return torch.where(x <= 1, near, torch.where(x < 2, far, 0.0))


def bicubic_weights(in_size: int, out_size: int, offset: float) -> Tensor:
    """(out_size, in_size) of F.interpolate's bicubic by the factor (out_size + offset) / in_size.

    Inputs beyond the border are the outermost one.
    """
    centres = (torch.arange(out_size) + 0.5) * _inputs_per_output(in_size, out_size, offset) - 0.5
    inputs, first = torch.arange(in_size), centres.floor()
    weights = torch.zeros(1, in_size)
    for step in (-1, 0, 1, 2):
        taken = (first + step).clamp(0, in_size - 1)
        share = _cubic(centres - first - step, a=-0.75)
        weights = weights + share[:, None] * (taken[:, None] == inputs)
    return weights


def antialiased_weights(in_size: int, out_size: int, offset: float) -> Tensor:
    """bicubic_weights with antialias=True: a wider kernel where the table shrinks."""
    scale = _inputs_per_output(in_size, out_size, offset)
    centres = (torch.arange(out_size) + 0.5) * scale
    distances = torch.arange(in_size) + 0.5 - centres[:, None]
    weights = _cubic(distances / scale.clamp(min=1), a=-0.5)
    return weights / weights.sum(dim=1, keepdim=True)
