"""A Mask2Former of next to no size, and a config as the published one."""

from inference.published_mask2former import NAME
from networks.mask2former.config import Mask2FormerConfig

# fmt: off
TINY = Mask2FormerConfig(
    embed_dim=32, depth=4, num_heads=4, img_size=56, conv_inplane=8, n_points=2,
    deform_num_heads=2, cffn_ratio=0.5, interaction_indexes=((0, 0), (1, 1), (2, 2), (3, 3)),
    pixel_heads=4, pixel_layers=2, pixel_points=2, pixel_ffn=32, gn_groups=8, sine_feats=16,
    decoder_heads=4, decoder_layers=3, decoder_ffn=32, num_queries=6,
)


# The shape of MMSegmentation's configs, with values that are nowhere the defaults.
CONFIG = """
# A comment.
import os
norm_cfg = dict(type='SyncBN', requires_grad=True)
crop_size = (64, 64)
model = dict(
    type='EncoderDecoderMask2Former',
    pretrained=os.path.join('somewhere', 'else.pth'),
    backbone=dict(
        type='ViTAdapter', num_heads=8, n_points=4, deform_num_heads=1, deform_ratio=0.5,
        interaction_indexes=[[0, 0], [1, 1], [2, 2], [3, 3]], window_attn=[False] * 4),
    decode_head=dict(
        type='Mask2FormerHead',
        pixel_decoder=dict(
            norm_cfg=dict(type='GN', num_groups=4),
            encoder=dict(transformerlayers=dict(
                attn_cfgs=dict(num_heads=2, num_levels=3, num_points=4)))),
        transformer_decoder=dict(
            transformerlayers=dict(attn_cfgs=dict(type='MultiheadAttention', num_heads=2)))),
    test_cfg=dict(mode='slide', crop_size=crop_size, stride=(48, 48)))
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='MultiScaleFlipAug', img_scale=(400, 96), flip=False,
        transforms=[
            dict(type='Resize', keep_ratio=True),
            dict(type='ResizeToMultiple', size_divisor=32),
            dict(type='Normalize', **norm_cfg)])]
data = dict(samples_per_gpu=-1, test=dict(pipeline=test_pipeline))
gpu_ids = range(0, 8)
"""


CONFIG_FITTING = CONFIG.replace("n_points=4, deform_num_heads=1", "n_points=2, deform_num_heads=2")


CONFIG_FITTING = CONFIG_FITTING.replace("num_heads=2, num_levels=3, num_points=4",
                                        "num_heads=4, num_levels=3, num_points=2")  # fmt: skip


def written(tmp_path, text):
    path = tmp_path / f"{NAME}_config.py"
    path.write_text(text)
    return path
