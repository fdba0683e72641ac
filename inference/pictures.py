"""Check the arrays that a Python program hands to Predictor.predict."""

from collections.abc import Sequence

import numpy as np

from utils import InputError

PIXEL_REMEDIES = {  # by the kind of the array's type
    "f": "convert 0..1 with (255 * image).round().astype(np.uint8)",
    "u": "convert 16 bits with (image // 257).astype(np.uint8)",
    "b": "convert it with 255 * image.astype(np.uint8)",
}
SHAPE_REMEDIES = {  # by the axes after height and width
    (): "repeat grey with np.repeat(image[..., None], 3, axis=2)",
    (1,): "repeat grey with np.repeat(image, 3, axis=2)",
    (4,): "drop alpha with image[..., :3]",
}


def check_pictures(images: Sequence[np.ndarray]) -> None:
    """Raise InputError, with the remedy, unless all are RGB pictures (H, W, 3) uint8."""
    if isinstance(images, np.ndarray) and images.ndim != 4:
        raise InputError(f"predict: found one array {images.shape}, expected a list; pass [image]")
    for number, image in enumerate(images):
        if not isinstance(image, np.ndarray):
            found = f"a {type(image).__name__}"
            remedy = 'pass np.asarray(Image.open(path).convert("RGB"))'
        elif image.dtype != np.uint8:
            found = f"{image.dtype} {image.shape}"
            remedy = PIXEL_REMEDIES.get(image.dtype.kind, "convert it to uint8, 0 to 255")
        elif image.ndim != 3 or image.shape[2] != 3:
            found = f"shape {image.shape}"
            remedy = SHAPE_REMEDIES.get(image.shape[2:], "bring the three colours to the last axis")
        elif image.size == 0:
            found, remedy = f"shape {image.shape}", "leave empty pictures out"
        else:
            continue
        raise InputError(
            f"predict: picture {number} is {found}, expected RGB (H, W, 3) uint8, 0 to 255; "
            f"{remedy}"
        )
