import math

import cv2
import numpy as np
import pytest
import torch

from metrics import BoundaryIoU, ConfusionMatrix


def test_wrong_input_is_refused_and_none_gives_nan():
    matrix = ConfusionMatrix(2)
    scores = matrix.compute()
    assert math.isnan(scores["miou"])
    assert math.isnan(scores["pixel_acc"])
    with pytest.raises(ValueError, match="differ"):
        matrix.update(torch.zeros(2), torch.zeros(3))
    matrix.update(torch.tensor([0]), torch.tensor([2]))
    with pytest.raises(ValueError, match="none of 2 classes"):
        matrix.compute()
    with pytest.raises(ValueError, match="2 classes, -1 ignored"):
        ConfusionMatrix(2, ignore_index=-1)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_values_far_from_any_class_are_no_class(dtype):
    """255 is ignored as a target and no class as a prediction, like values that fit no byte."""
    far = [255, 255] if dtype == torch.uint8 else [-1, 300]
    matrix = ConfusionMatrix(2)
    matrix.update(torch.tensor([0, 1, *far], dtype=dtype), torch.tensor([0, 1, 1, 1], dtype=dtype))
    assert matrix.of_classes().tolist() == [[1, 0, 0], [0, 1, 2]]
    matrix.update(torch.tensor([0], dtype=dtype), torch.tensor([far[1]], dtype=dtype))
    if dtype == torch.uint8:
        assert matrix.of_classes().sum() == 4
    else:
        with pytest.raises(ValueError, match="none of 2 classes"):
            matrix.compute()


def test_by_hand():
    """Class 0: 2 hits, 1 false alarm, 1 miss. 1: 1, 1, 2. 2: never predicted. 3: never there.

    4: absent. One of the misses of class 1 was predicted as no class.
    """
    matrix = ConfusionMatrix(5)
    preds = torch.tensor([0, 0, 1, 1, 0, 9, 3, 2])
    targets = torch.tensor([0, 0, 0, 1, 1, 1, 2, 255])
    matrix.update(preds, targets)
    scores = matrix.compute()
    nan = math.nan
    expected = {
        "iou": [2 / 4, 1 / 4, 0, 0, nan],
        "precision": [2 / 3, 1 / 2, nan, 0, nan],
        "recall": [2 / 3, 1 / 3, 0, nan, nan],
        "f1": [4 / 6, 2 / 5, 0, 0, nan],
    }
    for name, values in expected.items():
        assert scores[name].tolist() == pytest.approx(values, nan_ok=True), name
    assert scores["miou"] == pytest.approx(0.75 / 4)  # of the classes that are there
    assert scores["pixel_acc"] == pytest.approx(3 / 7)


def boundary_iou(preds, targets, num_classes=2):
    score = BoundaryIoU(num_classes)
    score.update(np.array(preds, np.uint8), np.array(targets, np.uint8))
    return score


def near_another(labels, ignored, distance):
    """Whether a pixel has one of another class, or the outside, within the distance."""
    found = np.zeros(labels.shape, bool)
    height, width = labels.shape
    for y, x in zip(*np.nonzero(~ignored), strict=True):
        top, left, bottom, right = y - distance, x - distance, y + distance, x + distance
        outside = top < 0 or left < 0 or bottom >= height or right >= width
        window = np.s_[max(top, 0) : bottom + 1, max(left, 0) : right + 1]
        others = (labels[window] != labels[y, x]) & ~ignored[window]
        found[y, x] = outside or others.any()
    return found


@pytest.mark.parametrize(("size", "distance"), [((20, 31), 1), ((30, 120), 2), ((100, 110), 3)])
def test_boundary_iou_is_the_definition_on_random_masks(size, distance):
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 4, (2, 5, 6), dtype=np.uint8)
    preds, targets = (cv2.resize(c, size[::-1], interpolation=cv2.INTER_NEAREST) for c in coarse)
    targets[generator.random(size) < 0.1] = 255
    targets[2:9, 3:12] = 255
    preds[generator.random(size) < 0.02] = 3
    preds[5:8, 14:17] = 200  # no class
    ignored = targets == 255
    near = [near_another(labels, ignored, distance) for labels in (targets, preds)]
    expected = []
    for class_ in range(5):  # 4 is absent
        of_target, of_preds = near[0] & (targets == class_), near[1] & (preds == class_)
        union = (of_target | of_preds).sum()
        expected.append((of_target & of_preds).sum() / union if union else math.nan)
    found = boundary_iou(preds, targets, 5).compute().tolist()
    assert found == pytest.approx(expected, nan_ok=True)
    assert 0 < expected[0] < 1


def test_boundary_iou_counts_pixels_over_all_pictures():
    """A picture without a class does not count as 0 or 1 for it."""
    score = BoundaryIoU(3)
    square = np.zeros((3, 3), np.uint8)
    for preds, targets in ((square, square), (square + 1, square), (square + 2, square * 0 + 255)):
        score.update(preds, targets)
    found = score.compute().tolist()
    assert found[:2] == [8 / 16, 0]
    assert math.isnan(found[2])
    with pytest.raises(ValueError, match="differ"):
        score.update(square, square[:2])
    with pytest.raises(ValueError, match="below 255"):
        BoundaryIoU(256)
