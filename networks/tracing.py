"""A model as torch.export sees it: from a picture to logits at its size, for one size or any."""

import copy

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
