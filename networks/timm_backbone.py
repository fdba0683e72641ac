"""Vision transformers of timm as backbones: code, weights, and mean and std by the name's tag.

Importing this file needs timm, an optional package. Features are made as DINOv2's: the final norm
is applied to every chosen block, prefix tokens are left out.
"""

import contextlib
import io
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config import TIMM
from networks.weights import (
    SAT493M,
    FileOfWeights,
    blocks_to_read,
    init_random_weights,
    load_weights,
    print_licence,
    read_weights,
)
from utils import InputError

# Listed by `python model.py --list-backbones`; timm has some 300 that fit.
EXAMPLES = (
    "vit_small_patch14_dinov2.lvd142m",
    "vit_base_patch14_reg4_dinov2.lvd142m",
    "vit_small_patch16_dinov3_qkvb.lvd1689m",
    "vit_base_patch16_dinov3_qkvb.lvd1689m",
    "vit_large_patch16_dinov3_qkvb.sat493m",
    "vit_base_patch16_siglip_224.v2_webli",
    "vit_so400m_patch14_siglip_224.v2_webli",
    "vit_base_patch16_clip_224.openai",
    "vit_large_patch14_clip_224.laion2b",
    "eva02_base_patch14_224.mim_in22k",
    "vit_base_patch16_224.mae",
    "vit_base_patch16_radio_v3.c_radio",
    "vit_pe_spatial_base_patch16_512.fb",
)
WEIGHTS_FILE = "model.safetensors"  # in each of timm's repositories on the Hugging Face hub
NOT_BACKBONE = {"head", "head_dist", "fc_norm", "attn_pool"}  # parts of files only


def load_from_timm(name: str, num_blocks: int, weights: str, spread: bool) -> nn.Module:
    """The ViT timm/NAME[.TAG], with forward and attributes as `load_backbone` describes.

    weights: "pretrained" (those published as TAG on the Hugging Face hub), "none", or a file with
    timm's names or with those of the original code, where timm converts them.

    Raises InputError for a name that timm does not know, a model whose feature maps do not have one
    stride at every image size, and weights that cannot be had.
    """
    model_name = name.removeprefix(TIMM)
    cfg = _published(model_name)
    if SAT493M in Path(weights).name and SAT493M not in cfg.tag:
        raise InputError(
            f"{weights} was trained on satellite images, with another mean and std; take "
            f"{name.partition('.')[0]}.{SAT493M}"
        )
    _check_fits(model_name)
    path = weights
    if weights == "pretrained":
        path = _from_hugging_face(name, cfg.hf_hub_id, cfg.hf_hub_filename or WEIGHTS_FILE)
    model = _create(model_name)
    blocks = blocks_to_read(name, len(model.blocks), num_blocks, spread)
    if weights == "none":
        init_random_weights(model)
    else:
        file = _converted(read_weights(path, model.state_dict()), model)
        load_weights(model, replace(file, tensors=_of_backbone(file.tensors, model)))
        print_licence(name, cfg.license)
    model.n_blocks = len(model.blocks)
    model.patch_size = _strides(model)[0]
    model.mean, model.std = (tuple(map(float, numbers)) for numbers in (cfg.mean, cfg.std))
    model.forward = partial(_feature_maps, model, blocks)
    return model


def _published(model_name: str) -> Any:
    """timm's record of NAME[.TAG]: mean, std, licence, and where the weights are."""
    base, dot, tag = model_name.partition(".")
    if not timm.is_model(base):
        raise InputError(
            f"timm {timm.__version__} has no model {base!r}; `python model.py --list-backbones` "
            "names some, timm.list_models() all"
        )
    known = timm.list_models(f"{base}.*", include_tags=True)
    if dot and model_name not in known:
        raise InputError(
            f"timm {timm.__version__} has no weights {tag!r} of {base}; known: "
            f"{', '.join(known) or 'none'}"
        )
    return timm.get_pretrained_cfg(model_name)


def _create(model_name: str) -> nn.Module:
    """The model without classifier and pooling, for images of any size, with initial weights.

    Without pooling, the final norm is `norm`, where forward_intermediates applies it.
    """
    pooling = "token" if "_distilled" in model_name else ""  # two tokens are read
    try:
        return timm.create_model(
            model_name, num_classes=0, dynamic_img_size=True, global_pool=pooling
        )
    except TypeError:  # no such argument: sizes are always dynamic, or always fixed
        return timm.create_model(model_name, num_classes=0)


def _strides(model: nn.Module) -> list[int]:
    """Pixels between neighbours of the feature maps, without repetitions."""
    info = getattr(model, "feature_info", None) or []
    return sorted({entry["reduction"] for entry in info})


@torch.no_grad()
def _check_fits(model_name: str) -> None:
    """Raise InputError unless all blocks give maps (B, embed_dim, H/p, W/p) of images of any size.

    Runs on the meta device, without weights and without computing anything.
    """
    with torch.device("meta"):
        problem = _problem(_create(model_name))
    if problem:
        raise InputError(
            f"{TIMM}{model_name}: {problem}; take a vision transformer such as {TIMM}{EXAMPLES[0]}"
        )


