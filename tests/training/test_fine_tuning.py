"""The flags of --fine-tune and of the recipe, through train.py: each does what it says."""

import csv
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from unittest.mock import MagicMock, call

import pytest
import torch
from helpers.basics import CHECKPOINT
from helpers.scripts import TINY, run_train
from helpers.stubs import fails

import infer_image
import predictor
import train


@pytest.fixture
def trained(data_dir, in_tmp):
    """What final_model.pth holds after a run with these flags."""

    def run(*flags: str) -> dict[str, torch.Tensor]:
        run_train(data_dir, "--imgsz", "42", "--batch", "2", "--epochs", "1", *flags)
        path = in_tmp / "outputs" / "final_model.pth"
        return torch.load(path, weights_only=True)["model_state_dict"]

    return run


def changed(before: dict, after: dict) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_flags_of_fine_tuning_change_the_weights(trained):
    usual = trained("--fine-tune")
    assert changed(usual, trained("--fine-tune", "--backbone-lr", "0.0001")) == set()
    for flag in "backbone-lr=0.0002 layer-decay=0.5 warmup=1 clip-grad=0.01 grad-accum=2".split():
        assert len(changed(usual, trained("--fine-tune", f"--{flag}"))) > 50, flag


def test_no_compiler_is_one_line(data_dir, in_tmp, capsys, monkeypatch):
    def compile_none(function):
        def failing(x):
            raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nand a page more")

        return failing

    monkeypatch.setattr(torch, "compile", compile_none)
    for main, *argv in (
        (train.main, "--data", data_dir, *TINY),
        (train.main, "--data", data_dir, "--test-only", "--model", CHECKPOINT),
        (infer_image.main, "--input", data_dir / "valid_images", "--model", CHECKPOINT),
    ):
        message = fails(capsys, main, *argv, "--compile")
        assert "--compile does not work here (InvalidCxxCompiler: No working C++" in message
        assert len(message.splitlines()) == 1


def test_inference_compiles_the_backbone(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(module))
    monkeypatch.setattr(predictor, "check_compiler", lambda device: None)
    options = predictor.PredictorOptions(compile=True)
    loaded = predictor.load_predictor(CHECKPOINT, torch.device("cpu"), options)
    assert compiled == [loaded.model.backbone]


def test_tensorboard_gets_each_epochs_row(trained, in_tmp, monkeypatch):
    package, writer = types.ModuleType("tensorboard"), MagicMock()
    package.__spec__ = ModuleSpec("tensorboard", None)
    monkeypatch.setitem(sys.modules, "tensorboard", package)
    stand_in = types.SimpleNamespace(SummaryWriter=writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stand_in)
    trained("--tensorboard")
    trained("--tensorboard", "--resume", "--epochs", "2")
    folder = str(Path("outputs", "tensorboard"))
    assert writer.call_args_list == [call(folder, purge_step=epoch) for epoch in (1, 2)]
    logged = [scalar.args for scalar in writer.return_value.add_scalar.call_args_list]
    for row in csv.DictReader((in_tmp / "outputs" / "history.csv").open()):
        of_epoch = {name: value for name, value, step in logged if step == int(row["epoch"])}
        assert of_epoch.items() <= {name: float(value) for name, value in row.items()}.items()
        assert {"lr", "train_loss", "valid_miou"} <= of_epoch.keys()


def test_tensorboard_that_is_missing_is_said_at_once(in_tmp, capsys, monkeypatch):
    monkeypatch.setattr(train, "find_spec", lambda name: None)
    message = fails(capsys, train.main, "--data", "nowhere", "--tensorboard")
    assert "--tensorboard: pip install tensorboard first, or leave it out" in message
