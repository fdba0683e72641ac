"""Mask2Former on a ViT-Adapter: DINOv2's published ADE20K model `dinov2_vitg14_ade20k_m2f`.

Source: Cheng et al. 2022, arXiv 2112.01527, figure 2: backbone (`adapter.py`), pixel decoder,
transformer decoder with masked attention, and from its last prediction a semantic score map.
Parameter names are those of the published checkpoint, so it loads strictly. Inference only: call
`eval()`. The model has 1.7 billion parameters, 6.9 GB in float32. To hold them in memory only once,
build it under `torch.device("meta")` and load with `load_state_dict(..., assign=True)`.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.mask2former.adapter import ViTAdapter
from networks.mask2former.config import Mask2FormerConfig
from networks.mask2former.deformable import (
    MSDeformAttn,
    Shape,
    resize_map,
    sine_positions,
    split_levels,
    to_tokens,
)

ENCODER_LEVELS = 3  # deformable attention sees the maps of strides 32, 16 and 8
INPUT_MULTIPLE = 32  # pixels; the coarsest stride


class ConvNorm(nn.Module):
    """Convolution that keeps the size, then GroupNorm."""

    def __init__(self, dim: int, kernel_size: int, groups: int, bias: bool):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, bias=bias)
        self.gn = nn.GroupNorm(groups, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.gn(self.conv(x))


class FFN(nn.Module):
    """Two linear layers with ReLU between them, around a residual connection."""

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        hidden = nn.Sequential(nn.Linear(dim, hidden_dim), nn.ReLU(inplace=True))
        self.layers = nn.Sequential(hidden, nn.Linear(hidden_dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class PixelEncoderLayer(nn.Module):
    """Deformable self-attention and FFN, post-norm, (B, N, D) -> (B, N, D)."""

    def __init__(self, config: Mask2FormerConfig):
        super().__init__()
        dim, heads, points = config.embed_dim, config.pixel_heads, config.pixel_points
        self.attentions = nn.ModuleList([MSDeformAttn(dim, heads, ENCODER_LEVELS, points)])
        self.ffns = nn.ModuleList([FFN(dim, config.pixel_ffn)])
        self.norms = nn.ModuleList([nn.LayerNorm(dim) for _ in range(2)])

    def forward(self, x: Tensor, positions: Tensor, shapes: Sequence[Shape]) -> Tensor:
        x = self.norms[0](x + self.attentions[0](x + positions, shapes, x, shapes))
        return self.norms[1](self.ffns[0](x))


class PixelDecoder(nn.Module):
    """Figure 2, left: deformable attention over three levels, then one step up to stride 4.

    The "MSDeformAttn" pixel decoder of section 4.1, with one level added as in FPN (Lin et al.
    2017, arXiv 1612.03144).
    """

    def __init__(self, config: Mask2FormerConfig):
        super().__init__()
        dim, groups = config.embed_dim, config.gn_groups
        self.sine_feats = config.sine_feats
        self.input_convs = nn.ModuleList(
            [ConvNorm(dim, kernel_size=1, groups=groups, bias=True) for _ in range(ENCODER_LEVELS)]
        )
        layers = nn.ModuleList([PixelEncoderLayer(config) for _ in range(config.pixel_layers)])
        self.encoder = nn.ModuleDict({"layers": layers})
        self.level_encoding = nn.Embedding(ENCODER_LEVELS, dim)
        lateral = ConvNorm(dim, kernel_size=1, groups=groups, bias=False)
        output = ConvNorm(dim, kernel_size=3, groups=groups, bias=False)
        self.lateral_convs = nn.ModuleList([lateral])
        self.output_convs = nn.ModuleList([output])
        self.mask_feature = nn.Conv2d(dim, dim, kernel_size=1)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Maps (B, D, H / s, W / s), s = 4, 8, 16, 32 -> mask feature (stride 4) and memories.

        The memories are maps of strides 32, 16 and 8, in this order.
        """
        finest, *coarser = features
        memories = self._encode(coarser[::-1])
        lateral = self.lateral_convs[0](finest)
        merged = lateral + resize_map(memories[-1], lateral.shape[-2:])
        return self.mask_feature(F.relu(self.output_convs[0](merged))), memories

    def _encode(self, features: Sequence[Tensor]) -> list[Tensor]:
        shapes = [tuple(level.shape[-2:]) for level in features]
        levels = zip(self.input_convs, features, strict=True)
        x = torch.cat([to_tokens(conv(level)) for conv, level in levels], dim=1)
        levels = zip(shapes, self.level_encoding.weight, strict=True)
        positions = torch.cat(
            [sine_positions(shape, self.sine_feats, x) + encoding for shape, encoding in levels],
            dim=1,
        )
        for layer in self.encoder["layers"]:
            x = layer(x, positions, shapes)
        return split_levels(x, shapes)


