"""Segment the frames of a video: batches, every Nth frame, smoothing over time."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import cv2
import numpy as np
import torch

from config import IGNORE_INDEX
from inference.windows import Prediction
from video.reader import Frame

SCENE_CUT = 24.0  # mean difference of two frames' thumbnails, in grey levels 0..255
THUMBNAIL = (64, 36)  # width, height in pixels


class MappedFrame(NamedTuple):
    frame: Frame
    labels: np.ndarray  # class ids (H, W) uint8, 255 where ignored


class Smoother:
    """Exponential mean of the class probabilities over frames, restarted at every scene cut.

    mean = strength * previous mean + (1 - strength) * new probabilities. A scene cut: the grey
    thumbnails of two successively segmented frames differ by more than SCENE_CUT on average.
    Memory: one float32 per class and pixel.
    """

    def __init__(self, strength: float, min_confidence: float = 0.0):
        self.strength = strength
        self.min_confidence = min_confidence
        self._mean = self._thumbnail = None

    def update(self, image: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """Class ids (H, W) uint8 of an RGB frame (H, W, 3) with probabilities (K, H, W)."""
        if self._is_cut(image):
            self._mean = probabilities.astype(np.float32)
        else:
            for mean, new in zip(self._mean, probabilities, strict=True):
                cv2.accumulateWeighted(new.astype(np.float32), mean, 1 - self.strength)
        confidence, labels = torch.from_numpy(self._mean).max(dim=0)
        labels = labels.to(torch.uint8)
        labels[confidence < self.min_confidence] = IGNORE_INDEX
        return labels.numpy()

    def _is_cut(self, image: np.ndarray) -> bool:
        """Whether image begins a new scene; True for the first frame."""
        small = cv2.resize(image, THUMBNAIL, interpolation=cv2.INTER_AREA)
        before, self._thumbnail = self._thumbnail, cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        if before is None:
            return True
        return cv2.absdiff(before, self._thumbnail).mean() > SCENE_CUT


def map_frames(
    frames: Iterable[Frame],
    predict: Callable[..., list[Prediction]],
    batch_size: int,
    every: int = 1,
    smoother: Smoother | None = None,
) -> Iterator[MappedFrame]:
    """Yield every frame with its class map; one frame in `every` is segmented.

    The frames between take the map of the last segmented one. At most batch_size frames are held.
    predict: see Predictor.predict.
    """
    # Each batch but the last is whole steps of `every` frames, or one frame where a step is larger.
    size = batch_size - batch_size % every or 1
    numbered, labels = enumerate(frames), None
    keep = ("probabilities",) if smoother else ()
    while batch := list(islice(numbered, size)):
        images = [frame.image for number, frame in batch if number % every == 0]
        predictions = iter(predict(images, keep) if images else ())
        for number, frame in batch:
            if number % every == 0:
                prediction = next(predictions)
                labels = prediction.labels
                if smoother:
                    labels = smoother.update(frame.image, prediction.probabilities)
            yield MappedFrame(frame, labels)