def _problem(model: nn.Module) -> str | None:
    """Why a model on the meta device cannot be a backbone; None where it can."""
    kind, strides, blocks = type(model).__name__, _strides(model), getattr(model, "blocks", None)
    if len(strides) > 1:
        return f"{kind} gives feature maps of several strides ({', '.join(map(str, strides))})"
    is_transformer = blocks is not None and any(hasattr(m, "num_heads") for m in blocks.modules())
    if not strides or not is_transformer:
        return f"{kind} is not a vision transformer"
    rows, columns = 5, 3  # a shape that no model was trained at
    images = torch.zeros(1, 3, rows * strides[0], columns * strides[0])
    try:
        maps = _feature_maps(model, len(blocks), images)
    except Exception as error:  # each family refuses in its own way
        return f"{kind} does not take images of every size ({' '.join(str(error).split())[:100]})"
    if {feature_map.shape for feature_map in maps} != {(1, model.embed_dim, rows, columns)}:
        return f"{kind} gives feature maps of several widths or strides"
    return None


def _has_final_norm(model: nn.Module) -> bool:
    return not isinstance(getattr(model, "norm", None), nn.Identity | None)


def _feature_maps(model: nn.Module, blocks: int | list[int], images: Tensor) -> tuple[Tensor, ...]:
    """The maps (B, D, H/p, W/p) after these blocks of images (B, 3, H, W), in block order.

    Where the model has no final norm, each token is brought to mean 0 and variance 1.
    """
    maps = model.forward_intermediates(
        images, indices=blocks, norm=True, output_fmt="NCHW", intermediates_only=True
    )
    if not _has_final_norm(model):
        maps = [F.layer_norm(m.movedim(1, -1), m.shape[1:2]).movedim(-1, 1) for m in maps]
    return tuple(maps)


# -- weights ---------------------------------------------------------------------------------------


def _from_hugging_face(name: str, repository: str | None, file: str) -> str:
    """The path of a published file, downloaded if the Hugging Face hub's cache lacks it."""
    import huggingface_hub as hub

    if not repository:
        raise InputError(f"{name} has no published weights; pass --weights FILE, or none")
    cached = hub.try_to_load_from_cache(repository, file)
    if isinstance(cached, str):
        return cached
    try:
        # Fails at once without a network, where a download tries for 50 s.
        hub.get_hf_file_metadata(hub.hf_hub_url(repository, file))
        return hub.hf_hub_download(repository, file)
    except Exception as error:  # of the network, the hub, the account or the disk
        reason = " ".join(f"{type(error).__name__} {error}".split())[:160]
        raise InputError(
            f"the weights of {name} cannot be fetched ({reason}); fetch {file} from "
            f"https://huggingface.co/{repository} elsewhere and pass --weights FILE"
        ) from error


def _converted(file: FileOfWeights, model: nn.Module) -> FileOfWeights:
    """A file's tensors by timm's names, from those of the original code too."""
    state, expected = file.tensors, model.state_dict().keys()
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return file
    converted: dict[str, Tensor] = {}
    for source in (state, file.content):  # timm knows some original files by their prefix
        # It may print a line for each block, and foreign tensors fail in many ways.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
            found = convert(dict(source), model)
            converted = max(converted, found, key=lambda names: len(expected & names.keys()))
    if not converted:
        return file
    bias = state.get("blocks.0.attn.qkv.bias")
    is_kept = any(name.startswith("blocks.0.attn.q") and "bias" in name for name in converted)
    if bias is not None and bias.any() and not is_kept:
        raise InputError(
            f"{file.path} has biases in its attention, which this model of timm lacks; take the "
            "name with _qkvb"
        )
    return replace(file, tensors=converted)


def _of_backbone(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Without the tensors of classifier and pooling; a norm behind the pooling is the final one."""
    if "norm.weight" not in state and _has_final_norm(model):
        state = {
            f"norm.{name[8:]}" if name.startswith("fc_norm.") else name: value
            for name, value in state.items()
        }
    return {k: value for k, value in state.items() if k.partition(".")[0] not in NOT_BACKBONE}


# -- the list --------------------------------------------------------------------------------------


def describe_examples() -> list[tuple[str, int, int, int, str]]:
    """(name, parameters, patch size, width, licence) of EXAMPLES that the installed timm has."""
    rows = []
    for model_name in EXAMPLES:
        if timm.is_model(model_name.partition(".")[0]):
            cfg = _published(model_name)
            with torch.device("meta"):
                model = _create(model_name)
            count = sum(parameter.numel() for parameter in model.parameters())
            rows.append(
                (TIMM + model_name, count, _strides(model)[0], model.embed_dim, cfg.license)
            )
    return rows
