"""Weights of backbones: random, or from files in the layouts of several libraries; fingerprints."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.tensor_files import check_state, load_tensors
from utils import InputError

# The patterns that turn each library's names of tensors of DINOv2 and DINOv3 into official ones.
# They are applied in order, until the backbone has a tensor of that name.
LAYOUTS = {
    "the official code's, in chunks": ((r"^blocks\.\d+\.(?=\d+\.)", "blocks."),),
    "those of Hugging Face transformers": (
        (r"^embeddings\.(cls_token|mask_token|register_tokens)$", r"\1"),
        (r"^embeddings\.position_embeddings$", "pos_embed"),
        (r"^embeddings\.patch_embeddings\.(projection\.)?", "patch_embed.proj."),
        (r"^(encoder\.|model\.)?layer\.(?=\d+\.)", "blocks."),
        (r"^layernorm\.", "norm."),
        (r"\.attention\.attention\.(q|k|v)(uery|ey|alue)\.", r".attn.\1."),  # before version 5
        (r"\.attention\.(q|k|v)_proj\.", r".attn.\1."),
        (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
        (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
        (r"\.mlp\.weights_in\.", ".mlp.w12."),
        (r"\.mlp\.weights_out\.", ".mlp.w3."),
        (r"\.mlp\.gate_proj\.", ".mlp.w1."),
    ),
    "those of timm": (
        (r"^reg_token$", "register_tokens"),
        (r"\.gamma_(\d)$", r".ls\1.gamma"),
        (r"\.attn\.(q|v)_bias$", r".attn.\1.bias"),
        (r"\.mlp\.fc1_g\.", ".mlp.w1."),
        (r"\.mlp\.fc1_x\.", ".mlp.w2."),
        (r"\.mlp\.fc1\.", ".mlp.w12."),
        (r"\.mlp\.fc2\.", ".mlp.w3."),
    ),
}
# In transformers too; the official names depend on whether there is a gate_proj.
GATED = ((r"\.mlp\.up_proj\.", ".mlp.w2."), (r"\.mlp\.down_proj\.", ".mlp.w3."))
PLAIN = ((r"\.mlp\.up_proj\.", ".mlp.fc1."), (r"\.mlp\.down_proj\.", ".mlp.fc2."))
# Official layers, and the layers whose rows they join.
JOINED = {".attn.qkv.": (".attn.q.", ".attn.k.", ".attn.v."), ".mlp.w12.": (".mlp.w1.", ".mlp.w2.")}
PREFERRED = {"teacher", "ema"}  # averaged weights, which DINO's trainings and timm's evaluate
# In files only: a classifier, and a norm of DINOv3's pretraining.
NOT_BACKBONE = ("head.", "local_cls_norm.")
# No feature depends on the mask token. The others are computed when DINOv3's network is built.
NOT_IN_FILES = ("mask_token", "rope_embed.periods", "attn.qkv.bias_mask")
HEADS_LAYERS = ("conv_seg.weight", "classify.weight")  # the last ones of heads
MAX_NAME = 200  # characters
SAT493M = "sat493m"  # in the names of DINOv3's weights that were trained on satellite images
FREE_LICENCES = ("apache-2.0", "mit", "bsd-3-clause")

Rules = Collection[tuple[str, str]]


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
    """The tensors of a backbone from a file in one of LAYOUTS, below any prefix, in nested dicts.

    path: a file of tensors, or the index (.json) of several.
    expected: the backbone's tensors.
    """
    content = _read(Path(path))
    tensors = _named_tensors(content)
    rules = GATED if any(".mlp.gate_proj." in name for name in tensors) else PLAIN
    rules += tuple(rule for layout in LAYOUTS.values() for rule in layout)
    own = {*expected, *(_renamed(name, rules) for name in expected)}
    wanted = set(own)
    for joined, parts in JOINED.items():
        wanted |= {name.replace(joined, part) for name in own for part in parts}
    official = partial(_renamed, rules=rules, known=expected)
    prefix, count = _find_prefix(
        path, tensors, lambda name: official(name) in wanted, len(expected) / 2
    )
    if count < len(expected) / 10:
        if any(name.endswith(HEADS_LAYERS) for name in tensors):
            raise InputError(
                f"{path} holds a segmentation head without its backbone; a head is run by --model "
                "FILE, and --weights takes a backbone's file"
            )
        found = "its names are of no known layout"
    else:
        inner = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        found = f"its names are {_layout(inner.keys() - expected)}"
        found += f" below {prefix}" if prefix else ""
        tensors = {official(name): value for name, value in inner.items()}
        for joined, parts in JOINED.items():
            if not any(f"{parts[0]}weight" in name for name in own):
                _join(tensors, joined, parts)
        _fit_tokens(tensors, expected)
    state = {k: v for k, v in tensors.items() if k in expected or not k.startswith(NOT_BACKBONE)}
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


def _named_tensors(content: Mapping) -> dict[str, Tensor]:
    """All tensors of nested dicts, by their keys joined with dots; other values are left out.

    So are names that no library gives.
    """
    found: dict[str, Tensor] = {}
    seen: set[int] = set()  # a hostile file may hold one dict many times

    def visit(values: Mapping, prefix: str) -> None:
        seen.add(id(values))
        for key, value in values.items():
            name = f"{prefix}{key}" if isinstance(key, str) else ""
            if not name.isprintable() or not 0 < len(name) <= MAX_NAME:
                continue
            if isinstance(value, Mapping) and id(value) not in seen and len(seen) < 100:
                visit(value, f"{name}.")
            elif isinstance(value, Tensor):
                found[name] = value

    visit(content, "")
    return found


def _renamed(name: str, rules: Rules, known: Collection[str] = ()) -> str:
    for pattern, official in rules:
        if name in known:
            break
        name = re.sub(pattern, official, name)
    return name


def _layout(names: Collection[str]) -> str:
    """Whose names these are, those of the backbone left out."""
    for title, rules in LAYOUTS.items():
        if any(_renamed(name, rules) != name for name in names):
            return title
    return "this backbone's own"


def _find_prefix(
    path: object, names: Collection[str], fits: Callable[[str], bool], enough: float
) -> tuple[str, int]:
    """The prefix below which most names fit a backbone, and how many.

    Equal votes go to PREFERRED, then to the shortest prefix. Raises InputError where enough names
    fit below two prefixes alike.
    """
    votes: Counter[str] = Counter()
    for name in names:
        for end in (0, *(dot.end() for dot in re.finditer(r"\.", name))):
            votes[name[:end]] += fits(name[end:])
    most = max(votes.values(), default=0)
    best = sorted(prefix for prefix, count in votes.items() if count == most)
    best = [p for p in best if PREFERRED & set(re.split(r"[._]", p))] or best
    others = [prefix for prefix in best if not prefix.startswith(best[0])]
    if most > enough and others:
        raise InputError(
            f"{path} holds several backbones that fit, below {best[0]} and {others[0]}; save the "
            "tensors of one of them"
        )
    return best[0] if best else "", most


def _join(state: dict[str, Tensor], joined: str, parts: tuple[str, ...]) -> None:
    """Replace the parts of layers by one tensor; keys without a bias get zeros.

    Such a bias adds the same to all scores of a query, which the softmax ignores.
    """
    for first in [name for name in state if parts[0] in name]:
        names = [first.replace(parts[0], part) for part in parts]
        if first.endswith(".bias") and names[1] not in state and ".attn." in joined:
            state[names[1]] = torch.zeros_like(state[first])
        found = [state.get(name) for name in names]
        if all(p is not None and p.ndim and p.shape == found[0].shape for p in found):
            state[first.replace(parts[0], joined)] = torch.cat(found)
            for name in names:
                del state[name]


def _fit_tokens(state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Give tokens and positions the names and shapes that they have in the backbone."""
    if "register_tokens" in state.keys() - expected and "pos_embed" not in state:
        state["storage_tokens"] = state.pop("register_tokens")  # DINOv3 has rotary positions
    for name in ("pos_embed", "mask_token"):
        value, like = state.get(name), expected.get(name)
        if value is None or like is None:
            continue
        if name == "mask_token" and value.numel() == like.numel():
            state[name] = value.reshape(like.shape)
        elif value.shape == like[:, 1:].shape:
            # timm's class token holds its row of the position table.
            state[name] = F.pad(value, (0, 0, 1, 0))


def load_weights(backbone: nn.Module, file: FileOfWeights) -> None:
    """Load all tensors of a backbone; only NOT_IN_FILES may be missing."""
    expected = backbone.state_dict()
    state = {name: value for name, value in expected.items() if name.endswith(NOT_IN_FILES)}
    state |= file.tensors
    is_part = re.search(r"-\d+-of-\d+\.", file.path)
    advice = "the index (.json) beside it" if is_part else "a file of its architecture"
    check_state(
        state, expected, f"{file.path} does not fit this backbone, {file.found}; pass {advice}"
    )
    backbone.load_state_dict(state, strict=True)


def blocks_to_read(name: str, n_blocks: int, num_blocks: int, spread: bool) -> list[int]:
    """Indices of the last num_blocks blocks; spread: of the last one of each part of the depth.

    Raises InputError where a head reads more blocks than the backbone has.
    """
    if n_blocks < num_blocks:
        raise InputError(
            f"{name} has {n_blocks} blocks and this head reads {num_blocks}; take --head linear"
        )
    if spread:
        return [part * n_blocks // num_blocks - 1 for part in range(1, num_blocks + 1)]
    return list(range(n_blocks - num_blocks, n_blocks))


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
