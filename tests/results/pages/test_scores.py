"""Numbers of a run, and the drawings made of them."""

import math

import numpy as np
import pytest
from helpers.page_folders import CLASSES, final_scores

from metrics import ConfusionMatrix
from results.pages.charts import line_chart, share_chart, size_chart
from results.pages.run import confusion, picture_iou


def test_a_matrix_as_counts_and_shares():
    matrix = confusion(CLASSES.names, final_scores()["matrix"].matrix.numpy())
    assert matrix["rows"][1][1] == [(25, 0.25), (75, 0.75), (0, 0.0)]


def test_a_large_matrix_shows_what_is_confused_most():
    counts = np.diag(np.full(40, 50))
    counts[7, 31] = 9
    matrix = confusion([f"c{i}" for i in range(40)], counts)
    assert len(matrix["rows"]) == 24
    assert {"c7", "c31"} <= set(matrix["names"])
    assert matrix["left_out"] == 16


def test_iou_of_a_picture_is_that_of_its_own_matrix():
    import torch

    generator = np.random.default_rng(0)
    for _ in range(20):
        target = generator.choice([0, 1, 2, 255], (6, 7)).astype(np.uint8)
        labels = generator.choice([0, 1, 2, 3, 255], (6, 7)).astype(np.uint8)
        matrix = ConfusionMatrix(4)
        matrix.update(torch.from_numpy(labels), torch.from_numpy(target))
        assert picture_iou(labels, target, 4) == pytest.approx(matrix.compute()["miou"])
    assert picture_iou(labels, np.full_like(target, 255), 4) == 1.0


def test_charts_stay_in_their_drawing():
    for values in ([1.0], [0.5, 0.5], [1e-5, 3e4], [math.nan, 2.0], [-3.0, 7.0]):
        chart = line_chart("loss", "epoch", list(range(1, len(values) + 1)), {"train": values})
        points = [tuple(map(float, p.split(","))) for p in chart["lines"][0][1].split()]
        assert points
        assert all(0 <= x <= 360 and 0 <= y <= 190 for x, y in points)
        assert 2 <= len(chart["y_ticks"]) <= 7
        assert len(chart["script"]["x"]) == len(values)


def test_a_run_of_one_epoch_is_seen():
    _, points = line_chart("Loss", "epoch", [1], {"valid": [0.5]})["lines"][0]
    (left, right) = points.split()
    assert float(right.split(",")[0]) - float(left.split(",")[0]) == 12


def test_shares_over_time():
    fractions = np.repeat([[0.9, 0.1, 0.0], [0.6, 0.2, 0.2]], 500, axis=0)
    chart = share_chart(np.linspace(0, 100, 1001), fractions, [False, True, True])
    assert len(chart["shares"]) == 1000
    assert [id for id, _ in chart["areas"]] == [1, 2]
    assert chart["top"] == pytest.approx(0.4)
    assert chart["times"][-1] == 100
    assert np.allclose(np.sum(chart["shares"], axis=1), 1)


def test_sizes():
    chart = size_chart({(300, 200): 5, (600, 400): 1})
    assert [(x, y) for x, y, _, _ in chart["dots"]] == [(100, 66.7), (200, 133.3)]
    assert size_chart({})["dots"] == []
