"""Bilinear resizing of logits as one small matrix per axis, equal to torch's F.interpolate.

Resizing, cropping the padding and averaging overlapping windows are all linear along each axis. So
one matrix per axis leads from the patch grid to the wanted pixels. It gives any rows of the result
alone, needs no intermediate of full size, and its backward pass is several times faster.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Bytes of logits at full size that are computed at a time: what fits into a CPU's cache, and what a
# GPU has to spare.
STRIP_BYTES = {"cpu": 2 * 2**20}
DEFAULT_STRIP_BYTES = 256 * 2**20
SMALL_GRID = 128  # cells along an axis, up to which a whole product takes little time
COLUMN_BLOCK = 128  # pixels
KEPT_BYTES = 64 * 2**20  # of matrices for the sizes that were used last

# Both inputs of each output of a linear interpolation: (indices, their weights), each (out_size,)
Taps = list[tuple[Tensor, Tensor]]


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """(B, C, H, W) padded with zeros, the mean colour of normalised images, on all four sides.

    The odd pixel goes after.
    """
    rows, columns = (-side % multiple for side in images.shape[-2:])
    top, left = rows // 2, columns // 2
    return F.pad(images, (left, columns - left, top, rows - top))


def _taps(in_size: int, out_size: int) -> Taps:
    """Of F.interpolate(mode="linear", align_corners=False), in its own float32 arithmetic."""
    scale = torch.tensor(float(in_size)) / out_size
    source = (scale * (torch.arange(out_size) + 0.5) - 0.5).clamp(min=0)
    lower = source.long().clamp(max=in_size - 1)
    share = (source - lower).clamp(max=1)
    return [(lower, 1 - share), ((lower + 1).clamp(max=in_size - 1), share)]


def _matrix(outputs: Taps, pixels: Taps, grid: int) -> Tensor:
    """(outputs, grid): the taps of outputs are pixels, whose taps are cells of the grid."""
    weights = torch.zeros(len(outputs[0][0]), grid)
    for pixel, share in outputs:
        for cell, cell_share in pixels:
            weights.scatter_add_(1, cell[pixel, None], (share * cell_share[pixel])[:, None])
    return weights


def _unpadded_taps(grid: int, size: int, output_stride: Fraction) -> Taps:
    """Taps of the `size` pixels in the middle of a grid whose cells have output_stride pixels."""
    padded = int(grid * output_stride)
    before = (padded - size) // 2
    taps = _taps(grid, padded)
    return [(cell[before : before + size], share[before : before + size]) for cell, share in taps]


def unpadding_weights(grid: int, size: int, out_size: int, output_stride: Fraction) -> Tensor:
    """(out_size, grid): from `grid` cells over `size` centred pixels to a picture's axis.

    A cell has output_stride pixels. The padding around the `size` pixels is cropped, then they are
    resized to out_size.
    """
    return _matrix(_taps(size, out_size), _unpadded_taps(grid, size, output_stride), grid)


def upsample(
    logits: Tensor,
    content_size: Sequence[int],
    size: Sequence[int] | None = None,
    rows: slice = slice(None),
    *,
    output_stride: Fraction,
) -> Tensor:
    """Resize logits of the padded grid (B, K, h, w) to (B, K, *size), without the padding.

    content_size: (H, W) of the picture in the middle of the padding. size: (H', W'), content_size
    by default. rows: which of the H' rows are wanted. output_stride: pixels of the padded input for
    each cell of the grid.
    """
    vertical, horizontal = (
        _kept_weights(grid, length, out_length, output_stride, logits.device, logits.dtype)
        for grid, length, out_length in zip(
            logits.shape[-2:], content_size, size or content_size, strict=True
        )
    )
    return vertical[rows] @ logits @ horizontal.T


_kept: dict[tuple, Tensor] = {}  # the one used last comes last


def _kept_weights(
    grid: int,
    size: int,
    out_size: int,
    output_stride: Fraction,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """unpadding_weights on a device, where copying them for each batch would make a GPU wait."""
    key = (grid, size, out_size, output_stride, device, dtype)
    weights = _kept.pop(key, None)
    if weights is None:
        with torch.inference_mode(False):  # training may use the same matrix later
            weights = unpadding_weights(grid, size, out_size, output_stride).to(device, dtype)
    while _kept and sum(kept.nbytes for kept in _kept.values()) + weights.nbytes > KEPT_BYTES:
        _kept.pop(next(iter(_kept)))
    _kept[key] = weights
    return weights


def strips(logits: Tensor, height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """(images, rows) that cover a batch of height x width pixels in parts of bounded memory.

    Some whole images, or some rows of one. One empty part for an empty batch.
    """
    limit = STRIP_BYTES.get(logits.device.type, DEFAULT_STRIP_BYTES)
    rows = max(1, limit // (4 * logits.shape[1] * width))
    images = max(1, rows // height)
    for image in range(0, max(1, len(logits)), images):
        for row in range(0, height, rows):
            yield slice(image, image + images), slice(row, row + rows)


def to_labels(logits: Tensor) -> Tensor:
    """(B, K, H, W) -> (B, H, W) int64 class ids."""
    if logits.shape[1] == 2:
        return (logits[:, 1] > logits[:, 0]).long()
    return logits.max(dim=1).indices  # on a CPU several times faster than argmax


def labels_at(
    logits: Tensor,
    content_size: Sequence[int],
    size: Sequence[int] | None = None,
    *,
    output_stride: Fraction,
) -> Tensor:
    """Class ids (B, *size) uint8 of logits (B, K, h, w) that are resized as by `upsample`."""
    height, width = size or content_size
    labels = logits.new_empty((len(logits), height, width), dtype=torch.uint8)
    for images, rows in strips(logits, height, width):
        upsampled = upsample(
            logits[images].detach(), content_size, size, rows, output_stride=output_stride
        )
        labels[images, rows] = to_labels(upsampled)
    return labels


def resize_axes(logits: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows (H, h) @ logits (K, h, w) @ columns.T (w, W), where both matrices are resizings.

    On a fine grid, a block of outputs needs a small part of the cells: with 150 classes at 1080p
    the whole products take longer than the backbone.
    """
    cells = _needed_cells(rows)
    logits = rows[:, cells] @ logits[:, cells]
    if _is_small(columns):
        return logits @ columns.T
    blocks = [
        logits[..., cells] @ block[:, cells].T
        for block in columns.split(COLUMN_BLOCK)
        for cells in [_needed_cells(block)]
    ]
    return torch.cat(blocks, dim=-1)


