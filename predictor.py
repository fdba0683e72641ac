"""From a checkpoint to label maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import config
from engine import to_labels
from errors import InputError
from geometry import Resize
from model import SegmentationModel, build_model, fingerprint
from resampling import upsample
from transforms import eval_transform
from utils import load_checkpoint


@dataclass
class Predictor:
    """`predict(images)` gives class ids; everything it needs came from a checkpoint."""

    model: SegmentationModel
    names: list[str]
    palette: list[tuple[int, int, int]]
    resize: Resize  # how pictures come to the network's size
    device: torch.device

    @classmethod
    def from_checkpoint(
        cls,
        path: Path,
        device: torch.device,
        image_size: tuple[int, int] | None = None,
        weights: str | None = None,
        hub_repo: str | None = None,
    ) -> "Predictor":
        """The model as it was trained; the arguments override what the checkpoint says."""
        checkpoint = load_checkpoint(path)
        model = _restore(checkpoint, path, weights, hub_repo)
        return cls(
            model.to(device).eval(),
            checkpoint["classes"],
            [tuple(colour) for colour in checkpoint["palette"]],
            Resize(image_size or tuple(checkpoint["image_size"]), checkpoint["keep_ratio"]),
            device,
        )

    @torch.inference_mode()
    def predict(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """RGB pictures (H, W, 3) uint8 of any sizes -> class ids (H, W) uint8 of those sizes."""
        batch = torch.stack([eval_transform(image, self.resize) for image in images])
        logits = self.model(batch.to(self.device)).float()
        labels = []
        for image, grid in zip(images, logits, strict=True):
            size = image.shape[:2]
            full = upsample(grid[None], self.resize.content_size(size), size)
            labels.append(to_labels(full)[0].to(torch.uint8).cpu().numpy())
        return labels


def _restore(
    checkpoint: dict, path: Path, weights: str | None, hub_repo: str | None
) -> SegmentationModel:
    """The model of a checkpoint.

    The code that builds the backbone is this repository's own unless the caller says otherwise:
    a file must not choose what code runs.
    """
    name, head = checkpoint["backbone"], checkpoint["head"]
    if name not in config.BACKBONES or head not in config.HEADS:
        raise InputError(f"{path}: unknown backbone {name!r} or head {head!r}")
    weights = weights or checkpoint["weights"]
    if checkpoint["fine_tune"]:  # the checkpoint holds the backbone's weights itself
        weights = "none"
    elif weights not in ("pretrained", "none") and not Path(weights).is_file():
        raise InputError(
            f"{path} was trained on the backbone weights {weights}, which are not here; "
            "pass --weights FILE"
        )
    spec = config.ModelConfig(
        name, head, len(checkpoint["classes"]), weights, hub_repo or config.THIS_REPO,
        checkpoint["fine_tune"],
    )  # fmt: skip
    model = build_model(spec)
    if not spec.fine_tune and fingerprint(model.backbone) != checkpoint["fingerprint"]:
        raise InputError(
            f"{path} was trained on other backbone weights than {weights} gives; pass the right "
            "--weights FILE"
        )
    try:
        model.load_trained(checkpoint["model_state_dict"])
    except (RuntimeError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{path}: its weights do not fit its own description: {reason}") from error
    return model
