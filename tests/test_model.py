from fractions import Fraction
from unittest.mock import Mock

import pytest
import torch
from helpers.basics import REPO
from helpers.models import small_model
from torch import nn

import config
import model as model_module
from model import HEADS
from networks.backbones import load_backbone
from networks.resampling import upsample
from utils import InputError


@pytest.mark.parametrize(("head", "scale"), [("ms", 1), ("sharp", 4), ("mask", 4), ("spread", 4)])
@pytest.mark.parametrize("size", [(250, 333), (13, 200), (1, 1), (14, 28), (320, 322)])
def test_any_size_gives_the_grid_of_its_padded_self(size, head, scale):
    model = small_model(head=head).eval()
    logits = model(torch.randn(2, 3, *size))
    assert logits.shape == (2, 3, scale * -(-size[0] // 14), scale * -(-size[1] // 14))


def test_padding_is_cropped_not_squeezed():
    logits = torch.arange(46.0).reshape(1, 1, 46, 1)
    column = upsample(logits, (640, 14), output_stride=Fraction(14))[0, 0, :, 7]
    full = nn.functional.interpolate(logits, size=(644, 14), mode="bilinear")[0, 0, :, 7]
    torch.testing.assert_close(column, full[2:642])  # two kernels, which round differently


@pytest.mark.parametrize(
    ("head", "channels", "classes", "expected"),
    [("linear", 384, 21, 8_853), ("token", 4 * 384, 21, 32_277), ("conv", 1024, 2, 2_360_066)],
)
def test_trainable_parameters_of_the_articles(head, channels, classes, expected):
    with torch.device("meta"):
        model = HEADS[head][0](channels, classes)
    assert sum(p.numel() for p in model.parameters()) == expected


def test_frozen_is_four_facts():
    model = small_model()
    backbone = model.backbone
    assert not any(p.requires_grad for p in backbone.parameters())
    model.train()
    assert not any(module.training for module in backbone.modules())
    assert model.head.training
    features = model.extract(torch.randn(1, 3, 28, 28))
    assert features.grad_fn is None
    assert not features.is_inference()
    model(torch.randn(2, 3, 28, 28)).sum().backward()
    assert backbone.proj.weight.grad is None
    assert model.head.conv_seg.weight.grad is not None


@pytest.mark.parametrize(
    ("count", "spread", "blocks"),
    [(4, False, [2, 3, 4, 5]), (4, True, [0, 2, 3, 5]), (3, True, [1, 3, 5]), (1, True, [5])],
)
def test_feature_maps_are_the_last_blocks_or_spread_ones_in_order(count, spread, blocks):
    backbone = load_backbone("dinov2_vitt14", count, weights="none", spread=spread)
    images = torch.randn(1, 3, 28, 42)
    with torch.no_grad():
        maps = backbone(images)
        expected = backbone.get_intermediate_layers(images, n=blocks, reshape=True)
    assert all(torch.equal(a, b) for a, b in zip(maps, expected, strict=True))


def test_user_errors_name_the_remedy(tmp_path):
    with pytest.raises(InputError, match=r"hubconf.py"):
        load_backbone("dinov2_vitt14", 1, hub_repo=str(tmp_path))
    (tmp_path / "hubconf.py").write_text("dependencies = []\n")
    with pytest.raises(InputError, match="does not offer"):
        load_backbone("dinov2_vitt14", 1, hub_repo=str(tmp_path))
    with pytest.raises(InputError, match=r"gone.pth: no such file"):
        load_backbone("dinov2_vitt14", 1, weights=str(tmp_path / "gone.pth"))
    words = r"other.pth does not fit.* no known layout; .*blocks.0.attn.proj.bias is missing"
    for content in ({"weight": torch.zeros(1)}, {"model": {1: torch.zeros(1)}}):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(InputError, match=words):
            load_backbone("dinov2_vitt14", 1, weights=str(tmp_path / "other.pth"))


@pytest.mark.parametrize("fine_tune", [False, True])
def test_a_cpu_takes_pictures_through_the_backbone_one_by_one(monkeypatch, fine_tune):
    model = small_model(fine_tune).eval()
    images = torch.randn(3, 3, 28, 42)
    whole = model.extract(images)
    monkeypatch.setattr(model_module, "CPU_IMAGE_BYTES", 1)
    seen = []
    model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    torch.testing.assert_close(model.extract(images), whole)
    assert seen == ([3] if fine_tune else [1, 1, 1])  # a batch whose gradient is wanted is whole


def test_a_cut_file_in_the_hub_folder_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    path = tmp_path / "checkpoints" / "dinov2_vits14_pretrain.pth"
    torch.save({"cls_token": torch.zeros(1, 1, 384)}, path)
    with pytest.raises(InputError, match=r"cannot be loaded .*Missing key.*delete their file") as e:
        load_backbone("dinov2_vits14", 1, hub_repo=str(REPO))
    assert "\n" not in str(e.value)
    for content in (path.read_bytes()[:300], b"hello"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"weights") as e:
            load_backbone("dinov2_vits14", 1, hub_repo=str(REPO))
        assert "\n" not in str(e.value)


def test_without_a_network_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setattr(torch.hub, "load", Mock(side_effect=OSError("Network is unreachable")))
    with pytest.raises(InputError, match=r"cannot fetch facebookresearch/dinov2:\w+.*--hub-repo"):
        load_backbone("dinov2_vits14", 1)


def test_the_official_repository_is_asked_for_at_a_pinned_commit(monkeypatch):
    model = torch.hub.load(str(REPO), "dinov2_vits14", source="local", pretrained=False)
    monkeypatch.setattr(torch.hub, "load", Mock(return_value=model))
    load_backbone("dinov2_vits14", 1)
    asked = torch.hub.load.call_args
    assert asked.args == (config.DINOV2_REPO, "dinov2_vits14")
    assert len(config.DINOV2_REPO.split(":")[1]) == 40
    assert asked.kwargs["pretrained"] is True
    assert asked.kwargs["skip_validation"] is True  # or GitHub's API limits the rate


def test_summary_prints_the_articles_figures(capsys):
    model_module.main(["--hub-repo", str(REPO), "--imgsz", "640", "640"])
    out = capsys.readouterr().out
    assert "Total params: 22,091,925" in out
    assert "Trainable params: 35,349" in out
    assert "[1, 21, 46, 46]" in out


def test_on_a_mac_the_position_table_is_resized_by_this_repository(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.hub, "load", Mock(wraps=torch.hub.load))
    load_backbone("dinov2_vits14", 1, weights="none")
    assert torch.hub.load.call_args.args[0] == config.THIS_REPO