class DecoderLayer(nn.Module):
    """Figure 2, right: masked cross-attention (equation 2), self-attention and FFN, post-norm."""

    def __init__(self, config: Mask2FormerConfig):
        super().__init__()
        dim, heads = config.embed_dim, config.decoder_heads
        self.attentions = nn.ModuleList(
            nn.ModuleDict({"attn": nn.MultiheadAttention(dim, heads, batch_first=True)})
            for _ in range(2)
        )
        self.ffns = nn.ModuleList([FFN(dim, config.decoder_ffn)])
        self.norms = nn.ModuleList([nn.LayerNorm(dim) for _ in range(3)])

    def forward(
        self, x: Tensor, positions: Tensor, key: Tensor, value: Tensor, hidden: Tensor
    ) -> Tensor:
        """Queries x (B, Q, D), key and value (B, N, D), hidden (B, Q, N) -> (B, Q, D).

        The caller adds the positions to key; values never get positions.
        """
        cross_attention, self_attention = (attention["attn"] for attention in self.attentions)
        hidden = hidden.repeat_interleave(cross_attention.num_heads, dim=0)
        read, _ = cross_attention(x + positions, key, value, need_weights=False, attn_mask=hidden)
        x = self.norms[0](x + read)
        read, _ = self_attention(x + positions, x + positions, x, need_weights=False)
        return self.norms[2](self.ffns[0](self.norms[1](x + read)))


def hidden_places(mask_logits: Tensor, shape: Shape) -> Tensor:
    """Where the next layer's cross-attention does not look (equation 3): bool (B, Q, H * W).

    mask_logits: (B, Q, h, w), the last prediction. A query with an empty mask looks everywhere.
    """
    hidden = resize_map(mask_logits, shape).flatten(2) < 0  # logit 0 is probability 1/2
    return hidden & ~hidden.all(dim=-1, keepdim=True)


class Mask2FormerHead(nn.Module):
    """Pixel decoder, and a transformer decoder whose queries each predict a class and a mask."""

    def __init__(self, config: Mask2FormerConfig):
        super().__init__()
        dim = config.embed_dim
        self.sine_feats = config.sine_feats
        self.pixel_decoder = PixelDecoder(config)
        layers = nn.ModuleList([DecoderLayer(config) for _ in range(config.decoder_layers)])
        self.transformer_decoder = nn.ModuleDict({"layers": layers, "post_norm": nn.LayerNorm(dim)})
        self.query_embed = nn.Embedding(config.num_queries, dim)  # the queries' positions
        self.query_feat = nn.Embedding(config.num_queries, dim)
        self.level_embed = nn.Embedding(ENCODER_LEVELS, dim)
        self.cls_embed = nn.Linear(dim, config.num_classes + 1)
        self.mask_embed = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim)
        )

    def forward(self, features: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Class logits (B, Q, K + 1) and mask logits (B, Q, h, w), before and after each layer.

        The last of both are the model's prediction. features: the backbone's four maps; (h, w) is
        the size of the first, stride 4. The layers read the memories in turn, coarsest first
        (section 3.2.2).
        """
        mask_feature, memories = self.pixel_decoder(features)
        shapes = [tuple(memory.shape[-2:]) for memory in memories]
        levels = zip(memories, self.level_embed.weight, strict=True)
        values = [to_tokens(memory) + embed for memory, embed in levels]
        levels = zip(values, shapes, strict=True)
        keys = [value + sine_positions(shape, self.sine_feats, value) for value, shape in levels]

        queries = self.query_feat.weight.expand(len(mask_feature), -1, -1)
        predictions = [self._predict(queries, mask_feature)]
        for index, layer in enumerate(self.transformer_decoder["layers"]):
            level = index % ENCODER_LEVELS
            hidden = hidden_places(predictions[-1][1], shapes[level])
            queries = layer(queries, self.query_embed.weight, keys[level], values[level], hidden)
            predictions.append(self._predict(queries, mask_feature))
        class_logits, mask_logits = zip(*predictions, strict=True)
        return class_logits, mask_logits

    def _predict(self, queries: Tensor, mask_feature: Tensor) -> tuple[Tensor, Tensor]:
        queries = self.transformer_decoder["post_norm"](queries)
        masks = torch.einsum("bqd,bdhw->bqhw", self.mask_embed(queries), mask_feature)
        return self.cls_embed(queries), masks


def semantic_scores(class_logits: Tensor, mask_logits: Tensor) -> Tensor:
    """Sum over queries of class probability times mask probability, in float32: (B, K, h, w).

    MaskFormer (Cheng et al. 2021, arXiv 2107.06278), section 3.4, without its argmax.
    class_logits (B, Q, K + 1), the last class means no object; mask_logits (B, Q, h, w).
    """
    classes = class_logits.float().softmax(dim=-1)[..., :-1]
    return torch.einsum("bqk,bqhw->bkhw", classes, mask_logits.float().sigmoid())


class Mask2Former(nn.Module):
    """Figure 2: the whole model. `backbone` and `decode_head` can also be called alone."""

    def __init__(self, config: Mask2FormerConfig):
        super().__init__()
        self.backbone = ViTAdapter(config)
        self.decode_head = Mask2FormerHead(config)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised RGB -> scores >= 0, not logits, on a grid over the images.

        The grid is (B, K, H / 4, W / 4), or (B, K, H, W) where H or W is no multiple of 32.
        """
        height, width = images.shape[-2:]
        # Pad with the mean colour (zero) on the right and at the bottom, so that pixels stay in
        # place and one slice cuts the padding off.
        padding = (0, -width % INPUT_MULTIPLE, 0, -height % INPUT_MULTIPLE)
        padded = F.pad(images, padding)
        class_logits, mask_logits = self.decode_head(self.backbone(padded))
        scores = semantic_scores(class_logits[-1], mask_logits[-1])
        if not any(padding):
            return scores
        return resize_map(scores, padded.shape[-2:])[..., :height, :width]
