"""Backbones from timm; its registry has models of next to no size for tests."""

import re
import sys
from unittest.mock import Mock

import pytest
import torch
from torch import nn

import networks
from model import SegmentationModel
from networks.backbones import list_backbones, load_backbone
from networks.vit import DinoVisionTransformer
from utils import InputError

timm = pytest.importorskip("timm")
timm_backbone = pytest.importorskip("networks.timm_backbone")
ODD = (3, 5)  # patches; not the shape that any model was trained at


def maps_of(backbone, num_blocks=2):
    images = torch.randn(1, 3, *(n * backbone.patch_size for n in ODD))
    with torch.no_grad():
        return images, backbone(images)


@pytest.mark.parametrize(
    "name",
    [
        "test_vit",  # class token, final norm
        "test_vit2",  # average pooling: the final norm is fc_norm; LayerScale 1e-5
        "test_vit3",  # attention pooling
        "vit_pe_spatial_tiny_patch16_512",  # rotary positions, no final norm
    ],
)
def test_a_family_gives_normalised_maps_of_any_size(name):
    with torch.inference_mode():  # a caller's own
        load_backbone(f"timm/{name}", 2, weights="none")
    backbone = load_backbone(f"timm/{name}", 2, weights="none")
    _, maps = maps_of(backbone)
    assert [m.shape for m in maps] == 2 * [(1, backbone.embed_dim, *ODD)]
    for feature_map in maps:
        assert feature_map.mean(1).abs().max() < 1e-4
        assert feature_map.std(1, correction=0).sub(1).abs().max() < 1e-2
    assert not torch.allclose(*maps, atol=1e-3), "the last block does nothing"
    # Else DistributedDataParallel waits for gradients that never come.
    model = SegmentationModel(backbone, nn.Conv2d(2 * backbone.embed_dim, 2, 1), fine_tune=True)
    model.train()(torch.randn(1, 3, 30, 20)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_the_tag_decides_mean_and_licence():
    clip, mae = (
        timm_backbone._published(name)
        for name in ("vit_base_patch16_clip_224.openai", "vit_base_patch16_224.mae")
    )
    assert (clip.mean[0], mae.mean[0]) == (0.48145466, 0.485)
    assert (clip.license, mae.license) == ("apache-2.0", "cc-by-nc-4.0")


@pytest.mark.parametrize(("spread", "blocks"), [(False, [4, 5]), (True, [2, 5])])
def test_maps_are_those_of_timms_own_function(spread, blocks):
    backbone = load_backbone("timm/test_vit", 2, weights="none", spread=spread)
    images, maps = maps_of(backbone)
    own = timm.create_model("test_vit", num_classes=0, dynamic_img_size=True).eval()
    own.load_state_dict(backbone.state_dict())
    expected = own.get_intermediate_layers(images, n=blocks, reshape=True, norm=True)
    torch.testing.assert_close(tuple(maps), tuple(expected))  # timm may fuse what we do not


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet18", r"ResNet gives feature maps of several strides \(2, 4, 8.*vit_small_patch14"),
        ("convmixer_768_32", "ConvMixer is not a vision transformer"),
        ("beit_base_patch16_224", r"does not take images of every size.*take a vision transformer"),
        ("vit_smal_patch14_dinov2", "has no model 'vit_smal.*--list-backbones"),
        ("test_vit.", "no weights '' of test_vit; known: test_vit.r160_in1k"),
        ("test_vit.nowhere", "no weights 'nowhere' of test_vit; known: test_vit.r160_in1k"),
    ],
)
def test_names_that_do_not_fit_are_one_line(name, words):
    with pytest.raises(InputError, match=words) as error:
        load_backbone(f"timm/{name}", 1, weights="none")
    assert "\n" not in str(error.value)


def test_weights_from_files(tmp_path, capsys):
    source = timm.create_model("test_vit2")  # with classifier
    nn.init.normal_(source.fc_norm.bias)
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(source.state_dict(), tmp_path / "model.safetensors")
    backbone = load_backbone("timm/test_vit2", 2, weights=str(tmp_path / "model.safetensors"))
    assert torch.equal(backbone.norm.bias, source.fc_norm.bias)
    with pytest.raises(InputError, match=r"model.safetensors does not fit this backbone"):
        load_backbone("timm/test_vit", 2, weights=str(tmp_path / "model.safetensors"))
    (tmp_path / "cut.safetensors").write_bytes(b"\0" * 9)
    with pytest.raises(InputError, match=r"cut.safetensors: cannot be read"):
        load_backbone("timm/test_vit", 2, weights=str(tmp_path / "cut.safetensors"))


def converted(name, state, folder, **sizes):
    """timm's model of these sizes with the tensors of a file in other names."""
    model = timm.create_model(name, num_classes=0, dynamic_img_size=True, **sizes)
    torch.save(state, folder / "x.pth")
    file = timm_backbone.read_weights(folder / "x.pth", model.state_dict())
    model.load_state_dict(timm_backbone._converted(file, model).tensors)
    return model.eval()


