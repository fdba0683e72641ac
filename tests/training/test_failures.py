"""Weights that are not finite end a run and never replace good ones."""

import math

import pytest
import torch
from helpers.scripts import TINY
from helpers.stubs import fails

import train
from training import run_folder
from training.optimizers import ScheduledOptimizer
from training.run_folder import Diverged, check_finite


def test_a_loss_or_weight_that_is_not_finite_is_named():
    weights = {"head.weight": torch.ones(2), "head.count": torch.tensor(3)}
    check_finite(0.1, weights)
    for loss in (math.nan, math.inf):
        with pytest.raises(Diverged, match=f"the validation loss became {loss}"):
            check_finite(loss, weights)
    with pytest.raises(Diverged, match=r"head\.weight is no longer finite"):
        check_finite(0.1, weights | {"head.weight": torch.tensor([1.0, math.inf])})


@pytest.mark.parametrize(
    ("spoilt", "flags", "words"),
    [
        (4, [], "the validation loss became nan"),  # the last of epoch 2: no loss shows it
        (3, ["--save-every", "0.00001"], "is no longer finite"),  # it would be saved at once
    ],
)
def test_a_step_that_spoils_the_weights_leaves_the_files(
    data_dir, in_tmp, monkeypatch, capsys, spoilt, flags, words
):
    """Two steps make an epoch. The loss of the step itself is finite."""
    monkeypatch.setattr(run_folder, "draw_curve", lambda *_: b"")
    step, steps = ScheduledOptimizer.step, []

    def spoiling(self):
        step(self)
        steps.append(self)
        if len(steps) == spoilt:
            self.optimizer.param_groups[0]["params"][0].data.fill_(math.nan)

    monkeypatch.setattr(ScheduledOptimizer, "step", spoiling)
    argv = ["--data", data_dir, *TINY, "--batch", 4, "--lr", 0.01, "--epochs", 3, *flags]
    message = fails(capsys, train.main, *argv)
    assert message.startswith("error: epoch 2: ")
    assert f"{words}; train again with a lower --lr" in message
    assert "last.pth is intact" in message
    for name in ("last.pth", "best_model_iou.pth", "best_model_loss.pth"):
        content = torch.load(in_tmp / "outputs" / name, weights_only=True)
        assert content["epoch"] == 1
        assert all(value.isfinite().all() for value in content["model_state_dict"].values())
