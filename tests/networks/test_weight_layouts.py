"""The same weights in the files of other libraries give the same features."""

import json
import re

import pytest
import torch
from helpers.basics import REPO, shared_data
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
# What each library calls the layers of a block.
BEFORE_5 = {
    "attn.proj": "attention.output.dense", "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1", "mlp.w12": "mlp.weights_in", "mlp.w3": "mlp.weights_out",
    "attn.q.": "attention.attention.query.", "attn.k.": "attention.attention.key.",
    "attn.v.": "attention.attention.value.",
}  # fmt: skip
SINCE_5 = BEFORE_5 | {
    "attn.proj": "attention.o_proj", "attn.q.": "attention.q_proj.", "attn.k.": "attention.k_proj.",
    "attn.v.": "attention.v_proj.", "mlp.w1.": "mlp.gate_proj.", "mlp.w2.": "mlp.up_proj.",
    "mlp.w3": "mlp.down_proj",
}  # fmt: skip
DINOV3 = SINCE_5 | {"mlp.fc1": "mlp.up_proj", "mlp.fc2": "mlp.down_proj"}
ROOTS = {
    "cls_token": "embeddings.cls_token", "mask_token": "embeddings.mask_token",
    "register_tokens": "embeddings.register_tokens", "storage_tokens": "embeddings.register_tokens",
    "pos_embed": "embeddings.position_embeddings",
}  # fmt: skip


def random_state(module):
    torch.manual_seed(1)
    return {name: torch.randn_like(value) for name, value in module.state_dict().items()}


def vit(kind):
    return DinoVisionTransformer(**SIZES, init_values=1.0, **KINDS[kind]).eval()


def split(state, layer, parts):
    """A joined layer as its parts."""
    out = {}
    for name, value in state.items():
        chunks = value.chunk(len(parts)) if layer in name else [value]
        names = [name.replace(layer, part) for part in parts] if layer in name else [name]
        out |= dict(zip(names, chunks, strict=True))
    return out


def transformers_names(state, layers, patches, blocks, norm):
    out = {}
    state = split(state, "attn.qkv.", ("attn.q.", "attn.k.", "attn.v."))
    if any("w2." in new for new in layers.values()) or "mlp.w1." in layers:
        state = split(state, "mlp.w12.", ("mlp.w1.", "mlp.w2."))
    for name, value in state.items():
        for old, new in layers.items():
            name = name.replace(old, new)
        name = name.replace("patch_embed.proj", patches).replace("blocks.", blocks)
        name = re.sub(r"^norm\.", norm, name)
        out[ROOTS.get(name, name)] = value
    return out


def before_5(state):
    patches = "embeddings.patch_embeddings.projection"
    return transformers_names(state, BEFORE_5, patches, "encoder.layer.", "layernorm.")


def since_5(state):
    patches = "embeddings.patch_embeddings.projection"
    return transformers_names(state, SINCE_5, patches, "encoder.layer.", "layernorm.")


def timm_names(state):
    """As its models of DINOv2 have them: no mask token, positions without the class token."""
    out = {k.replace("w12", "fc1").replace("w3", "fc2"): v for k, v in state.items()}
    del out["mask_token"]
    if "register_tokens" in out:
        out["reg_token"] = out.pop("register_tokens")
        out["cls_token"] = out["cls_token"] + out["pos_embed"][:, :1]
        out["pos_embed"] = out["pos_embed"][:, 1:]
    return out


def in_chunks(state):
    return {name.replace("blocks.", "blocks.0."): value for name, value in state.items()}


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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", [before_5, since_5, timm_names, in_chunks])
def test_dinov2_in_each_layout(tmp_path, kind, layout):
    state, expected = expected_features(kind)
    torch.save(layout(state), tmp_path / "x.pth")
    torch.testing.assert_close(features(loaded(vit(kind), tmp_path / "x.pth")), expected)


