"""Weights of backbones: random, from files, from the Hugging Face hub; and their fingerprint."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from common.checkpoints import short
from common.tensor_files import load_tensors
from networks.weight_layouts import OWN_NAMES, find_layout, named_tensors, official_tensors
from utils import InputError

# In files only: a classifier, and a norm of DINOv3's pretraining.
NOT_BACKBONE = ("head.", "local_cls_norm.")
# Of DINOv3's official code, computed when the network is built; other libraries do not save them.
COMPUTED = ("rope_embed.periods", "attn.qkv.bias_mask")
HEADS_LAYERS = ("conv_seg.weight", "classify.weight")  # the last ones of heads
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


@dataclass(frozen=True)
class FileOfWeights:
    """A backbone's tensors from a file, by official names or the backbone's own."""

    path: str
    tensors: dict[str, Tensor]
    found: str  # whose names the file has, for errors
    content: dict  # of the file as it is


def read_weights(path: str | Path, expected: Mapping[str, Tensor]) -> FileOfWeights:
    """The tensors of a backbone from a file in a known layout, see weight_layouts.py.

    They may stand below any prefix, as in a larger model's or a training's file, a fine-tuned
    checkpoint of this project, or a teacher of DINOv2's training.

    path: a file of tensors, or the index (.json) of several.
    expected: the backbone's tensors.
    """
    content = _read(Path(path))
    tensors = named_tensors(content)
    title, prefix, count = find_layout(path, tensors, expected)
    is_known = count >= len(expected) / 10
    if not is_known:
        if any(name.endswith(HEADS_LAYERS) for name in tensors):
            raise InputError(
                f"{path} holds a segmentation head without its backbone; a head is run by --model "
                "FILE, and --weights takes a backbone's file"
            )
        title, prefix = OWN_NAMES, ""
    state = official_tensors(tensors, title, prefix, expected)
    found = f"its names are {title if is_known else 'of no known layout'}"
    found += f" below {short(prefix)}" if prefix else ""
    state = {k: v for k, v in state.items() if k in expected or not k.startswith(NOT_BACKBONE)}
    return FileOfWeights(str(path), state, found, content)


def _read(path: Path) -> dict:
    """The content of a file of tensors, or of all files that an index names."""
    if path.suffix != ".json":
        return load_tensors(path)
    try:
        files = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
        if not all(Path(file).name == file for file in files):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f'{path}: not an index of files beside it, expected {{"weight_map": {{NAME: FILE}}}}'
        ) from error
    content: dict = {}
    for file in sorted(files):
        content |= load_tensors(path.with_name(file))
    return content


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


def load_weights(backbone: nn.Module, file: FileOfWeights) -> None:
    """Load all tensors of a backbone; only what no feature depends on may be missing."""
    expected = backbone.state_dict()
    state = dict(file.tensors)
    for name, value in expected.items():
        if name == "mask_token":  # of the pretraining; timm's files lack it
            state.setdefault(name, torch.zeros_like(value))
        elif name.endswith(COMPUTED):
            state.setdefault(name, value)
    if problem := _differences(state, expected):
        shard = re.search(r"-\d+-of-\d+\.", file.path)
        advice = "the index (.json) beside it" if shard else "a file of its architecture"
        raise InputError(
            f"{file.path} does not fit this backbone: {file.found}; {problem}; pass {advice}"
        )
    backbone.load_state_dict(state, strict=True)


def _differences(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """How the names and shapes of a file's tensors differ from the model's; empty if not at all."""
    missing, unknown = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected)
    parts = []
    if missing:
        parts.append(f"{len(missing)} of {len(expected)} tensors are missing, first {missing[0]}")
    if unknown:
        parts.append(f"{len(unknown)} are unknown, first {short(unknown[0])}")
    if not parts:
        shapes = {name: (tuple(found[name].shape), tuple(v.shape)) for name, v in expected.items()}
        others = [(name, *pair) for name, pair in shapes.items() if pair[0] != pair[1]]
        parts += ["{} is {}, expected {}".format(*other) for other in others[:1]]
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
