"""The training and evaluation loops: the algorithm, nothing else."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from common.distributed import global_sum
from config import IGNORE_INDEX
from data.transforms import Resize
from metrics import ConfusionMatrix, Observer, Scores
from networks.resampling import labels_at

READ_EVERY = 32  # steps between two reads of the losses, each of which makes a GPU wait

Batches = Iterable[tuple[Tensor, Tensor]]


class Criterion(Protocol):
    """The losses that the loops call; see losses.py."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor: ...

    def of_picture(self, logits: Tensor, target: Tensor, image_size: tuple[int, int]) -> Tensor: ...


class Updater(Protocol):
    """Turns losses into new weights; see training/optimizers.py."""

    accumulate: int  # batches per step
    amp: torch.dtype | None

    def backward(self, loss: Tensor) -> None: ...

    def step(self) -> None: ...


class NotFinite(FloatingPointError):
    """A loss became infinite or not a number in batch `batch` of the epoch, counted from 0."""

    def __init__(self, value: float, batch: int):
        super().__init__(f"the loss became {value} in step {batch + 1}; try a lower --lr")
        self.value = value
        self.batch = batch


class EpochProgress:
    """Losses and predictions of an epoch's batches so far, counted by each process for its share.

    Its state is saved, so that a run can resume within an epoch. batches: how many were added.
    """

    def __init__(self, num_classes: int):
        self.batches = 0
        self.samples = 0
        self.loss_sum = 0.0
        self.matrix = ConfusionMatrix(num_classes, IGNORE_INDEX)
        self._unread: list[tuple[Tensor, int]] = []  # losses that are still on the device

    def add_loss(self, loss: Tensor, samples: int) -> None:
        """Add a batch's loss, the same in all processes, and how many samples this process had."""
        self._unread.append((loss.detach(), samples))
        self.batches += 1
        if loss.device.type == "cpu" or len(self._unread) == READ_EVERY:
            self._read_losses()

    def _read_losses(self) -> None:
        """Raises NotFinite for the first loss that is not finite."""
        if not self._unread:
            return
        losses, samples = zip(*self._unread, strict=True)
        self._unread = []
        first = self.batches - len(losses)
        for batch, loss in enumerate(torch.stack(losses).tolist(), first):
            if not math.isfinite(loss):
                raise NotFinite(loss, batch)
            self.loss_sum += loss * samples[batch - first]
        self.samples += sum(samples)

    def scores(self) -> dict[str, float | Tensor]:
        """`loss` (mean over samples), `pixel_acc` and `miou` of the predictions while training."""
        state = self.state_dict()
        scores = _over_all_processes(self.matrix).compute()
        return {"loss": state["loss_sum"] / max(state["samples"], 1), **scores}

    def state_dict(self) -> dict:
        """Sums over all processes, the same in each."""
        self._read_losses()
        sums = torch.tensor([self.loss_sum, self.samples], dtype=torch.float64)
        loss_sum, samples = global_sum(sums).tolist()
        return {
            "batches": self.batches,
            "loss_sum": loss_sum,
            "samples": int(samples),
            "counts": _over_all_processes(self.matrix).of_classes(),
        }

    def load_state_dict(self, state: dict, is_main: bool = True) -> None:
        """The main process takes over all sums, the others start at zero."""
        self.batches = state["batches"]
        if is_main:
            self.loss_sum, self.samples = state["loss_sum"], state["samples"]
            K = self.matrix.num_classes
            self.matrix.counts[:K, :K] = state["counts"][:, :K]
            self.matrix.counts[:K, -1] = state["counts"][:, K]  # predictions that are no class


def _over_all_processes(matrix: ConfusionMatrix) -> ConfusionMatrix:
    total = ConfusionMatrix(matrix.num_classes, matrix.ignore_index)
    total.counts = global_sum(matrix.counts)
    return total


