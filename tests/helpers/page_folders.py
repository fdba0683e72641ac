"""An output folder of each kind, filled as the scripts fill it, with names that no page may run."""

import base64
import io
import json
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from common.job_record import JobRecord
from data.images import write_image, write_mask
from data.labels.classes import Classes
from data.layouts import find_splits
from data.pairs import Pair
from data.survey import inspect_data
from helpers.basics import draw_pair
from inference.frames import MappedFrame
from inference.windows import Prediction
from metrics import ConfusionMatrix
from results.history import Row
from results.pages.dataset import DatasetPage
from results.pages.gallery import InferencePage
from results.pages.html import Page
from results.pages.layers import layers_path
from results.pages.run import RunPage
from results.pages.video import VideoPage
from results.tables import ResultsTable
from video.reader import Frame
from video.writer import VideoWriter

EVIL = """a"><img src=x onerror=boom()>&'é#%?"""
CLASSES = Classes(
    ("background", "</script><b>one", "two"), ((0, 0, 0), (230, 159, 0), (0, 114, 178))
)
EPOCHS = [
    {
        "epoch": epoch, "lr": 0.01, "train_loss": 0.9 / epoch, "train_pixel_acc": 0.5,
        "train_miou": 0.1 * epoch, "valid_loss": 0.8 / epoch, "valid_pixel_acc": 0.6,
        "valid_miou": 0.12 * epoch, "iou_two": None,
    }
    for epoch in (1, 2, 3)
]  # fmt: skip


def write(page: Page) -> str:
    """The text of the page at the end of its job."""
    with page:
        pass
    return page.path.read_text(encoding="utf-8")


def read_layers(path: Path) -> dict[str, bytes]:
    """A picture and its layers as files' contents."""
    script = path.read_text()
    assert script.startswith("layers(")
    layers = json.loads(script.removeprefix("layers(").removesuffix(")"))
    return {layer: base64.b64decode(content) for layer, content in layers.items()}


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def picture(seed: int, width: int = 80, height: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """RGB, and class ids: a box of class 1 on class 0, and a corner of class 2."""
    image, labels = draw_pair(seed, width, height)
    labels[:10, :20] = 2
    return image, labels


def inference_page(folder: Path, count: int = 5, size: tuple[int, int] = (80, 60)) -> InferencePage:
    """The results of `count` pictures, the first of an evil name and certain of its left half."""
    folder.mkdir(parents=True)
    table = ResultsTable(folder, CLASSES, False, JobRecord({}))
    table.begin()
    names = [Path("sub", EVIL), *(Path(f"{i:04d}") for i in range(1, count))][:count]
    page = InferencePage(
        table, CLASSES, {Path("photos", name): name for name in names}, {}, {"model": "best.pth"}
    )
    image, labels = picture(0, *size)
    confidence = np.ones(labels.shape, np.float32)
    confidence[:, size[0] // 2 :] = 0.2
    prediction = Prediction(labels, confidence, None)
    for i, name in enumerate(names):
        if i < 5:
            page.add(name, image, prediction)
        else:  # to write them all would take a test most of its time
            os.link(folder / layers_path(Path("0001")), folder / layers_path(name))
        table.add(Path("photos", name), name, prediction)
    return page


def run_page(folder: Path, history: list[Row] = EPOCHS) -> RunPage:
    """A run of three epochs on three classes, the last of which never occurred."""
    for epoch in (1, 2, 3):
        colour = np.full((30, 90, 3), 80 * epoch, np.uint8)
        write_image(folder / "valid_preds" / f"epoch_{epoch:03d}.jpg", colour)
    pairs = []
    for i in range(3):
        image, target = picture(i)
        pairs.append(Pair(folder.parent / f"{EVIL}{i}.png", folder.parent / f"mask {i}.png"))
        write_image(pairs[i].image, image)
        write_mask(pairs[i].mask, target, CLASSES.palette)
    page = RunPage(
        folder, CLASSES, pairs, f"ms head on {EVIL}", {"scored on": "test pairs"}, history
    )
    for i in range(3):
        _, target = picture(i)
        page.add(pairs[i], np.roll(target, 5 * i, axis=1), target)
    page.finish(final_scores())
    return page


def final_scores() -> dict:
    """Of a confusion matrix in which the last class never occurs."""
    matrix = ConfusionMatrix(len(CLASSES.names))
    matrix.counts[:2, :2] = torch.tensor([[90, 10], [25, 75]])
    boundary_iou = torch.tensor([0.6, 0.25, float("nan")], dtype=torch.float64)
    return matrix.compute() | {"matrix": matrix, "boundary_iou": boundary_iou}


def video_page(folder: Path) -> VideoPage:
    """A film of two seconds that gets brighter, in which class 1 grows."""
    folder.mkdir(parents=True)
    page = VideoPage(folder, CLASSES, {"codec": "libx264", "model": "best.pth"})
    files = {"overlay": folder / "evil <b> film.mp4"}
    with VideoWriter(files["overlay"], fps=10) as writer:
        for i in range(20):
            labels = np.zeros((48, 64), np.uint8)
            labels[:, : 3 * i] = 1
            image = np.full((48, 64, 3), 12 * i, np.uint8)
            writer.write(image)
            page.add(files, MappedFrame(Frame(image, i / 10, 1 / 10), labels))
    return page


def dataset_page(folder: Path, root: Path) -> DatasetPage:
    """Four pairs in root, of which one mask has another size than its picture."""
    for split, count in (("train", 3), ("valid", 1)):
        for i in range(count):
            image, mask = draw_pair(i, 80, 60)
            name = EVIL if i == 1 else str(i)
            write_image(root / f"{split}_images" / f"{name}.png", image)
            wrong = mask[:30] if i == 2 else mask
            write_mask(root / f"{split}_masks" / f"{name}.png", wrong, ((0, 0, 0), (9, 9, 9)))
    folder.mkdir(parents=True)
    page = DatasetPage(folder, str(root))
    page.data = inspect_data(find_splits(root))
    return page
