"""Backbones from torch.hub: official code, this repository's own, or a folder of the user's."""

import difflib
import os
import re
import warnings
from functools import partial
from pathlib import Path

import torch
from torch import nn

import config
from common.checkpoints import are_mean_and_std
from networks.weights import (
    SAT493M,
    blocks_to_read,
    init_random_weights,
    load_weights,
    print_licence,
    read_weights,
)
from utils import InputError


def load_from_hub(
    name: str, num_blocks: int, hub_repo: str | None, weights: str, spread: bool
) -> nn.Module:
    """The model of a hub entry, with forward and attributes as `load_backbone` describes.

    The model must have get_intermediate_layers(images, n, reshape) as DINOv2's has, and patch_size
    and embed_dim. mean and std are ImageNet's unless the model has them.
    """
    known = config.BACKBONES.get(name)
    if known is None and not hub_repo:
        nearest = difflib.get_close_matches(name, config.BACKBONES, n=3, cutoff=0.3)
        raise InputError(
            f"unknown backbone {name!r}; nearest: {', '.join(nearest) or 'none'}; `python model.py "
            "--list-backbones` lists all, and --hub-repo DIR adds the entries of a folder"
        )
    if known and known.request_weights_at and weights == "pretrained":
        timm_name = config.TIMM + known.timm_name
        free = f", or take --backbone {timm_name} without a request" if known.timm_name else ""
        raise InputError(
            f"the weights of {name} are given on request at {known.request_weights_at}; pass the "
            f"file that you got as --weights FILE{free}"
        )
    if not hub_repo:
        # The official code resizes its position table on the device, by a kernel that MPS lacks.
        use_own = known.hub_repo == config.DINOV2_REPO and torch.backends.mps.is_available()
        hub_repo = config.THIS_REPO if use_own else known.hub_repo
    with torch.random.fork_rng(devices=[], enabled=known is None):
        if known is None:  # init_random_weights leaves buffers, norms and the like as they are
            torch.default_generator.manual_seed(0)
        backbone = _load_entry(hub_repo, name, pretrained=weights == "pretrained")
    if not hasattr(backbone, "get_intermediate_layers"):
        raise InputError(
            f"--hub-repo {hub_repo}: the model of {name} has no get_intermediate_layers; "
            "docs/backbones.md shows what a backbone needs"
        )
    if weights == "none":
        init_random_weights(backbone)
    elif weights != "pretrained":
        load_weights(backbone, read_weights(weights, backbone.state_dict()))
    if known and weights != "none":
        print_licence(name, known.licence)
    _complete(backbone, name, weights)
    blocks = blocks_to_read(name, backbone.n_blocks, num_blocks, spread)
    backbone.forward = partial(backbone.get_intermediate_layers, n=blocks, reshape=True)
    if known is None:
        _check_feature_maps(backbone, name, num_blocks)
    return backbone


def _load_entry(hub_repo: str, name: str, pretrained: bool) -> nn.Module:
    """Call the entry; whatever goes wrong becomes an InputError."""
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
    except InputError:
        raise
    except Exception as error:  # of the network, the folder's code, a cut or foreign file
        raise InputError(_failure(error, hub_repo, name, pretrained)) from error


def _failure(error: Exception, hub_repo: str, name: str, pretrained: bool) -> str:
    """Why an entry could not be loaded, and what to do."""
    known = config.BACKBONES.get(name)
    reason = " ".join(f"{type(error).__name__} {error}".split())[:200]
    is_missing = isinstance(error, FileNotFoundError)
    if isinstance(error, ImportError):
        return (
            f"--hub-repo {hub_repo} cannot be imported ({error}); install what it needs, and give "
            "its modules other names than those of this repository (docs/backbones.md)"
        )
    if (isinstance(error, OSError) and not is_missing) or "no internet" in str(error):
        return (
            f"cannot fetch {hub_repo}{'' if known else ' (no folder here)'} or its weights "
            f"({error}); without a network pass --hub-repo DIR, a clone of the code (. for "
            "DINOv2's), and --weights FILE for the weights (docs/offline.md)"
        )
    if "Cannot find callable" in str(error):
        return f"--hub-repo {hub_repo} does not offer the backbone {name}"
    if pretrained and known and not is_missing:
        return (
            f"the weights of {name} cannot be loaded ({reason}); delete their file in "
            f"{torch.hub.get_dir()}/checkpoints, so that it is fetched again"
        )
    return (
        f"--hub-repo {hub_repo}: entry {name} failed ({reason}); docs/backbones.md shows what an "
        "entry needs"
    )


