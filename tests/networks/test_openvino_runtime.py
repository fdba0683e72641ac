"""The backbone under OpenVINO gives torch's features, or an error."""

from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from helpers.basics import CHECKPOINT
from helpers.scripts import TINY, run_train
from helpers.stubs import fails

import infer_image
import train
from data.images import read_mask
from model import SegmentationModel
from networks import openvino_runtime
from networks.backbones import load_backbone
from networks.openvino_runtime import OpenVinoBackbone
from predictor import PredictorOptions, load_predictor
from utils import InputError, cpu_computes_in

pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("dinov2_vitt14", 2, weights="none")


@pytest.fixture
def runs(backbone):
    """Skips where OpenVINO, which wants AVX2, does not run."""
    try:
        openvino_runtime.compile_backbone(backbone, (14, 14), torch.float32)
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture
def compiled(backbone, monkeypatch):
    """The sizes that were compiled, by what gives torch's features."""
    sizes = []

    def by_torch(_, size, dtype):
        sizes.append(size)
        return lambda image: torch.cat(backbone(torch.from_numpy(image)), 1).numpy()

    monkeypatch.setattr(openvino_runtime, "compile_backbone", by_torch)
    monkeypatch.setattr(openvino_runtime, "pays", lambda: True)
    return sizes


def test_other_features_are_refused(backbone, monkeypatch):
    wrong = lambda b, *_: lambda image: torch.cat(b(torch.from_numpy(image)), 1).numpy() * 1.01  # noqa: E731
    monkeypatch.setattr(openvino_runtime, "compile_backbone", wrong)
    with pytest.raises(InputError, match=r"other features than torch \(distance 1\.0e-02"):
        OpenVinoBackbone(backbone)(torch.zeros(1, 3, 14, 14))


def test_auto_compiles_once_for_a_size_that_was_seen_often_enough(backbone, compiled):
    model = SegmentationModel(backbone, torch.nn.Identity())
    assert model.use_runtime("auto", auto_after=6)
    for count, size, expected in (
        (4, 14, []), (4, 14, []), (1, 28, []), (4, 14, [(14, 14)]), (3, 14, [(14, 14)]),
    ):  # fmt: skip
        images = torch.randn(count, 3, size, size)
        features = model.extract(images)
        # One picture at a time or several: products of other sizes, which round differently.
        torch.testing.assert_close(features, torch.cat(backbone(images), 1), rtol=0, atol=1e-4)
        assert compiled == expected
    assert model.compile_seconds > 0


@pytest.mark.parametrize("capability", ["AVX2", "DEFAULT"])
def test_auto_stays_in_torch_where_openvino_is_no_faster(backbone, monkeypatch, capability):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert not SegmentationModel(backbone, torch.nn.Identity()).use_runtime("auto")


def test_auto_goes_on_in_torch_and_says_so_once(backbone, monkeypatch, capsys):
    failing = Mock(side_effect=InputError("--runtime openvino cannot convert this backbone"))
    monkeypatch.setattr(openvino_runtime, "pays", lambda: True)
    monkeypatch.setattr(openvino_runtime, "compile_backbone", failing)
    model = SegmentationModel(backbone, torch.nn.Identity())
    assert model.use_runtime("auto")
    for size in (14, 28):
        images = torch.randn(2, 3, size, size)
        assert torch.equal(model.extract(images), torch.cat(backbone(images), 1))
    assert capsys.readouterr().err.count("going on in torch") == 1


def test_what_does_not_work_with_openvino_is_refused(backbone, monkeypatch, data_dir, capsys):
    options = PredictorOptions(compile=True, runtime="openvino")
    with pytest.raises(InputError, match="--compile does nothing with --runtime openvino"):
        load_predictor("model.pth", torch.device("cpu"), options)
    argv = ["--data", data_dir, *TINY, "--runtime", "openvino", "--fine-tune"]
    assert "needs a frozen backbone" in fails(capsys, train.main, *argv)
    monkeypatch.setattr(openvino_runtime, "is_installed", lambda: False)
    with pytest.raises(InputError, match="pip install openvino"):
        OpenVinoBackbone(backbone)


@pytest.mark.parametrize(("dtype", "agree"), [("float32", 0.995), ("bfloat16", 0.98)])
@pytest.mark.usefixtures("runs")
def test_the_scripts_give_the_same_masks(in_tmp, data_dir, capsys, dtype, agree):
    """But for pixels between two classes. The features themselves are compared at each start."""
    if not cpu_computes_in(getattr(torch, dtype)):
        pytest.skip(f"this CPU has no arithmetic for {dtype}")
    masks = {}
    for runtime in ("torch", "openvino"):
        argv = ["--input", str(data_dir / "valid_images"), "--model", str(CHECKPOINT)]
        argv += ["--device", "cpu", "--dtype", dtype]
        infer_image.main([*argv, "--save", "mask", "--runtime", runtime, "--out-dir", runtime])
        assert ("to compile the model" in capsys.readouterr().out) == (runtime == "openvino")
        paths = sorted(Path("outputs", runtime).glob("*.png"))
        masks[runtime] = [read_mask(path)[0] for path in paths]
    assert len(masks["torch"]) == 3
    for one, other in zip(masks["torch"], masks["openvino"], strict=True):
        assert (one == other).mean() > agree


def test_a_head_trains_on_its_features(in_tmp, data_dir, capsys):
    run_train(data_dir, "--runtime", "auto", "--cache-features", "1", "--device", "cpu")
    assert "TRAINING COMPLETE" in capsys.readouterr().out
