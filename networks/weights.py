"""Weights of backbones: random, from files, from the Hugging Face hub; and their fingerprint."""

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from common.checkpoints import short
from common.tensor_files import check_names, load_tensors
from networks.vit import flatten_block_chunks
from utils import InputError

CONTAINERS = ("state_dict", "model", "teacher", "model_state_dict")
SAT493M = "sat493m"  # in the names of DINOv3's weights that were trained on satellite images
FREE_LICENCES = ("apache-2.0", "mit", "bsd-3-clause")


def init_random_weights(backbone: nn.Module) -> None:
    """Weights from N(0, 0.02), biases 0, LayerScale and norms 1: equal on every machine.

    Several architectures start LayerScale, or the norm at a block's end, at 1e-5, with which random
    blocks would do nothing.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in sorted(backbone.named_parameters()):
            own_name = name.rpartition(".")[2]
            if parameter.ndim > 1:
                parameter.normal_(std=0.02, generator=generator)
            elif own_name.endswith("bias"):
                parameter.zero_()
            elif own_name.startswith("gamma") or own_name == "weight":
                parameter.fill_(1.0)


def read_weights(path: str | Path, expected: Collection[str] = ()) -> dict[str, Tensor]:
    """A backbone's state dict from a file: bare, or under one of CONTAINERS.

    A fine-tuned checkpoint of this project gives its backbone, and so does a teacher of DINOv2's
    training, whose file holds the heads of the pretraining too.

    expected: the model's names. Where the file has them all, a prefix `backbone.` is the model's.
    """
    state_dict = load_tensors(Path(path))
    for key in CONTAINERS:
        if isinstance(state_dict.get(key), dict):
            state_dict = state_dict[key]
    check_names(path, state_dict)
    state = {name.removeprefix("module."): value for name, value in state_dict.items()}
    if not expected or not state.keys() >= set(expected):
        prefix = "backbone."
        inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        state = inner or state
    state = {k: v for k, v in state.items() if k in expected or not k.startswith("head.")}
    if not state:
        raise InputError(
            f"{path} holds no backbone; a checkpoint whose backbone was frozen has the head alone"
        )
    return state


def from_hugging_face(name: str, repository: str | None, file: str) -> str:
    """The path of a published file, downloaded if the Hugging Face hub's cache lacks it.

    name: of the backbone, for errors. Without a network this fails at once.
    """
    import huggingface_hub as hub

    if not repository:
        raise InputError(f"{name} has no published weights; pass --weights FILE, or none")
    cached = hub.try_to_load_from_cache(repository, file)
    if isinstance(cached, str):
        return cached
    try:
        # One try; a download tries for 50 s.
        hub.get_hf_file_metadata(hub.hf_hub_url(repository, file))
        return hub.hf_hub_download(repository, file)
    except Exception as error:  # of the network, the hub, the account or the disk
        reason = " ".join(f"{type(error).__name__} {error}".split())[:160]
        page = f"https://huggingface.co/{repository}"
        advice = f"fetch {file} from {page} elsewhere and pass --weights FILE"
        if type(error).__name__ == "GatedRepoError":
            advice = f"ask for access on {page}, then run `hf auth login`"
        raise InputError(f"the weights of {name} cannot be fetched ({reason}); {advice}") from error


def load_weights(backbone: nn.Module, state_dict: Mapping[str, Tensor], path: str | Path) -> None:
    """Load a state dict strictly; blocks may be nested in chunks. path: named in errors."""
    state_dict = flatten_block_chunks(state_dict)
    if not hasattr(backbone, "local_cls_norm"):  # of DINOv3's pretraining; in some files only
        state_dict = {k: v for k, v in state_dict.items() if not k.startswith("local_cls_norm.")}
    if problem := _other_names(state_dict.keys(), backbone.state_dict().keys()):
        raise InputError(
            f"{path} does not fit this backbone: {problem}; pass a file of its architecture"
        )
    try:
        backbone.load_state_dict(state_dict, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{path} does not fit this backbone: {reason}") from error


def _other_names(found: Collection[str], expected: Collection[str]) -> str:
    """How the names of a file's tensors differ from the model's; empty where they do not."""
    missing, unknown = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    parts = []
    if missing:
        parts.append(f"{len(missing)} of {len(expected)} tensors are missing, first {missing[0]}")
    if unknown:
        parts.append(f"{len(unknown)} are unknown, first {short(unknown[0])}")
    return "; ".join(parts)


def check_depth(name: str, n_blocks: int, num_blocks: int) -> None:
    """Raise InputError where a head reads more blocks than the backbone has."""
    if n_blocks < num_blocks:
        raise InputError(
            f"{name} has {n_blocks} blocks and this head reads {num_blocks}; take --head linear"
        )


def print_licence(name: str, licence: str | None) -> None:
    """Print the licence of a backbone's weights where it restricts their use."""
    if not licence or licence.lower() in FREE_LICENCES:
        return
    non_commercial = any(word in licence.lower() for word in ("-nc", "noncommercial"))
    terms = "not for commercial use" if non_commercial else "read its terms first"
    print(f"{name}: weights under {licence}, {terms}")


def fingerprint(backbone: nn.Module) -> str:
    """A short hash that tells one set of weights from another; a sample of each tensor."""
    digest = hashlib.sha256()
    for name, parameter in sorted(backbone.named_parameters()):
        sample = parameter.detach().flatten()[:256].float().cpu()
        digest.update(name.encode() + sample.numpy().tobytes())
    return digest.hexdigest()[:16]
