"""Small data sets as people have them: photographs with discs, and masks of any kind."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIZE = (96, 72)  # width, height


def scene(seed: int, shapes: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A noisy RGB picture (H, W, 3) with discs, and its ids (H, W): 0, and 1..shapes inside."""
    generator = np.random.default_rng(seed)
    picture = Image.fromarray(generator.integers(60, 120, (*SIZE[::-1], 3)).astype(np.uint8))
    mask = Image.new("L", SIZE, 0)
    for number in range(1, shapes + 1):
        x, y, r = (int(generator.integers(*ends)) for ends in ((20, 76), (16, 56), (8, 15)))
        box = [x - r, y - r, x + r, y + r]
        ImageDraw.Draw(picture).ellipse(box, fill=(200, 90 * number % 255, 40 * number))
        ImageDraw.Draw(mask).ellipse(box, fill=number)
    return np.array(picture), np.array(mask)


def palette(ids: np.ndarray, *colours) -> Image.Image:
    """A mask that stores ids, shown in these colours."""
    image = Image.fromarray(ids.astype(np.uint8), mode="P")
    image.putpalette([channel for colour in colours for channel in colour])
    return image


def save(path: Path, pixels: np.ndarray | Image.Image | str, **options) -> None:
    """Write a picture, an array or a text in the format that the name's extension says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(pixels, str):
        path.write_text(pixels)
    elif path.suffix == ".npy":
        np.save(path, pixels)
    else:
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        image.save(path, **options)


def draw(root: Path, images: str, masks: str, as_mask=lambda ids: ids * np.uint8(255), **more):
    """Write pairs; {} in the names stands for the number. as_mask: ids to what the mask stores.

    more: numbers (8 of them), shapes, and options of saving masks. Returns the ids by number.
    """
    numbers, shapes = more.pop("numbers", range(8)), more.pop("shapes", 1)
    found = {}
    for number in numbers:
        picture, found[number] = scene(number, shapes)
        save(root / images.format(number), picture)
        save(root / masks.format(number), as_mask(found[number]), **more)
    return found
