"""Random augmentation of training pictures together with their masks.

The result depends on the picture, `seed` and `index` alone, not on the worker.
"""

import os

import cv2
import numpy as np

import data.transforms as T
from config import IGNORE_INDEX
from data.labels.classes import count_pixels

MAX_SHARE = 0.75  # of a crop's pixels for one class
CROP_TRIES = 10
BRIGHTNESS = 32.0  # grey levels, either way
CONTRAST = SATURATION = (0.5, 1.5)
HUE = 18  # of OpenCV's 180, either way
LEVELS = np.arange(256)

Sample = tuple[np.ndarray, np.ndarray]  # RGB (H, W, 3) and class ids (H, W), both uint8


class Augment:
    """A sample resized to the network's size; subclasses also vary it as the index decides.

    tiled: the network sees windows of the picture at its own resolution, in validation too.
    """

    tiled = False

    def __init__(self, resize: T.Resize, seed: int):
        self.resize = resize
        self.seed = seed

    def __call__(self, image: np.ndarray, target: np.ndarray, index: int) -> Sample:
        return T.fit_image(image, self.resize), T.fit_target(target, self.resize)


class FlipAugment(Augment):
    """Half of the pictures are mirrored."""

    def __call__(self, image: np.ndarray, target: np.ndarray, index: int) -> Sample:
        image, target = super().__call__(image, target, index)
        if np.random.default_rng([self.seed, index]).random() < 0.5:
            image, target = image[:, ::-1], target[:, ::-1]
        return np.ascontiguousarray(image), np.ascontiguousarray(target)


class ArticlesAugment(Augment):
    """Flip, brightness and contrast, rotation up to 25 degrees.

    Corners that a rotation leaves empty get the mean colour and are ignored.
    """

    def __init__(self, resize: T.Resize, seed: int):
        super().__init__(resize, seed)
        os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # its import would ask the network for updates
        import albumentations as A

        colour = T.mean_colour(resize.input_format)
        # On uint8: brightness and contrast would clip float pixels to 0..1, which is black.
        self.transform = A.Compose(
            [
                A.HorizontalFlip(p=0.5),
                A.RandomBrightnessContrast(p=0.2),
                A.Rotate(limit=25, fill=colour, fill_mask=IGNORE_INDEX, p=0.5),
            ]
        )

    def __call__(self, image: np.ndarray, target: np.ndarray, index: int) -> Sample:
        image, target = super().__call__(image, target, index)
        seed = np.random.SeedSequence([self.seed, index]).generate_state(1)
        self.transform.set_random_seed(int(seed[0]))
        varied = self.transform(image=image, mask=target)
        return varied["image"], varied["mask"]


class CropAugment(Augment):
    """Random crop, flip and colours at the picture's own resolution; 255 where it is too small."""

    tiled = True
    scales: tuple[float, float] | None = None

    def __call__(self, image: np.ndarray, target: np.ndarray, index: int) -> Sample:
        rng = np.random.default_rng([self.seed, index])
        size = self.resize.image_size
        scale = 1.0
        if self.scales:
            scale = rng.uniform(*self.scales) * min(size) / min(target.shape)
        # Cropped before it is resized: a thin strip would become gigabytes.
        window = tuple(max(1, round(side / scale)) for side in size)
        crop = _choose_crop(target, window, rng, thorough=not self.scales)
        image, target = image[crop], target[crop]
        if self.scales:
            shape = zip(target.shape, size, strict=True)
            resized = tuple(min(max(1, round(scale * n)), limit) for n, limit in shape)
            image, target = T.resize_image(image, resized), T.resize_target(target, resized)
        if rng.random() < 0.5:
            image, target = image[:, ::-1], target[:, ::-1]
        padding = (0, size[0] - target.shape[0], 0, size[1] - target.shape[1])
        colour = T.mean_colour(self.resize.input_format)
        image = T.pad(distort_colours(image, rng), padding, colour)
        return image, T.pad(np.ascontiguousarray(target), padding)


