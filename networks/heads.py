"""The larger heads `sharp` and `mask`, and BatchNorm with a 1x1 convolution as one convolution.

Between the layers of the larger heads, feature maps are (B, h, w, C), as linear layers and layer
normalisation take them. Layer normalisation needs no statistics of the batch, so a picture's
logits do not depend on the other pictures after the first layer.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.distributed import global_sum


def batch_norm_conv(
    features: Tensor, bn: nn.BatchNorm2d, conv: nn.Conv2d, dropout: float = 0.0
) -> Tensor:
    """conv(bn(features)) in training mode, without the normalised copy of the features.

    features: (B, C, h, w) of any float type; B may be 0. BatchNorm scales and shifts each channel,
    so it is folded into the convolution's weights. The statistics are those of the batches of all
    processes, as in nn.SyncBatchNorm, on any device. The running statistics are updated as
    nn.BatchNorm2d does.

    dropout: share of the normalised channels that are left out, the same for the whole batch.
    """
    with torch.autocast(features.device.type, enabled=False):
        mean, variance = _batch_statistics(features, bn)
        scale = bn.weight * (variance + bn.eps).rsqrt()
        weight = conv.weight
        if dropout:
            weight = weight * F.dropout(torch.ones_like(mean), dropout)[:, None, None]
        bias = conv.bias + weight.flatten(1) @ (bn.bias - mean * scale)
        weight = weight * scale[:, None, None]
        if features.device.type != "cpu" or features.requires_grad:
            return F.conv2d(features.to(weight.dtype), weight, bias)
        return _ConvByPicture.apply(features, weight, bias)


class _ConvByPicture(torch.autograd.Function):
    """A 1x1 convolution that holds one picture at a time in the type of the weights.

    On a CPU, allocating the batch in float32 takes longer than to convert each picture twice.
    """

    @staticmethod
    def forward(ctx, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(features, weight)
        pictures = features.split(1)
        return torch.cat([F.conv2d(picture.to(weight.dtype), weight, bias) for picture in pictures])

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[None, Tensor, Tensor]:
        features, weight = ctx.saved_tensors
        weight_gradient = torch.zeros_like(weight.flatten(1))
        for picture, of_picture in zip(features.flatten(2), gradient.flatten(2), strict=True):
            weight_gradient.addmm_(of_picture, picture.to(weight.dtype).T)
        return None, weight_gradient.view_as(weight), gradient.sum((0, 2, 3))


def _batch_statistics(features: Tensor, bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (C,) over all processes; updates the running statistics."""
    pictures = features.flatten(2)
    count = global_sum(bn.weight.new_tensor(len(pictures) * pictures.shape[2])).clamp(min=1)

    def sum_over_pictures(function: Callable[[Tensor], Tensor]) -> Tensor:
        """(C,); a whole batch of function(picture (C, N)) would fill memory."""
        sums = [function(picture.to(bn.weight.dtype)).sum(1) for picture in pictures]
        if not sums:  # keeps the graph, in whose backward pass all processes must take part
            sums = [pictures.to(bn.weight.dtype).sum((0, 2))]
        return global_sum(torch.stack(sums).sum(0))

    mean = sum_over_pictures(lambda picture: picture) / count
    variance = sum_over_pictures(lambda picture: (picture - mean[:, None]).square()) / count
    with torch.no_grad():
        bn.running_mean.lerp_(mean, bn.momentum)
        bn.running_var.lerp_(variance * count / (count - 1).clamp(min=1), bn.momentum)
        bn.num_batches_tracked += 1
    return mean, variance