def _needed_cells(weights: Tensor) -> slice:
    """The cells of a grid that outputs (rows of weights) depend on."""
    if _is_small(weights):
        return slice(None)
    cells = weights.any(dim=0).nonzero().flatten().tolist() or [0]
    return slice(cells[0], cells[-1] + 1)


def _is_small(weights: Tensor) -> bool:
    """Whether the whole product takes little time; on a GPU it always does."""
    return weights.device.type != "cpu" or weights.shape[1] <= SMALL_GRID


def window_spans(length: int, crop: int, stride: int) -> list[tuple[int, int]]:
    """(start, end) of each window along an axis; the last ones shift back to stay inside."""
    count = max(length - crop + stride - 1, 0) // stride + 1
    ends = [min(i * stride + crop, length) for i in range(count)]
    return [(max(end - crop, 0), end) for end in ends]


class AxisWeights(NamedTuple):
    """weights (last - first, grid): from a window's patches to pixels first..last of an axis."""

    first: int
    last: int
    weights: Tensor


def window_weights(
    spans: Sequence[tuple[int, int]], grid: int, out_length: int, output_stride: Fraction | None
) -> list[AxisWeights]:
    """For each window its cells' weights in the mean over all windows, for the pixels it reaches.

    spans: of windows of one size, along an axis that is then resized to out_length.
    grid: cells per window. output_stride: pixels of the window and its padding for each cell; the
    padding is cropped. None: the cells are spread over the window's own pixels, as in training the
    published heads.
    """
    length, size = spans[-1][1], spans[0][1] - spans[0][0]
    windows_at = torch.zeros(length)
    for start, end in spans:
        windows_at[start:end] += 1
    (lower, lower_share), (upper, upper_share) = _taps(length, out_length)
    if output_stride is None:
        pixels = _taps(grid, size)
    else:
        pixels = _unpadded_taps(grid, size, output_stride)
    weights = []
    for start, end in spans:
        first = int(torch.searchsorted(upper, start))
        last = max(first, int(torch.searchsorted(lower, end)))
        outputs = []
        for index, share in ((lower, lower_share), (upper, upper_share)):
            index, share = index[first:last], share[first:last]
            inside = (index >= start) & (index < end)
            index = index.clamp(start, end - 1)
            outputs.append((index - start, inside * share / windows_at[index]))
        weights.append(AxisWeights(first, last, _matrix(outputs, pixels, grid)))
    return weights