@pytest.mark.parametrize(
    "content",
    [
        below("module._orig_mod."),
        below("_orig_mod.module."),
        lambda state: {"epoch": 3, "state_dict": below("model.backbone.")(state)},
        lambda state: {"state_dict": below("net.encoder.")(state) | {"net.head.w": torch.ones(3)}},
        lambda state: {"model": {"backbone": state}, "optimizer": {"state": {0: torch.ones(3)}}},
        lambda state: below("dinov2.")(before_5(state)) | {"classifier.weight": torch.ones(2, 12)},
        lambda state: {"student": below("backbone.")(random_state(vit("plain"))), "teacher": state},
        lambda state: {"state_dict": below("model.model.")(since_5(state))},
        lambda state: state | {"head.weight": torch.ones(5, 12)},
        lambda state: {name: value.double() for name, value in state.items()},
    ],
)  # fmt: skip
def test_any_prefix(tmp_path, content):
    state, expected = expected_features("plain")
    torch.save(content(state), tmp_path / "x.pth")
    torch.testing.assert_close(features(loaded(vit("plain"), tmp_path / "x.pth")), expected)


def test_a_file_of_two_backbones_is_refused(tmp_path):
    state = random_state(vit("plain"))
    torch.save(below("left.")(state) | below("right.")(state), tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"x.pth holds several backbones .* left. and right."):
        loaded(vit("plain"), tmp_path / "x.pth")


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
    with pytest.raises(InputError, match=r"00002.* are missing.*pass the index \(.json\) beside"):
        loaded(vit("plain"), tmp_path / file)
    for text in ('{"weight_map": {"a": "../x.bin"}}', '{"weight_map": 3}', "[]", "{", "\0"):
        path.write_text(text)
        with pytest.raises(InputError, match=rf"model.{kind}.index.json: not an index of files"):
            loaded(vit("plain"), path)


class Named(nn.Module):
    """Tensors by the names of DINOv3's official code."""

    def __init__(self, gated):
        super().__init__()
        dim, mlp = 12, {"w1": (20, 12), "w2": (20, 12), "w3": (12, 20)}
        mlp = mlp if gated else {"fc1": (20, 12), "fc2": (12, 20)}
        shapes = {"cls_token": (1, 1, dim), "storage_tokens": (1, 4, dim), "mask_token": (1, dim)}
        layers = {"patch_embed.proj": (dim, 3, 16, 16), "norm": (dim,)}
        for block in range(2):
            sizes = {"attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim), "norm1": (dim,)}
            sizes |= {"norm2": (dim,)} | {f"mlp.{layer}": size for layer, size in mlp.items()}
            layers |= {f"blocks.{block}.{layer}": size for layer, size in sizes.items()}
            shapes |= {f"blocks.{block}.ls{i}.gamma": (dim,) for i in (1, 2)}
        for layer, size in layers.items():
            shapes |= {f"{layer}.weight": size, f"{layer}.bias": size[:1]}
        for name, shape in shapes.items():
            self._put(name, nn.Parameter(torch.zeros(shape)))
        for block in range(2):
            mask = torch.ones(3 * dim).index_fill(0, torch.arange(dim, 2 * dim), 0.0)
            self._put(f"blocks.{block}.attn.qkv.bias_mask", mask)
        self._put("rope_embed.periods", torch.arange(3.0))

    def _put(self, name, value):
        module, (*path, last) = self, name.split(".")
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, nn.Module())
            module = getattr(module, part)
        if isinstance(value, nn.Parameter):
            module.register_parameter(last, value)
        else:
            module.register_buffer(last, value)


def dinov3_before_5(state):
    return transformers_names(state, DINOV3, "embeddings.patch_embeddings", "layer.", "norm.")


def dinov3_since_5(state):
    return transformers_names(state, DINOV3, "embeddings.patch_embeddings", "model.layer.", "norm.")