class DepthwiseConv(nn.Conv2d):
    """A convolution of each channel alone, (B, h, w, C) -> (B, h, w, C)."""

    def __init__(self, channels: int, kernel_size: int):
        padding = kernel_size // 2
        super().__init__(channels, channels, kernel_size, padding=padding, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class ConvNeXtBlock(nn.Module):
    """Mixes neighbouring patches, then channels; residual (Liu et al. 2022, arXiv 2201.03545)."""

    def __init__(self, channels: int, kernel_size: int = 7, mlp_ratio: int = 4):
        super().__init__()
        self.dwconv = DepthwiseConv(channels, kernel_size)
        self.norm = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, mlp_ratio * channels)
        self.fc2 = nn.Linear(mlp_ratio * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(F.gelu(self.fc1(self.norm(self.dwconv(x)))))


class Upscale(nn.Module):
    """(B, h, w, C) -> (B, 2h, 2w, C'): a transposed 2x2 convolution, then a separable 3x3 one."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        # A transposed convolution whose stride is its size: a linear layer, whose results are
        # the 2x2 cells of the finer grid.
        self.expand = nn.Linear(in_channels, 4 * out_channels)
        self.norm = nn.LayerNorm(out_channels)
        self.dwconv = DepthwiseConv(out_channels, 3)
        self.fc = nn.Linear(out_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        cells = self.expand(x).unflatten(-1, (2, 2, self.fc.in_features))  # (B, h, w, 2, 2, C')
        x = cells.transpose(2, 3).flatten(3, 4).flatten(1, 2)
        return F.gelu(self.fc(self.dwconv(F.gelu(self.norm(x)))))


class PixelDecoder(nn.Module):
    """Features (B, C, h, w) to (B, h, w, width) and, from these, to (B, 4h, 4w, width / 4)."""

    def __init__(self, channels: int, width: int, num_blocks: int, dropout: float = 0.0):
        super().__init__()
        self.dropout = dropout
        self.bn = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, width, kernel_size=1)
        self.blocks = nn.Sequential(*(ConvNeXtBlock(width) for _ in range(num_blocks)))
        self.upscale = nn.Sequential(Upscale(width, width // 2), Upscale(width // 2, width // 4))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        if self.training:  # the same function, faster
            patches = batch_norm_conv(features, self.bn, self.conv, self.dropout)
        else:
            patches = self.conv(self.bn(features.to(self.bn.weight.dtype)))
        patches = self.blocks(patches.permute(0, 2, 3, 1).contiguous())
        return patches, self.upscale(patches)


class SharpHead(nn.Module):
    """BatchNorm and 1x1 convolution to `width` channels, two ConvNeXt blocks, upscaling, classes.

    The upscaling is a small form of that of EoMT (Kerssies et al. 2025, arXiv 2503.19108).
    """

    scale = 4
    dropout = 0.0

    def __init__(self, channels: int, num_classes: int, width: int = 128):
        super().__init__()
        self.decoder = PixelDecoder(channels, width, 2, self.dropout)
        self.classify = nn.Linear(width // 4, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        _, pixels = self.decoder(features)
        return self.classify(pixels).permute(0, 3, 1, 2)


class SpreadHead(SharpHead):
    """`sharp` on blocks spread over the depth: early ones know where contours lie.

    It learns few pictures by heart sooner, so each step leaves out half of the channels.
    """

    spread = True
    dropout = 0.5


class CrossAttention(nn.Module):
    """Queries (B, K, C) read the patches (B, N, C), then pass an MLP; both steps residual."""

    def __init__(self, channels: int, num_heads: int = 4, mlp_ratio: int = 2):
        super().__init__()
        self.num_heads = num_heads
        self.norm_queries = nn.LayerNorm(channels)
        self.norm_patches = nn.LayerNorm(channels)
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        self.norm = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, mlp_ratio * channels)
        self.fc2 = nn.Linear(mlp_ratio * channels, channels)

    def forward(self, queries: Tensor, patches: Tensor) -> Tensor:
        keys, values = self.kv(self.norm_patches(patches)).chunk(2, dim=-1)
        q, k, v = map(self._split_heads, (self.q(self.norm_queries(queries)), keys, values))
        read = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        queries = queries + self.proj(read)
        return queries + self.fc2(F.gelu(self.fc1(self.norm(queries))))

    def _split_heads(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, heads, N, C / heads)."""
        channels = tokens.shape[-1] // self.num_heads
        return tokens.unflatten(-1, (self.num_heads, channels)).transpose(1, 2)


class MaskHead(nn.Module):
    """Logits are the dot products of class embeddings with pixels on a grid four times finer.

    As in EoMT (Kerssies et al. 2025, arXiv 2503.19108), but each query stands for one class, so
    that the loss is that of every other head, without matching. An embedding is the class's own,
    as in `sharp`, plus what its query reads from the patches of the picture.
    """

    scale = 4

    def __init__(self, channels: int, num_classes: int, width: int = 128):
        super().__init__()
        self.decoder = PixelDecoder(channels, width, num_blocks=3)
        self.queries = nn.Parameter(0.02 * torch.randn(num_classes, width))
        self.attention = CrossAttention(width)
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, width // 4)
        nn.init.zeros_(self.fc2.weight)  # training starts from the classes' own embeddings
        nn.init.zeros_(self.fc2.bias)
        self.classify = nn.Linear(width // 4, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        patches, pixels = self.decoder(features)
        queries = self.queries.expand(features.shape[0], -1, -1)
        queries = self.norm(self.attention(queries, patches.flatten(1, 2)))
        embeddings = self.classify.weight + self.fc2(F.gelu(self.fc1(queries)))  # (B, K, width / 4)
        logits = torch.einsum("bkc,bhwc->bkhw", embeddings, pixels)
        return logits + self.classify.bias[:, None, None]
