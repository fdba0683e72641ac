"""The training and evaluation loops: the algorithm, nothing else."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from common.distributed import global_sum
from config import IGNORE_INDEX
from data.transforms import Resize
from losses import Criterion
from metrics import BoundaryIoU, ConfusionMatrix, Observer, Scores

READ_EVERY = 32  # steps between two reads of the losses, each of which makes a GPU wait


class NotFinite(FloatingPointError):
    """A loss or a weight became infinite or not a number."""


class EpochTotals:
    """Losses and predictions of an epoch's batches so far, counted by each process for its share.

    Its state is saved, so that a run can resume within an epoch. batches: how many were added. lr:
    the head's learning rate at the start of the epoch.
    """

    def __init__(self, num_classes: int):
        self.matrix = ConfusionMatrix(num_classes, IGNORE_INDEX)
        self.clear()

    def clear(self) -> None:
        """Start the next epoch."""
        self.batches = 0
        self.samples = 0
        self.loss_sum = 0.0
        self.lr = 0.0
        self.matrix.counts.zero_()
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
                raise NotFinite(f"the loss became {loss} in step {batch + 1}")
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
            "lr": self.lr,
            "counts": _over_all_processes(self.matrix).of_classes(),
        }

    def load_state_dict(self, state: dict, is_main: bool = True) -> None:
        """The main process takes over all sums, the others start at zero."""
        self.batches, self.lr = state["batches"], state["lr"]
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
    loader: Iterable[tuple[Tensor, Tensor]],
    criterion: Criterion,
    optimizer,
    totals: EpochTotals,
    after_step: Callable[[], None] = lambda: None,
) -> dict[str, float | Tensor]:
    """Train on batches of inputs and targets (B, H, W), class ids at image size; return the scores.

    network: a SegmentationModel, in DistributedDataParallel where there are several processes.
    loader: yields images (B, 3, H, W) or features of them (B, C, h, w). optimizer: a
    training.optimizers.ScheduledOptimizer, or what has its backward, step, lr and accumulate.
    totals: of the epoch's batches before those of loader. after_step is called when weights and
    totals agree.
    """
    model = getattr(network, "module", network)  # without DistributedDataParallel
    network.train()
    if totals.batches == 0:
        totals.lr = optimizer.lr
    for batches in _groups(loader, optimizer.accumulate):
        for i, (inputs, targets) in enumerate(batches, 1):
            inputs = inputs.to(model.device, non_blocking=True)
            targets = targets.to(model.device, non_blocking=True)
            with _gradient_exchange(network, is_last=i == len(batches)):
                logits = network(inputs)
                loss = criterion(logits, targets)
                optimizer.backward(loss / len(batches))
            totals.matrix.update(model.labels(logits, targets.shape[-2:]), targets)
            totals.add_loss(loss, len(targets))
        optimizer.step()
        after_step()
    return totals.scores()


def _groups(loader: Iterable, size: int) -> Iterator[list]:
    batches = iter(loader)
    while group := list(islice(batches, size)):
        yield group


def _gradient_exchange(network: nn.Module, is_last: bool) -> AbstractContextManager:
    """Processes exchange gradients after the last batch of a step only."""
    if is_last or not isinstance(network, DistributedDataParallel):
        return nullcontext()
    return network.no_sync()


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, list[Tensor]]],
    criterion: Criterion,
    resize: Resize,
    num_classes: int,
    boundary: bool = False,
    observe: Observer | None = None,
) -> Scores:
    """Return scores at each target's own size: logits are resized, labels never.

    model: a SegmentationModel.
    loader: batches of inputs fitted by `resize`, images or features of them, and a list of targets
        (H', W') of their own sizes.
    Scores, over all processes: `loss` (mean over samples), those of ConfusionMatrix.compute, the
    `matrix` itself, `predicted` (K,), the number of pixels that each class was predicted for, and
    with `boundary` also `boundary_iou` (K,).

    observe: called with class ids and target (H', W') of each of this process's pictures, and the
        picture's place among them.
    """
    model.eval()
    matrix, near = ConfusionMatrix(num_classes, IGNORE_INDEX), BoundaryIoU(num_classes)
    losses = []
    for inputs, targets in loader:
        batch = model(inputs.to(model.device, non_blocking=True))
        for logits, target in zip(batch.split(1), targets, strict=True):
            on_device, size = target.to(model.device, non_blocking=True)[None], target.shape
            content_size = resize.content_size(size)
            labels = model.labels(logits, content_size, size)
            matrix.update(labels, on_device)
            if boundary or observe:
                on_cpu = labels[0].cpu().numpy(), target.numpy()
                if boundary:
                    near.update(*on_cpu)
                if observe:
                    observe(*on_cpu, len(losses))
            losses.append(criterion.of_picture(logits, on_device, content_size))
    matrix = _over_all_processes(matrix)
    losses = torch.stack(losses).tolist() if losses else []
    loss_sum, samples = global_sum(torch.tensor([sum(losses), len(losses)], dtype=torch.float64))
    scores = {"loss": (loss_sum / samples.clamp(min=1)).item(), **matrix.compute()}
    if boundary:
        near.counts = global_sum(near.counts)
        scores["boundary_iou"] = near.compute()
    return scores | {"predicted": matrix.matrix.sum(0), "matrix": matrix}
