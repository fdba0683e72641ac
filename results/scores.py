"""Score a model on a data set: scores per class, a table, the confusion matrix."""

import math
from collections.abc import Sequence
from pathlib import Path

from data.labels.classes import Classes
from metrics import Scores
from results.plots import draw_confusion
from results.tables import csv_text
from utils import InputError, write_atomically

COLUMNS = ("iou", "boundary_iou", "precision", "recall", "f1")  # of results.csv


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
    matrix, means = scores["matrix"].matrix, means_of(scores)
    columns = [scores[name].tolist() for name in COLUMNS]
    rows = [("class", *COLUMNS), *zip(classes.names, *columns, strict=True)]
    rows += [(name, value, *[""] * (len(COLUMNS) - 1)) for name, value in means.items()]
    write_atomically(folder / "results.csv", csv_text(rows).encode())
    rows = [("target \\ prediction", *classes.names)]  # pixels
    rows += [(name, *row) for name, row in zip(classes.names, matrix.tolist(), strict=True)]
    write_atomically(folder / "confusion.csv", csv_text(rows).encode())
    write_atomically(folder / "confusion.png", draw_confusion(matrix, classes.names))
    lines = [score_table(classes.names, scores)]
    lines.append(", ".join(f"{name}: {value:.4f}" for name, value in means.items()))
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