def train_one_epoch(
    network: nn.Module,
    loader: Batches,
    updater: Updater,
    criterion: Criterion,
    progress: EpochProgress,
    device: torch.device,
    after_step: Callable[[], None] = lambda: None,
) -> dict[str, float | Tensor]:
    """Train on batches of inputs and targets (B, H, W), class ids at image size; return the scores.

    network: the model with images as inputs, or its head with features (B, C, h, w). progress: of
    the epoch's batches before those of loader. after_step is called when weights and progress
    agree.
    """
    network.train()
    for batches in _groups(loader, updater.accumulate):
        for i, (inputs, targets) in enumerate(batches, 1):
            inputs = inputs.to(device, non_blocking=True)
            targets = targets.to(device, non_blocking=True)
            with _gradient_exchange(network, is_last=i == len(batches)):
                with autocast(device, updater.amp):
                    logits = network(inputs).float()
                loss = criterion(logits, targets)
                updater.backward(loss / len(batches))
            labels = labels_at(logits, targets.shape[-2:], output_stride=criterion.output_stride)
            progress.matrix.update(labels, targets)
            progress.add_loss(loss, len(targets))
        updater.step()
        after_step()
    return progress.scores()


def _groups(loader: Iterable, size: int) -> Iterator[list]:
    batches = iter(loader)
    while group := list(islice(batches, size)):
        yield group


def _gradient_exchange(network: nn.Module, is_last: bool) -> AbstractContextManager:
    """Processes exchange gradients after the last batch of a step only."""
    if is_last or not isinstance(network, DistributedDataParallel):
        return nullcontext()
    return network.no_sync()


@dataclass
class EvaluationSettings:
    """How a network is scored. resize: what fitted its inputs. amp: of mixed precision."""

    num_classes: int
    resize: Resize
    device: torch.device
    criterion: Criterion
    amp: torch.dtype | None = None


@torch.no_grad()
def evaluate(
    network: nn.Module,
    loader: Iterable[tuple[Tensor, list[Tensor]]],
    settings: EvaluationSettings,
    observers: Sequence[Observer] = (),
) -> Scores:
    """Return scores at each target's own size: logits are resized, labels never.

    loader: batches of inputs fitted by `settings.resize`, and a list of targets (H', W') of their
        own sizes.
    Scores, over all processes: `loss` (mean over samples), those of ConfusionMatrix.compute, the
    `matrix` itself, and `predicted` (K,), the number of pixels that each class was predicted for.

    observers: called with class ids and target (H', W') of each of this process's pictures.
    """
    network.eval()
    device, criterion = settings.device, settings.criterion
    matrix = ConfusionMatrix(settings.num_classes, IGNORE_INDEX)
    losses = []
    for inputs, targets in loader:
        with autocast(device, settings.amp):
            batch = network(inputs.to(device, non_blocking=True)).float()
        for logits, target in zip(batch.split(1), targets, strict=True):
            on_device, size = target.to(device, non_blocking=True)[None], target.shape
            image_size = settings.resize.content_size(size)
            losses.append(criterion.of_picture(logits, on_device, image_size))
            labels = labels_at(logits, image_size, size, output_stride=criterion.output_stride)
            matrix.update(labels, on_device)
            if observers:
                on_cpu = labels[0].cpu().numpy(), target.numpy()
                for observe in observers:
                    observe(*on_cpu)
    matrix = _over_all_processes(matrix)
    losses = torch.stack(losses).tolist() if losses else []
    loss_sum, samples = global_sum(torch.tensor([sum(losses), len(losses)], dtype=torch.float64))
    scores = {"loss": (loss_sum / samples.clamp(min=1)).item(), **matrix.compute()}
    return scores | {"predicted": matrix.matrix.sum(0), "matrix": matrix}


@torch.inference_mode()
def predict_labels(
    network: nn.Module, inputs: Tensor, image_size: tuple[int, int], output_stride: Fraction
) -> Tensor:
    """Class ids (B, *image_size) uint8 of inputs as `evaluate` takes them, without resizing."""
    network.eval()
    return labels_at(network(inputs).float(), image_size, output_stride=output_stride)


def autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """Autocast to dtype; None: compute in float32."""
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)
