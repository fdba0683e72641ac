import math

import pytest
import torch

from metrics import ConfusionMatrix


def test_by_hand():
    matrix = ConfusionMatrix(num_classes=3, ignore_index=255)
    matrix.update(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 255]))
    scores = matrix.compute()
    assert matrix.matrix.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert scores["iou"].tolist()[:2] == [0.5, 0.5]
    assert math.isnan(scores["iou"][2])  # absent from both
    assert scores["miou"] == 0.5
    assert scores["pixel_acc"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("batches", [1, 50])
def test_perfect_prediction_scores_one_with_classes_absent(batches):
    targets = torch.randint(0, 5, (50, 8, 8))  # of 21 classes
    targets[:, 0] = 255
    matrix = ConfusionMatrix(21)
    for part in targets.chunk(batches):
        matrix.update(torch.where(part == 255, 0, part), part)
    scores = matrix.compute()
    assert scores["miou"] == 1.0
    assert scores["pixel_acc"] == 1.0


def test_the_split_into_batches_does_not_matter():
    preds, targets = torch.randint(0, 4, (2, 30, 9, 7))
    whole, parts = ConfusionMatrix(4), ConfusionMatrix(4)
    whole.update(preds, targets)
    for i in range(0, 30, 7):  # the last batch is smaller
        parts.update(preds[i : i + 7], targets[i : i + 7])
    assert torch.equal(whole.matrix, parts.matrix)


def test_a_class_only_predicted_counts_as_zero():
    matrix = ConfusionMatrix(2)
    matrix.update(torch.tensor([0, 1]), torch.tensor([0, 0]))
    assert matrix.compute()["iou"].tolist() == [0.5, 0.0]
    assert matrix.compute()["miou"] == 0.25


def test_a_prediction_that_is_no_class_is_a_miss_and_nothing_else():
    matrix = ConfusionMatrix(2)
    matrix.update(torch.tensor([0, 2, 255]), torch.tensor([0, 0, 1]))
    assert matrix.matrix.tolist() == [[1, 0], [0, 0]]
    scores = matrix.compute()
    assert scores["iou"].tolist() == [0.5, 0.0]
    assert scores["pixel_acc"] == pytest.approx(1 / 3)


def test_nothing_counted_is_nan_not_zero():
    scores = ConfusionMatrix(2).compute()
    assert math.isnan(scores["miou"])
    assert math.isnan(scores["pixel_acc"])


def test_wrong_input_is_refused():
    matrix = ConfusionMatrix(2)
    with pytest.raises(ValueError, match="differ"):
        matrix.update(torch.zeros(2), torch.zeros(3))
    matrix.update(torch.tensor([0]), torch.tensor([2]))
    with pytest.raises(ValueError, match="none of 2 classes"):
        matrix.compute()
