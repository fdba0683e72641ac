"""The same weights in the files of other libraries give the same features."""

import json
import re
from argparse import Namespace
from itertools import product

import pytest
import torch
from helpers.basics import CHECKPOINT, REPO, shared_data
from helpers.stubs import fails
from torch import nn

import infer_image
from networks.backbones import load_backbone
from networks.vit import DinoVisionTransformer
from networks.weights import fingerprint, load_weights, read_weights
from utils import InputError

SIZES = {"img_size": 42, "patch_size": 14, "embed_dim": 12, "depth": 2, "num_heads": 2}
KINDS = {
    "plain": {},
    "registers": {"num_register_tokens": 4},
    "gated": {"ffn_layer": "swiglufused"},
}
QKV = ("attn.qkv.", "attn.q.", "attn.k.", "attn.v.")  # a layer, and its parts
W12 = ("mlp.w12.", "mlp.w1.", "mlp.w2.")
# Official names as transformers has them, in three forms, and timm.
HUGGING_FACE = {
    r"^(cls_token|mask_token|register_tokens)": r"embeddings.\1",
    r"^storage_tokens": "embeddings.register_tokens",
    r"^pos_embed": "embeddings.position_embeddings",
    r"^patch_embed.proj": "embeddings.patch_embeddings.projection",
    r"^blocks": "encoder.layer", r"^norm\.": "layernorm.",
    r"ls(\d)\.gamma": r"layer_scale\1.lambda1",
}  # fmt: skip
BEFORE_5 = HUGGING_FACE | {
    r"attn\.proj": "attention.output.dense", r"attn\.q\.": "attention.attention.query.",
    r"attn\.k\.": "attention.attention.key.", r"attn\.v\.": "attention.attention.value.",
    r"mlp\.w12": "mlp.weights_in", r"mlp\.w3": "mlp.weights_out",
}  # fmt: skip
SINCE_5 = HUGGING_FACE | {
    r"attn\.proj": "attention.o_proj", r"attn\.(q|k|v)\.": r"attention.\1_proj.",
    r"mlp\.w1\.": "mlp.gate_proj.", r"mlp\.w2\.": "mlp.up_proj.", r"mlp\.w3": "mlp.down_proj",
}  # fmt: skip
DINOV3 = SINCE_5 | {
    r"^patch_embed.proj": "embeddings.patch_embeddings", r"^norm\.": "norm.",
    r"mlp\.fc1": "mlp.up_proj", r"mlp\.fc2": "mlp.down_proj",
}  # fmt: skip
DINOV3_OF_TIMM = {
    r"\.ls(\d)\.gamma": r".gamma_\1", "^storage_tokens": "reg_token",
    r"mlp\.w1\.": "mlp.fc1_g.", r"mlp\.w2\.": "mlp.fc1_x.", r"mlp\.w3": "mlp.fc2",
}  # fmt: skip


def random_state(module):
    torch.manual_seed(1)
    return {name: torch.randn_like(value) for name, value in module.state_dict().items()}


def vit(kind):
    return DinoVisionTransformer(**SIZES, init_values=1.0, **KINDS[kind]).eval()


def renamed(state, names, *layers):
    """By other names, with these layers in parts."""
    for layer, *parts in layers:
        for joined in [name for name in state if layer in name]:
            chunks = state.pop(joined).chunk(len(parts))
            cut = zip(parts, chunks, strict=True)
            state |= {joined.replace(layer, part): chunk for part, chunk in cut}
    out = {}
    for name, value in state.items():
        for old, new in names.items():
            name = re.sub(old, new, name)
        out[name] = value
    return out


def before_5(state):
    return renamed({**state}, BEFORE_5, QKV)


def since_5(state):
    return renamed({**state}, SINCE_5, QKV, W12)


def of_timm(state):
    """No mask token, and with registers positions without the class token."""
    out = renamed(state, {"w12": "fc1", "w3": "fc2", "^register_tokens": "reg_token"})
    del out["mask_token"]
    if "reg_token" in out:
        out["cls_token"] = out["cls_token"] + out["pos_embed"][:, :1]
        out["pos_embed"] = out["pos_embed"][:, 1:]
    return out


def in_chunks(state):
    return renamed(state, {"^blocks.": "blocks.0."})


