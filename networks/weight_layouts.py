"""Names that other libraries give to the weights of DINOv2 and DINOv3, and their official names.

A backbone may also stand inside a larger model or a training's file, below a prefix.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor

from utils import InputError

OWN_NAMES, TIMM_NAMES = "this backbone's own", "those of timm"
# For each layout the patterns that turn its names into official ones, in order.
LAYOUTS = {
    OWN_NAMES: (),
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
    TIMM_NAMES: (
        (r"^reg_token$", "register_tokens"),
        (r"\.gamma_(\d)$", r".ls\1.gamma"),
        (r"\.attn\.(q|v)_bias$", r".attn.\1.bias"),
        (r"\.mlp\.fc1_g\.", ".mlp.w1."),
        (r"\.mlp\.fc1_x\.", ".mlp.w2."),
    ),
}
# Layers whose official name depends on whether the network is gated (SwiGLU).
GATED = (
    (r"\.mlp\.up_proj\.", ".mlp.w2."),
    (r"\.mlp\.fc1\.", ".mlp.w12."),
    (r"\.mlp\.(down_proj|fc2)\.", ".mlp.w3."),
)
PLAIN = ((r"\.mlp\.up_proj\.", ".mlp.fc1."), (r"\.mlp\.down_proj\.", ".mlp.fc2."))
# Official layers, and the layers whose rows they join.
JOINED = {".attn.qkv.": (".attn.q.", ".attn.k.", ".attn.v."), ".mlp.w12.": (".mlp.w1.", ".mlp.w2.")}
PREFERRED = {"teacher", "ema"}  # averaged weights, which DINO's trainings and timm's evaluate


def named_tensors(content: Mapping) -> dict[str, Tensor]:
    """All tensors of nested dicts, by their keys joined with dots; other values are left out.

    So are tensors without plain numbers, which might be larger than the file.
    """
    found: dict[str, Tensor] = {}
    seen: set[int] = set()  # a hostile file may hold one dict many times

    def visit(values: Mapping, prefix: str) -> None:
        seen.add(id(values))
        for key, value in values.items():
            if not isinstance(key, str):
                continue
            if isinstance(value, Mapping) and id(value) not in seen and len(seen) < 100:
                visit(value, f"{prefix}{key}.")
            elif isinstance(value, Tensor) and _has_plain_numbers(value):
                found[prefix + key] = value

    visit(content, "")
    return found


def _has_plain_numbers(value: Tensor) -> bool:
    if value.layout != torch.strided or value.device.type == "meta":
        return False
    return value.nbytes <= value.untyped_storage().nbytes()


def find_layout(
    path: object, names: Collection[str], expected: Collection[str]
) -> tuple[str, str, int]:
    """Title of the layout and prefix under which most of a backbone's tensors stand; how many.

    expected: the backbone's names. Equal votes go to PREFERRED, to the first layout, and to the
    shortest prefix. Raises InputError where two backbones in the file fit alike.
    """
    wanted = set(expected)
    for joined, parts in JOINED.items():
        wanted |= {name.replace(joined, part) for name in expected for part in parts}
    is_gated = _is_gated(names, expected)
    votes: Counter[tuple[str, str]] = Counter()
    for name in names:
        for prefix, rest in _cuts(name):
            for title in LAYOUTS:
                votes[title, prefix] += _official(rest, title, is_gated) in wanted
    most = max(votes.values(), default=0)
    best = [choice for choice, count in votes.items() if count == most]
    title = next((title for title in LAYOUTS if any(title == t for t, _ in best)), OWN_NAMES)
    prefixes = sorted(prefix for t, prefix in best if t == title)
    prefixes = [p for p in prefixes if PREFERRED & set(re.split(r"[._]", p))] or prefixes
    others = [prefix for prefix in prefixes if not prefix.startswith(prefixes[0])]
    if most > len(expected) / 2 and others:
        raise InputError(
            f"{path} holds several backbones that fit, below {prefixes[0]} and {others[0]}; save "
            "the tensors of one of them"
        )
    return title, prefixes[0] if prefixes else "", most


def _cuts(name: str) -> Iterator[tuple[str, str]]:
    """The name cut into prefix and rest at each dot."""
    yield "", name
    for dot in islice(re.finditer(r"\.", name), 10):  # a hostile name has a million
        yield name[: dot.end()], name[dot.end() :]


def _is_gated(names: Collection[str], expected: Collection[str]) -> bool:
    gates = any(".mlp.gate_proj." in name for name in names)
    return gates or any(".mlp.w3." in name for name in expected)


def _official(name: str, title: str, is_gated: bool) -> str:
    """The official name for a name of a layout."""
    if title == OWN_NAMES:
        return name
    for pattern, official in (*LAYOUTS[title], *(GATED if is_gated else PLAIN)):
        name = re.sub(pattern, official, name)
    return name


def official_tensors(
    tensors: Mapping[str, Tensor], title: str, prefix: str, expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors below a prefix by official names, queries, keys and values joined.

    expected: tensors of the backbone, whose names may be timm's too.
    """
    rename = partial(_official, title=title, is_gated=_is_gated(tensors, expected))
    inner = {name.removeprefix(prefix): v for name, v in tensors.items() if name.startswith(prefix)}
    if title == OWN_NAMES:
        return inner
    state = {rename(name): value for name, value in inner.items()}
    separate = any(name.endswith((".mlp.w1.weight", ".mlp.fc1_g.weight")) for name in expected)
    for joined, parts in JOINED.items():
        if not (separate and "mlp" in joined):
            _join(state, joined, parts)
    if "pos_embed" not in state and "register_tokens" in state:  # DINOv3 has rotary positions
        state["storage_tokens"] = state.pop("register_tokens")
    elif title == TIMM_NAMES and "register_tokens" in state and state["pos_embed"].ndim == 3:
        # There the class token holds its row of the position table.
        state["pos_embed"] = F.pad(state["pos_embed"], (0, 0, 1, 0))
    if "mask_token" in state:
        state["mask_token"] = state["mask_token"].flatten()[None]
    return state


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
