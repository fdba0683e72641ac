import csv
import math

import pytest
import torch
from helpers.scripts import TINY, run_train
from helpers.stubs import fails

import train
from common.checkpoints import Checkpoint
from common.job_record import JobRecord
from config import ModelConfig
from data.labels.classes import default_classes
from data.transforms import Resize
from results.history import history_row, watched
from training import run_folder
from training.run_folder import describe_model
from utils import InputError

NAMES = ["background", "thin, wire", "absent"]
PIXELS = [90, 10, 0]  # of the validation masks
TRAIN = {"loss": 0.5, "pixel_acc": 0.9, "miou": 0.8}


def row(epoch, loss, miou, wire, boundary=None):
    valid = {"loss": loss, "pixel_acc": 0.9, "miou": miou}
    valid["iou"] = torch.tensor([0.9, wire, math.nan])
    if boundary is not None:
        valid["boundary_iou"] = torch.tensor([boundary, boundary, math.nan])
    return history_row(epoch, 0.1, TRAIN, valid, NAMES)


@pytest.mark.parametrize(
    ("name", "best", "text"),
    [
        ("miou", 1, "mIoU: 0.7000"),
        ("loss", 3, "loss: 0.1000"),
        ("boundary", 2, "boundary IoU: 0.4000"),
        ("thin, wire", 2, "IoU of thin, wire: 0.5000"),
    ],
)
def test_the_watched_score_chooses_the_best_epoch(name, best, text):
    rows = [row(1, 0.3, 0.7, 0.2, 0.3), row(2, 0.2, 0.7, 0.5, 0.4), row(3, 0.1, 0.6, 0.5, 0.4)]
    rows.insert(0, row(1, 0.4, 0.5, math.nan, 0.1))  # without the score it is never the best
    watch = watched(name, NAMES, PIXELS)
    found = watch.best(rows)
    assert found["epoch"] == best
    assert f"{watch.title}: {watch.text(found)}" == text


def test_an_unknown_score_is_refused():
    with pytest.raises(InputError, match=r"--watch wire: .*miou, loss, boundary.*thin, wire"):
        watched("wire", NAMES, PIXELS)
    with pytest.raises(InputError, match="--watch absent: no validation mask has a pixel of it"):
        watched("absent", NAMES, PIXELS)


def test_each_epoch_replaces_the_checkpoints_that_it_beats(tmp_path, capsys):
    """Not those that it equals. Patience of two is over after two epochs without a better one."""
    resize = Resize((28, 28))
    untrained = describe_model(ModelConfig("a", "ms", 2, "none"), "", default_classes(2), resize)
    run = run_folder.RunFolder(tmp_path, untrained, JobRecord({}))
    losses, mious = (0.5, 0.5, 0.4, 0.6, 0.4, 0.3), (0.3, 0.4, 0.4, 0.2, 0.5, 0.6)
    best = []
    for epoch in run.epochs_left(6, patience=2):
        loss, miou = losses[epoch - 1], mious[epoch - 1]
        scores = {"loss": loss, "pixel_acc": 0.5, "miou": miou}
        valid = {"iou": torch.tensor([miou, miou]), "predicted": torch.ones(2)}
        run.add_epoch(0.1, scores, scores | valid, {})
        files = ("best_model_loss.pth", "best_model_iou.pth")
        best.append(tuple(Checkpoint.load(tmp_path / name).epoch for name in files))
    assert best == [(1, 1), (1, 2), (3, 2), (3, 2)]
    assert "stopping early" in capsys.readouterr().out


def test_a_run_keeps_the_best_epoch_of_the_watched_score(data_dir, in_tmp, capsys):
    (data_dir / "dataset.yaml").write_text("ALL_CLASSES: ['a, b', foreground]\n")
    run_train(data_dir, "--watch", "boundary", "--epochs", "3", "--lr", "0.01")
    out = capsys.readouterr().out
    folder = in_tmp / "outputs"
    rows = list(csv.DictReader((folder / "history.csv").open()))
    best = max(rows, key=lambda row: float(row["valid_boundary_iou"]))
    content = torch.load(folder / "best_model_iou.pth", weights_only=True)
    assert content["epoch"] == int(best["epoch"])
    assert f"best boundary IoU {float(best['valid_boundary_iou']):.4f} in epoch" in out
    ious = [float(best[f"iou_{name}"]) for name in ("a, b", "foreground")]
    assert float(best["valid_miou"]) == pytest.approx(sum(ious) / 2)
    results = {row[0]: row[1:] for row in csv.reader((folder / "results.csv").open())}
    of_classes = [float(results[name][1]) for name in ("a, b", "foreground")]
    assert float(best["valid_boundary_iou"]) == pytest.approx(sum(of_classes) / 2)
    flags = ["--data", data_dir, *TINY, "--batch", 4, "--lr", 0.01, "--epochs", 5, "--resume"]
    message = fails(capsys, train.main, *flags, "--watch", "foreground")
    assert "made with watch 'boundary', not 'foreground'" in message


def test_patience_looks_at_the_watched_score(data_dir, in_tmp, capsys):
    """With a learning rate of almost 0 no epoch is better than the first."""
    flags = ["--head", "token", "--lr", "1e-12", "--epochs", "9", "--patience", "1"]
    run_train(data_dir, "--watch", "foreground", *flags)
    out = capsys.readouterr().out
    assert "no better IoU of foreground for 1 epochs: stopping early" in out
    assert out.count("Best validation IoU of foreground: ") == 1
    assert "TRAINING COMPLETE: best IoU of foreground" in out
    message = fails(capsys, train.main, "--data", data_dir, *TINY, "--watch", "sky")
    assert "background, foreground" in message
    assert "Backbone" not in capsys.readouterr().out