def _complete(backbone: nn.Module, name: str, weights: str) -> None:
    """Set those of load_backbone's attributes that a hub's model lacks."""
    patch_size = getattr(backbone, "patch_size", None)
    if isinstance(patch_size, tuple | list) and len(set(patch_size)) == 1:
        patch_size = patch_size[0]
    n_blocks = getattr(backbone, "n_blocks", None) or len(getattr(backbone, "blocks", ()))
    embed_dim = getattr(backbone, "embed_dim", None)
    sizes = {"patch_size": patch_size, "embed_dim": embed_dim, "n_blocks (or blocks)": n_blocks}
    for attribute, value in sizes.items():
        if type(value) is not int or value < 1:
            raise InputError(
                f"{name}: the model's {attribute} is {value}, expected a number of at least 1; "
                "docs/backbones.md shows what a backbone needs"
            )
    mean, std = config.IMAGENET_MEAN, config.IMAGENET_STD
    if SAT493M in Path(weights).name:
        print(f"{name}: pictures are normalised by the mean and std of SAT-493M")
        mean, std = config.SAT493M_MEAN, config.SAT493M_STD
    mean, std = getattr(backbone, "mean", mean), getattr(backbone, "std", std)
    try:
        mean, std = (tuple(float(value) for value in values) for values in (mean, std))
        are_plausible = are_mean_and_std(mean, std)
    except (TypeError, ValueError):
        are_plausible = False
    if not are_plausible:
        raise InputError(
            f"{name}: the model's mean and std must be three numbers each, for RGB 0..1; they are "
            f"{mean} and {std}"
        )
    complete = {"patch_size": patch_size, "n_blocks": n_blocks, "mean": mean, "std": std}
    for attribute, value in complete.items():
        found = getattr(backbone, attribute, None)
        try:
            if type(found) is not type(value) or found != value:
                setattr(backbone, attribute, value)
        except (AttributeError, TypeError) as error:  # a property, or a buffer
            raise InputError(f"{name}: {attribute} must be a plain attribute ({error})") from error
    # DINOv3 draws other coordinates in training mode, an augmentation of its pretraining.
    rope = getattr(backbone, "rope_embed", None)
    for augmentation in ("shift_coords", "jitter_coords", "rescale_coords"):
        if hasattr(rope, augmentation):
            setattr(rope, augmentation, None)


@torch.no_grad()
def _check_feature_maps(backbone: nn.Module, name: str, num_blocks: int) -> None:
    """Raise InputError unless the model's maps are as its attributes say; for foreign models."""
    rows, columns, patch = 2, 3, backbone.patch_size
    values = torch.linspace(-1, 1, 3 * rows * columns * patch**2)
    images = values.view(1, 3, rows * patch, columns * patch).repeat(2, 1, 1, 1)
    try:
        maps = tuple(backbone.eval()(images))
        found = [tuple(feature_map.shape) for feature_map in maps]
    except Exception as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise InputError(f"{name}: its get_intermediate_layers failed ({reason})") from error
    expected = [(2, backbone.embed_dim, rows, columns)] * num_blocks
    if found != expected:
        raise InputError(
            f"{name}: for {rows}x{columns} patches of {patch} pixels get_intermediate_layers gave "
            f"maps {found}, expected {expected}"
        )
    if not all(torch.allclose(*m.float(), rtol=1e-2, atol=1e-3) for m in maps):
        raise InputError(
            f"{name}: a picture that is twice in a batch gets different features, or features that "
            "are not finite; is there a dropout that eval() does not switch off?"
        )
