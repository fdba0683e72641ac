"""The folder of a training run: history, curves, checkpoints, previews."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from common.checkpoints import Checkpoint
from common.distributed import is_main
from common.job_record import JobRecord
from config import ModelConfig
from data.images import write_image
from data.labels.classes import Classes
from data.numbers import ValueRange
from data.transforms import Resize
from datasets import PREVIEWED, preview_batch
from engine import NotFinite
from model import SegmentationModel
from results.history import CURVES, Row, Watch, history_row
from results.plots import draw_curve, draw_preview
from results.tables import csv_text
from utils import write_atomically

SECONDS_PER_DRAWING = 60.0  # of the curves, which take as long as a short epoch


@dataclass
class RunFolder:
    """Writes the history, the curves, the checkpoints and the previews of a run.

    Under torchrun every process knows the history, but only the main process writes.

    checkpoint: describes the model, without epoch and weights. job: what a resumed run must share.
    watch: the score that chooses best_model_iou.pth. tensorboard: whether to log for it. history: a
    row per epoch. epoch: the one that is being trained, from 1.
    """

    folder: Path
    checkpoint: Checkpoint
    job: JobRecord
    watch: Watch = field(default_factory=Watch)
    tensorboard: bool = False
    history: list[Row] = field(default_factory=list)
    epoch: int = 1
    _board: Any = field(default=None, init=False)
    _drawn_at: float = field(default=-math.inf, init=False)
    _drawn_epochs: int = field(default=0, init=False)

    def epochs_left(self, epochs: int, patience: int | None = None) -> Iterator[int]:
        """The epochs to train, until `patience` of them have passed without a better score."""
        while len(self.history) < epochs:
            if patience and self.history and len(self.history) - self.best()["epoch"] >= patience:
                print(f"no better {self.watch.title} for {patience} epochs: stopping early")
                break
            self.epoch = len(self.history) + 1
            print(f"EPOCH: {self.epoch} of {epochs}")
            yield self.epoch
        self.draw_curves()

    def add_epoch(self, lr: float, train: dict, valid: dict, trained: dict[str, Tensor]) -> None:
        """Print the scores of one more epoch; write history, curves and improved checkpoints.

        lr: at the start of the epoch. train, valid: the scores that train_one_epoch and evaluate
        returned. trained: the model's trained weights. Raises NotFinite if they are not finite.
        """
        check_finite(valid["loss"], trained)
        row = history_row(self.epoch, lr, train, valid, self.checkpoint.classes)
        if self.history and lr != self.history[-1]["lr"]:
            print(f"Learning rate of this epoch: {lr:g}")
        for split, scores in (("train", train), ("valid", valid)):
            print(
                f"{split.capitalize()} loss: {scores['loss']:.4f}, "
                f"pixel accuracy: {scores['pixel_acc']:.4f}, mIoU: {scores['miou']:.4f}"
            )
        if warning := collapse_warning(self.checkpoint.classes, valid):
            print(warning)
        self.history.append(row)
        chosen_by = {"best_model_loss.pth": Watch("loss"), "best_model_iou.pth": self.watch}
        for name, watch in chosen_by.items():
            if watch.best(self.history) is row:
                print(f"Best validation {watch.title}: {watch.text(row)}, saved")
                self.save(name, trained)
        if is_main():
            table = csv_text([list(row), *(list(row.values()) for row in self.history)])
            write_atomically(self.folder / "history.csv", table.encode(), durable=True)
        if time.monotonic() - self._drawn_at > SECONDS_PER_DRAWING:
            self.draw_curves()
        if self.tensorboard and is_main():
            self._log(row)

    def _log(self, row: Row) -> None:
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter  # an optional dependency

            # Later epochs of an earlier run are hidden.
            self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=row["epoch"])
        for name, value in row.items():
            if value is not None:
                self._board.add_scalar(name, value, row["epoch"])
        self._board.flush()

    def write_preview(self, model: SegmentationModel, valid: Dataset) -> None:
        """Draw the first validation pictures with their targets and predictions.

        valid: a SegmentationDataset, or a CachedDataset of one.
        """
        if not is_main():
            return
        inputs, targets = preview_batch(valid, PREVIEWED)
        images = inputs if valid.pictures is valid else preview_batch(valid.pictures, PREVIEWED)[0]
        model.eval()
        with torch.inference_mode():
            logits = model(inputs.to(model.device))
            preds = model.labels(logits, valid.resize.image_size).cpu()
        grid = draw_preview(images, targets, preds, self.classes, valid.resize)
        write_image(self.folder / "valid_preds" / f"epoch_{self.epoch:03d}.jpg", grid)

    def draw_curves(self) -> None:
        """Write the curves unless they show the last epoch already."""
        if not is_main() or self._drawn_epochs == len(self.history):
            return
        for file, score in CURVES.items():
            write_atomically(self.folder / f"{file}.png", draw_curve(self.history, score, file))
        self._drawn_at, self._drawn_epochs = time.monotonic(), len(self.history)

    def best(self) -> Row:
        """The row of the best epoch by `watch`."""
        return self.watch.best(self.history)

    @property
    def classes(self) -> Classes:
        palette = tuple(tuple(colour) for colour in self.checkpoint.palette)
        return Classes(tuple(self.checkpoint.classes), palette)

    def save(
        self,
        name: str,
        trained: dict[str, Tensor],
        training: dict[str, Any] | None = None,
    ) -> None:
        """Write a checkpoint of the last epoch in the history. training: see Checkpoint."""
        if is_main():
            row = self.history[-1] if self.history else {"epoch": 0}
            replace(
                self.checkpoint, epoch=row["epoch"], metrics=row, model_state_dict=trained,
                training=training or {},
            ).save(self.folder / name)  # fmt: skip

    def summary(self) -> str:
        best = self.best()
        score = f"{self.watch.title} {self.watch.text(best)}"
        return f"best {score} in epoch {best['epoch']}; files in {self.folder} (docs/results.md)"


def describe_model(
    spec: ModelConfig,
    backbone_fingerprint: str,
    classes: Classes,
    resize: Resize,
    tiled: bool = False,
    value_range: ValueRange | None = None,
) -> Checkpoint:
    """A checkpoint of the model, still without epoch and weights.

    tiled: whether it is trained on windows of the pictures. value_range: of the data set.
    """
    source = spec.hub_repo or ""
    in_a_folder = source and Path(source).is_dir()  # else GitHub's owner/name:ref
    in_a_file = spec.weights not in ("pretrained", "none")
    return Checkpoint(
        backbone=spec.backbone,
        hub_repo=str(Path(source).resolve()) if in_a_folder else source,
        weights=str(Path(spec.weights).resolve()) if in_a_file else spec.weights,
        fingerprint=backbone_fingerprint,
        head=spec.head,
        fine_tune=spec.fine_tune,
        classes=list(classes.names),
        palette=[list(colour) for colour in classes.palette],
        image_size=list(resize.image_size),
        keep_ratio=resize.keep_ratio,
        tiled=tiled,
        patch_size=resize.input_format.patch_size,
        mean=list(resize.input_format.mean),
        std=list(resize.input_format.std),
        value_range=list(astuple(value_range)) if value_range else [],
    )


def check_finite(loss: float, weights: dict[str, Tensor]) -> None:
    """Raise NotFinite unless the validation loss and all weights are finite.

    Training stops at a loss that is not finite, but the step before may have spoilt the weights.
    """
    if not math.isfinite(loss):
        raise NotFinite(f"the validation loss became {loss}")
    broken = [name for name, value in weights.items() if not value.isfinite().all()]
    if broken:
        raise NotFinite(f"{broken[0]} is no longer finite")


def collapse_warning(names: Sequence[str], scores: dict) -> str | None:
    """A warning where `evaluate` saw a single class predicted but several in the targets."""
    predicted = scores["predicted"].nonzero().flatten().tolist()
    if len(predicted) != 1 or (~scores["iou"].isnan()).sum() < 2:
        return None
    return (
        f"warning: every pixel was predicted as {names[predicted[0]]}; if it stays so, try another "
        "--lr, --class-weights auto or --loss ce+dice"
    )
