"""DINOv2's vision transformer, equal to the official code in parameter names and features.

It loads the published DINOv2 and Web-DINO files strictly and needs torch only. Imports are relative
because hubconf.py loads it under another package name. Source: Oquab et al. 2023, arXiv 2304.07193;
registers: Darcet et al. 2023, arXiv 2309.16588.
"""

import math
import re
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .vit_layers import FFN_LAYERS, Attention, Block, PatchEmbed

KEPT_POSITION_BYTES = 64 * 2**20  # of resized position embeddings, those made last


class DinoVisionTransformer(nn.Module):
    """DINOv2's ViT. `forward(images)` is the class token after the final norm, (B, D).

    Args:
        img_size: side in pixels of the square images whose position table is stored.
        patch_size: side of a patch in pixels; inputs must be multiples of it.
        ffn_layer: "mlp", or "swiglu" / "swiglufused" (the same layer).
        init_values: initial LayerScale; None or 0 leaves LayerScale out.
        num_register_tokens: extra tokens after the class token, without position embedding.
        interpolate_antialias, interpolate_offset: how the position table is resized to other
            input sizes. They change the numbers, so they belong to the weights.
        block_chunks: 0, or into how many chunks the blocks' names are nested
            (`blocks.<chunk>.<block>.*`), as some training checkpoints have them.
    """

    def __init__(
        self,
        img_size: int = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        ffn_bias: bool = True,
        proj_bias: bool = True,
        ffn_layer: str = "mlp",
        init_values: float | None = None,
        num_register_tokens: int = 0,
        interpolate_antialias: bool = False,
        interpolate_offset: float = 0.1,
        block_chunks: int = 0,
    ):
        super().__init__()
        if ffn_layer not in FFN_LAYERS:
            raise ValueError(f"unknown ffn_layer {ffn_layer!r}; known: {', '.join(FFN_LAYERS)}")
        self.embed_dim = embed_dim
        self.n_blocks = depth
        self.num_heads = num_heads
        self.patch_size = patch_size
        self.num_register_tokens = num_register_tokens
        self.interpolate_antialias = interpolate_antialias
        self.interpolate_offset = interpolate_offset

        self.patch_embed = PatchEmbed(patch_size, in_chans, embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (img_size // patch_size) ** 2, embed_dim))
        if num_register_tokens:
            self.register_tokens = nn.Parameter(torch.zeros(1, num_register_tokens, embed_dim))
        self.mask_token = nn.Parameter(torch.zeros(1, embed_dim))
        blocks = [
            Block(
                embed_dim,
                Attention(embed_dim, num_heads, qkv_bias, proj_bias),
                FFN_LAYERS[ffn_layer](embed_dim, int(embed_dim * mlp_ratio), ffn_bias),
                init_values,
            )
            for _ in range(depth)
        ]
        self.blocks = nn.ModuleList(_nest(blocks, block_chunks) if block_chunks else blocks)
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)

        self._resized_positions: dict[tuple, Tensor] = {}
        self._init_weights()

    def _init_weights(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)
        if self.num_register_tokens:
            nn.init.normal_(self.register_tokens, std=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def interpolate_pos_encoding(self, x: Tensor, w: int, h: int) -> Tensor:
        """Position embedding of an image of h x w pixels, (1, 1 + N, D) in x's dtype and device.

        x: (B, 1 + N, D) tokens, class token first. For another size than the stored one, the table
        is resized on the CPU (MPS lacks the bicubic kernel), and kept unless it is trained: fused
        optimisers write weights without a trace, so that validation would see an old table.
        """
        if x.shape[1] == self.pos_embed.shape[1] and h == w:
            return self.pos_embed.to(x.dtype)
        if self.pos_embed.requires_grad:
            return self._resize_positions(h, w).to(x.device, x.dtype)
        # _version changes with in-place writes such as load_state_dict.
        key = (h, w, x.device, x.dtype, self.pos_embed.data_ptr(), self.pos_embed._version)
        if key not in self._resized_positions:
            resized = self._resize_positions(h, w).detach().to(x.device, x.dtype)
            kept = self._resized_positions
            while kept and sum(p.nbytes for p in [resized, *kept.values()]) > KEPT_POSITION_BYTES:
                kept.pop(next(iter(kept)))
            kept[key] = resized
        return self._resized_positions[key]

    def _resize_positions(self, height: int, width: int) -> Tensor:
        """The stored M x M table, bicubic, in float32 on the CPU: (1, 1 + N, D)."""
        table = self.pos_embed.float().cpu()
        side = math.isqrt(table.shape[1] - 1)
        grid = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        rows, cols = height // self.patch_size, width // self.patch_size
        if self.interpolate_offset:
            # The released models were trained with this factor, which is not size=(rows, cols).
            factors = [(n + self.interpolate_offset) / side for n in (rows, cols)]
            target = {"scale_factor": factors}
        else:
            target = {"size": (rows, cols)}
        grid = F.interpolate(grid, mode="bicubic", antialias=self.interpolate_antialias, **target)
        assert grid.shape[-2:] == (rows, cols)
        return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)

    def prepare_tokens_with_masks(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) -> (B, 1 + R + N, D): class token, registers, patches.

        masks: (B, N) bool, True where the mask token takes the patch's place.
        """
        height, width = images.shape[-2:]
        x = self.patch_embed(images)
        if masks is not None:
            x = torch.where(masks.unsqueeze(-1), self.mask_token.to(x.dtype), x)
        x = torch.cat([self.cls_token.to(x.dtype).expand(x.shape[0], -1, -1), x], dim=1)
        x = x + self.interpolate_pos_encoding(x, width, height)
        if self.num_register_tokens:
            registers = self.register_tokens.to(x.dtype).expand(x.shape[0], -1, -1)
            x = torch.cat([x[:, :1], registers, x[:, 1:]], dim=1)
        return x

    def _flat_blocks(self) -> list[Block]:
        return [module for module in self.blocks.modules() if isinstance(module, Block)]

    def forward_features(self, images: Tensor, masks: Tensor | None = None) -> dict[str, Tensor]:
        x = self.prepare_tokens_with_masks(images, masks)
        for block in self._flat_blocks():
            x = block(x)
        normed = self.norm(x)
        first_patch = 1 + self.num_register_tokens
        return {
            "x_norm_clstoken": normed[:, 0],
            "x_norm_regtokens": normed[:, 1:first_patch],
            "x_norm_patchtokens": normed[:, first_patch:],
            "x_prenorm": x,
            "masks": masks,
        }

    def forward(self, images: Tensor, masks: Tensor | None = None, is_training: bool = False):
        features = self.forward_features(images, masks)
        return features if is_training else features["x_norm_clstoken"]

    def get_intermediate_layers(
        self,
        x: Tensor,
        n: int | Sequence[int] = 1,
        reshape: bool = False,
        return_class_token: bool = False,
        norm: bool = True,
    ) -> tuple:
        """Patch tokens after the chosen blocks, in block order.

        Args:
            x: images (B, 3, H, W).
            n: how many of the last blocks, or their 0-based indices.
            reshape: (B, D, H/p, W/p) maps instead of (B, N, D) tokens.
            return_class_token: (patches, class token) pairs instead.
            norm: apply the final norm to every chosen block's output.
        """
        blocks = self._flat_blocks()
        wanted = range(len(blocks) - n, len(blocks)) if isinstance(n, int) else n
        outputs = []
        tokens = self.prepare_tokens_with_masks(x)
        for index, block in enumerate(blocks):
            tokens = block(tokens)
            if index in wanted:
                outputs.append(self.norm(tokens) if norm else tokens)
        assert len(outputs) == len(wanted), f"only {len(outputs)} / {len(wanted)} blocks found"

        patches = [output[:, 1 + self.num_register_tokens :] for output in outputs]
        if reshape:
            rows, cols = (side // self.patch_size for side in x.shape[-2:])
            patches = [
                p.transpose(1, 2).reshape(p.shape[0], -1, rows, cols).contiguous() for p in patches
            ]
        if return_class_token:
            return tuple(zip(patches, (output[:, 0] for output in outputs), strict=True))
        return tuple(patches)


def _nest(blocks: list[Block], block_chunks: int) -> list[nn.ModuleList]:
    """Blocks in chunks of depth // block_chunks, padded so that each keeps its global index."""
    size = len(blocks) // block_chunks
    return [
        nn.ModuleList([nn.Identity() for _ in range(start)] + blocks[start : start + size])
        for start in range(0, len(blocks), size)
    ]


def flatten_block_chunks(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keys `blocks.<chunk>.<block>.*` as `blocks.<block>.*`; other keys stay."""
    return {
        re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", key): value
        for key, value in state_dict.items()
    }