def dinov3_of_timm(state):
    out = {}
    for name, value in split(state, "attn.qkv.bias", ("attn.q_bias", "k", "attn.v_bias")).items():
        name = re.sub(r"\.ls(\d)\.gamma", r".gamma_\1", name)
        for old, new in (("w1.", "fc1_g."), ("w2.", "fc1_x."), ("w3.", "fc2.")):
            name = name.replace(f"mlp.{old}", f"mlp.{new}")
        out[name.replace("storage_tokens", "reg_token")] = value
    return {name: value for name, value in out.items() if not name.endswith((".k", "mask_token"))}


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("layout", [dinov3_before_5, dinov3_since_5, dinov3_of_timm])
@pytest.mark.parametrize("prefix", ["", "model."])
def test_dinov3_in_each_layout(tmp_path, gated, layout, prefix):
    computed = ("periods", "bias_mask")
    state = random_state(Named(gated))
    state = {name: value for name, value in state.items() if not name.endswith(computed)}
    for name, value in state.items():
        if name.endswith("qkv.bias"):
            value[12:24] = 0.0  # masked, so other libraries leave the keys' bias out
    names = layout(state)
    names = {name: value for name, value in names.items() if "k_proj.bias" not in name}
    if "embeddings.mask_token" in names:
        names["embeddings.mask_token"] = names["embeddings.mask_token"][None]
    torch.save(below(prefix)(names), tmp_path / "x.pth")
    found = loaded(Named(gated), tmp_path / "x.pth").state_dict()
    fresh = Named(gated).state_dict()
    for name, value in found.items():
        own = fresh[name] if name.endswith(computed) else state[name]
        if name != "mask_token" or layout is not dinov3_of_timm:
            torch.testing.assert_close(value, own, msg=name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s | {"register_tokens": torch.zeros(1, 4, 12)},
         "names are those of Hugging Face transformers; 1 are unknown, first 'register_tokens'"),
        (lambda s: {k: v for k, v in s.items() if k != "blocks.1.attn.proj.bias"},
         "transformers; 1 of 35 tensors are missing, first blocks.1.attn.proj.bias"),
        (lambda s: s | {"pos_embed": torch.zeros(1, 26, 12)},
         r"transformers; pos_embed is \(1, 26, 12\), expected \(1, 10, 12\)"),
        (lambda s: s | {"norm.bias": torch.zeros(1).expand(10**10)},
         "transformers; 1 of 35 tensors are missing, first norm.bias"),
    ],
)  # fmt: skip
def test_what_does_not_fit_names_the_layout(tmp_path, change, words):
    torch.save(before_5(change(random_state(vit("plain")))), tmp_path / "x.pth")
    with pytest.raises(InputError, match=words) as error:
        loaded(vit("plain"), tmp_path / "x.pth")
    assert "\n" not in str(error.value)


def test_a_head_is_no_backbone_and_a_backbone_no_head(tmp_path, capsys):
    old = str(REPO / "tests/golden/checkpoint_v1.pth")
    published = tmp_path / "dinov2_vits14_voc2012_ms_head.pth"
    torch.save({"state_dict": {"decode_head.conv_seg.weight": torch.ones(2, 3)}}, published)
    for path in (old, str(published)):
        with pytest.raises(InputError, match=r"holds a segmentation head .* run by --model FILE"):
            load_backbone("dinov2_vitt14", 1, weights=path)
    backbone = str(REPO / "weights/dinov2_vitt14.pth")
    picture = REPO / "docs/demo.jpg"
    said = fails(capsys, infer_image.main, "--input", picture, "--model", backbone)
    assert "not a checkpoint of this project" in said
    assert "--weights takes the file of a backbone" in said


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torchscript_holds_code(tmp_path):
    torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)).save(str(tmp_path / "x.pt"))
    with pytest.raises(InputError, match=r"x.pt: refused, it is TorchScript, which holds code"):
        load_backbone("dinov2_vitt14", 1, weights=str(tmp_path / "x.pt"))


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
