"""A DINOv2 backbone, a small head, and the model that joins them for images of any size."""

import hashlib
import os
import re
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchinfo import summary

import commands
import config
from errors import InputError, exits_cleanly
from heads import HEAD_CLASSES, pieces
from resampling import PATCH_SIZE, center_padding
from utils import check_names, load_tensors
from vit import flatten_block_chunks

# Images that a CPU takes through the backbone at a time: one of 640x640. The memory of more goes
# back to the system after each layer, and costs more to fetch than the batch saves.
CPU_IMAGE_BYTES = 4 * 2**20


def pad_to_multiple(images: Tensor, multiple: int = PATCH_SIZE) -> Tensor:
    """(B, C, H, W) with zeros around it, which are the mean colour of normalised images."""
    top, bottom = center_padding(images.shape[-2], multiple)
    left, right = center_padding(images.shape[-1], multiple)
    return F.pad(images, (left, right, top, bottom))


class SegmentationModel(nn.Module):
    """`head(backbone(images))`: (B, 3, H, W) of any size -> logits (B, K, ceil(H/14), ceil(W/14)).

    The backbone maps images to a tuple of L feature maps (B, D, h, w). Unless fine_tune, it is
    frozen: no gradients, no graph, never in training mode.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, fine_tune: bool = False):
        super().__init__()
        self.backbone = backbone.requires_grad_(fine_tune)
        if hasattr(backbone, "mask_token"):  # for pretraining; it would wait for gradients in vain
            backbone.mask_token.requires_grad_(False)
        self.head = head
        self.fine_tune = fine_tune

    def set_up_training(
        self, unfreeze_blocks: int | None, checkpoint_activations: bool, compile_backbone: bool
    ) -> None:
        """How the backbone takes part in training.

        unfreeze_blocks: train only so many of its last blocks, and the final norm. With
        checkpoint_activations each block keeps its input alone for the backward pass and computes
        the rest again.
        """
        blocks = transformer_blocks(self.backbone)
        if unfreeze_blocks:
            if unfreeze_blocks > len(blocks):
                raise InputError(
                    f"--unfreeze-blocks {unfreeze_blocks}: this backbone has {len(blocks)} blocks"
                )
            self.backbone.requires_grad_(False)
            for module in (self.backbone.norm, *blocks[-unfreeze_blocks:]):
                module.requires_grad_(True)
        if checkpoint_activations:
            for block in blocks:
                block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        if compile_backbone:
            check_compiler(next(self.parameters()).device)
            self.backbone.compile()

    def train(self, mode: bool = True) -> "SegmentationModel":
        super().train(mode)
        if not self.fine_tune:
            self.backbone.eval()
        return self

    def extract(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> features (B, L*D, h, w), blocks in order; B may be 0."""
        if len(images) == 0:  # more than most backbones can take, the official code among them
            return self.extract(images.new_zeros(1, *images.shape[1:]))[:0]
        with_graph = self.fine_tune and torch.is_grad_enabled()
        parts = [images] if with_graph else pieces(images, CPU_IMAGE_BYTES)
        # Not inference_mode: the head's backward must be able to save these tensors.
        with torch.set_grad_enabled(with_graph):
            parts = [torch.cat(self.backbone(pad_to_multiple(part)), dim=1) for part in parts]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.extract(images))

    def trained(self) -> dict[str, Tensor]:
        """The state worth keeping: all of it after fine-tuning, else the head's."""
        state = self.state_dict()
        return {k: v for k, v in state.items() if self.fine_tune or k.startswith("head.")}

    def load_trained(self, state_dict: dict[str, Tensor]) -> None:
        """Take back what trained() gave; raises RuntimeError on any other keys or shapes."""
        frozen = {} if self.fine_tune else self.backbone.state_dict(prefix="backbone.")
        self.load_state_dict(frozen | state_dict, strict=True)


