"""Files of tensors: plain data, whole or not at all, never trusted."""

import shutil
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from helpers.basics import REPO, draw_pair
from PIL import Image

import config
from common.job_record import JobRecord
from common.tensor_files import load_tensors, save_tensors
from data.labels.classes import PERSON
from data.transforms import Resize
from model import build_model
from networks.weights import fingerprint
from predictor import PredictorOptions, load_predictor
from training.checkpointer import find_last
from training.run_folder import RunFolder, describe_model
from utils import InputError

CPU = torch.device("cpu")
SCORES = {"loss": 0.5, "pixel_acc": 0.9, "miou": 0.8}


@pytest.fixture
def run(tmp_path):
    """A run of one epoch, and the checkpoint that it wrote."""
    spec = config.ModelConfig("dinov2_vitt14", "ms", 2, "none")
    model = build_model(spec)
    checkpoint = describe_model(spec, fingerprint(model.backbone), PERSON, Resize((56, 70)))
    run = RunFolder(tmp_path, checkpoint, JobRecord({"lr": 0.1}))
    valid = SCORES | {"iou": torch.ones(2), "predicted": torch.ones(2)}
    run.add_epoch(0.1, SCORES, valid, model.trained())
    return run


def change(path, **fields):
    content = torch.load(path, weights_only=True)
    for name, value in fields.items():
        if value is None:
            del content[name]
        else:
            content[name] = value
    torch.save(content, path)


def test_a_frozen_run_keeps_kilobytes_that_load_safely(run):
    path = run.folder / "best_model_iou.pth"
    assert path.stat().st_size < 64 * 1024
    content = torch.load(path, weights_only=True)
    assert content["classes"] == ["background", "person"]
    assert content["image_size"] == [56, 70]
    assert content["metrics"]["valid_miou"] == 0.8
    assert all(name.startswith("head.") for name in content["model_state_dict"])
    predictor = load_predictor(path, CPU)
    assert predictor.protocol.resize.image_size == (56, 70)
    assert predictor.classes == PERSON


def test_a_checkpoint_of_version_1_still_gives_the_same_mask():
    """It was made before the code moved into packages."""
    golden = REPO / "tests/golden"
    predictor = load_predictor(golden / "checkpoint_v1.pth", CPU, PredictorOptions(hub_repo="."))
    mask = predictor.predict([draw_pair(99, 97, 75)[0]])[0].labels
    expected = np.asarray(Image.open(golden / "checkpoint_v1_mask.png"))
    assert mask.shape == expected.shape == (75, 97)
    assert len(np.unique(expected)) > 1
    assert (mask != expected).sum() <= 2


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"format": "other"}, "not a checkpoint of this project"),
        ({"version": 99}, "format version 99"),
        ({"classes": None}, "'classes' is missing"),
        ({"palette": [[0, 0, 0]]}, "2 classes"),
        ({"image_size": [14]}, "not a height and a width"),
        ({"backbone": "resnet"}, "unknown backbone 'resnet'"),
        ({"head": "big"}, "unknown head 'big'; known: ms"),
        ({"fingerprint": "0"}, "trained on other backbone weights"),
        ({"weights": "/nowhere/w.pth"}, r"/nowhere/w.pth, which are not here; pass --weights"),
        ({"model_state_dict": {}}, "do not fit its own description"),
        ({"classes": ["a", "b", "c"], "palette": [[0, 0, 0]] * 3}, "do not fit"),
    ],
)
def test_what_is_not_ours_is_refused_in_one_line(run, fields, words):
    path = run.folder / "best_model_iou.pth"
    change(path, **fields)
    with pytest.raises(InputError, match=words) as error:
        load_predictor(path, CPU)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "weights.pth"
    save_tensors(path, {"a": torch.ones(1)})
    full_disk = OSError(28, "No space left on device")
    monkeypatch.setattr("os.fsync", Mock(side_effect=full_disk))
    with pytest.raises(InputError, match=r"weights.pth: cannot write \(No space"):
        save_tensors(path, {"a": torch.zeros(1)})
    assert load_tensors(path)["a"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["weights.pth"]


def save_last(run):
    run.save("last.pth", {}, {"job": run.job.to_json(), "history": run.history})
    return run.folder / "last.pth"


def test_resuming_another_run_is_refused(run):
    last, moved = save_last(run), {"weights": "/moved/w.pth"}
    classes = {"class_names": ["a", "b"]}
    for checkpoint, job, words in (
        ({}, {"settings": {"lr": 0.2}}, "made with lr 0.1, not 0.2"),
        ({}, {"classes": classes}, r"made with class_names None, not \['a', 'b'\]"),
        ({"head": "linear"}, {}, "made with head 'ms', not 'linear'"),
        (moved | {"fingerprint": "0"}, {}, "made with weights 'none', not '/moved/w.pth'"),
    ):
        job = replace(run.job, **job)
        other = RunFolder(run.folder, replace(run.checkpoint, **checkpoint), job)
        with pytest.raises(InputError, match=words):
            find_last(other, last, epochs=9)
    with pytest.raises(InputError, match=r"has 1 epochs already"):
        find_last(run, last, epochs=0)
    other = RunFolder(run.folder, replace(run.checkpoint, **moved), run.job)
    assert find_last(other, last, epochs=9)
    path, content = find_last(run, True, epochs=1)
    assert path == last
    assert content.training["history"] == run.history


def test_best_checkpoints_of_another_run_are_refused(run, tmp_path):
    """They would be scored as the resumed run's, if none of its epochs were better."""
    last = save_last(run)
    copy = RunFolder(tmp_path / "copy", run.checkpoint, run.job)
    shutil.copytree(run.folder, copy.folder, ignore=shutil.ignore_patterns("copy"))
    assert find_last(copy, last, epochs=9)[1].epoch == 1
    change(copy.folder / "best_model_iou.pth", metrics={"epoch": 1, "valid_miou": 0.9})
    with pytest.raises(InputError, match=r"copy/best_model_iou\.pth is of another run"):
        find_last(copy, last, epochs=9)
    assert find_last(copy, copy.folder / "last.pth", epochs=9)[1].epoch == 1


def test_a_checkpoint_without_resume_state_is_refused(run):
    with pytest.raises(InputError, match=r"holds no state .*\(no record of a job\); name a last"):
        find_last(run, run.folder / "best_model_iou.pth", epochs=9)
