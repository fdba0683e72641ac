"""Exported files give torch's numbers, or there is no file."""

import json
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.basics import leftover_of
from helpers.models import decide
from helpers.stubs import fails

import export
from config import DINOV2_INPUT
from data.transforms import to_tensor
from inference import exported
from inference.exported import Exportable, export_model
from inference.tracing import PictureModel
from labels.classes import default_classes
from model import HEAD_CLASSES, SegmentationModel
from networks.positions import resized_positions
from networks.vit import DinoVisionTransformer
from utils import InputError


def small_vit(**options):
    torch.manual_seed(0)
    backbone = DinoVisionTransformer(70, 14, embed_dim=16, depth=1, num_heads=2, **options)
    torch.nn.init.normal_(backbone.pos_embed)
    backbone.forward = partial(backbone.get_intermediate_layers, n=[0], reshape=True)
    return backbone


def small_model(stretch=False, head="ms", **options):
    head = HEAD_CLASSES[head](16, 3)
    decide(head)
    built = SegmentationModel(small_vit(**options), head).eval()
    return Exportable(built, (60, 90), default_classes(3), stretch, "pad")


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("offset", [0.1, 0.0])
def test_positions_as_matrices_are_those_of_the_model(offset, antialias):
    vit = small_vit(interpolate_offset=offset, interpolate_antialias=antialias)
    for height, width in ((28, 42), (70, 84), (70, 70), (140, 70), (280, 700)):
        tokens = torch.zeros(1, 1 + height * width // 196, 16)
        with torch.no_grad():
            expected = vit.interpolate_pos_encoding(tokens, width, height)
            found = resized_positions(vit, tokens, width, height)
        assert torch.allclose(found, expected, atol=2e-5), (height, width)


@pytest.mark.parametrize("head", ["ms", "sharp", "mask"])
def test_the_picture_model_is_the_predictors_way_from_picture_to_logits(head):
    chosen = small_model(head=head)
    image = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        logits = PictureModel(chosen.model, (60, 90), stretch=False)(pixels)
        grid = chosen.model(to_tensor(image, DINOV2_INPUT)[None])
        padded = F.interpolate(grid, size=(70, 98), mode="bilinear")
        assert torch.allclose(logits, padded[..., 5:65, 4:94], atol=1e-4)
        stretched = PictureModel(chosen.model, (60, 90), stretch=True)(pixels)
        assert torch.allclose(
            stretched, F.interpolate(grid, size=(60, 90), mode="bilinear"), atol=1e-4
        )


def torchs_logits(chosen, images):
    size = tuple(images.shape[-2:])
    with torch.no_grad():
        return PictureModel(chosen.model, size, chosen.stretch)(images)


@pytest.mark.parametrize("head", ["ms", "mask"])  # mask has all layers of sharp
def test_pt2_of_any_size(tmp_path, head):
    chosen, path = small_model(head=head), tmp_path / "sub" / "model.pt2"
    export_model(path, chosen, (60, 90), dynamic=True)
    extra = {"classes": ""}
    run = torch.export.load(path, extra_files=extra).module()
    assert json.loads(extra["classes"]) == list(chosen.classes.names)
    for size in ((28, 42), (140, 84), (33, 59)):
        images = 255 * torch.rand(1, 3, *size)
        assert torch.allclose(run(images), torchs_logits(chosen, images), atol=1e-3)
    assert [p.name for p in path.parent.iterdir()] == ["model.pt2"]
    assert "interpolate_pos_encoding" not in vars(chosen.model.backbone)  # put back


@pytest.mark.parametrize(("head", "dynamic"), [("ms", False), ("ms", True), ("mask", True)])
def test_onnx_gives_torchs_logits_and_names_the_classes(tmp_path, dynamic, head):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    chosen, path = small_model(head=head, interpolate_antialias=dynamic), tmp_path / "model.onnx"
    said = export_model(path, chosen, (60, 90), dynamic)
    assert ("any size" if dynamic else "90 x 60") in said
    session = onnxruntime.InferenceSession(str(path))
    notes = session.get_modelmeta().custom_metadata_map
    assert json.loads(notes["classes"]) == list(chosen.classes.names)
    assert (notes["resize"], json.loads(notes["any_size"])) == ("pad", dynamic)
    assert json.loads(notes["mean"]) == list(DINOV2_INPUT.mean)
    assert "in the file" in notes["normalisation"]
    assert "EXIF" in notes["input"]
    for size in ((28, 42), (140, 84), (35, 47)) if dynamic else ((60, 90),):
        images = 255 * torch.rand(1, 3, *size)
        logits = session.run(None, {"images": images.numpy()})[0]
        assert torch.allclose(torch.from_numpy(logits), torchs_logits(chosen, images), atol=1e-3)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_a_file_that_differs_is_not_kept(tmp_path, monkeypatch):
    def write(path, wrapped, *_):
        path.write_bytes(b"a file")
        return lambda images: wrapped(images) * 1.01

    (tmp_path / "model.pt2").write_bytes(b"older")
    monkeypatch.setattr(exported, "_write_pt2", write)
    with pytest.raises(InputError, match=r"model\.pt2 is not kept: .* 1\.0e-02 of the largest"):
        export_model(tmp_path / "model.pt2", small_model(), (60, 90))
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"older"]


def test_each_export_writes_under_a_name_of_its_own(tmp_path, monkeypatch):
    names = []

    def write(path, *_):
        names.append(path.name)
        path.touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(exported, "_write_pt2", write)
    (tmp_path / ".theirs.part").touch()
    leftover_of(tmp_path / "model.pt2")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            export_model(tmp_path / "model.pt2", small_model(), (60, 90))
    assert names[0] != names[1]
    assert [p.name for p in tmp_path.iterdir()] == [".theirs.part"]


def test_what_cannot_be_exported_is_one_line(in_tmp, capsys, monkeypatch):
    argv = ["--backbone", "dinov2_vitt14", "--imgsz", "56"]
    assert "ends in .onnx or .pt2" in fails(capsys, export.main, *argv, "--to", "x.txt")
    monkeypatch.setattr(exported, "find_spec", lambda name: None if name == "onnxscript" else name)
    message = fails(capsys, export.main, *argv, "--to", "x.onnx")
    assert "needs onnxscript: pip install onnxscript" in message
    (in_tmp / "file").write_text("")
    monkeypatch.setattr(exported, "_write_pt2", lambda path, *_: path.write_bytes(b""))
    assert "cannot write" in fails(capsys, export.main, *argv, "--to", "file/x.pt2")
    assert [p.name for p in in_tmp.iterdir()] == ["file"]


def test_the_command_exports(in_tmp, capsys):
    argv = ["--backbone", "dinov2_vitt14", "--num-classes", "3", "--imgsz", "60", "40"]
    export.main([*argv, "--to", "exports/x.pt2"])
    assert "exports/x.pt2: 60 x 40 pixels, logits within" in capsys.readouterr().out
    run = torch.export.load("exports/x.pt2").module()
    assert run(torch.zeros(1, 3, 40, 60)).shape == (1, 3, 40, 60)
