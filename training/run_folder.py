"""The folder of a training run: history, curves, checkpoints, previews."""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from common.checkpoints import (
    CHECKPOINT_FORMAT,
    CHECKPOINT_VERSION,
    load_checkpoint,
    short,
    warn_of_other_code,
)
from common.distributed import from_main, is_main
from common.job_record import JobRecord
from common.tensor_files import save_tensors
from config import ModelConfig
from data.labels.classes import Classes
from data.transforms import Resize
from results.history import CURVES, Row, Watch, check_history, history_row
from results.plots import draw_curve
from results.tables import csv_text
from training.failures import collapse_warning
from utils import InputError, write_atomically

SECONDS_PER_DRAWING = 60.0  # of the curves, which take as long as a short epoch
FILES = {
    "best_model_iou.pth": "checkpoint of the best validation {watched}",
    "best_model_loss.pth": "checkpoint of the lowest validation loss",
    "final_model.pth": "checkpoint of the last epoch",
    "last.pth": "what --resume continues from",
    "history.csv": "scores of each epoch",
    "loss.png": "curve",
    "accuracy.png": "curve",
    "miou.png": "curve",
    "results.csv": "final scores of each class",
    "confusion.csv": "final confusion matrix in pixels",
    "confusion.png": "the same as a picture",
    "run.json": "command, versions, seed, device, final scores",
    "valid_preds": "validation pictures, targets, predictions, by epoch",
    "index.html": "page of this run, for a browser",
    "page": "pictures of index.html",
    "tensorboard": "tensorboard --logdir",
}


