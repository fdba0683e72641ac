"""Meta's published segmentation heads for DINOv2: names, URLs, file layout, test protocol.

Source: the model card of facebookresearch/dinov2 and the configs published beside the heads.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from common.tensor_files import check_state, hub_file, load_published
from config import BACKBONES, ModelConfig
from data.labels.classes import ADE20K, VOC2012, Classes
from inference.protocol import NO_LIMIT, Protocol, ShortSide
from model import HEADS, LinearHead
from utils import InputError

BASE_URL = "https://dl.fbaipublicfiles.com/dinov2"
MS_RATIOS = (1.0, 1.32, 1.73)  # of the ms heads by default, as in Meta's notebook
DATASETS = {"voc2012": VOC2012, "ade20k": ADE20K}

# Linear and ms head: mIoU in percent on the validation images (Oquab et al. 2023, table 10).
PAPER_MIOUS = {
    "dinov2_vits14": {"voc2012": (81.1, 82.6), "ade20k": (44.3, 47.2)},
    "dinov2_vitb14": {"voc2012": (82.5, 84.9), "ade20k": (47.3, 51.3)},
    "dinov2_vitl14": {"voc2012": (82.1, 86.0), "ade20k": (47.7, 53.1)},
    "dinov2_vitg14": {"voc2012": (83.0, 86.2), "ade20k": (49.0, 53.0)},
}

# Of the files whose checksum is known; names and shapes are checked for all.
SHA256 = {
    "dinov2_vits14_voc2012_ms": "181b5aec92dac7178e69debe65033bdb84c6e220739a66ca67395aff758f975e",
    "dinov2_vits14_ade20k_linear": (
        "67e10225e0bf1e2c6e8bc9e07020211ab58cbb4aa14efbaa32c52914931c4ade"
    ),
    "dinov2_vitb14_ade20k_linear": (
        "7c3545c3a6f79ccc130d075dfe66e84f8c32d72d2acd31fc218f8a15cd2c7b23"
    ),
    "dinov2_vitl14_ade20k_linear": (
        "59137f319d7e83c79f3253ab7bf63041f1f884e54ba865a2c7ef0046655306a0"
    ),
}


@dataclass(frozen=True)
class OfficialHead:
    backbone: str
    dataset: str  # voc2012 or ade20k
    kind: str  # linear (last block) or ms (last four blocks, several scales)
    paper_miou: float

    @property
    def name(self) -> str:
        return f"{self.backbone}_{self.dataset}_{self.kind}"

    @property
    def url(self) -> str:
        return f"{BASE_URL}/{self.backbone}/{self.name}_head.pth"

    @property
    def classes(self) -> Classes:
        return DATASETS[self.dataset]

    @property
    def channels(self) -> int:
        """Of the features: all blocks that the head reads."""
        return HEADS[self.kind][1] * BACKBONES[self.backbone].embed_dim

    @property
    def protocol(self) -> Protocol:
        """Meta's test protocol: short side, windows, ratios, flips."""
        if self.kind == "ms":
            return Protocol(ShortSide(640), 640, 320, MS_RATIOS, flip=True, stretch=True)
        long_side = 2048 if self.dataset == "voc2012" else NO_LIMIT
        return Protocol(ShortSide(512, long_side), 512, 341, stretch=True)


OFFICIAL_HEADS = {
    head.name: head
    for backbone, scores in PAPER_MIOUS.items()
    for dataset, (linear, ms) in scores.items()
    for head in (
        OfficialHead(backbone, dataset, "linear", linear),
        OfficialHead(backbone, dataset, "ms", ms),
    )
}


def find_head(model: str) -> tuple[OfficialHead, Path | None] | None:
    """The head of a published name, or of a file with a published name; None for other text."""
    if model in OFFICIAL_HEADS:
        return OFFICIAL_HEADS[model], None
    path = Path(model)
    head = OFFICIAL_HEADS.get(path.stem.removesuffix("_head"))
    return (head, path) if head else None


def load_head_weights(head: OfficialHead, path: Path | None = None) -> dict[str, Tensor]:
    """The state dict of model.LinearHead; downloaded into torch.hub's folder if path is None.

    The published layout is {"meta", "state_dict", "optimizer"} with keys `decode_head.*`; a bare
    state dict is accepted too. Names and shapes must match exactly.
    """
    path = path or hub_file(head.url, sha256=SHA256.get(head.name))
    state = load_published(path)
    state = {name.removeprefix("decode_head."): value for name, value in state.items()}
    state.setdefault("bn.num_batches_tracked", torch.tensor(0))
    with torch.device("meta"):  # draws no random numbers
        expected = LinearHead(head.channels, head.classes.num_classes).state_dict()
    check_state(state, expected, f"{path} is not the head {head.name}")
    return state


def start_from_head(name: str, spec: ModelConfig, module: nn.Module, classes: Classes) -> str:
    """Begin training from a published head; returns the line that says what was kept.

    The BatchNorm and the rows of classes of the same name are taken over; other rows stay fresh.
    """
    found = find_head(name)
    if found is None:
        known = ", ".join(OFFICIAL_HEADS)
        raise InputError(f"--init-head {name}: not a published head; known: {known}")
    head, path = found
    if (spec.backbone, spec.head) != (head.backbone, head.kind):
        raise InputError(
            f"--init-head {name} wants --backbone {head.backbone} --head {head.kind}, not "
            f"{spec.backbone} and {spec.head}"
        )
    published, state = load_head_weights(head, path), module.state_dict()
    state |= {key: value for key, value in published.items() if key.startswith("bn.")}
    sources = {
        row: head.classes.names.index(class_name)
        for row, class_name in enumerate(classes.names)
        if class_name in head.classes.names
    }
    for key in ("conv_seg.weight", "conv_seg.bias"):
        state[key][list(sources)] = published[key][list(sources.values())].to(state[key])
    module.load_state_dict(state, strict=True)
    kept = [classes.names[row] for row in sources]
    fresh = [class_name for class_name in classes.names if class_name not in kept]
    return f"from {head.name}: {', '.join(kept) or 'no class'}; fresh: {', '.join(fresh) or 'none'}"


def list_heads() -> str:
    """The lines of --list-models for the published heads."""
    lines = ["published heads (Apache-2.0, by Meta):"]
    for head in OFFICIAL_HEADS.values():
        count = head.classes.num_classes
        trained = head.channels * count + count + 2 * head.channels
        lines.append(
            f"  {head.name:<30} {count:>3} classes, {trained:>9,} parameters, "
            f"mIoU in the paper {head.paper_miou} %"
        )
    return "\n".join(lines)