def below(prefix):
    return lambda state: {prefix + name: value for name, value in state.items()}


def loaded(module, path):
    load_weights(module, read_weights(path, module.state_dict()))
    return module


def features(module):
    torch.manual_seed(2)
    with torch.no_grad():
        return torch.cat(module.get_intermediate_layers(torch.randn(1, 3, 42, 42), n=2))


def expected_features(kind):
    module = vit(kind)
    state = random_state(module)
    module.load_state_dict(state)
    return state, features(module)


PREFIXES = [
    below("module._orig_mod."),
    below("_orig_mod.module."),
    lambda state: {
        "epoch": 3, "hyper_parameters": {"lr": 0.1},
        "state_dict": below("model.backbone.")(state) | {"model.head.w": torch.ones(3)},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
    },
    lambda state: {"model": {"backbone": state}, "optimizer": {"state": {0: torch.ones(3)}}},
    lambda state: below("dinov2.")(before_5(state)) | {"classifier.weight": torch.ones(2, 12)},
    lambda state: {
        "student": below("backbone.")(random_state(vit("plain"))), "teacher": state,
        "args": Namespace(lr=0.1),
    },
    lambda state: {"state_dict": below("model.model.")(since_5(state))},
    lambda state: state | {"head.weight": torch.ones(5, 12)},
    lambda state: {name: value.double() for name, value in state.items()},
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "content"),
    [*product(KINDS, [before_5, since_5, of_timm, in_chunks]), *product(["plain"], PREFIXES)],
)
def test_dinov2_in_each_layout_and_with_any_prefix(tmp_path, kind, content):
    state, expected = expected_features(kind)
    torch.save(content(state), tmp_path / "x.pth")
    torch.testing.assert_close(features(loaded(vit(kind), tmp_path / "x.pth")), expected)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards_by_their_index(tmp_path, kind):
    state, expected = expected_features("plain")
    safetensors = pytest.importorskip("safetensors.torch")
    save = safetensors.save_file if kind == "safetensors" else torch.save
    names, index = before_5(state), {}
    for part in (0, 1):
        file = f"model-0000{part + 1}-of-00002.{kind}"
        shard = {name: names[name].clone() for name in sorted(names)[part::2]}
        save(shard, tmp_path / file)
        index |= dict.fromkeys(shard, file)
    path = tmp_path / f"model.{kind}.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": index}))
    torch.testing.assert_close(features(loaded(vit("plain"), path)), expected)
    with pytest.raises(InputError, match=r"00002.* pass the index \(.json\) beside .* is missing"):
        loaded(vit("plain"), tmp_path / file)
    for text in ('{"weight_map": {"a": "../x.bin"}}', '{"weight_map": 3}', "[]", "{", "\0"):
        path.write_text(text)
        with pytest.raises(InputError, match=rf"model.{kind}.index.json: not an index of files"):
            loaded(vit("plain"), path)


def dinov3(gated):
    """A module whose tensors have the names of DINOv3's official code."""
    model = vit("plain")
    del model.pos_embed
    model.storage_tokens = nn.Parameter(torch.zeros(1, 4, 12))
    model.rope_embed = nn.Module()
    model.rope_embed.register_buffer("periods", torch.arange(3.0))
    for block in model.blocks:
        block.attn.qkv.register_buffer("bias_mask", torch.ones(36))
        if gated:
            layers = {"w1": nn.Linear(12, 20), "w2": nn.Linear(12, 20), "w3": nn.Linear(20, 12)}
            block.mlp = nn.ModuleDict(layers)
    return model


