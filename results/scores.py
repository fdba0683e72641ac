"""Score a model on a data set: scores per class, a table, the confusion matrix."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.pairs import read_pair
from data.survey import SegmentationData
from labels.classes import PRESETS, Classes
from metrics import BoundaryIoU, ConfusionMatrix
from predictor import Predictor
from results.plots import draw_confusion
from results.tables import csv_text
from utils import InputError, progress, write_atomically

COLUMNS = ("iou", "boundary_iou", "precision", "recall", "f1")  # of results.csv
Scores = dict[str, float | Tensor | ConfusionMatrix]
Observer = Callable[[np.ndarray, np.ndarray], None]  # of class ids and target of a picture
ImageObserver = Callable[[np.ndarray, np.ndarray, np.ndarray], None]  # and RGB (H, W, 3)


def score_model(
    predictor: Predictor, data: SegmentationData, folder: Path, split: str, observe: ImageObserver
) -> tuple[Scores, str]:
    """Score a model on one split, write the results; returns them, and as text to print.

    Class ids are compared at the mask's own size.

    observe: called with class ids, target and image of each picture, in the split's order.
    """
    check_same_classes(predictor.classes, data.classes)
    pairs = data.splits.pairs_of(split)
    if not pairs:
        raise InputError(f"--split {split}: {data.splits.layout} has no such pairs")
    num_classes = predictor.classes.num_classes
    matrix, near = ConfusionMatrix(num_classes), BoundaryIoU(num_classes)
    for pair in progress(pairs, "Testing"):
        image, target = read_pair(pair, data.encoding)
        labels = predictor.predict([image])[0].labels
        matrix.update(torch.from_numpy(labels), torch.from_numpy(target))
        near.update(labels, target)
        observe(labels, target, image)
    on_its_own_data = PRESETS.get(str(data.splits.classes)) == predictor.classes
    scores = matrix.compute() | {"matrix": matrix, "boundary_iou": near.compute()}
    paper_miou = predictor.paper_miou if on_its_own_data else None
    return scores, write_scores(scores, data.classes, folder, paper_miou)


def check_same_classes(model: Classes, data: Classes) -> None:
    """Raise InputError unless the model's classes are the data set's, by name and order."""
    if model.names != data.names:
        raise InputError(
            f"the model has {model.num_classes} classes ({', '.join(model.names[:5])}, ...), the "
            f"data set has {data.num_classes} ({', '.join(data.names[:5])}, ...); pass --classes "
            "with the model's classes, or another --model"
        )


def write_scores(
    scores: Scores, classes: Classes, folder: Path, paper_miou: float | None = None
) -> str:
    """Write results.csv, confusion.csv and confusion.png; returns the text to print.

    scores: of ConfusionMatrix.compute, its `matrix`, and `boundary_iou` (K,) of BoundaryIoU.
    paper_miou: percent, as published for this data set's validation images.
    """
    matrix = scores["matrix"]
    write_atomically(folder / "results.csv", _results_csv(scores, classes).encode())
    write_atomically(folder / "confusion.csv", _confusion_csv(matrix.matrix, classes).encode())
    write_atomically(folder / "confusion.png", draw_confusion(matrix.matrix, classes.names))
    means = ", ".join(f"{name}: {value:.4f}" for name, value in means_of(scores).items())
    lines = [score_table(classes.names, scores), means]
    if paper_miou is not None:
        lines.append(f"mIoU measured {100 * scores['miou']:.1f} %, in the paper {paper_miou} %")
    return "\n".join([*lines, f"results in {folder}"])


def means_of(scores: Scores) -> dict[str, float]:
    """The scores of all classes together, by what they are called."""
    return {
        "mIoU": scores["miou"],
        "pixel accuracy": scores["pixel_acc"],
        "mean boundary IoU": scores["boundary_iou"].nanmean().item(),
    }


def _results_csv(scores: Scores, classes: Classes) -> str:
    columns = [scores[name].tolist() for name in COLUMNS]
    empty = [""] * (len(COLUMNS) - 1)
    rows = [("class", *COLUMNS), *zip(classes.names, *columns, strict=True)]
    return csv_text([*rows, *((name, value, *empty) for name, value in means_of(scores).items())])


def _confusion_csv(matrix: Tensor, classes: Classes) -> str:
    """Pixel counts, targets in rows, predictions in columns."""
    rows = zip(classes.names, matrix.tolist(), strict=True)
    return csv_text(
        [("target \\ prediction", *classes.names), *((name, *row) for name, row in rows)]
    )


def score_table(names: Sequence[str], scores: Scores) -> str:
    """One line per class; "absent" for a class that never occurred, "-" for 0 / 0."""
    width = max(len(name) for name in names)
    lines = ["IoU per class:", " " * (width + 2) + "".join(f"{c:>14}" for c in COLUMNS)]
    for name, *values in zip(names, *(scores[c].tolist() for c in COLUMNS), strict=True):
        texts = ["-" if math.isnan(value) else f"{value:.4f}" for value in values]
        if math.isnan(values[0]):
            texts = ["absent"]
        lines.append(f"  {name:<{width}}" + "".join(f"{text:>14}" for text in texts))
    return "\n".join(lines)