@dataclass
class RunFolder:
    """Writes the history, the curves, the checkpoints and the previews of a run.

    Under torchrun every process knows the history, but only the main process writes.

    header: what every checkpoint of this run holds besides epoch, metrics and weights. job: what a
    resumed run must share. watch: the score that chooses best_model_iou.pth. history: a row per
    epoch. board: a TensorBoard SummaryWriter.
    """

    folder: Path
    header: dict
    job: JobRecord
    watch: Watch = field(default_factory=Watch)
    history: list[Row] = field(default_factory=list)
    board: Any = None
    _drawn_at: float = field(default=-math.inf, init=False)
    _drawn_epochs: int = field(default=0, init=False)

    @property
    def classes(self) -> Classes:
        return Classes(self.header["classes"], self.header["palette"])

    def add_epoch(self, lr: float, train: dict, valid: dict, trained: dict[str, Tensor]) -> None:
        """Print the scores of one more epoch; write history and improved checkpoints.

        The curves are drawn from time to time; call draw_curves at the end.

        train, valid: the scores that train_one_epoch and evaluate returned.
        """
        row = history_row(len(self.history) + 1, lr, train, valid, self.header["classes"])
        for split, scores in (("train", train), ("valid", valid)):
            print(
                f"{split.capitalize()} loss: {scores['loss']:.4f}, "
                f"pixel accuracy: {scores['pixel_acc']:.4f}, mIoU: {scores['miou']:.4f}"
            )
        if warning := collapse_warning(self.header["classes"], valid):
            print(warning)
        lowest_loss = min((row["valid_loss"] for row in self.history), default=math.inf)
        self.history.append(row)
        if row["valid_loss"] < lowest_loss:
            print(f"Best validation loss: {row['valid_loss']:.4f}, saved")
            self.save("best_model_loss.pth", trained)
        if self.best() is row:
            if self.watch.column != "valid_loss":  # which was told above
                print(f"Best validation {self.watch.title}: {self.watch.text(row)}, saved")
            self.save("best_model_iou.pth", trained)
        if is_main():
            table = csv_text([list(row), *(list(row.values()) for row in self.history)])
            write_atomically(self.folder / "history.csv", table.encode(), durable=True)
        if time.monotonic() - self._drawn_at > SECONDS_PER_DRAWING:
            self.draw_curves()
        if self.board is not None:
            for name, value in row.items():
                if value is not None:
                    self.board.add_scalar(name, value, row["epoch"])
            self.board.flush()

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

    def epochs_since_best(self) -> int:
        return len(self.history) - self.best()["epoch"] if self.history else 0

    def save(self, name: str, trained: dict[str, Tensor], **more) -> None:
        """Write a checkpoint of the last epoch in the history."""
        if not is_main():
            return
        row = self.history[-1] if self.history else {"epoch": 0}
        content = {"format": CHECKPOINT_FORMAT, "version": CHECKPOINT_VERSION, **self.header}
        content |= {"epoch": row["epoch"], "metrics": row, "model_state_dict": trained}
        save_tensors(self.folder / name, content | more)

    def save_last(self, trained: dict[str, Tensor], **state) -> None:
        """Write last.pth: a checkpoint, and the state that resuming needs."""
        self.save("last.pth", trained, job=self.job.to_json(), history=self.history, **state)

    def find_last(self, resume: str | bool | None) -> Path | None:
        """The last.pth to resume. resume: a file, True for the folder's own if any, or None."""
        if not resume:
            return None
        own = self.folder / "last.pth"
        if resume is True and not from_main(own.is_file):  # a cluster may restart a job at any time
            print(f"{own} does not exist: nothing was saved yet, so this run starts anew")
            return None
        return own if resume is True else Path(resume)

    def load_last(self, path: Path, epochs: int) -> dict:
        """The content of a last.pth. Raises InputError if it is another run's or has all epochs."""
        content = load_checkpoint(path)
        try:
            found = self._difference(content, JobRecord.from_json(content.get("job")))
            if not found:  # rows of other classes have other columns
                classes = self.header["classes"]
                check_history(content.get("history"), content["epoch"], self.watch, classes)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{path} holds no state to continue from ({error}); name a last.pth, or train "
                "again without --resume"
            ) from error
        if found:
            raise InputError(
                f"{path} was made with {found}; resume with the same settings and files, or train "
                "into another --out-dir"
            )
        warn_of_other_code(path, content, self.header.get("code", ""))
        if len(content["history"]) > epochs:
            raise InputError(
                f"{path} has {len(content['history'])} epochs already; pass a larger --epochs"
            )
        if path.resolve() != (self.folder / "last.pth").resolve():
            self._check_best(content["history"])
        return content

    def _difference(self, content: dict, job: JobRecord) -> str | None:
        """How the run that wrote a last.pth differs from this one; None where it does not."""
        for name, value in self.header.items():
            saved = content.get(name)
            if saved != value and name not in ("hub_repo", "code"):  # the fingerprint is compared
                return f"{name} {short(saved)}, not {short(value)}"
        return self.job.difference(job)

    def _check_best(self, history: list[Row]) -> None:
        """Raise InputError if the folder holds the best checkpoints of a run with another history.

        They would stay, and be scored as this run's, if no later epoch were better.
        """
        for name in ("best_model_iou.pth", "best_model_loss.pth"):
            path = self.folder / name
            if path.is_file() and load_checkpoint(path)["metrics"] not in history:
                raise InputError(
                    f"{path} is of another run; move it away, or pass another --out-dir"
                )

    def summary(self) -> str:
        """The best epoch, and a line for every file of the run."""
        best = self.best()
        score = f"{self.watch.title} {self.watch.text(best)}"
        lines = [f"best {score} in epoch {best['epoch']}; in {self.folder}:"]
        for name, what in FILES.items():
            what = what.format(watched=self.watch.title)
            path = self.folder / name
            if path.is_dir():
                lines.append(f"  {name + '/':<20} {len(list(path.iterdir())):>6} files  {what}")
            elif path.is_file():
                lines.append(f"  {name:<20} {path.stat().st_size / 1024:>9.1f} KB  {what}")
        return "\n".join(lines)


def open_board(folder: Path, epochs_done: int) -> Any:
    """A TensorBoard writer in the main process; later epochs of an earlier run are hidden."""
    if not is_main():
        return None
    from torch.utils.tensorboard import SummaryWriter  # an optional dependency

    return SummaryWriter(str(folder / "tensorboard"), purge_step=epochs_done + 1)


def checkpoint_header(
    spec: ModelConfig, backbone_fingerprint: str, classes: Classes, resize: Resize
) -> dict:
    """What a checkpoint holds of its model (CHECKPOINT_FIELDS lists it), as plain data."""
    source = spec.hub_repo or ""
    in_a_folder = source and Path(source).is_dir()  # else GitHub's owner/name:ref
    in_a_file = spec.weights not in ("pretrained", "none")
    return {
        "backbone": spec.backbone,
        "hub_repo": str(Path(source).resolve()) if in_a_folder else source,
        "weights": str(Path(spec.weights).resolve()) if in_a_file else spec.weights,
        "fingerprint": backbone_fingerprint,
        "head": spec.head,
        "fine_tune": spec.fine_tune,
        "classes": list(classes.names),
        "palette": [list(colour) for colour in classes.palette],
        "image_size": list(resize.image_size),
        "keep_ratio": resize.keep_ratio,
        "tiled": False,
        "patch_size": resize.input_format.patch_size,
        "mean": list(resize.input_format.mean),
        "std": list(resize.input_format.std),
    }
