"""Pictures to network input: one way for training, validation and inference."""

import os

import cv2
import numpy as np
import torch
from torch import Tensor

from config import IGNORE_INDEX, IMAGENET_MEAN, IMAGENET_STD

_MEAN = 255 * np.float32(IMAGENET_MEAN)
_STD = 255 * np.float32(IMAGENET_STD)


def to_tensor(image: np.ndarray) -> Tensor:
    """RGB (H, W, 3) uint8 -> ImageNet-normalised (3, H, W) float32."""
    normalised = (image.astype(np.float32) - _MEAN) / _STD
    return torch.from_numpy(normalised.transpose(2, 0, 1).copy())


def to_image(tensor: Tensor) -> np.ndarray:
    """The inverse of to_tensor."""
    pixels = tensor.cpu().numpy().transpose(1, 2, 0) * _STD + _MEAN
    return pixels.round().clip(0, 255).astype(np.uint8)


def eval_transform(image: np.ndarray, image_size: tuple[int, int]) -> Tensor:
    """RGB (H, W, 3) uint8 -> (3, *image_size) float32; image_size is (height, width)."""
    return to_tensor(cv2.resize(image, image_size[::-1], interpolation=cv2.INTER_LINEAR))


class Augment:
    """The articles' augmentations: flip, brightness and contrast, rotation up to 25 degrees.

    The result depends on the picture, `seed` and `draw` alone: not on the worker, nor on what was
    drawn before. Corners that a rotation leaves empty get the mean colour and are ignored.
    """

    def __init__(self, image_size: tuple[int, int], seed: int):
        os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it asks the network for news when imported
        import albumentations as A

        self.seed = seed
        mean = tuple(round(255 * channel) for channel in IMAGENET_MEAN)
        # All of it on uint8: on float images brightness and contrast clip to 0..1, which is black.
        self.transform = A.Compose(
            [
                # NEAREST_EXACT samples at pixel centres, as the picture's INTER_LINEAR does.
                A.Resize(*image_size, mask_interpolation=cv2.INTER_NEAREST_EXACT),
                A.HorizontalFlip(p=0.5),
                A.RandomBrightnessContrast(p=0.2),
                A.Rotate(limit=25, fill=mean, fill_mask=IGNORE_INDEX, p=0.5),
            ]
        )

    def __call__(
        self, image: np.ndarray, target: np.ndarray, draw: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """RGB (H, W, 3) and class ids (H, W), both uint8 -> both at image_size.

        draw: which sample of the run this is, any number.
        """
        seed = np.random.SeedSequence([self.seed, draw]).generate_state(1)
        self.transform.set_random_seed(int(seed[0]))
        augmented = self.transform(image=image, mask=target)
        return augmented["image"], augmented["mask"]
