"""The guided filter against its definition, and on the way from pictures to probabilities."""

import cv2
import numpy as np
import pytest
import torch
from helpers.models import decided_model

from data.labels.classes import default_classes
from data.transforms import Resize
from inference import refinement
from inference.protocol import Protocol
from inference.refinement import EPS, refine
from predictor import Predictor

RADIUS = 2


def picture(height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    return cv2.GaussianBlur(noise, (5, 5), 0)


def halved(values: np.ndarray) -> np.ndarray:
    """The mean of each 2 x 2 pixels; the last row and column of an odd size count twice."""
    height, width, *channels = values.shape
    odd = [(0, height % 2), (0, width % 2), (0, 0)][: values.ndim]
    even = np.pad(values.astype(np.float64), odd, mode="edge")
    return even.reshape(len(even) // 2, 2, -1, 2, *channels).mean(axis=(1, 3))


def by_definition(values: np.ndarray, image: np.ndarray) -> np.ndarray:
    """One linear fit for each square of the half grid, and the mean of those that a cell lies in.

    The means are interpolated to the picture's size.
    """
    colours, side = image.astype(np.float64) / 255, 2 * RADIUS + 1
    height, width = values.shape
    pad = ((RADIUS, RADIUS), (RADIUS, RADIUS))
    half_values, half_colours = halved(values), halved(colours)
    slopes, offsets = np.zeros(half_colours.shape), np.zeros(half_values.shape)
    wide_values = np.pad(half_values, pad, mode="reflect")
    wide_colours = np.pad(half_colours, (*pad, (0, 0)), mode="reflect")
    for y, x in np.ndindex(half_values.shape):
        square = wide_colours[y : y + side, x : x + side].reshape(-1, 3)
        targets = wide_values[y : y + side, x : x + side].ravel()
        centred = square - square.mean(axis=0)
        covariance = centred.T @ centred / len(square) + EPS * np.eye(3)
        slopes[y, x] = np.linalg.solve(covariance, centred.T @ targets / len(square))
        offsets[y, x] = targets.mean() - slopes[y, x] @ square.mean(axis=0)
    slopes, offsets = (
        cv2.resize(cv2.blur(fit, (side, side)), None, fx=2, fy=2)[:height, :width]
        for fit in (slopes, offsets)
    )
    return (slopes * colours).sum(axis=-1) + offsets


@pytest.mark.parametrize(("num_classes", "size"), [(2, (40, 50)), (3, (40, 50)), (2, (37, 41))])
def test_the_filter_is_the_definition(num_classes, size):
    image = picture(*size)
    scores = torch.randn(num_classes, *size, generator=torch.Generator().manual_seed(0))
    probabilities = scores.softmax(0).numpy()
    expected = np.stack([by_definition(p, image).clip(0, 1) for p in probabilities])
    found = refine(probabilities, image, RADIUS)
    assert np.abs(found - expected / expected.sum(axis=0)).max() < 1e-3
    assert np.abs(found.sum(axis=0) - 1).max() < 1e-5


def test_a_coarse_edge_moves_to_that_of_the_picture():
    image = np.full((40, 60, 3), 30, np.uint8)
    image[:, 33:] = (90, 160, 220)
    ramp = np.clip((np.arange(60) - 22) / 16, 0, 1).astype(np.float32)  # crosses 0.5 at 30
    coarse = np.stack([np.tile(1 - ramp, (40, 1)), np.tile(ramp, (40, 1))])
    assert (refine(coarse, image, 4).argmax(0) == (np.arange(60) >= 33)).all()


@pytest.mark.parametrize("flip", [False, True])
def test_strips_are_the_whole_picture(flip, monkeypatch):
    image = np.random.default_rng(1).integers(0, 255, (161, 70, 3), np.uint8)
    protocol = Protocol(Resize((56, 70)), flip=flip)
    found = []
    for scores in (refinement.MAX_SCORES, 1):
        monkeypatch.setattr(refinement, "MAX_SCORES", scores)
        careful = Predictor(
            decided_model(), default_classes(3), protocol, torch.device("cpu"), refine=True
        )
        found.append(careful.predict([image], keep=("probabilities",))[0].probabilities)
    assert np.abs(found[0].astype(np.float32) - found[1]).max() < 2e-3
    careful.refine = False
    plain = careful.predict([image], keep=("probabilities",))[0].probabilities
    assert np.abs(plain.astype(np.float32) - found[0]).max() > 0.02
