"""Pictures of a training run: curves, a confusion matrix, predictions on validation pictures."""

import io
import warnings
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from data.labels.classes import Classes
from data.transforms import Resize, fit_target, to_image
from results.legend import font_file
from results.overlays import overlay

PREVIEW_WIDTH = 720  # pixels; one is written for every epoch


def draw_curve(rows: Sequence[dict[str, float]], score: str, name: str) -> bytes:
    """PNG of rows' train_<score> and valid_<score> over the epochs."""
    axes = new_axes((8, 5), xlabel="epoch", ylabel=name)
    epochs = [row["epoch"] for row in rows]
    for split in ("train", "valid"):
        axes.plot(epochs, [row[f"{split}_{score}"] for row in rows], marker=".", label=split)
    axes.grid(alpha=0.3)
    axes.legend()
    return png(axes)


def draw_confusion(matrix: Tensor, class_names: Sequence[str]) -> bytes:
    """PNG of a confusion matrix (K, K); rows are normalised to each target's pixels."""
    fractions = matrix / matrix.sum(1, keepdim=True).clamp(min=1)
    side = float(np.clip(0.35 * len(fractions), 5, 30))
    axes = new_axes((side + 1, side), xlabel="prediction", ylabel="target")
    as_is = {"fontsize": 7, "parse_math": False}  # a name may have dollar signs
    axes.set_xticks(range(len(fractions)), class_names, rotation=90, **as_is)
    axes.set_yticks(range(len(fractions)), class_names, **as_is)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.get_fontproperties().set_file(font_file(label.get_text()))
    shown = axes.imshow(fractions.numpy(), cmap="viridis", vmin=0, vmax=1)
    axes.figure.colorbar(shown, label="fraction of target pixels")
    return png(axes)


def new_axes(size: tuple[float, float], **settings: str) -> Any:
    """An empty figure's axes. size: width, height in inches."""
    from matplotlib.figure import Figure  # not pyplot, which may want a screen; takes a second

    return Figure(figsize=size, layout="tight").add_subplot(**settings)


def png(axes: Any) -> bytes:
    """A figure's PNG of 100 pixels per inch."""
    content = io.BytesIO()
    with warnings.catch_warnings():  # class names in letters that the font lacks become boxes
        warnings.filterwarnings("ignore", message="Glyph")
        axes.figure.savefig(content, dpi=100)
    return content.getvalue()


def draw_preview(
    images: Tensor, targets: Sequence[Tensor], preds: Tensor, classes: Classes, resize: Resize
) -> np.ndarray:
    """Draw a row per validation picture: image (3, H, W), target (H', W'), prediction (H, W)."""
    rows = []
    for image, target, pred in zip(images, targets, preds, strict=True):
        picture = to_image(image, resize.input_format)
        drawn = [
            overlay(picture, labels, classes)
            for labels in (fit_target(target.numpy(), resize), pred.byte().numpy())
        ]
        rows.append(np.hstack([picture, *drawn]))
    grid = np.vstack(rows)
    scale = min(1.0, PREVIEW_WIDTH / grid.shape[1])
    return cv2.resize(grid, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
