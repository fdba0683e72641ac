"""Losses against values worked out by hand, and the flags that choose them."""

import math
from fractions import Fraction
from functools import partial

import pytest
import torch
from helpers.models import criterion

from losses import PIXEL_LOSSES, build_criterion, class_weights, dice, overlaps
from networks import resampling
from networks.resampling import upsample

STRIDE = Fraction(14)


def example():
    """Three pixels of two classes, the last one ignored: p(right) is 0.8 and 0.5."""
    logits = torch.tensor([[[[math.log(4), 0.0, 9.0]], [[0.0, 0.0, -9.0]]]])
    return logits, torch.tensor([[[0, 1, 255]]])


@pytest.mark.parametrize(
    ("name", "right", "half"),
    [
        ("ce", -math.log(0.8), -math.log(0.5)),
        ("focal", 0.2**2 * -math.log(0.8), 0.5**2 * -math.log(0.5)),
    ],
)
def test_losses_of_pixels_by_hand(name, right, half):
    loss = criterion(14, name).at_full_size(*example())
    assert loss.item() == pytest.approx((right + half) / 2)
    weighted = criterion(14, name, torch.tensor([1.0, 3.0])).at_full_size(*example())
    assert weighted.item() == pytest.approx((right + 3 * half) / 4)


def test_dice_by_hand():
    # Probabilities of class 0: 0.8 and 0.5, of class 1: 0.2 and 0.5.
    scores = (2 * 0.8 / (1.3 + 1), 2 * 0.5 / (0.7 + 1))
    expected = pytest.approx(1 - sum(scores) / 2)
    logits, targets = example()
    assert dice(overlaps(logits, targets)).item() == expected
    with_third = torch.cat([logits, torch.full_like(logits[:, :1], -50)], dim=1)
    assert dice(overlaps(with_third, targets)).item() == expected  # it has no pixel


@pytest.mark.parametrize("strip_bytes", [1, 4 * 3 * 40 * 7, 2**20])  # a row, some rows, all
@pytest.mark.parametrize("pixels", [None, [900, 90, 10]])
@pytest.mark.parametrize("name", PIXEL_LOSSES)
def test_strips_give_the_loss_and_gradient_of_the_whole(name, pixels, strip_bytes, monkeypatch):
    monkeypatch.setitem(resampling.STRIP_BYTES, "cpu", strip_bytes)
    losses = build_criterion(name, partial(upsample, output_stride=STRIDE), pixels)
    grid = torch.randn(3, 3, 2, 3, requires_grad=True)
    targets = torch.randint(0, 3, (3, 25, 42), dtype=torch.uint8)
    targets[:, 20:] = 255
    expected = losses.at_full_size(upsample(grid, (25, 42), output_stride=STRIDE), targets)
    (gradient,) = torch.autograd.grad(2 * expected, grid)
    loss = losses(grid, targets)
    (2 * loss).backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(grid.grad, gradient, rtol=1e-4, atol=1e-7)
    # A picture in evaluation, whose mask has another size than the input.
    target = torch.randint(0, 3, (1, 31, 40), dtype=torch.uint8)
    upsampled = upsample(grid[:1], (25, 42), (31, 40), output_stride=STRIDE)
    loss = losses.of_picture(grid[:1].detach(), target, (25, 42))
    assert loss.item() == pytest.approx(losses.at_full_size(upsampled, target).item(), rel=1e-5)


@pytest.mark.parametrize("name", PIXEL_LOSSES)
def test_nothing_but_ignored_pixels_is_zero_not_nan(name):
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)
    loss = build_criterion(name, STRIDE, [9, 1]).at_full_size(logits, torch.full((1, 3, 3), 255))
    assert loss.item() == 0
    loss.backward()
    assert logits.grad.abs().sum() == 0


def test_class_weights_by_hand():
    """Shares 0.9 and 0.1: the weights are as 1 to 3, their mean over the pixels is 1."""
    weights = class_weights([900, 100])
    assert weights.tolist() == pytest.approx([1 / 1.2, 3 / 1.2])
    assert class_weights([900, 0, 100])[1] == weights[1]  # without a pixel: as the rarest
    assert class_weights([0, 0]).tolist() == [1, 1]
