"""An exported file gives the masks of its checkpoint, and foreign or hostile files are refused."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.basics import CHECKPOINT, draw_pair
from helpers.stubs import fails
from PIL import Image

import export
import infer_image
from config import PredictorOptions
from data.images import read_mask
from data.labels.classes import VOC2012, default_classes
from data.transforms import Resize
from inference import onnx_model
from inference.onnx_model import describe, read_description
from inference.protocol import OwnSize, Protocol, ShortSide
from predictor import load_predictor
from utils import InputError

onnxruntime = pytest.importorskip("onnxruntime", minversion="1.24")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

CPU = torch.device("cpu")


FILES = {"fixed": [], "dynamic": ["--dynamic"], "labels": ["--output", "labels"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """fixed.onnx, dynamic.onnx and labels.onnx, of one checkpoint."""
    folder = tmp_path_factory.mktemp("exported")
    with redirect_stdout(io.StringIO()) as said:
        for name, more in FILES.items():
            argv = ["--model", str(CHECKPOINT), "--to", str(folder / f"{name}.onnx")]
            export.main([*argv, *more])
    fixed, dynamic, _ = said.getvalue().splitlines()
    assert "fixed.onnx: 70 x 56 pixels, float32 weights, 1" in fixed
    assert "dynamic.onnx: any size and batch, float32 weights, 1" in dynamic
    return folder


def test_the_masks_are_those_of_the_checkpoint(folder, in_tmp, data_dir):
    masks = {}
    files = {"torch": CHECKPOINT} | {name: folder / f"{name}.onnx" for name in ("fixed", "dynamic")}
    for name, model in files.items():
        argv = ["--input", data_dir / "valid_images", "--model", model, "--device", "cpu"]
        argv += ["--save", "mask,overlay", "--out-dir", name, "--batch", 2, "--flip"]
        infer_image.main(list(map(str, argv)))
        masks[name] = [read_mask(p)[0] for p in sorted(Path("outputs", name).glob("*_mask.png"))]
        assert {"index.html", "results.csv"} <= {p.name for p in Path("outputs", name).iterdir()}
    assert len(masks["torch"]) == 3
    for name in ("fixed", "dynamic"):
        for one, other in zip(masks["torch"], masks[name], strict=True):
            assert (one == other).mean() > 0.995  # but for pixels between two classes


def test_a_file_of_class_ids_gives_the_masks_without_a_confidence(folder, in_tmp, capsys):
    image = np.random.default_rng(0).integers(0, 256, (56, 70, 3), dtype=np.uint8)
    path = folder / "labels.onnx"
    (ids,) = load_predictor(path, CPU).predict([image], keep=("confidence",))
    (expected,) = load_predictor(CHECKPOINT, CPU).predict([image])
    assert "each counts as certain" in capsys.readouterr().out
    assert len(np.unique(expected.labels)) > 1
    assert (ids.labels == expected.labels).mean() > 0.995
    assert ids.confidence.min() == 1
    with pytest.raises(InputError, match="without a confidence"):
        load_predictor(path, CPU, PredictorOptions(min_confidence=0.5))
    session = onnxruntime.InferenceSession(str(path))
    assert [(o.name, o.type) for o in session.get_outputs()] == [("labels", "tensor(uint8)")]


@pytest.mark.parametrize(
    "options",
    [
        {"image_size": (70, 91)},
        {"mode": "slide"},
        {"tile": 40},
        {"ratios": (1.0, 1.5), "batch_size": 3},
    ],
    ids=str,
)
def test_a_dynamic_file_takes_every_protocol(folder, options):
    image = draw_pair(3, 120, 90)[0]
    options = PredictorOptions(**options)
    predictions = [
        load_predictor(model, CPU, options).predict([image], ["probabilities"])[0]
        for model in (CHECKPOINT, folder / "dynamic.onnx")
    ]
    expected, found = (prediction.probabilities for prediction in predictions)
    assert np.abs(expected - found).max() < 2e-3  # they are rounded to float16


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["fixed", "--imgsz", 70], "takes 70 x 56 pixels only; leave out --imgsz"),
        (["fixed", "--tile", 28], "takes 70 x 56 pixels only"),
        (["fixed", "--compile", "--weights", "x"], "leave out --weights, --compile"),
        (["fixed", "--runtime", "openvino"], "leave out --runtime openvino"),
        (["dynamic", "--dtype", "bfloat16", "--weights", "x"], "leave out --weights, --dtype"),
        (["missing"], "no such file"),
    ],
)
def test_flags_that_contradict_the_file_are_one_line(folder, in_tmp, capsys, argv, words):
    Image.fromarray(draw_pair(0, 60, 40)[0]).save("a.png")
    message = fails(
        capsys, infer_image.main, "--input", "a.png", "--device", "cpu", "--model",
        folder / f"{argv[0]}.onnx", *argv[1:],
    )  # fmt: skip
    assert words in message
    assert len(message.splitlines()) == 1


def refused(words, path):
    """Loading a file, or predicting 8 x 8 pixels by it, ends in one line."""
    with pytest.raises(InputError, match=words) as error:
        load_predictor(path, CPU).predict([np.zeros((8, 8, 3), np.uint8)])
    assert "\n" not in str(error.value)


def test_what_is_missing_is_one_line(folder, monkeypatch):
    refused("can run code in it", folder / "a.pt2")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(InputError, match="has no CUDA; pass --device cpu"):
        onnx_model.OnnxModel(folder / "fixed.onnx", torch.device("cuda"))
    monkeypatch.setattr(onnxruntime, "__version__", "1.23.2")
    refused("needs ONNX Runtime 1.24 or newer, here is 1.23.2", folder / "fixed.onnx")
    monkeypatch.setattr(onnx_model, "find_spec", lambda name: None)
    refused("pip install onnxruntime", folder / "fixed.onnx")


PROTOCOLS = [
    Protocol(Resize((60, 90))),
    Protocol(Resize((60, 90), keep_ratio=True), flip=True),
    Protocol(ShortSide(640), 640, 320, (1.0, 1.32, 1.73), flip=True),
    Protocol(OwnSize()).with_windows(448),
    Protocol(ShortSide(512, 2048), 512, 341),
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_metadata_comes_back(protocol):
    notes = describe(protocol, VOC2012, any_size=False, output="logits")
    assert read_description(Path("x.onnx"), notes) == (VOC2012, protocol)


def hostile(**changed):
    return describe(PROTOCOLS[-1], default_classes(3), False, "logits") | {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in changed.items()
    }


@pytest.mark.parametrize(
    ("notes", "words"),
    [
        ({"format": "dinov2-segmentation"}, "lacks 'classes'"),
        (hostile(classes="[" * 99_999), "is no JSON"),
        (hostile(classes={"a": 1}), "classes is {'a': 1}"),
        (hostile(image_size={"height": 10**9, "width": 10**9}), "more than"),
        (hostile(image_size={"height": 512}), "not a height and a width"),
        (hostile(mean=[float("nan")] * 3), "plausible"),
        (hostile(patch_size=True), "patch_size is True"),
        (hostile(resize="crop"), "not stretch, pad or windows"),
        (hostile(stride=1), "windows 512 x 512 every 1"),
        (hostile(short_side=10**8), "sides 100000000"),
        (hostile(ratios=[1e9]), "ratios"),
        (hostile(flip=1), "flip is 1"),
    ],
)
def test_hostile_metadata_is_one_line(notes, words):
    with pytest.raises(InputError, match=words) as error:
        read_description(Path("x.onnx"), notes)
    assert len(str(error.value)) < 300


def notes_of(protocol):
    return describe(protocol, default_classes(2), any_size=False, output="logits")


def small_file(path, classes=2, location=None, rank=4, notes=None):
    """An ONNX file whose logits are the picture's mean channel plus a tensor of zeros."""
    shape = ", ".join(["1", "3", "8", "8"][:rank])
    model = onnx.parser.parse_model(f"""
        <ir_version: 9, opset_import: ["": 18]>
        graph (float[{shape}] images) => (float[N, C, H, W] logits)
        <float[1, {classes}, 1, 1] zeros, int64[1] axes = {{1}}> {{
            mean = ReduceMean (images, axes)
            logits = Add (mean, zeros)
        }}
    """)
    zeros = onnx.numpy_helper.from_array(np.zeros((1, classes, 1, 1), np.float32), "zeros")
    if location:
        onnx.external_data_helper.set_external_data(zeros, location, 0, 8)
        zeros.ClearField("raw_data")
    model.graph.initializer.append(zeros)
    onnx.helper.set_model_props(model, notes or notes_of(Protocol(Resize((8, 8)))))
    path.write_bytes(model.SerializeToString())
    return path


def test_foreign_and_hostile_files_are_one_line(tmp_path):
    image = np.zeros((8, 8, 3), np.uint8)
    path = tmp_path / "model" / "a.onnx"
    path.parent.mkdir()
    assert load_predictor(small_file(path), CPU).predict([image])[0].labels.shape == (8, 8)
    refused(r"logits \(1, 3, 8, 8\), expected \(1, 2, 8, 8\)", small_file(path, classes=3))
    foreign = small_file(path, notes={"author": "someone"})
    refused("no classes and protocol in its metadata.*export.py --model", foreign)
    refused("expected pictures", small_file(path, rank=3))
    small_file(path, notes=notes_of(Protocol(OwnSize()).with_windows(8)))
    assert load_predictor(path, CPU).predict([image])[0].labels.shape == (8, 8)
    with pytest.raises(InputError, match="takes 8 x 8 pixels only"):
        load_predictor(path, CPU).predict([image[:5]])
    (tmp_path / "secret").write_bytes(bytes(8))
    for location in ("../secret", str(tmp_path / "secret")):
        refused("cannot load it", small_file(path, location=location))
    path.write_bytes(b"no model")
    refused("cannot load it", path)
