"""Training runs of a few seconds."""

from collections.abc import Callable

import train
from results import scores
from training import run_folder

TINY = ["--backbone", "dinov2_vitt14", "--weights", "none", "--imgsz", "56", "--workers", "0"]


def run_train(data_dir, *more):
    train.main(["--data", str(data_dir), *TINY, "--epochs", "2", "--batch", "4", *more])


def without_plots(change: Callable) -> None:
    """Let runs write what plots would show. They take most of a small run's time.

    change: setattr, or what undoes it.
    """
    for module, name in ((run_folder, "draw_curve"), (scores, "draw_confusion")):
        change(module, name, lambda *what: repr(what).encode())
