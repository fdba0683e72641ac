"""A training run from its first epoch, or from where it stopped, to its last."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from distributed import from_main, is_main, largest, world_size
from engine import NotFinite, Tally, evaluate, predict_labels, train_one_epoch
from errors import InputError, Stopped
from geometry import Resize
from losses import Criterion
from model import SegmentationModel
from optimizers import Updater
from pairing import Pair
from runs import Run, iou_table
from stopping import StopSignals
from utils import load_checkpoint, progress, random_states, set_random_states

GO_ON, SAVE, STOP = range(3)  # what is to be done after a step
NAMED_PICTURES = 4  # in a message


@dataclass
class Trainer:
    """Trains `model` on the loaders' batches of pictures, or, on_features, its head on features.

    train_loader: its batch_sampler is an EpochBatches. preview: pictures (B, 3, H, W) with the
    inputs and targets that they give. train_pairs: what the loader's draws count. save_every:
    seconds between saves within an epoch.
    """

    model: SegmentationModel
    train_loader: DataLoader
    valid_loader: DataLoader
    updater: Updater
    criterion: Criterion
    resize: Resize
    device: torch.device
    run: Run
    preview: tuple[Tensor, Tensor, Sequence[Tensor]]
    train_pairs: Sequence[Pair]
    on_features: bool = False
    save_every: float = 600.0
    tally: Tally = field(init=False)

    def __post_init__(self):
        self.num_classes = len(self.run.checkpoint["classes"])
        self.tally = Tally(self.num_classes)
        self.network = self.model.head if self.on_features else self.model
        self.parallel: nn.Module = self.network
        if world_size() > 1:
            self.parallel = DistributedDataParallel(self.network)
        self.signals = StopSignals()
        self.saved = time.monotonic()

    def resume(self, path: Path, epochs: int) -> None:
        """Go on from a last.pth, as if the run had never stopped; another run's is refused."""
        content = from_main(lambda: self.run.load_last(path, epochs))
        try:
            self.model.load_trained(content["model_state_dict"])
            self.updater.load_state_dict(content["updater"])
            self.tally.load_state_dict(content["tally"], is_main())
            set_random_states(content["random_states"])
        except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{path} holds no state to go on from ({reason})") from error
        self.run.rows = content["history"]

    def fit(self, epochs: int, patience: int | None = None) -> None:
        """Train up to that epoch; patience: how many epochs may pass without a better mIoU."""
        with self.signals, self._trouble_explained():
            for epoch in range(self.epoch, epochs + 1):
                print(f"EPOCH: {epoch} of {epochs}")
                self._run_epoch()
                if patience and self.run.epochs_since_best() >= patience:
                    print(f"no better mIoU for {patience} epochs: stopping early")
                    break

    @property
    def epoch(self) -> int:
        """The one under way, counted from 1."""
        return len(self.run.rows) + 1

    def _run_epoch(self) -> None:
        batches = self.train_loader.batch_sampler
        batches.epoch, batches.start = self.epoch, self.tally.batches
        lr = self.updater.lr
        train_scores = train_one_epoch(
            self.parallel, progress(self.train_loader, "Training"), self.updater, self.criterion,
            self.tally, self.device, self._after_step,
        )  # fmt: skip
        valid_scores = self.evaluate("Validation")
        self.run.record(lr, train_scores, valid_scores, self.model.trained())
        self._draw_preview()
        self.tally = Tally(self.num_classes)
        if self.updater.lr != lr:
            print(f"Learning rate from now on: {self.updater.lr:g}")
        self._save()
        self._stop_if(largest(self._wish()) == STOP)

    def evaluate(self, name: str) -> dict:
        """Scores of the validation pictures, as engine.evaluate gives them."""
        batches = self._until_stopped(progress(self.valid_loader, name))
        return evaluate(
            self.network, batches, self.num_classes, self.resize, self.device, self.criterion,
            self.updater.amp,
        )  # fmt: skip

    def test(self) -> str:
        """What the best checkpoint scores, read back from its file."""
        path = self.run.folder / "best_model_iou.pth"
        content = from_main(lambda: load_checkpoint(path))
        self.model.load_trained(content["model_state_dict"])
        scores = self.evaluate("Testing")
        table = iou_table(self.run.checkpoint["classes"], scores["iou"])
        return (
            f"{table}\nTESTING {path} (epoch {content['epoch']}): loss {scores['loss']:.4f}, "
            f"pixel accuracy {scores['pixel_acc']:.4f}, mIoU {scores['miou']:.4f}"
        )

    def _draw_preview(self) -> None:
        if is_main():
            pictures, inputs, targets = self.preview
            size = self.resize.image_size
            preds = predict_labels(self.network, inputs.to(self.device), size)
            self.run.save_preview(pictures, targets, preds.cpu())

    # -- stopping and saving -----------------------------------------------------------------------

    def _wish(self) -> int:
        if self.signals.number is not None:
            return STOP
        return SAVE if time.monotonic() - self.saved > self.save_every else GO_ON

    def _after_step(self) -> None:
        wish = largest(self._wish())
        if wish != GO_ON:
            self._save()
        self._stop_if(wish == STOP)

    def _until_stopped(self, batches: Iterable) -> Iterator:
        """Batches without steps. Processes keep pace, to stop together and to miss a lost one."""
        batches = iter(batches)
        for _ in range(largest(len(self.valid_loader))):
            if largest(self._wish()) == STOP:
                self._save()
                self._stop_if(True)
            yield from islice(batches, 1)

    def _save(self) -> None:
        self.run.save_last(
            self.model.trained(),
            updater=self.updater.state_dict(),
            tally=self.tally.state_dict(),
            random_states=random_states(),
        )
        self.saved = time.monotonic()

    def _stop_if(self, wished: bool) -> None:
        if wished:
            raise Stopped(
                f"stopped in epoch {self.epoch} after {self.tally.batches} steps, all is saved; "
                "go on with the same command and --resume",
                largest(self.signals.number or 0),
            )

    # -- trouble -----------------------------------------------------------------------------------

    @contextmanager
    def _trouble_explained(self) -> Iterator[None]:
        """What can go wrong on the way as one line: where, what to do, what is kept."""
        try:
            yield
        except NotFinite as error:
            raise InputError(
                f"epoch {self.epoch}, step {error.batch + 1}: the loss became {error.value}; "
                f"pictures of that step: {self._pictures(error.batch)}; try a lower --lr, "
                f"--clip-grad 1 or --warmup 1. {self._kept()}"
            ) from error
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise InputError(self._out_of_memory()) from error
        except RuntimeError as error:
            message = str(error)
            if "DefaultCPUAllocator" in message:
                raise InputError(self._out_of_memory()) from error
            if "DataLoader worker" not in message:
                raise
            reason = message.splitlines()[0]
            raise InputError(
                f"epoch {self.epoch}: {reason} Mostly the memory is full: try fewer --workers or a "
                f"smaller --batch. {self._kept()}"
            ) from error

    def _pictures(self, batch: int) -> str:
        pairs = self.train_pairs
        names = [
            str(pairs[draw % len(pairs)].image)
            for draw in self.train_loader.batch_sampler.batch(batch)
        ]
        more = f" and {len(names) - NAMED_PICTURES} more" if len(names) > NAMED_PICTURES else ""
        return ", ".join(names[:NAMED_PICTURES]) + more

    def _out_of_memory(self) -> str:
        batch = self.train_loader.batch_sampler.batch_size // world_size()
        height, width = self.resize.image_size
        smaller = f"--batch {max(1, batch // 2)} --grad-accum 2" if batch > 1 else "--amp"
        return (
            f"epoch {self.epoch}: out of memory with --batch {batch} --imgsz {width} {height}; try "
            f"{smaller}, or --imgsz {width * 2 // 3} {height * 2 // 3}. {self._kept()}"
        )

    def _kept(self) -> str:
        if not (self.run.folder / "last.pth").is_file():
            return "Nothing was saved yet."
        return f"{self.run.folder / 'last.pth'} is intact; --resume goes on from there."
