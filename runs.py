"""The folder of a training run: history, curves, checkpoints, and what is said of each epoch."""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from config import IMAGENET_MEAN, IMAGENET_STD, ModelConfig
from drawing import overlay
from errors import InputError
from files import write_atomically
from geometry import Resize
from images import write_image
from model import SegmentationModel
from presets import Classes
from transforms import fit_target, to_image
from utils import CHECKPOINT_FORMAT, CHECKPOINT_VERSION, load_checkpoint, save_tensors

PREVIEW_WIDTH = 1200  # pixels
CURVES = {"loss": "loss", "accuracy": "pixel_acc", "miou": "miou"}  # file name -> score


@dataclass
class Run:
    """Keeps history.csv, the curves and the checkpoints of `folder` up to date.

    checkpoint: what every checkpoint of this run says besides epoch, metrics and weights.
    recipe: the settings that a resumed run must share.
    """

    folder: Path
    checkpoint: dict
    recipe: dict
    rows: list[dict[str, float]] = field(default_factory=list)

    def record(self, lr: float, train: dict, valid: dict, trained: dict[str, Tensor]) -> None:
        """Say and write what one more epoch changes: history, curves, improved checkpoints.

        train, valid: what train_one_epoch and evaluate returned.
        """
        row = {"epoch": len(self.rows) + 1, "lr": lr}
        for split, scores in (("train", train), ("valid", valid)):
            row |= {f"{split}_{name}": scores[name] for name in CURVES.values()}
            print(
                f"{split.capitalize()} loss: {scores['loss']:.4f}, "
                f"pixel accuracy: {scores['pixel_acc']:.4f}, mIoU: {scores['miou']:.4f}"
            )
        if warning := collapse_warning(self.checkpoint["classes"], valid):
            print(warning)
        best_loss, best_iou = self._best("valid_loss", min), self._best("valid_miou", max)
        self.rows.append(row)
        if row["valid_loss"] < best_loss:
            print(f"Best validation loss: {row['valid_loss']:.4f}, saved")
            self.save("best_model_loss.pth", trained)
        if row["valid_miou"] > best_iou:
            print(f"Best validation mIoU: {row['valid_miou']:.4f}, saved")
            self.save("best_model_iou.pth", trained)
        self._write_history()
        self._draw_curves()

    def _best(self, name: str, choose: Callable) -> float:
        """The best value so far; the worst possible before the first epoch."""
        worst = math.inf if choose is min else -math.inf
        return choose((row[name] for row in self.rows), default=worst)

    def save(self, name: str, trained: dict[str, Tensor], **more) -> None:
        """A checkpoint of the last recorded epoch."""
        row = self.rows[-1]
        content = {"format": CHECKPOINT_FORMAT, "version": CHECKPOINT_VERSION, **self.checkpoint}
        content |= {"epoch": row["epoch"], "metrics": row, "model_state_dict": trained}
        save_tensors(self.folder / name, content | more)

    def save_last(self, trained: dict[str, Tensor], optimizer, scheduler) -> None:
        """last.pth: a checkpoint and what it takes to go on from it."""
        self.save(
            "last.pth",
            trained,
            recipe=self.recipe,
            history=self.rows,
            optimizer_state_dict=optimizer.state_dict(),
            scheduler_state_dict=scheduler.state_dict(),
        )

    def resume(self, epochs: int, model: SegmentationModel, optimizer, scheduler) -> None:
        """Go on from last.pth, as if the run had never stopped; another run's is refused."""
        path = self.folder / "last.pth"
        content = load_checkpoint(path)
        if "recipe" not in content:
            raise InputError(f"{path} holds no state to go on from; train anew without --resume")
        for ours, theirs in ((self.checkpoint, content), (self.recipe, content["recipe"])):
            for name, value in ours.items():
                if theirs.get(name) != value:
                    raise InputError(
                        f"{path} was made with {name} {theirs.get(name)}, not {value}; resume with "
                        "the same settings, or train into another --out-dir"
                    )
        if content["epoch"] >= epochs:
            raise InputError(f"{path} has all its {epochs} epochs; pass a larger --epochs")
        model.load_trained(content["model_state_dict"])
        optimizer.load_state_dict(content["optimizer_state_dict"])
        scheduler.load_state_dict(content["scheduler_state_dict"])
        self.rows = content["history"]

    def summary(self) -> str:
        best = max(self.rows, key=lambda row: row["valid_miou"])
        return (
            f"best mIoU {best['valid_miou']:.4f} in epoch {best['epoch']}, "
            f"{self.folder / 'best_model_iou.pth'}"
        )

    def _write_history(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self.folder / "history.csv", text.getvalue().encode())

    def _draw_curves(self) -> None:
        from matplotlib.figure import Figure  # not pyplot, which may want a screen

        epochs = [row["epoch"] for row in self.rows]
        for file, score in CURVES.items():
            figure = Figure(figsize=(8, 5), layout="tight")
            axes = figure.add_subplot(xlabel="epoch", ylabel=file)
            for split in ("train", "valid"):
                values = [row[f"{split}_{score}"] for row in self.rows]
                axes.plot(epochs, values, marker=".", label=split)
            axes.grid(alpha=0.3)
            axes.legend()
            png = io.BytesIO()
            figure.savefig(png, dpi=100)
            write_atomically(self.folder / f"{file}.png", png.getvalue())

    def save_preview(self, images: Tensor, targets: Sequence[Tensor], preds: Tensor) -> None:
        """A row per validation picture: image (3, H, W), target (H', W'), prediction (H, W)."""
        header = self.checkpoint
        resize = Resize(tuple(header["image_size"]), header["keep_ratio"])
        classes = Classes(header["classes"], header["palette"])
        rows = []
        for image, target, pred in zip(images, targets, preds, strict=True):
            picture = to_image(image)
            drawn = [
                overlay(picture, labels, classes)
                for labels in (fit_target(target.numpy(), resize), pred.byte().numpy())
            ]
            rows.append(np.hstack([picture, *drawn]))
        grid = np.vstack(rows)
        scale = min(1.0, PREVIEW_WIDTH / grid.shape[1])
        grid = cv2.resize(grid, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        write_image(self.folder / "valid_preds" / f"epoch_{len(self.rows):03d}.jpg", grid)


def checkpoint_header(
    spec: ModelConfig, backbone_fingerprint: str, classes: Classes, resize: Resize
) -> dict:
    """What a checkpoint says of its model; CHECKPOINT_FIELDS lists it. Plain data only."""
    in_a_file = spec.weights not in ("pretrained", "none")
    return {
        "backbone": spec.backbone,
        "weights": str(Path(spec.weights).resolve()) if in_a_file else spec.weights,
        "fingerprint": backbone_fingerprint,
        "head": spec.head,
        "fine_tune": spec.fine_tune,
        "classes": list(classes.names),
        "palette": [list(colour) for colour in classes.palette],
        "image_size": list(resize.image_size),
        "keep_ratio": resize.keep_ratio,
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
    }


def iou_table(names: Sequence[str], iou: Tensor) -> str:
    """One line per class; a class that never occurred has no IoU."""
    width = max(len(name) for name in names)
    lines = [
        f"  {name:<{width}}  " + ("absent" if math.isnan(value) else f"{value:.4f}")
        for name, value in zip(names, iou.tolist(), strict=True)
    ]
    return "\n".join(["IoU per class:", *lines])


def collapse_warning(names: Sequence[str], scores: dict) -> str | None:
    """What to say when `evaluate` saw a single class predicted where the targets have several."""
    predicted = scores["predicted"].nonzero().flatten().tolist()
    if len(predicted) != 1 or (~scores["iou"].isnan()).sum() < 2:
        return None
    return (
        f"warning: every pixel was predicted as {names[predicted[0]]}; if that lasts, try another "
        "--lr, --class-weights auto or --loss ce+dice"
    )
