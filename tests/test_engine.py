import pytest
import torch
from helpers.models import StripeBackbone, criterion, small_model

from data.transforms import Resize
from engine import EpochTotals, evaluate, train_one_epoch
from model import SegmentationModel, TokenHead
from networks import resampling
from networks.resampling import labels_at, upsample
from training.optimizers import ScheduledOptimizer

CPU = torch.device("cpu")


def batches(count=3, size=28):
    """Pictures whose brightness is their class."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        targets = torch.randint(0, 3, (4, 1, 1), generator=generator).expand(4, size, size)
        images = targets[:, None].float().repeat(1, 3, 1, 1) - 1
        yield images, targets.to(torch.uint8)


def train(model, loader=None, optimizer=None, **options):
    """One epoch on the CPU; three classes."""
    optimizer = optimizer or torch.optim.AdamW(model.head.parameters(), 0.1)
    optimizer = ScheduledOptimizer(optimizer, **options)
    return train_one_epoch(model, loader or batches(), criterion(), optimizer, EpochTotals(3))


@pytest.mark.parametrize("strip_bytes", [1, 4 * 3 * 40 * 7, 2**20])  # a row, seven rows, all
def test_labels_in_strips_are_those_of_the_whole(strip_bytes, monkeypatch):
    monkeypatch.setitem(resampling.STRIP_BYTES, "cpu", strip_bytes)
    logits = torch.randn(3, 3, 2, 3)
    expected = upsample(logits, (25, 42), (31, 40), output_stride=14).argmax(1)
    found = labels_at(logits, (25, 42), (31, 40), output_stride=14)
    assert (found == expected).float().mean() > 0.999  # strips may round otherwise


def test_mixed_precision_trains_to_about_the_same_loss():
    losses = []
    for amp in (None, torch.bfloat16):
        model = small_model()
        model.amp = amp
        losses.append(train(model)["loss"])
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_accumulated_batches_make_the_step_of_one_large_batch():
    """Without BatchNorm, whose statistics are those of each batch. The last step has one batch."""
    weights = []
    (images, targets), last = batches(2)
    for loader, accumulate in (
        ([(images, targets), last], 1),
        ([(images[:2], targets[:2]), (images[2:], targets[2:]), last], 2),
    ):
        torch.manual_seed(0)
        model = SegmentationModel(StripeBackbone(), TokenHead(8, 3))
        optimizer = torch.optim.SGD(model.head.parameters(), 0.1)
        train(model, loader, optimizer, accumulate=accumulate)
        weights.append(model.head.conv_seg.weight.detach())
    torch.testing.assert_close(*weights)


def test_totals_are_stored_as_in_every_checkpoint_so_far():
    assert EpochTotals(3).state_dict()["counts"].shape == (3, 4)


def test_scores_do_not_depend_on_the_batch_size():
    model = small_model()
    images = torch.randn(7, 3, 28, 42)
    targets = [torch.randint(0, 3, (20 + i, 30 - i), dtype=torch.uint8) for i in range(7)]
    scores = []
    for size in (1, 3, 7):
        loader = [(images[i : i + size], targets[i : i + size]) for i in range(0, 7, size)]
        scores.append(evaluate(model, loader, criterion(), Resize((28, 42)), 3))
    for other in scores[1:]:
        assert other["loss"] == pytest.approx(scores[0]["loss"])
        # A product rounds as its size decides: a pixel between two classes may change sides.
        torch.testing.assert_close(other["iou"], scores[0]["iou"], rtol=0, atol=2e-3)


def test_a_size_that_was_predicted_at_can_be_trained_at():
    """Matrices cached in inference mode could not be saved for the backward pass."""
    model, size = small_model(), (42, 70)
    with torch.inference_mode():
        model.labels(model(torch.rand(1, 3, *size)), size)
    loader = [(torch.rand(1, 3, *size), torch.zeros(1, *size, dtype=torch.uint8))]
    train(model, loader, torch.optim.SGD(model.head.parameters(), lr=0.1))
