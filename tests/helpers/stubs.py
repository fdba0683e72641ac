"""A predictor without a network, and how a script fails."""

import numpy as np
import pytest

from data.labels.classes import Classes
from inference.windows import Prediction


class StubPredictor:
    """Class 1 where a pixel is brighter than its column asks for; no weights, no network."""

    model = value_range = None
    compile_seconds = 0.0
    classes = Classes(("dark", "bright"), ((0, 0, 0), (200, 40, 0)))

    def __init__(self):
        self.num_images = self.largest_batch = 0

    def labels(self, image: np.ndarray) -> np.ndarray:
        return (self._probability(image) > 0.5).astype(np.uint8)

    def _probability(self, image: np.ndarray) -> np.ndarray:
        threshold = np.linspace(0, 255, image.shape[1])
        return 1 / (1 + np.exp((threshold - image[..., 1]) / 16))

    def predict(self, images, keep=()) -> list[Prediction]:
        self.num_images += len(images)
        self.largest_batch = max(self.largest_batch, len(images))
        predictions = []
        for image in images:
            bright = self._probability(image)
            probabilities = np.stack([1 - bright, bright])
            confidence = probabilities.max(axis=0).astype(np.float32)
            predictions.append(
                Prediction(self.labels(image), confidence, probabilities.astype(np.float16))
            )
        return predictions


def fails(capsys, main, *argv) -> str:
    """The one line that a failing script says."""
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in argv])
    assert stop.value.code not in (0, None)
    message = str(stop.value.code)
    assert "Traceback" not in message + capsys.readouterr().err
    return message
