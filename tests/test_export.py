"""Exported files give torch's numbers, or there is no file."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.models import decide
from helpers.stubs import fails

import export
from config import DINOV2_INPUT
from data.labels.classes import default_classes
from data.transforms import Resize, to_tensor
from export import export_model, resized
from inference.protocol import Protocol, ShortSide
from model import HEADS, SegmentationModel
from networks import tracing
from networks.tracing import PictureModel
from networks.vit import DinoVisionTransformer
from predictor import Predictor
from utils import InputError


def small_vit(**options):
    torch.manual_seed(0)
    backbone = DinoVisionTransformer(70, 14, embed_dim=16, depth=1, num_heads=2, **options)
    torch.nn.init.normal_(backbone.pos_embed)
    backbone.forward = partial(backbone.get_intermediate_layers, n=[0], reshape=True)
    return backbone


def small_model(stretch=False, head="ms", **options):
    head = HEADS[head][0](16, 3)
    decide(head)
    built = SegmentationModel(small_vit(**options), head).eval()
    protocol = Protocol(Resize((60, 90), keep_ratio=True), stretch=stretch)
    return Predictor(built, default_classes(3), protocol, torch.device("cpu"))


@pytest.mark.parametrize("head", ["ms", "spread", "mask"])
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


def largest_difference(chosen, run, shapes):
    """Of a file's logits from torch's, as a share of the largest."""
    differences = []
    for batch, *size in shapes:
        images = 255 * torch.rand(batch, 3, *size)
        with torch.no_grad():
            expected = PictureModel(chosen.model, tuple(size), chosen.protocol.stretch)(images)
        differences.append((run(images) - expected).abs().max() / expected.abs().max())
    return max(differences)


ANY_SHAPES = ((1, 28, 42), (2, 140, 84), (3, 35, 47), (4, 33, 59))


def test_pt2_of_any_size_and_batch(tmp_path):
    chosen, path = small_model(head="sharp"), tmp_path / "sub" / "model.pt2"
    said = export_model(path, chosen, dynamic=True, weights_dtype="float16")
    assert "any size and batch, float16 weights" in said
    extra = {"classes": ""}
    program = torch.export.load(path, extra_files=extra)
    assert json.loads(extra["classes"]) == list(chosen.classes.names)
    matrices = {value.dtype for value in program.state_dict.values() if value.ndim > 1}
    assert torch.float16 in matrices
    assert largest_difference(chosen, program.module(), ANY_SHAPES) < 5e-3
    assert [p.name for p in path.parent.iterdir()] == ["model.pt2"]
    assert "interpolate_pos_encoding" not in vars(chosen.model.backbone)  # put back
    assert {value.dtype for value in chosen.model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("head", "dynamic", "dtype"), [("sharp", False, "float16"), ("mask", True, "float32")]
)
def test_onnx_gives_torchs_logits_and_names_the_classes(tmp_path, dynamic, head, dtype):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    as_registers = {"interpolate_antialias": True, "interpolate_offset": 0.0} if dynamic else {}
    chosen, path = small_model(head=head, **as_registers), tmp_path / "model.onnx"
    said = export_model(path, chosen, dynamic=dynamic, weights_dtype=dtype)
    assert ("any size and batch" if dynamic else "90 x 60") in said
    session = onnxruntime.InferenceSession(str(path))
    notes = session.get_modelmeta().custom_metadata_map
    assert json.loads(notes["classes"]) == list(chosen.classes.names)
    assert (notes["resize"], json.loads(notes["any_size"])) == ("pad", dynamic)

    def run(images):
        return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

    limit = 1e-4 if dtype == "float32" else 5e-3
    shapes = ANY_SHAPES if dynamic else ((1, 60, 90),)
    assert largest_difference(chosen, run, shapes) < limit
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_a_file_that_differs_is_not_kept(tmp_path, monkeypatch):
    def write(path, wrapped, *_):
        path.write_bytes(b"a file")
        return lambda images: wrapped(images) * 1.01

    (tmp_path / "model.pt2").write_bytes(b"older")
    monkeypatch.setattr(tracing, "traced", lambda wrapped, *_: wrapped)
    monkeypatch.setattr(export, "_write_pt2", write)
    with pytest.raises(InputError, match=r"model\.pt2 is not kept: .* 1\.0e-02 of the largest"):
        export_model(tmp_path / "model.pt2", small_model())
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"older"]


def test_imgsz_is_the_size_of_the_input_or_of_its_windows():
    chosen = small_model()
    assert resized(chosen, (30, 40)).protocol.input_size == (30, 40)
    windows = replace(chosen, protocol=Protocol(ShortSide(512), 512, 341, stretch=True))
    assert resized(windows, (512, 512)) == windows
    larger = resized(windows, (640, 640)).protocol
    assert (larger.resize.short, larger.crop, larger.stride) == (640, 640, 427)
    with pytest.raises(InputError, match="square windows"):
        resized(windows, (640, 480))


def test_what_cannot_be_exported_is_one_line(in_tmp, capsys, monkeypatch):
    argv = ["--backbone", "dinov2_vitt14", "--imgsz", "56"]
    assert "ends in .onnx or .pt2" in fails(capsys, export.main, *argv, "--to", "x.txt")
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxscript" else name)
    message = fails(capsys, export.main, *argv, "--to", "x.onnx")
    assert "needs onnxscript: pip install onnxscript" in message
    (in_tmp / "file").write_text("")
    monkeypatch.setattr(tracing, "traced", lambda *_: None)
    monkeypatch.setattr(export, "_write_pt2", lambda path, *_: path.write_bytes(b""))
    assert "cannot write" in fails(capsys, export.main, *argv, "--to", "file/x.pt2")
    assert [p.name for p in in_tmp.iterdir()] == ["file"]