class ScaleAugment(CropAugment):
    """The published heads' recipe: a crop after a random scaling of the picture.

    scales: factors on the size at which the picture's shorter side is the input's.
    """

    tiled = False
    scales = (0.5, 2.0)


def _choose_crop(
    target: np.ndarray, window: tuple[int, int], rng: np.random.Generator, thorough: bool
) -> tuple[slice, slice]:
    """A crop of the window's size (H, W) at most, at random, not nearly all of one class.

    After CROP_TRIES the last one is taken. thorough: first look for places where it can be had.
    """
    places = [max(n - m, 0) for n, m in zip(target.shape, window, strict=True)]
    mixed: list[list[int]] = []
    for attempt in range(2 * CROP_TRIES if thorough else CROP_TRIES):
        start = [int(rng.integers(place, endpoint=True)) for place in places]
        if attempt == CROP_TRIES:
            mixed = _mixed_places(target, window)
        if mixed:
            start = mixed[rng.integers(len(mixed))]
        crop = tuple(slice(n, n + m) for n, m in zip(start, window, strict=True))
        counts = count_pixels(target[crop])[:IGNORE_INDEX]
        if _is_mixed(counts):
            break
    return crop


def _is_mixed(counts: np.ndarray) -> np.ndarray:
    """Whether a class has pixels, but none has more than MAX_SHARE; counts: by class first."""
    largest = counts.max(axis=0)
    return (largest > 0) & (largest <= MAX_SHARE * counts.sum(axis=0))


def _mixed_places(target: np.ndarray, window: tuple[int, int]) -> list[list[int]]:
    """Corners (y, x) of the windows without a dominant class, found on a coarse grid."""
    step = max(1, min(window) // 16)
    small = target[::step, ::step]
    height, width = (min(-(-m // step), n) for m, n in zip(window, small.shape, strict=True))
    classes = set(np.unique(small).tolist()) - {IGNORE_INDEX}
    if len(classes) < 2:
        return []
    options = {"ksize": (width, height), "anchor": (0, 0), "normalize": False}
    counts = np.stack([cv2.boxFilter(np.float32(small == k), -1, **options) for k in classes])
    counts = counts[:, : small.shape[0] - height + 1, : small.shape[1] - width + 1]
    last = [max(n - m, 0) for n, m in zip(target.shape, window, strict=True)]
    return np.minimum(step * np.argwhere(_is_mixed(counts)), last).tolist()


def distort_colours(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, saturation and hue of RGB (H, W, 3) uint8, each in half the draws."""
    image = cv2.LUT(image, _table(offset=_maybe(rng, -BRIGHTNESS, BRIGHTNESS, otherwise=0)))
    contrast = _table(_maybe(rng, *CONTRAST, otherwise=1))
    contrast_first = rng.random() < 0.5
    if contrast_first:
        image = cv2.LUT(image, contrast)
    saturation = _table(_maybe(rng, *SATURATION, otherwise=1))
    hue = (LEVELS + round(_maybe(rng, -HUE, HUE, otherwise=0))) % 180
    tables = np.dstack([hue, saturation, LEVELS]).astype(np.uint8)
    hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), tables)
    image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return image if contrast_first else cv2.LUT(image, contrast)


def _maybe(rng: np.random.Generator, low: float, high: float, otherwise: float) -> float:
    value = rng.uniform(low, high)
    return value if rng.random() < 0.5 else otherwise


def _table(factor: float = 1.0, offset: float = 0.0) -> np.ndarray:
    """(256,) uint8: factor * value + offset of each value, rounded and clipped."""
    return (factor * LEVELS + offset).round().clip(0, 255).astype(np.uint8)


AUGMENTS = {
    "articles": ArticlesAugment,
    "scale": ScaleAugment,
    "crop": CropAugment,
    "flip": FlipAugment,
    "none": Augment,
}


def build_augment(name: str, resize: T.Resize, seed: int) -> Augment:
    """The augmentation with one of the names in AUGMENTS."""
    return AUGMENTS[name](resize, seed)
