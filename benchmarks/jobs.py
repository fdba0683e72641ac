"""The timed jobs, and their data."""

import io
import itertools
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import config
from benchmarks.usual_loop import PlainHead, plain_epoch, plain_head_step
from data.augment import build_augment
from data.images import read_image, write_image
from data.layouts import find_splits
from data.survey import SegmentationData, load_data
from data.transforms import Resize
from datasets import SegmentationDataset
from demo.demo_files import draw_data
from engine import EpochTotals, evaluate, train_one_epoch
from losses import Criterion
from model import HEADS, SegmentationModel
from training.feature_cache import cached_loaders
from training.optimizers import OptimizerSettings, build_optimizer
from utils import InputError, output_folder
from video.writer import VideoWriter

VIDEO_SIZE = (640, 480)  # width, height in pixels


def sample_data(
    data_dir: Path | None, count: int, folder: Path
) -> tuple[SegmentationData, int, int]:
    """`count` pairs for training and for validation, and how many of each the data set has.

    data_dir: the data set; None draws one into folder.
    """
    if data_dir is None:
        data_dir = folder / "data"
        draw_data(data_dir, {"train": (count, 0), "valid": (count, 0)}, (560, 420))
    data = load_data(find_splits(data_dir))
    train, valid = data.splits.train, data.splits.valid
    splits = replace(data.splits, train=train[:count], valid=valid[:count])
    return replace(data, splits=splits), len(train), len(valid)


def write_inputs(data: SegmentationData, count: int, folder: Path) -> tuple[Path, Path]:
    """Write `count` pictures, repeating the training pictures, as a folder and as a video."""
    pictures, video = folder / "pictures", folder / "frames.mp4"
    for earlier in (pictures, folder / "results"):  # of a run with other pictures
        shutil.rmtree(earlier, ignore_errors=True)
    with VideoWriter(video, fps=10) as writer:
        for i, pair in enumerate(itertools.islice(itertools.cycle(data.splits.train), count)):
            image = read_image(pair.image)
            write_image(pictures / f"{i:04d}.jpg", image)
            writer.write(cv2.resize(image, VIDEO_SIZE))
    return pictures, video


def script_seconds(script: str, source: Path, *flags: str) -> float:
    """Run an inference script; the seconds that it reports, from first picture to last file."""
    command = [sys.executable, Path(config.THIS_REPO) / script, "--input", source, *flags]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    found = re.search(r"\d+ (?:pictures|frames) in ([\d.]+) s", done.stdout)
    if done.returncode or not found:
        raise InputError(f"{script} failed: {done.stderr.strip().splitlines()[-1:]}")
    return float(found[1])


@dataclass
class Workload:
    """A model and data; each method does one job with all `pictures`, or those of `batches`."""

    model: SegmentationModel
    loaders: tuple[DataLoader, DataLoader]
    resize: Resize
    num_classes: int

    def __post_init__(self):
        train_loader, _ = self.loaders
        self.pictures = len(train_loader.dataset)
        self.batch_size = train_loader.batch_sampler.batch_size
        self.device = self.model.device
        self.criterion = Criterion(self.model.upsample)
        self.optimizer = build_optimizer(self.model, OptimizerSettings(), 1)
        self.images = torch.randn(self.batch_size, 3, *self.resize.image_size, device=self.device)
        self.features = self.extract().half()
        channels = self.features.shape[1]
        self.usual_head = PlainHead(channels, self.num_classes, self.resize.image_size)
        self.usual_optimizer = torch.optim.AdamW(self.usual_head.to(self.device).parameters())
        size = (self.batch_size, *self.resize.image_size)
        self.targets = torch.randint(self.num_classes, size, dtype=torch.uint8).to(self.device)
        self.num_batches = -(-self.pictures // self.batch_size)
        self.head_batches = [(self.features, self.targets)] * self.num_batches

    @torch.no_grad()
    def extract(self) -> Tensor:
        return self.model.extract(self.images)

    def forward(self) -> None:
        for _ in range(self.num_batches):
            self.extract()

    def jobs_by(
        self, runtime: str, dtype: torch.dtype
    ) -> tuple[Callable[[], None], Callable[[], None]]:
        """The forward pass and the features by another runtime, or in another number type."""
        model = SegmentationModel(self.model.backbone, nn.Identity())
        model.use_runtime(runtime, dtype)
        model.amp = None if dtype == torch.float32 else dtype

        def forward() -> None:
            with torch.no_grad():
                for _ in range(self.num_batches):
                    model.extract(self.images)

        def features() -> None:
            self._features(model, "features_by_runtime")

        return forward, features

    def train(self, batches: Iterable) -> None:
        totals = EpochTotals(self.num_classes)
        train_one_epoch(self.model, batches, self.criterion, self.optimizer, totals)

    def steps_of(self, name: str) -> Callable[[], None]:
        """Training steps of another head than the model's, on the same features."""
        head = HEADS[name][0](self.features.shape[1], self.num_classes)
        model = SegmentationModel(self.model.backbone, head.to(self.device))
        model.amp = self.model.amp
        optimizer = build_optimizer(model, OptimizerSettings(), 1)
        criterion = Criterion(model.upsample)

        def train() -> None:
            totals = EpochTotals(self.num_classes)
            train_one_epoch(model, self.head_batches, criterion, optimizer, totals)

        return train

    def train_as_usual(self) -> None:
        dataset = self.loaders[0].dataset
        batches = DataLoader(dataset, self.batch_size, sampler=range(self.pictures))
        plain_epoch(self.model, self.usual_head.train(), self.usual_optimizer, batches, self.device)

    def step_as_usual(self) -> None:
        for features, targets in self.head_batches:
            parts = features.float(), targets.long()
            plain_head_step(self.usual_head.train(), self.usual_optimizer, *parts)

    def compute_features(self) -> None:
        """Compute one view of the training pictures, and the validation pictures, anew."""
        self.cached = self._features(self.model, "features")

    def _features(self, model: SegmentationModel, name: str) -> tuple[DataLoader, DataLoader]:
        root = output_folder(f"benchmark/{name}")
        shutil.rmtree(root)
        with redirect_stdout(io.StringIO()):
            return cached_loaders(model, self.loaders, 1, {}, root)

    def evaluate(self, batches: Iterable) -> None:
        evaluate(self.model, batches, self.criterion, self.resize, self.num_classes)

    def evaluate_as_usual(self) -> None:
        """With targets resized to the network's size, as tutorials do."""
        valid = self.loaders[1].dataset
        fitted = SegmentationDataset(
            valid.pairs, valid.encoding, self.resize, build_augment("none", self.resize, 0)
        )
        batches = DataLoader(fitted, self.batch_size)
        plain_epoch(self.model, self.usual_head.eval(), None, batches, self.device)
