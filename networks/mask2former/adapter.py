"""ViT-Adapter: four feature maps of strides 4, 8, 16 and 32 from a plain DINOv2 ViT.

Source: Chen et al. 2022, arXiv 2205.08534, figure 4. A convolution stem (c) gives a pyramid of
tokens; per group of ViT blocks an injector (d) brings the pyramid into the patch tokens and an
extractor (e) brings the patch tokens back. Parameter names are those of the `backbone.*` part of
DINOv2's published Mask2Former model. Inference only: parameters have plain initial values and are
meant to be loaded. `shape` and `tokens` are defined in `deformable.py`.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.mask2former.config import Mask2FormerConfig
from networks.mask2former.deformable import (
    MSDeformAttn,
    Shape,
    Shapes,
    resize_map,
    split_levels,
    to_map,
    to_tokens,
)
from networks.vit_layers import Attention, PatchEmbed

PYRAMID_STRIDES = (8, 16, 32)
NORM_EPS = 1e-6  # of the backbone's LayerNorms; the decode head uses torch's default 1e-5


class SwiGLU(nn.Module):
    """Gated FFN (Shazeer 2020, arXiv 2002.05202): w3(silu(w1(x)) * w2(x)).

    As `vit_layers.SwiGLU`, but with this model's parameter names and w1 and w2 stored separately.
    """

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        hidden_dim = math.ceil(int(hidden_dim * 2 / 3) / 8) * 8
        self.w1 = nn.Linear(dim, hidden_dim)
        self.w2 = nn.Linear(dim, hidden_dim)
        self.w3 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.w3(F.silu(self.w1(x)) * self.w2(x))


class Block(nn.Module):
    """Pre-norm ViT block with LayerScale, (B, N, D) -> (B, N, D)."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = Attention(dim, num_heads, qkv_bias=True, proj_bias=True)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = SwiGLU(dim, int(dim * mlp_ratio))
        self.gamma1 = nn.Parameter(torch.ones(dim))
        self.gamma2 = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.gamma1 * self.attn(self.norm1(x))
        return x + self.gamma2 * self.mlp(self.norm2(x))


class SpatialPriorModule(nn.Module):
    """Figure 4 (c): (B, 3, H, W) -> four maps (B, D, H / s, W / s), s = 4, 8, 16, 32."""

    def __init__(self, width: int, embed_dim: int):
        super().__init__()
        self.stem = nn.Sequential(
            *conv_bn_relu(3, width, stride=2),
            *conv_bn_relu(width, width, stride=1),
            *conv_bn_relu(width, width, stride=1),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        )
        self.conv2 = nn.Sequential(*conv_bn_relu(width, 2 * width, stride=2))
        self.conv3 = nn.Sequential(*conv_bn_relu(2 * width, 4 * width, stride=2))
        self.conv4 = nn.Sequential(*conv_bn_relu(4 * width, 4 * width, stride=2))
        self.fc1 = nn.Conv2d(width, embed_dim, kernel_size=1)
        self.fc2 = nn.Conv2d(2 * width, embed_dim, kernel_size=1)
        self.fc3 = nn.Conv2d(4 * width, embed_dim, kernel_size=1)
        self.fc4 = nn.Conv2d(4 * width, embed_dim, kernel_size=1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        c1 = self.stem(images)
        c2 = self.conv2(c1)
        c3 = self.conv3(c2)
        c4 = self.conv4(c3)
        return self.fc1(c1), self.fc2(c2), self.fc3(c3), self.fc4(c4)


def conv_bn_relu(in_channels: int, channels: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, channels, kernel_size=3, stride=stride, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


class ConvFFN(nn.Module):
    """FFN with a depthwise 3x3 convolution on each grid, (B, N, D) -> (B, N, D)."""

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        conv = nn.Conv2d(hidden_dim, hidden_dim, kernel_size=3, padding=1, groups=hidden_dim)
        self.dwconv = nn.ModuleDict({"dwconv": conv})
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor, shapes: Shapes) -> Tensor:
        conv = self.dwconv["dwconv"]
        levels = split_levels(self.fc1(x), shapes)
        x = torch.cat([to_tokens(conv(level)) for level in levels], dim=1)
        return self.fc2(F.gelu(x))


class Injector(nn.Module):
    """Figure 4 (d), equation 1: the patch tokens x read the pyramid c."""

    def __init__(self, config: Mask2FormerConfig):
        super().__init__()
        dim = config.embed_dim
        self.query_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.feat_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = adapter_attention(config, num_levels=len(PYRAMID_STRIDES))
        self.gamma = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor, patch_shape: Shape, c: Tensor, shapes: Shapes) -> Tensor:
        update = self.attn(self.query_norm(x), [patch_shape], self.feat_norm(c), shapes)
        return x + self.gamma * update


