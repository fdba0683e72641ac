"""The sizes of Mask2Former."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Mask2FormerConfig:
    """Sizes of the network; the defaults are the published ViT-g model for ADE20K."""

    embed_dim: int = 1536
    depth: int = 40
    num_heads: int = 24
    mlp_ratio: float = 4
    img_size: int = 518  # pixels; the side of the images that the stored position table is for
    patch_size: int = 14
    conv_inplane: int = 64  # width of the adapter's convolution stem
    n_points: int = 4  # this and the next two: the adapter's deformable attention
    deform_num_heads: int = 24
    deform_ratio: float = 0.5
    cffn_ratio: float = 0.25
    # First and last ViT block of each interaction.
    interaction_indexes: Sequence[Sequence[int]] = ((0, 9), (10, 19), (20, 29), (30, 39))
    pixel_heads: int = 32
    pixel_layers: int = 6
    pixel_points: int = 4
    pixel_ffn: int = 6144
    gn_groups: int = 32
    sine_feats: int = 768  # features per axis of the position code, half of embed_dim
    decoder_heads: int = 32
    decoder_layers: int = 9
    decoder_ffn: int = 6144
    num_queries: int = 100
    num_classes: int = 150
