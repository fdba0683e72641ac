"""Tokens of grids: layout, positions, and deformable attention.

A `shape` is the (height, width) of a grid. `tokens` are its cells in row-major order; the tokens of
several grids are concatenated.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Shape = tuple[int, int]
Shapes = Sequence[Shape]


def to_map(tokens: Tensor, shape: Shape) -> Tensor:
    """(B, H * W, D) -> (B, D, H, W)."""
    return tokens.transpose(1, 2).unflatten(2, shape)


def to_tokens(feature_map: Tensor) -> Tensor:
    """(B, D, H, W) -> (B, H * W, D)."""
    return feature_map.flatten(2).transpose(1, 2)


def split_levels(tokens: Tensor, shapes: Shapes) -> list[Tensor]:
    """(B, sum of H * W, D) -> one map (B, D, H, W) per shape."""
    levels = tokens.split([height * width for height, width in shapes], dim=1)
    return [to_map(level, shape) for level, shape in zip(levels, shapes, strict=True)]


def resize_map(feature_map: Tensor, shape: Sequence[int]) -> Tensor:
    """(B, D, h, w) -> (B, D, *shape)."""
    return F.interpolate(feature_map, size=tuple(shape), mode="bilinear", align_corners=False)


def cell_centres(shapes: Shapes, device: torch.device) -> Tensor:
    """Centre (x, y) of every cell, each grid spanning [0, 1] x [0, 1]: (sum of H * W, 2)."""

    def centres(count: int) -> Tensor:
        return (torch.arange(count, dtype=torch.float32, device=device) + 0.5) / count

    grids = [torch.cartesian_prod(centres(height), centres(width)) for height, width in shapes]
    return torch.cat(grids).flip(-1)


def sine_positions(shape: Shape, num_feats: int, like: Tensor) -> Tensor:
    """Position code of a grid (DETR, Carion et al. 2020, arXiv 2005.12872): (1, H * W, D).

    The first num_feats features encode y and the others x, alternating sine and cosine, each axis
    scaled to 2 pi. Computed in float32; the result has the dtype and device of `like`.
    """
    pairs = torch.arange(num_feats // 2, dtype=torch.float32, device=like.device)
    wavelengths = 10000 ** (2 * pairs / num_feats)
    codes = []
    for count in shape:
        position = torch.arange(1, count + 1, dtype=torch.float32, device=like.device)
        angles = (position / (count + 1e-6) * 2 * math.pi)[:, None] / wavelengths
        codes.append(torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1))
    y, x = codes
    y, x = y[:, None].expand(-1, len(x), -1), x[None].expand(len(y), -1, -1)
    return torch.cat([y, x], dim=-1).flatten(0, 1)[None].to(like.dtype)


class MSDeformAttn(nn.Module):
    """Multi-scale deformable attention (Zhu et al. 2020, arXiv 2010.04159, equation 3).

    Each query predicts, per head and level, `num_points` offsets from its own position and a weight
    for each; the result is the weighted sum of the values there.

    value_ratio: width of the values divided by dim.
    """

    def __init__(
        self, dim: int, num_heads: int, num_levels: int, num_points: int, value_ratio: float = 1.0
    ):
        super().__init__()
        self.layout = (num_heads, num_levels, num_points)
        value_dim = int(dim * value_ratio)
        self.sampling_offsets = nn.Linear(dim, 2 * math.prod(self.layout))
        self.attention_weights = nn.Linear(dim, math.prod(self.layout))
        self.value_proj = nn.Linear(dim, value_dim)
        self.output_proj = nn.Linear(value_dim, dim)

    def forward(
        self, query: Tensor, query_shapes: Shapes, values: Tensor, value_shapes: Shapes
    ) -> Tensor:
        """query (B, Q, D) and values (B, N, D), tokens of their grids -> (B, Q, D)."""
        # Positions are fractions of a cell, which half precision would round away: use float32.
        offsets = self.sampling_offsets(query).float().unflatten(-1, (*self.layout, 2))
        weights = self.attention_weights(query).float().unflatten(-1, (self.layout[0], -1))
        weights = weights.softmax(-1).view_as(offsets[..., 0])  # (B, Q, heads, levels, points)
        centres = cell_centres(query_shapes, query.device)[:, None, None]
        projected = split_levels(self.value_proj(values), value_shapes)
        # Level by level: the samples of all levels at once would set the peak of memory.
        sampled = sum(
            self._sample(
                projected[level],
                centres + offsets[:, :, :, level] / offsets.new_tensor([width, height]),
                weights[:, :, :, level],
            )
            for level, (height, width) in enumerate(value_shapes)
        )
        return self.output_proj(sampled.to(query.dtype))

    def _sample(self, value_map: Tensor, places: Tensor, weights: Tensor) -> Tensor:
        """Weighted sum of the values at given places of one level, (B, Q, value_dim) float32.

        value_map (B, value_dim, H, W), places (B, Q, heads, points, 2) in [0, 1],
        weights (B, Q, heads, points).
        """
        B, Q, heads, _ = weights.shape
        value_map = value_map.float().unflatten(1, (heads, -1)).flatten(0, 1)
        places = 2 * places.transpose(1, 2).flatten(0, 1) - 1  # grid_sample counts from -1 to 1
        values = F.grid_sample(
            value_map, places, mode="bilinear", padding_mode="zeros", align_corners=False
        )  # (B * heads, value_dim / heads, Q, points)
        weights = weights.transpose(1, 2).reshape(B * heads, 1, Q, -1)
        return (values * weights).sum(-1).reshape(B, -1, Q).transpose(1, 2)
