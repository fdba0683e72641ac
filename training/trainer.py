"""A training run: epochs of training and validation, saving, stopping, resuming."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from common.checkpoints import check_like, check_weights, load_checkpoint
from common.distributed import from_main, global_sum, is_main, largest, world_size
from common.random_states import random_states, set_random_states
from common.signals import Stopped, StopSignals
from data.images import write_image
from datasets import preview_batch
from engine import EpochProgress, EvaluationSettings, evaluate, predict_labels, train_one_epoch
from losses import Criterion
from metrics import BoundaryIoU, Observer, Scores
from model import SegmentationModel
from results.plots import draw_preview
from results.scores import write_scores
from training.cached_dataset import PREVIEWED, CachedDataset
from training.failures import EpochContext, check_finite, explained
from training.loading import Loading
from training.optimizers import Updater
from training.run_folder import RunFolder
from training.run_info import write_final_scores
from utils import InputError, progress

CONTINUE, SAVE, STOP = range(3)  # what to do between two batches


@dataclass
class Trainer:
    """Trains `model` on batches of images, or its head on batches of cached features.

    train_loader: its batch_sampler is an EpochBatches. save_every: seconds between saves within an
    epoch. test_loader: of the test pairs, if any. after_epoch: called once its files are there.
    """

    model: SegmentationModel
    train_loader: DataLoader
    valid_loader: DataLoader
    updater: Updater
    criterion: Criterion
    device: torch.device
    run: RunFolder
    save_every: float = 600.0
    test_loader: DataLoader | None = None
    after_epoch: Callable[[], None] = lambda: None
    progress: EpochProgress = field(init=False)

    def __post_init__(self):
        self.num_classes = len(self.run.header["classes"])
        self.resize = self.valid_loader.dataset.resize
        self.progress = EpochProgress(self.num_classes)
        self.network = self._network_for(self.train_loader)
        if world_size() > 1:
            self.network = DistributedDataParallel(self.network)
        self.valid_network = self._network_for(self.valid_loader)
        for loader in (self.train_loader, self.valid_loader):
            # A loader without a generator draws from torch's own, which resuming would disturb.
            loader.generator = torch.Generator()
        self.loading = Loading(self.train_loader)
        self.lr = self.updater.lr  # at the start of the epoch
        valid = self.valid_loader.dataset
        images = valid.pictures if isinstance(valid, CachedDataset) else valid
        self.preview, _ = preview_batch(images, PREVIEWED)
        self.signals = StopSignals()
        self.saved = time.monotonic()

    def _network_for(self, loader: DataLoader) -> nn.Module:
        return self.model.head if isinstance(loader.dataset, CachedDataset) else self.model

    @property
    def epoch(self) -> int:
        """The current epoch, counted from 1."""
        return len(self.run.history) + 1

    def fit(self, epochs: int, patience: int | None = None) -> None:
        """Train until that epoch, or until `patience` epochs have passed without a better score."""
        with self.signals:
            while self.epoch <= epochs:
                if patience and self.run.epochs_since_best() >= patience:
                    print(f"no better {self.run.watch.title} for {patience} epochs: stopping early")
                    break
                print(f"EPOCH: {self.epoch} of {epochs}")
                with explained(self._context()):
                    train_scores = self._train()
                    batches = self._until_stopped(progress(self.valid_loader, "Validation"))
                    boundary = self.run.watch.boundary
                    valid_scores = self._evaluate(batches, self.valid_network, boundary)
                    self._finish_epoch(train_scores, valid_scores)
            self.run.draw_curves()

    def _train(self) -> dict:
        """One pass over the training pictures, or over those that a resumed epoch has left."""
        sampler = self.train_loader.batch_sampler
        sampler.epoch, sampler.start = self.epoch, self.progress.batches
        if self.progress.batches == 0:
            self.lr = self.updater.lr
        return train_one_epoch(
            self.network, progress(self.loading, "Training"), self.updater, self.criterion,
            self.progress, self.device, self._between_batches,
        )  # fmt: skip

    def _finish_epoch(self, train_scores: dict, valid_scores: dict) -> None:
        trained = self.model.trained()
        check_finite(valid_scores["loss"], trained)
        self.run.add_epoch(self.lr, train_scores, valid_scores, trained)
        self._draw_preview()
        self.after_epoch()
        self.progress = EpochProgress(self.num_classes)
        if self.updater.lr != self.lr:
            print(f"Learning rate from now on: {self.updater.lr:g}")
        self._between_batches(save=True)

    def test(self, *observers: Observer) -> tuple[Scores, str]:
        """Score the best checkpoint on the test pairs, or without any on the validation pairs.

        Writes results.csv, the confusion matrix and the scores of run.json. Returns the scores,
        and as text to print.
        observers: see engine.evaluate.
        """
        path = self.run.folder / "best_model_iou.pth"
        if not from_main(path.is_file):  # resumed from another folder's, and no epoch was better
            path = path.with_name("final_model.pth")
        content = from_main(lambda: load_checkpoint(path))
        check_weights(path, content["model_state_dict"], self.model.trained())
        self.model.load_trained(content["model_state_dict"])
        loader = self.test_loader or self.valid_loader
        with explained(self._context()):
            batches = progress(loader, "Testing")
            scores = self._evaluate(batches, self._network_for(loader), True, observers)
        test_pairs = f"{len(loader.dataset)} test pairs"
        pairs = test_pairs if self.test_loader else "validation pairs, which chose this checkpoint"
        report = ""
        if is_main():
            report = write_scores(scores, self.run.classes, self.run.folder)
            about = {"checkpoint": path.name, "epoch": content["epoch"], "pairs": pairs}
            write_final_scores(self.run.folder, self.run.classes.names, scores, about)
        return scores, (
            f"{report}\nTESTING {path} (epoch {content['epoch']}): loss {scores['loss']:.4f}, "
            f"pixel accuracy {scores['pixel_acc']:.4f}, mIoU {scores['miou']:.4f} on the {pairs}"
        )

    def _evaluate(
        self, batches: Iterable, network: nn.Module, boundary: bool, observers: Iterable = ()
    ) -> dict:
        near = BoundaryIoU(self.num_classes)
        settings = EvaluationSettings(
            self.num_classes, self.resize, self.device, self.criterion, self.updater.amp
        )
        observers = [*observers, near.update] if boundary else observers
        scores = evaluate(network, batches, settings, observers)
        near.counts = global_sum(near.counts)
        return scores | ({"boundary_iou": near.compute()} if boundary else {})

    def _draw_preview(self) -> None:
        if is_main():
            inputs, targets = preview_batch(self.valid_loader.dataset, len(self.preview))
            size = self.resize.image_size
            preds = predict_labels(
                self.valid_network, inputs.to(self.device), size, self.model.output_stride
            )
            grid = draw_preview(self.preview, targets, preds.cpu(), self.run.classes, self.resize)
            path = self.run.folder / "valid_preds" / f"epoch_{len(self.run.history):03d}.jpg"
            write_image(path, grid)

    def _context(self) -> EpochContext:
        sampler, dataset = self.train_loader.batch_sampler, self.train_loader.dataset
        return EpochContext(
            epoch=self.epoch,
            batch=sampler.batch_size // world_size(),
            grad_accum=self.updater.accumulate,
            image_size=self.resize.image_size,
            pictures=lambda batch: [dataset.pair(draw).image for draw in sampler.batch(batch)],
            last=self.run.folder / "last.pth",
        )

    # -- saving, stopping, resuming ----------------------------------------------------------------

    def _between_batches(self, save: bool = False) -> None:
        """Save if it is time, or `save`; stop after a signal. All processes do the same."""
        due = save or time.monotonic() - self.saved > self.save_every
        request = largest(STOP if self.signals.number is not None else SAVE if due else CONTINUE)
        if request != CONTINUE:
            self._save()
        if request == STOP:
            self.run.draw_curves()
            raise Stopped(
                f"stopped after {self._place()}, all is saved; continue with the same command and "
                "--resume",
                largest(self.signals.number or 0),
            )

    def _until_stopped(self, batches: Iterable) -> Iterator:
        """The batches. All processes check for signals together, so that none waits for another."""
        batches = iter(batches)
        for _ in range(largest(len(self.valid_loader))):
            self._between_batches()
            yield from islice(batches, 1)

    def _save(self) -> None:
        trained = self.model.trained()
        check_finite(0.0, trained)  # never replace a good last.pth by a broken one
        self.run.save_last(
            trained,
            updater=self.updater.state_dict(),
            progress=self.progress.state_dict(),
            random_states=random_states(),
            lr=self.lr,
        )
        self.saved = time.monotonic()

    def _place(self) -> str:
        return f"{len(self.run.history)} epochs and {self.progress.batches} batches"

    def resume(self, path: Path, content: dict) -> None:
        """Continue as if the run had never stopped. content: of `path`, as run.load_last gave it.

        Raises InputError where the state does not fit this run.
        """
        check_weights(path, content["model_state_dict"], self.model.trained())
        try:
            check_like(content["lr"], 0.1, "lr")
            check_like(content["progress"], self.progress.state_dict(), "progress")
            if not 0 <= content["progress"]["batches"] <= len(self.train_loader):
                raise ValueError("more batches are done than an epoch has")
            self.updater.load_state_dict(content["updater"])
            states = dict(content["random_states"])
            expected = random_states() | {"cuda": states["cuda"]}  # the number of GPUs may differ
            check_like(states, expected, "random_states")
            set_random_states(states)
        except Exception as error:  # a damaged or hostile file fails in many ways
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{path} holds no state to continue from ({reason})") from error
        self.model.load_trained(content["model_state_dict"])
        self.progress.load_state_dict(content["progress"], is_main())
        self.run.history, self.lr = content["history"], content["lr"]
        print(f"continuing after {self._place()} of {path}")