def check_compiler(device: torch.device) -> None:
    """Try torch.compile, whose own message is a page, on next to nothing."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(8, device=device))
    except RuntimeError as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(
            f"--compile does not work here ({reason}); install a C++ compiler such as g++, or "
            "leave it out"
        ) from error


def transformer_blocks(backbone: nn.Module) -> list[nn.Module]:
    """In order; the official code may keep them in chunks filled up with nn.Identity."""
    return [module for module in backbone.blocks.modules() if hasattr(module, "attn")]


def load_backbone(
    name: str, num_blocks: int, hub_repo: str | None = None, weights: str = "pretrained"
) -> nn.Module:
    """A backbone whose forward maps (B, 3, H, W) to its last num_blocks maps (B, D, H/14, W/14).

    Args:
        name: a key of config.BACKBONES.
        hub_repo: a local folder with a hubconf.py or a GitHub "owner/name:ref"; None: the default.
        weights: "pretrained", "none" (random, the same on every machine) or a file.
    """
    if name not in config.BACKBONES:
        raise InputError(f"unknown backbone {name!r}; known: {', '.join(config.BACKBONES)}")
    spec = config.BACKBONES[name]
    backbone = _load_from_hub(hub_repo or spec.hub_repo, name, pretrained=weights == "pretrained")
    if weights == "none":
        _init_random_weights(backbone)
    else:
        if weights != "pretrained":
            _load_weights_file(backbone, weights)
        if spec.licence == config.NON_COMMERCIAL:
            print(f"{name}: weights under {spec.licence}, not for commercial use")
    last = range(backbone.n_blocks - num_blocks, backbone.n_blocks)
    backbone.forward = partial(backbone.get_intermediate_layers, n=list(last), reshape=True)
    return backbone.eval()


def _load_from_hub(hub_repo: str, name: str, pretrained: bool) -> nn.Module:
    local = Path(hub_repo).is_dir()
    if not local and not re.fullmatch(r"[\w-]+/[\w.-]+(:[\w./-]+)?", hub_repo):
        raise InputError(f"--hub-repo {hub_repo}: no such folder, and not a GitHub owner/name:ref")
    # xFormers changes nothing here but refuses to run on a CPU; the official code asks this.
    os.environ.setdefault("XFORMERS_DISABLED", "1")
    source = {"source": "local"} if local else {"trust_repo": True, "skip_validation": True}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="xFormers")
            return torch.hub.load(hub_repo, name, pretrained=pretrained, verbose=False, **source)
    except ConnectionError as error:
        raise InputError(str(error)) from error
    except FileNotFoundError as error:
        raise InputError(f"--hub-repo {hub_repo}: {error.filename} is missing") from error
    except OSError as error:
        raise InputError(
            f"cannot fetch {hub_repo} or its weights ({error}); without a network pass "
            "--hub-repo . for this repository's own code, and --weights FILE for the backbone's"
        ) from error
    except Exception as error:  # a cut or foreign file of weights fails in many ways
        if "Cannot find callable" in str(error):
            raise InputError(f"--hub-repo {hub_repo} does not offer the backbone {name}") from error
        if not pretrained:
            raise
        reason = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise InputError(
            f"the weights of {name} cannot be loaded ({reason}); delete their file in "
            f"{torch.hub.get_dir()}/checkpoints, so that it is fetched again"
        ) from error


def _init_random_weights(backbone: nn.Module, seed: int = 0) -> None:
    """Weights from N(0, 0.02), biases 0: equal on every machine and for every hub repository."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(backbone.named_parameters()):
            if parameter.ndim > 1:
                parameter.normal_(std=0.02, generator=generator)
            elif name.endswith("bias"):
                parameter.zero_()


def _load_weights_file(backbone: nn.Module, path: str) -> None:
    """A DINOv2 or Web-DINO file, bare or under "state_dict", "model" or "teacher"; strict.

    Or a checkpoint of ours that was fine-tuned, whose head is left out.
    """
    state_dict = load_tensors(Path(path))
    for key in ("state_dict", "model", "teacher", "model_state_dict"):
        if isinstance(state_dict.get(key), dict):
            state_dict = state_dict[key]
    check_names(path, state_dict)
    state_dict = flatten_block_chunks(
        {
            name.removeprefix("backbone."): value
            for name, value in state_dict.items()
            if not name.startswith("head.")
        }
    )
    try:
        backbone.load_state_dict(state_dict, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{path} does not fit this backbone: {reason}") from error


def fingerprint(backbone: nn.Module) -> str:
    """A short hash that tells one set of weights from another; a sample of each tensor."""
    digest = hashlib.sha256()
    for name, parameter in sorted(backbone.named_parameters()):
        sample = parameter.detach().flatten()[:256].float().cpu()
        digest.update(name.encode() + sample.numpy().tobytes())
    return digest.hexdigest()[:16]


def build_model(spec: config.ModelConfig) -> SegmentationModel:
    """Backbone and head as described; the head's width follows from the backbone's."""
    num_blocks = config.HEADS[spec.head]
    backbone = load_backbone(spec.backbone, num_blocks, spec.hub_repo, spec.weights)
    head = HEAD_CLASSES[spec.head](num_blocks * backbone.embed_dim, spec.num_classes)
    return SegmentationModel(backbone, head, spec.fine_tune)


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    args = commands.model_parser().parse_args(argv)
    if args.dynamic and not args.export:
        raise InputError("--dynamic says how to export; give --export FILE too")
    from export import Exportable, export_model, load_trained  # not above: it imports this file

    if args.model:
        chosen = load_trained(args.model, args.weights, args.hub_repo)
    else:
        weights = args.weights or "none"
        spec = config.ModelConfig(
            args.backbone, args.head, args.num_classes, weights, args.hub_repo
        )
        chosen = Exportable(build_model(spec), (640, 640))
    size = args.imgsz or chosen.image_size
    if args.export:
        print(export_model(args.export, chosen, size, args.dynamic))
    else:
        print(summary(chosen.model, (1, 3, *size), depth=2))


if __name__ == "__main__":
    main()
