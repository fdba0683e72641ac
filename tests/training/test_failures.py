"""Weights that are not finite end a run and never replace good ones."""

import math

import pytest
import torch

from engine import NotFinite
from training.run_folder import check_finite


def test_a_loss_or_weight_that_is_not_finite_is_named():
    weights = {"head.weight": torch.ones(2), "head.count": torch.tensor(3)}
    check_finite(0.1, weights)
    for loss in (math.nan, math.inf):
        with pytest.raises(NotFinite, match=f"the validation loss became {loss}"):
            check_finite(loss, weights)
    with pytest.raises(NotFinite, match=r"head\.weight is no longer finite"):
        check_finite(0.1, weights | {"head.weight": torch.tensor([1.0, math.inf])})
