"""Pretraining of the tiny backbone on an endless stream of drawn and labelled scenes."""

import math
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import config
from common.signals import worker_init
from common.tensor_files import save_tensors
from data.transforms import to_tensor
from demo.canvas import KINDS
from demo.scenes import random_scene, render
from losses import Criterion
from model import LinearHead, SegmentationModel
from networks.backbones import load_backbone
from utils import amp_dtype, remove_leftovers

# Side of the pictures in pixels, pictures per step, steps: small pictures first.
STAGES = ((112, 96, 2400), (224, 32, 1200))
PERSON_HEIGHT = (70, 220)  # pixels; small pictures show parts of people
LR = 1e-3
STEPS_PER_REPORT = 40


class Scenes(Dataset):
    """The item of a seed is its scene: image (3, side, side), kinds (side, side)."""

    def __init__(self, side: int):
        self.side = side

    def __getitem__(self, seed: int) -> tuple[Tensor, Tensor]:
        image, kinds = render(random_scene(seed, self.side, self.side, PERSON_HEIGHT))
        return to_tensor(image, config.DINOV2_INPUT), torch.from_numpy(kinds)


def pretrain(path: Path, device: torch.device, workers: int) -> None:
    """Train `dinov2_vitt14` from scratch to segment drawn scenes; save its weights as float16."""
    torch.manual_seed(0)
    backbone = load_backbone("dinov2_vitt14", 4, config.THIS_REPO, weights="none")
    head = LinearHead(4 * backbone.embed_dim, len(KINDS))
    model = SegmentationModel(backbone, head, fine_tune=True).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.05)
    model.amp = amp_dtype(device)
    criterion = Criterion(model.upsample)
    pictures = sum(batch * steps for _, batch, steps in STAGES)
    seen = 0
    for side, batch, steps in STAGES:
        seeds = range(seen, seen + batch * steps)  # each scene is new
        options = {"num_workers": workers, "worker_init_fn": worker_init()}
        batches = iter(DataLoader(Scenes(side), batch, sampler=seeds, **options))
        for _ in range(steps // STEPS_PER_REPORT):
            for group in optimizer.param_groups:
                group["lr"] = LR * _warmup_cosine(seen / pictures)
            for _ in range(STEPS_PER_REPORT):
                images, kinds = (tensor.to(device) for tensor in next(batches))
                loss = criterion(model(images), kinds)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            seen += batch * STEPS_PER_REPORT
            print(f"{seen:7d} of {pictures} pictures, {side} px: loss {loss:.4f}", flush=True)
    remove_leftovers(path.parent, path.name)
    save_tensors(path, {name: value.half() for name, value in backbone.state_dict().items()})
    print(f"wrote {path}")


def _warmup_cosine(progress: float) -> float:
    return min((progress + 1e-3) / 0.02, 0.5 + 0.5 * math.cos(math.pi * progress))
