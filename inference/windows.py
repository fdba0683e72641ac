"""Run windows, scales and flips of a picture through a model and merge their logits.

A window's logits stay on the grid that the model gives. Every step from there to the picture's own
pixels is linear along each axis (see networks/resampling.py), so any strip of rows can be computed
alone, and an array of classes x pixels never exists.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from common.memory import is_out_of_memory
from data.transforms import Resize, fit_image, resize_image, to_tensor
from inference.protocol import Protocol, ShortSide
from networks.resampling import resize_axes, window_spans, window_weights
from utils import InputError

STRIP_ELEMENTS = 2**19  # classes x pixels per strip: 2 MB of float32, which fits a CPU cache
LARGER_ON_GPUS = 8  # factor on STRIP_ELEMENTS, as every strip costs a kernel launch


class View:
    """One pass over a picture: resized, mirrored if `flipped`, cut into windows."""

    def __init__(
        self, image: np.ndarray, resize: Resize | ShortSide, flipped: bool, protocol: Protocol
    ):
        self.size, self.flipped = image.shape[:2], flipped
        self.stretch, self.input_format = protocol.stretch, resize.input_format
        self.is_whole = protocol.crop is None
        content = resize.content_size(self.size)
        if self.is_whole:
            self.spans = [[(0, length)] for length in content]
        else:
            self.spans = [window_spans(n, protocol.crop, protocol.stride) for n in content]
        if self.is_whole and isinstance(resize, Resize):  # which may pad
            pixels = fit_image(image, resize)
        else:
            pixels = resize_image(image, content)
        self.pixels = pixels[:, ::-1] if flipped else pixels

    def windows(self) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
        """Yield ((row, column), RGB pixels (h, w, 3) uint8) of each window, row by row."""
        if self.is_whole:  # with its padding
            yield (0, 0), self.pixels
            return
        rows, columns = self.spans
        for (i, (top, bottom)), (j, (left, right)) in product(enumerate(rows), enumerate(columns)):
            yield (i, j), self.pixels[top:bottom, left:right]


class ViewLogits:
    """The logits of a view's windows, merged on demand for any rows of the picture.

    grids: logits (K, h, w) by the window's (row, column), all of one shape. output_stride: see
    window_weights.
    """

    def __init__(
        self, view: View, grids: Mapping[tuple[int, int], Tensor], output_stride: Fraction | None
    ):
        self.size = view.size
        self._flipped, self._is_whole, self._grids = view.flipped, view.is_whole, grids
        self.any_grid = next(iter(grids.values()))
        sides = zip(view.spans, self.any_grid.shape[-2:], view.size, strict=True)
        self._rows, self._columns = (
            [
                axis._replace(weights=axis.weights.to(self.any_grid))
                for axis in window_weights(spans, cells, length, output_stride)
            ]
            for spans, cells, length in sides
        )

    def rows(self, top: int, bottom: int) -> Tensor:
        """Mean logits of all windows for the picture's rows top..bottom, (K, bottom - top, W)."""
        if self._is_whole:  # one window, which reaches every pixel
            rows = self._rows[0].weights[top:bottom]
            total = resize_axes(self._grids[0, 0], rows, self._columns[0].weights)
        else:
            total = self._sum_of_windows(top, bottom)
        return total.flip(-1) if self._flipped else total

    def _sum_of_windows(self, top: int, bottom: int) -> Tensor:
        total = self.any_grid.new_zeros(len(self.any_grid), bottom - top, self.size[1])
        for (i, j), grid in self._grids.items():
            rows, columns = self._rows[i], self._columns[j]
            first, last = max(top, rows.first), min(bottom, rows.last)
            if first < last:
                weights = rows.weights[first - rows.first : last - rows.first]
                strip = total[:, first - top : last - top, columns.first : columns.last]
                strip += resize_axes(grid, weights, columns.weights)
        return total


class WindowsDoNotFit(Exception):
    """A batch does not fit into memory; args: number of windows, their longer side in pixels."""


def run_windows(
    model: nn.Module, views: Sequence[View], device: torch.device, batch_size: int
) -> list[ViewLogits]:
    """The logits of every view. Windows of one shape share batches, across views and pictures.

    The model gets windows in its weights' dtype (float32, bfloat16, float16); logits are float32.

    Raises WindowsDoNotFit if a batch is too large for the device's memory.
    """
    tasks_by_shape = defaultdict(list)
    for index, view in enumerate(views):
        for window, pixels in view.windows():
            tasks_by_shape[pixels.shape].append((index, window, pixels))
    grids = [{} for _ in views]
    for tasks in tasks_by_shape.values():
        for start in range(0, len(tasks), batch_size):
            batch = tasks[start : start + batch_size]
            windows = [to_tensor(pixels, views[0].input_format) for *_, pixels in batch]
            try:
                logits = _forward(model, torch.stack(windows), device)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                raise WindowsDoNotFit(len(batch), max(batch[0][2].shape)) from None
            for (index, window, _), grid in zip(batch, logits, strict=True):
                grids[index][window] = grid
    return [
        ViewLogits(view, found, None if view.stretch else model.output_stride)
        for view, found in zip(views, grids, strict=True)
    ]


def _forward(model: nn.Module, windows: Tensor, device: torch.device) -> Tensor:
    """Logits (B, K, h, w) float32 of normalised windows (B, 3, H, W)."""
    dtype = next(model.parameters()).dtype
    logits = model(windows.to(device, dtype)).float()
    if dtype == torch.float16 and not logits.isfinite().all():
        raise InputError(
            "the range of float16 is too small for this model and picture: its scores are "
            "infinite; pass --dtype bfloat16"
        )
    return logits


def row_strips(
    view_logits: Sequence[ViewLogits], as_probabilities: bool
) -> Iterator[tuple[slice, Tensor]]:
    """Yield (rows, scores (K, rows, W)) of one picture from top to bottom.

    Scores are the mean softmax over its views, or the logits of a single view if probabilities are
    not wanted.
    """
    first = view_logits[0]
    height, width = first.size
    elements = STRIP_ELEMENTS * (1 if first.any_grid.device.type == "cpu" else LARGER_ON_GPUS)
    step = max(1, elements // (len(first.any_grid) * width))
    for top in range(0, height, step):
        bottom = min(top + step, height)
        yield slice(top, bottom), mean_scores(view_logits, top, bottom, as_probabilities)


def mean_scores(
    view_logits: Sequence[ViewLogits], top: int, bottom: int, as_probabilities: bool
) -> Tensor:
    """Scores (K, bottom - top, W), see row_strips."""
    first, *others = view_logits
    scores = first.rows(top, bottom)
    if others or as_probabilities:
        scores = scores.softmax(dim=0)
    for other in others:
        scores += other.rows(top, bottom).softmax(dim=0)
    if others:
        scores /= len(view_logits)
    return scores


class Prediction(NamedTuple):
    """Class ids of a picture; confidence and probabilities are None unless asked for."""

    labels: np.ndarray  # class ids (H, W) uint8, 255 where ignored
    confidence: np.ndarray | None  # probability of the label, (H, W) float32
    probabilities: np.ndarray | None  # (K, H, W) float16