# timm's names as the original files have them; {} stands for q, k and v.
DINOV3 = {
    "reg_token": "embeddings.register_tokens", "cls_token": "embeddings.cls_token",
    "patch_embed.proj": "embeddings.patch_embeddings", "blocks.": "model.layer.",
    "gamma_(.)": r"layer_scale\1.lambda1", "attn.(q|v)_bias": r"attention.\1_proj.bias",
    "attn.qkv": "attention.{}_proj", "attn.proj": "attention.o_proj",
    "mlp.fc1_g": "mlp.gate_proj", "mlp.fc1(_x)?": "mlp.up_proj", "mlp.fc2": "mlp.down_proj",
}  # fmt: skip
AIMV2 = {
    "patch_embed.": "preprocessor.patchifier.", "pos_embed": "preprocessor.pos_embed",
    "blocks.": "trunk.blocks.", "fc1_g": "fc1", "fc1_x": "fc3", r"norm(\d)": r"norm_\1",
    "^norm.weight": "trunk.post_trunk_norm.weight",
}  # fmt: skip


@pytest.mark.parametrize(("name", "names"), [
    ("vit_small_patch16_dinov3_qkvb", DINOV3),
    ("vit_small_plus_patch16_dinov3_qkvb", DINOV3),  # gated
    ("aimv2_large_patch14_224", AIMV2),  # timm knows it by its prefix
])  # fmt: skip
def test_files_of_the_original_names(tmp_path, name, names):
    sizes = {"embed_dim": 64, "depth": 2, "num_heads": 2}
    state = timm.create_model(name, num_classes=0, **sizes).state_dict()
    state = {key: torch.randn_like(value) for key, value in state.items()}
    file = {"embeddings.mask_token": torch.zeros(1, 1, 64)} if names is DINOV3 else {}
    for key, value in state.items():
        for new, old in names.items():
            key = re.sub(new, old, key)
        parts = "qkv" if "{}" in key else "q"
        for part, chunk in zip(parts, value.chunk(len(parts)), strict=True):
            file[key.format(part)] = chunk
    loaded = converted(name, file, tmp_path, **sizes).state_dict()
    assert all(torch.equal(value, state[key]) for key, value in loaded.items())


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("size", [70, 98])
def test_dinov2_here_and_in_timm(tmp_path, registers, size):
    """Equal but for timm's way of resizing the position table, which is that of registers."""
    sizes = {"img_size": 70, "embed_dim": 64, "depth": 2, "num_heads": 2}
    exact = {"interpolate_antialias": True, "interpolate_offset": 0.0} if registers else {}
    ours = DinoVisionTransformer(
        **sizes, patch_size=14, init_values=1.0, num_register_tokens=registers, **exact
    ).eval()
    name = f"vit_small_patch14_{'reg4_' if registers else ''}dinov2"
    other = converted(name, ours.state_dict(), tmp_path, **sizes)
    images = torch.randn(1, 3, size, size)
    with torch.no_grad():
        found = torch.cat(timm_backbone._feature_maps(other, 2, images))
        expected = torch.cat(ours.get_intermediate_layers(images, n=2, reshape=True))
    difference = (found - expected).norm() / expected.norm()
    assert difference < 1e-5 if registers or size == 70 else 1e-3 < difference < 0.1


def test_a_file_whose_biases_would_be_lost_is_refused(tmp_path):
    state = {"storage_tokens": torch.ones(1, 4, 384), "blocks.0.attn.qkv.bias": torch.ones(1152)}
    with pytest.raises(InputError, match=r"biases in its attention.*_qkvb"):
        converted("vit_small_patch16_dinov3", state, tmp_path, depth=1)


def test_a_file_of_satellite_images_needs_its_tag():
    """Mean and std are those of the tag; without one, they are another file's."""
    name = "timm/vit_large_patch16_dinov3_qkvb"
    with pytest.raises(InputError, match=f"take {name}.sat493m"):
        load_backbone(name, 1, weights="dinov3_vitl16_pretrain_sat493m-eadcf0ff.pth")


def test_without_a_network_access_or_timm(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    offline = Mock(side_effect=OSError("Name or service not known"))
    monkeypatch.setattr(hub, "get_hf_file_metadata", offline)
    with pytest.raises(InputError, match=r"cannot be fetched \(OSError Name.*--weights FILE") as e:
        load_backbone("timm/test_vit", 1)
    assert "\n" not in str(e.value)
    assert offline.call_count == 1, "tried again and again"
    with pytest.raises(InputError, match="comes from timm; leave --hub-repo out"):
        load_backbone("timm/test_vit", 1, hub_repo=".")
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.delitem(sys.modules, "networks.timm_backbone")
    monkeypatch.delattr(networks, "timm_backbone")
    with pytest.raises(InputError, match="pip install timm"):
        load_backbone("timm/test_vit", 1, weights="none")
    assert "pip install timm" in list_backbones()
