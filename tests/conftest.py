"""What all tests share: no network, golden vectors, small drawn data."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

torch.set_num_threads(1)  # the tensors are tiny; a thread pool only gets in the way

REPO = Path(__file__).resolve().parent.parent
SHARED_DATA = REPO.parent / "shared" / "data"


@pytest.fixture(autouse=True)
def no_network(request, monkeypatch):
    """torch.hub is the one door to the network: only local folders go through it."""
    if "network" in request.keywords:
        return
    load = torch.hub.load

    def local_only(repo, *args, **kwargs):
        assert kwargs.get("source") == "local", f"a test tried to fetch {repo}"
        return load(repo, *args, **kwargs)

    def refuse(url, *args, **kwargs):
        raise AssertionError(f"a test tried to download {url}")

    monkeypatch.setattr(torch.hub, "load", local_only)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)


@pytest.fixture
def in_tmp(tmp_path, monkeypatch) -> Path:
    """Run in an empty folder, so that outputs/ lands there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


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


@pytest.fixture
def data_dir(tmp_path) -> Path:
    """Six training and three validation pairs of several sizes in the articles' layout."""
    root = tmp_path / "data"
    for split, count in (("train", 6), ("valid", 3)):
        for i in range(count):
            image, mask = draw_pair(i + 10 * (split == "valid"), 60 + 5 * i, 50 + 3 * i)
            for kind, pixels in (("images", image), ("masks", mask)):
                path = root / f"{split}_{kind}" / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return root