def dinov3_of_timm(state):
    names = renamed(state, DINOV3_OF_TIMM, ("attn.qkv.bias", "attn.q_bias", "k", "attn.v_bias"))
    return {name: v for name, v in names.items() if not name.endswith((".k", "mask_token"))}


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(
    "layout",
    [
        lambda state: renamed(state, DINOV3 | {"^blocks": "layer"}, QKV),
        lambda state: renamed(state, DINOV3 | {"^blocks": "model.layer"}, QKV),
        dinov3_of_timm,
    ],
)
@pytest.mark.parametrize("prefix", ["", "model."])
def test_dinov3_in_each_layout(tmp_path, gated, layout, prefix):
    computed = ("periods", "bias_mask")
    state = random_state(dinov3(gated))
    state = {name: value for name, value in state.items() if not name.endswith(computed)}
    for name, value in state.items():
        if name.endswith("qkv.bias"):
            value[12:24] = 0.0  # masked, so other libraries leave the keys' bias out
    names = layout({**state})
    names = {name: value for name, value in names.items() if "k_proj.bias" not in name}
    if "embeddings.mask_token" in names:
        names["embeddings.mask_token"] = names["embeddings.mask_token"][None]
    torch.save(below(prefix)(names), tmp_path / "x.pth")
    found = loaded(dinov3(gated), tmp_path / "x.pth").state_dict()
    fresh = dinov3(gated).state_dict()
    for name, value in found.items():
        own = fresh[name] if name.endswith(computed) else state[name]
        if name != "mask_token" or layout is not dinov3_of_timm:
            torch.testing.assert_close(value, own, msg=name)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda s: before_5(s | {"register_tokens": torch.zeros(1, 4, 12)}),
         r"names are those of Hugging Face .*: register_tokens is \(1, 4, 12\), expected nothing"),
        (lambda s: before_5({k: v for k, v in s.items() if k != "blocks.1.attn.proj.bias"}),
         r"transformers; pass a file of .*: blocks.1.attn.proj.bias is missing, expected \(12,\)"),
        (lambda s: before_5(s | {"pos_embed": torch.zeros(1, 26, 12)}),
         r"transformers.*: pos_embed is \(1, 26, 12\), expected \(1, 10, 12\)"),
        (lambda s: before_5(s | {"norm.bias": torch.zeros(1).expand(10**10)}),
         r"transformers.*: norm.bias is \(10000000000,\), expected \(12,\)"),
        (lambda s: below("left.")(s) | below("right.")(s),
         r"x.pth holds several backbones .* left. and right."),
    ],
)  # fmt: skip
def test_what_does_not_fit_names_the_layout(tmp_path, content, words):
    torch.save(content(random_state(vit("plain"))), tmp_path / "x.pth")
    with pytest.raises(InputError, match=words) as error:
        loaded(vit("plain"), tmp_path / "x.pth")
    assert "\n" not in str(error.value)


def test_a_head_is_no_backbone_and_a_backbone_no_head(tmp_path, capsys):
    published = tmp_path / "dinov2_vits14_voc2012_ms_head.pth"
    torch.save({"state_dict": {"decode_head.conv_seg.weight": torch.ones(2, 3)}}, published)
    for path in (CHECKPOINT, published):
        with pytest.raises(InputError, match=r"holds a segmentation head .* run by --model FILE"):
            load_backbone("dinov2_vitt14", 1, weights=str(path))
    backbone = str(REPO / "weights/dinov2_vitt14.pth")
    picture = REPO / "docs/demo.jpg"
    said = fails(capsys, infer_image.main, "--input", picture, "--model", backbone)
    assert "not a checkpoint of this project" in said
    assert "--weights takes the file of a backbone" in said


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_files_that_hold_code(tmp_path):
    layer, batch = nn.Linear(2, 2), torch.ones(1, 2)
    torch.jit.trace(layer, batch).save(str(tmp_path / "x.pt"))
    torch.export.save(torch.export.export(layer, (batch,)), tmp_path / "x.pt2")
    torch.save(layer, tmp_path / "x.pth")
    for name in ("x.pt", "x.pt2", "x.pth"):
        with pytest.raises(InputError, match=rf"{name}: refused, .*; save .* state_dict\(\)"):
            load_backbone("dinov2_vitt14", 1, weights=str(tmp_path / name))


def test_real_files_of_transformers():
    path = str(shared_data("backbones/vits14_saliency_transformers.safetensors"))
    backbone = load_backbone("dinov2_vits14", 1, str(REPO), path)
    content = read_weights(path, {}).content
    bias = content["encoder.layer.11.attention.attention.value.bias"].float()
    assert torch.equal(backbone.blocks[11].attn.qkv.bias[768:], bias)
    pytest.importorskip("timm")
    other = load_backbone("timm/vit_small_patch14_dinov2", 1, weights=path)
    assert torch.equal(other.blocks[11].attn.qkv.bias[768:], bias)
    assert fingerprint(backbone) != fingerprint(
        load_backbone("dinov2_vits14", 1, str(REPO), "none")
    )
