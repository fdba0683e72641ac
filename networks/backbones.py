"""Load a backbone by its name: from torch.hub, from this repository or from timm."""

from pathlib import Path
from types import ModuleType

import torch
from torch import nn

import config
from common.checkpoints import short
from networks.hub import load_from_hub
from utils import InputError


def load_backbone(
    name: str,
    num_blocks: int,
    hub_repo: str | None = None,
    weights: str = "pretrained",
    spread: bool = False,
) -> nn.Module:
    """A ViT whose forward maps (B, 3, H, W) to its last num_blocks maps (B, D, H/p, W/p).

    Its attributes tell patch_size (p, in pixels), embed_dim (D), n_blocks, and mean and std, by
    which RGB values of 0..1 are normalised.

    Args:
        name: a key of config.BACKBONES, any other entry of hub_repo, or timm/NAME[.TAG].
        hub_repo: a local folder with a hubconf.py or a GitHub "owner/name:ref"; None: the default.
        weights: "pretrained", "none" (random, the same on every machine) or a file.
        spread: the maps of blocks at even distances through the depth, and not of the last ones.
    """
    if not name.startswith(config.TIMM):
        return load_from_hub(name, num_blocks, hub_repo, weights, spread).eval()
    if hub_repo:
        raise InputError(f"--hub-repo {hub_repo}: {name} comes from timm; leave --hub-repo out")
    return _timm_backbone().load_from_timm(name, num_blocks, weights, spread).eval()


def _timm_backbone() -> ModuleType:
    """networks.timm_backbone; raises InputError where timm is not installed."""
    try:
        from networks import timm_backbone
    except ImportError as error:
        raise InputError("a backbone timm/NAME needs the package timm: pip install timm") from error
    return timm_backbone


def trusted_source(path: Path, name: str, hub_repo: str) -> str | None:
    """Where a checkpoint's backbone may come from without being asked: None for timm.

    A file must not choose what code runs. This repository's own code, timm's and that of a commit
    which config.py names can be run; a folder must be named by the user.
    """
    if name.startswith(config.TIMM):
        return None
    known = config.BACKBONES.get(name)
    if known and known.hub_repo in (config.THIS_REPO, config.DINOV2_REPO):
        return config.THIS_REPO
    if known and hub_repo in ("", known.hub_repo):
        return known.hub_repo
    if not hub_repo:
        raise InputError(f"{path}: unknown backbone {short(name)}")
    raise InputError(
        f"{path} was trained with the backbone {name} from {hub_repo}; code runs only from a "
        f"folder that you name: pass --hub-repo {hub_repo}"
    )


def transformer_blocks(backbone: nn.Module) -> list[nn.Module]:
    """The blocks in order; the official code may nest them in chunks filled with nn.Identity."""
    blocks = []
    for child in getattr(backbone, "blocks", ()):
        blocks += child if isinstance(child, nn.ModuleList) else [child]
    return [block for block in blocks if not isinstance(block, nn.Identity)]


def trainable_blocks(backbone: nn.Module, needed: int) -> list[nn.Module]:
    """The blocks in order; raises InputError for fewer than needed, or without gradients."""
    blocks = transformer_blocks(backbone)
    if len(blocks) < needed:
        raise InputError(
            f"--unfreeze-blocks and --checkpoint-activations: this backbone has {len(blocks)} "
            f"blocks in its attribute `blocks`, of which {needed} are asked for"
        )
    patch, device = backbone.patch_size, next(backbone.parameters()).device
    with torch.enable_grad():  # forward(): calling a compiled backbone would compile it
        maps = backbone.forward(torch.zeros(1, 3, patch, patch, device=device))
    if not all(feature_map.requires_grad for feature_map in maps):
        raise InputError(
            "--fine-tune: this backbone computes without gradients; take torch.no_grad or "
            "torch.inference_mode out of its get_intermediate_layers"
        )
    return blocks


def check_compiler(device: torch.device) -> None:
    """Raise InputError where torch.compile does not work; its own message is a page long."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(8, device=device))
    except RuntimeError as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(
            f"--compile does not work here ({reason}); install a C++ compiler such as g++, or "
            "leave it out"
        ) from error


def list_backbones() -> str:
    """A table: name, parameters, patch size, width, licence, where code and weights come from."""
    rows = [
        (name, known.parameters, known.patch_size, known.embed_dim, known.licence, known.source)
        for name, known in config.BACKBONES.items()
    ]
    try:
        examples = _timm_backbone().describe_examples()
        rows += [(*example, "timm, Hugging Face hub") for example in examples]
        more = "timm/NAME[.TAG]: any other vision transformer of timm with one stride"
    except InputError as error:  # timm is not installed
        more = f"timm/NAME[.TAG]: {error}"
    lines = [f"{'name':<46} {'parameters':>13} {'patch':>5} {'width':>5}  {'licence':<26} code"]
    lines += [
        f"{name:<46} {count:>13,} {patch:>5} {width:>5}  {licence or '-':<26} {source}"
        for name, count, patch, width, licence, source in rows
    ]
    return "\n".join([*lines, more, "--hub-repo DIR: any entry of your own; see docs/backbones.md"])
