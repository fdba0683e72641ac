"""Where the repository and its data lie, golden vectors, drawn pictures."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from utils import temporary_path

REPO = Path(__file__).resolve().parents[2]
SHARED_DATA = REPO.parent / "shared" / "data"
CHECKPOINT = REPO / "tests" / "golden" / "checkpoint_v1.pth"  # a trained head on the tiny backbone


def load_golden(name: str) -> dict:
    """Golden vectors from GOLDEN_DIR, else tests/golden, else ../shared/data/golden."""
    if "GOLDEN_DIR" in os.environ:
        folders = [Path(os.environ["GOLDEN_DIR"])]
    else:
        folders = [REPO / "tests" / "golden", SHARED_DATA / "golden"]
    for folder in folders:
        if (folder / name).is_file():
            return torch.load(folder / name, map_location="cpu", weights_only=True)
    pytest.skip(f"{name} is not in {' or '.join(map(str, folders))}")


def shared_data(name: str) -> Path:
    """A folder or file of the real data beside the repository; skips where it is absent."""
    path = SHARED_DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return path


def leftover_of(path: Path) -> Path:
    """A temporary file of `path` whose writer has ended."""
    left = temporary_path(path)
    left.parent.mkdir(parents=True, exist_ok=True)
    left.touch()
    os.utime(left, (10**9, 10**9))  # before this process began
    return left


def draw_pair(seed: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy RGB picture with a bright box, and its mask (H, W) of 0 and 1."""
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 90, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), np.uint8)
    top, left = generator.integers(0, height // 2), generator.integers(0, width // 2)
    box = np.s_[top : top + height // 2, left : left + width // 2]
    image[box] += 150
    mask[box] = 1
    return image, mask


def save_pictures(folder: Path, sizes: dict[str, tuple[int, int]]) -> Path:
    """Draw pictures of (width, height) by their names below a folder."""
    for seed, (name, size) in enumerate(sizes.items()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_pair(seed, *size)[0]).save(folder / name)
    return folder


def draw_data_set(root: Path, train: int = 6, valid: int = 3, ignored_rows: int = 0) -> Path:
    """Pairs of several sizes in the articles' layout."""
    for split, count in (("train", train), ("valid", valid)):
        for i in range(count):
            image, mask = draw_pair(i + 10 * (split == "valid"), 60 + 5 * i, 50 + 3 * i)
            mask[:ignored_rows] = 255
            for kind, pixels in (("images", image), ("masks", mask)):
                path = root / f"{split}_{kind}" / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return root
