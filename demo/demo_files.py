"""The demo's data set and video: drawn scenes as files."""

from pathlib import Path

import numpy as np

from data.images import write_image, write_mask
from data.labels.class_files import class_file_text
from data.labels.classes import PERSON
from demo.canvas import KINDS
from demo.scenes import random_scene, render
from utils import progress, remove_leftovers, write_atomically
from video.writer import VideoWriter

SIZE = (448, 336)  # width, height in pixels
PERSON_HEIGHT = (120, 280)  # pixels, smallest and largest
# Number of pictures, and the seed of the first; pretraining uses the seeds below some millions.
SPLITS = {"train": (120, 10**8), "valid": (30, 2 * 10**8), "unseen": (12, 3 * 10**8)}
VIDEO_SEED = 4 * 10**8 + 53  # four people, and in each frame at least one
VIDEO_SECONDS, VIDEO_FPS = 6, 15


def draw_data(
    folder: Path, splits: dict[str, tuple[int, int]], size: tuple[int, int] = SIZE
) -> None:
    """Write pictures and person masks to train and validate on, and "unseen" ones without masks.

    splits: number of pictures and the seed of the first, as SPLITS. size: width, height in pixels.
    """
    remove_leftovers(folder)
    for split, (count, first_seed) in splits.items():
        for i in progress(range(count), f"drawing {split}"):
            image, kinds = render(random_scene(first_seed + i, *size, PERSON_HEIGHT))
            if split == "unseen":
                write_image(folder / "unseen" / f"{i:03d}.jpg", image)
                continue
            write_image(folder / f"{split}_images" / f"{i:03d}.jpg", image)
            mask = (kinds == KINDS.index("person")).astype(np.uint8)
            write_mask(folder / f"{split}_masks" / f"{i:03d}.png", mask, PERSON.palette)
    write_atomically(
        folder / "dataset.yaml", class_file_text(PERSON.names, PERSON.palette).encode()
    )


def draw_video(path: Path) -> None:
    """Write a video of people who walk."""
    scene = random_scene(VIDEO_SEED, *SIZE, PERSON_HEIGHT, walking=True)
    with VideoWriter(path, fps=VIDEO_FPS) as writer:
        for i in progress(range(VIDEO_SECONDS * VIDEO_FPS), "drawing walkers"):
            writer.write(render(scene, time=i / VIDEO_FPS)[0])
