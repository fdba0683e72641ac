"""Resize DINOv2's position embedding by plain arithmetic, which exporters can trace.

Bicubic resizing is linear along each axis, so it is one matrix per axis, computed from the size.
vit.py calls torch's own function, which is faster and equally exact.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn


def resized_positions(backbone: nn.Module, tokens: Tensor, width: int, height: int) -> Tensor:
    """The result of backbone.interpolate_pos_encoding for images of height x width pixels."""
    table = backbone.pos_embed.float()
    side = math.isqrt(table.shape[1] - 1)
    grid = table[0, 1:].reshape(side, side, -1)
    lengths = [length // backbone.patch_size for length in (height, width)]
    unchanged = [_is_equal(length, side) for length in lengths]
    if backbone.interpolate_antialias:  # torch skips an axis that keeps its length
        weights, kept = antialiased_weights, unchanged
    else:
        weights, kept = bicubic_weights, 2 * [unchanged[0] & unchanged[1]]
    rows, columns = (
        torch.where(
            keep, _identity(length, side), weights(side, length, backbone.interpolate_offset)
        )
        for keep, length in zip(kept, lengths, strict=True)
    )
    resized = torch.einsum("rs,std,ct->rcd", rows, grid, columns).flatten(0, 1)
    return torch.cat([table[:, :1], resized[None]], dim=1).to(tokens.dtype)


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


def _is_equal(length: int, other: int) -> Tensor:
    """A tensor, since an `if` would be evaluated once, at export."""
    return torch.scalar_tensor(length) == other


def _identity(rows: int, columns: int) -> Tensor:
    return (torch.arange(rows)[:, None] == torch.arange(columns)).float()


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
