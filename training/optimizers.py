"""From losses to new weights: the optimiser, its learning rates, and the steps."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from config import LR_DECAY, WEIGHT_DECAY
from networks.backbones import transformer_blocks
from utils import InputError

STATES = ("optimizer", "schedule", "scaler")  # attributes of ScheduledOptimizer


@dataclass(frozen=True)
class OptimizerSettings:
    """How the weights of a SegmentationModel are trained."""

    lr: float = 1e-3  # of the head
    backbone_lr: float = 1e-4  # of the backbone's last block
    layer_decay: float = 1.0  # learning rate of a block relative to the next block's
    weight_decay: float = WEIGHT_DECAY
    warmup_epochs: float = 0.0  # of linear increase of the learning rates
    schedule: str = "step"  # how they fall: one of config.SCHEDULES
    milestones: Sequence[int] = ()  # step: epochs after which they are multiplied by LR_DECAY
    epochs: int | None = None  # cosine, poly: epochs at whose end they are 0
    accumulate: int = 1  # batches whose mean gradient makes a step
    clip_grad: float | None = None  # the largest norm of a step's gradient


def build_adamw(model: nn.Module, settings: OptimizerSettings) -> torch.optim.AdamW:
    """AdamW on the trainable parameters of a SegmentationModel.

    The embeddings of a backbone have the lowest learning rate. Its one-dimensional parameters
    (norms, biases, LayerScale) have no weight decay.
    """
    head = [parameter for parameter in model.head.parameters() if parameter.requires_grad]
    groups = [{"params": head, "lr": settings.lr, "weight_decay": settings.weight_decay}]
    if settings.layer_decay != 1 and not transformer_blocks(model.backbone):
        raise InputError("--layer-decay: this backbone has no blocks in its attribute `blocks`")
    backbone = [item for item in model.backbone.named_parameters() if item[1].requires_grad]
    by_setting: dict[tuple, list[Tensor]] = {}
    for name, parameter in backbone:
        layers = _layers_above(name, model.backbone.n_blocks)
        rate = settings.backbone_lr * settings.layer_decay**layers
        decay = settings.weight_decay if parameter.ndim > 1 else 0.0
        by_setting.setdefault((rate, decay), []).append(parameter)
    for (rate, decay), parameters in by_setting.items():
        groups.append({"params": parameters, "lr": rate, "weight_decay": decay})
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in model.parameters())
    return torch.optim.AdamW(groups, settings.lr, fused=fused)


def _layers_above(name: str, n_blocks: int) -> int:
    """How many blocks follow the layer that a backbone's parameter belongs to."""
    if name.startswith("norm."):
        return 0
    block = re.match(r"blocks(?:\.\d+)*\.(\d+)\.", name)  # in chunks: blocks.<chunk>.<block>.
    return n_blocks - 1 - int(block[1]) if block else n_blocks


def build_schedule(
    optimizer: torch.optim.Optimizer, settings: OptimizerSettings, steps_per_epoch: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """The schedule of the learning rates, called after every step.

    Warm-up multiplies the rates of each schedule. poly is MMSegmentation's with power 1 and
    min_lr 0, which its configs for DINOv2's heads use: a straight line.
    """
    warmup_steps = round(settings.warmup_epochs * steps_per_epoch)

    def decay(step: int) -> float:
        if settings.schedule == "step":
            passed = sum(step >= milestone * steps_per_epoch for milestone in settings.milestones)
            return LR_DECAY**passed
        done = min(1.0, step / (settings.epochs * steps_per_epoch))
        return 1 - done if settings.schedule == "poly" else (1 + math.cos(math.pi * done)) / 2

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / (warmup_steps + 1)) * decay(step)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


class ScheduledOptimizer:
    """AdamW with the schedule of its learning rates and the scaling of float16 losses.

    schedule: called after each step; None: constant rates. amp: SegmentationModel.amp. accumulate,
    clip_grad: see OptimizerSettings.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
        amp: torch.dtype | None = None,
        accumulate: int = 1,
        clip_grad: float | None = None,
    ):
        self.optimizer = optimizer
        self.schedule = schedule or build_schedule(optimizer, OptimizerSettings(), 1)
        self.accumulate = accumulate
        self.clip_grad = clip_grad
        # Below 6e-8 a float16 gradient is 0 unless the loss is scaled up.
        device = self._parameters()[0].device.type
        self.scaler = torch.amp.GradScaler(device, enabled=amp == torch.float16)

    def backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()

    def step(self) -> None:
        """Make one step from the gradients of `accumulate` batches."""
        if self.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self._parameters(), self.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    @property
    def lr(self) -> float:
        """Learning rate of the head."""
        return self.optimizer.param_groups[0]["lr"]

    def state_dict(self) -> dict:
        """The states of optimizer, schedule and scaler as torch gives them."""
        return {name: getattr(self, name).state_dict() for name in STATES}

    def load_state_dict(self, state: dict) -> None:
        for name in STATES:
            getattr(self, name).load_state_dict(state[name])


def build_optimizer(
    model: nn.Module, settings: OptimizerSettings, batches_per_epoch: int
) -> ScheduledOptimizer:
    """AdamW on the trainable parameters of a SegmentationModel, with the schedule of settings."""
    optimizer = build_adamw(model, settings)
    schedule = build_schedule(optimizer, settings, -(-batches_per_epoch // settings.accumulate))
    return ScheduledOptimizer(
        optimizer, schedule, model.amp, settings.accumulate, settings.clip_grad
    )
