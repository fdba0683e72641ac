"""The scores of a run's epochs, one row each, and the score that chooses the best epoch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from utils import InputError

CURVES = {"loss": "loss", "accuracy": "pixel_acc", "miou": "miou"}  # file name -> score
WATCHED = {
    "miou": ("valid_miou", "mIoU"),
    "loss": ("valid_loss", "loss"),
    "boundary": ("valid_boundary_iou", "boundary IoU"),
}  # name -> column of the history, words for messages

Row = dict[str, float | None]  # None: the class or score does not occur in the validation set


@dataclass(frozen=True)
class Watch:
    """The validation score that chooses the best epoch: a name in WATCHED, or a class's IoU."""

    name: str = "miou"

    @property
    def column(self) -> str:
        return WATCHED[self.name][0] if self.name in WATCHED else f"iou_{self.name}"

    @property
    def title(self) -> str:
        return WATCHED[self.name][1] if self.name in WATCHED else f"IoU of {self.name}"

    @property
    def boundary(self) -> bool:
        """Whether each validation has to compute boundary IoU."""
        return self.name == "boundary"

    def best(self, rows: Sequence[Row]) -> Row:
        """The row of the best score, the first of equals; one without a score is the worst."""
        sign = -1 if self.name == "loss" else 1

        def rank(row: Row) -> float:
            value = row[self.column]
            return -math.inf if value is None or math.isnan(value) else sign * value

        return max(rows, key=rank)

    def text(self, row: Row) -> str:
        """The score in four digits; "absent" if its class does not occur."""
        value = row[self.column]
        return "absent" if value is None else f"{value:.4f}"


def watched(name: str, class_names: Sequence[str], pixels: Sequence[int]) -> Watch:
    """The Watch of that name. Raises InputError for one whose score no epoch would have.

    pixels: how many the validation masks have of each class.
    """
    if name in WATCHED:
        return Watch(name)
    if name not in class_names:
        raise InputError(
            f"--watch {name}: no such score or class; pass one of {', '.join(WATCHED)}, or a "
            f"class: {', '.join(class_names)}"
        )
    if pixels[class_names.index(name)] == 0:
        raise InputError(
            f"--watch {name}: no validation mask has a pixel of it, so no epoch would be better "
            "than another; watch another score, or put a picture with it into the validation set"
        )
    return Watch(name)


def history_row(epoch: int, lr: float, train: dict, valid: dict, class_names: Sequence[str]) -> Row:
    """A row of history.csv. train, valid: the scores that train_one_epoch and evaluate returned.

    Columns: epoch, lr, train_ and valid_ scores, valid_boundary_iou if `valid` has it, and the
    validation IoU of each class as iou_NAME.
    """
    row = {"epoch": epoch, "lr": lr}
    for split, scores in (("train", train), ("valid", valid)):
        row |= {f"{split}_{name}": scores[name] for name in CURVES.values()}
    if "boundary_iou" in valid:
        row["valid_boundary_iou"] = _known(valid["boundary_iou"].nanmean().item())
    ious = zip(class_names, valid["iou"].tolist(), strict=True)
    return row | {f"iou_{name}": _known(iou) for name, iou in ious}


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