class Extractor(nn.Module):
    """Figure 4 (e), equations 2 and 3: the pyramid c reads the patch tokens x."""

    def __init__(self, config: Mask2FormerConfig):
        super().__init__()
        dim = config.embed_dim
        self.query_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.feat_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = adapter_attention(config, num_levels=1)
        self.ffn = ConvFFN(dim, int(dim * config.cffn_ratio))
        self.ffn_norm = nn.LayerNorm(dim, eps=NORM_EPS)

    def forward(self, c: Tensor, shapes: Shapes, x: Tensor, patch_shape: Shape) -> Tensor:
        c = c + self.attn(self.query_norm(c), shapes, self.feat_norm(x), [patch_shape])
        return c + self.ffn(self.ffn_norm(c), shapes)


def adapter_attention(config: Mask2FormerConfig, num_levels: int) -> MSDeformAttn:
    heads, points = config.deform_num_heads, config.n_points
    return MSDeformAttn(config.embed_dim, heads, num_levels, points, config.deform_ratio)


class Interaction(nn.Module):
    """Figure 4 (b), one stage: injector, ViT blocks, extractor (three in the last stage)."""

    def __init__(self, config: Mask2FormerConfig, last: bool):
        super().__init__()
        self.injector = Injector(config)
        self.extractor = Extractor(config)
        self.extra_extractors = nn.ModuleList([Extractor(config) for _ in range(2 if last else 0)])

    def forward(
        self, tokens: Sequence[Tensor], blocks: nn.ModuleList, patch_shape: Shape, shapes: Shapes
    ) -> tuple[Tensor, Tensor, Tensor]:
        """tokens and result: patches (B, N, D), class token (B, 1, D), pyramid (B, M, D)."""
        x, cls, c = tokens
        x = self.injector(x, patch_shape, c, shapes)
        # Only the ViT uses the class token; injector and extractors do not.
        x = torch.cat([cls, x], dim=1)
        for block in blocks:
            x = block(x)
        cls, x = x[:, :1], x[:, 1:]
        for extractor in (self.extractor, *self.extra_extractors):
            c = extractor(c, shapes, x, patch_shape)
        return x, cls, c


class ViTAdapter(nn.Module):
    """Figure 4 (a) and (b): the ViT and its adapter."""

    def __init__(self, config: Mask2FormerConfig):
        super().__init__()
        dim, patch_size = config.embed_dim, config.patch_size
        self.block_ranges = config.interaction_indexes
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (config.img_size // patch_size) ** 2, dim))
        self.patch_embed = PatchEmbed(patch_size, in_chans=3, embed_dim=dim)
        self.blocks = nn.ModuleList(
            [Block(dim, config.num_heads, config.mlp_ratio) for _ in range(config.depth)]
        )
        self.level_embed = nn.Parameter(torch.zeros(len(PYRAMID_STRIDES), dim))
        self.spm = SpatialPriorModule(config.conv_inplane, dim)
        last = len(self.block_ranges) - 1
        self.interactions = nn.ModuleList([Interaction(config, i == last) for i in range(last + 1)])
        self.up = nn.ConvTranspose2d(dim, dim, kernel_size=2, stride=2)
        self.norm1 = nn.BatchNorm2d(dim)
        self.norm2 = nn.BatchNorm2d(dim)
        self.norm3 = nn.BatchNorm2d(dim)
        self.norm4 = nn.BatchNorm2d(dim)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W), H and W multiples of 32 -> (B, D, H / s, W / s) for s = 4, 8, 16, 32."""
        height, width = images.shape[-2:]
        assert (height % 32, width % 32) == (0, 0), f"{height} x {width}: not multiples of 32"
        shapes = [(height // stride, width // stride) for stride in PYRAMID_STRIDES]
        patch_shape = (height // self.patch_embed.patch_size, width // self.patch_embed.patch_size)

        c1, *pyramid = self.spm(images)
        levels = zip(pyramid, self.level_embed, strict=True)
        c = torch.cat([to_tokens(level) + embed for level, embed in levels], dim=1)
        tokens = (*self._embed(images, patch_shape), c)
        stages = []
        for (first, last), interaction in zip(self.block_ranges, self.interactions, strict=True):
            tokens = interaction(tokens, self.blocks[first : last + 1], patch_shape, shapes)
            stages.append(to_map(tokens[0], patch_shape))

        c2, c3, c4 = split_levels(tokens[2], shapes)
        norms = (self.norm1, self.norm2, self.norm3, self.norm4)
        outputs = zip(norms, (c1 + self.up(c2), c2, c3, c4), stages, strict=True)
        return [norm(c + resize_map(stage, c.shape[-2:])) for norm, c, stage in outputs]

    def _embed(self, images: Tensor, patch_shape: Shape) -> tuple[Tensor, Tensor]:
        """Patch tokens (B, N, D) and class token (B, 1, D), with their position embeddings."""
        # 32 is not a multiple of the patch size, so the ViT does not see the last pixels.
        rows, cols = (n * self.patch_embed.patch_size for n in patch_shape)
        x = self.patch_embed(images[..., :rows, :cols])
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        # The stored square table, bicubic, in float32 on the CPU: MPS has no bicubic kernel.
        table = self.pos_embed[:, 1:].float().cpu()
        side = math.isqrt(table.shape[1])
        grid = F.interpolate(to_map(table, (side, side)), size=patch_shape, mode="bicubic")
        return x + to_tokens(grid).to(x), cls
