"""The commands of the README, run as a user runs them, on drawn data."""

import csv
import json
import os
import subprocess
import sys
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from helpers.basics import CHECKPOINT, REPO, shared_data
from helpers.scripts import TINY, run_train
from helpers.stubs import fails
from PIL import Image

import benchmarks.__main__ as benchmark
import check_data
import config
import demo.__main__ as demo_script
import export
import infer_image
import infer_video
import model
import train
from predictor import PredictorOptions, load_predictor
from utils import InputError


@pytest.mark.plots
def test_a_run_leaves_the_files_that_the_readme_lists(data_dir, in_tmp):
    run_train(data_dir, "--out-dir", "first")
    folder = in_tmp / "outputs" / "first"
    expected = {
        "best_model_iou.pth", "best_model_loss.pth", "final_model.pth", "last.pth",
        "history.csv", "loss.png", "accuracy.png", "miou.png", "valid_preds", "run.json",
        "index.html", "page",
        "results.csv", "confusion.csv", "confusion.png", ".lock",
    }  # fmt: skip
    assert {path.name for path in folder.iterdir()} == expected
    assert len(list((folder / "valid_preds").iterdir())) == 2
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert f"trained on {data_dir} (SPLIT_images, SPLIT_masks)" in page
    assert all(f'id="{name}"' in page for name in ("curves", "classes", "confusion", "worst"))
    rows = list(csv.DictReader((folder / "history.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert 0 <= float(rows[1]["valid_miou"]) <= 1
    for name in ("loss", "accuracy", "miou", "confusion"):
        assert Image.open(folder / f"{name}.png").width > 100
    previews = [Image.open(path) for path in (folder / "valid_preds").iterdir()]
    assert all(preview.width <= 720 for preview in previews)
    (entry,) = json.loads((folder / "run.json").read_text())
    best = max(float(row["valid_miou"]) for row in rows)
    assert entry["scores"]["miou"] == pytest.approx(best)
    assert entry["scores"]["checkpoint"] == "best_model_iou.pth"
    results = {row[0]: row[1] for row in csv.reader((folder / "results.csv").open())}
    assert float(results["mIoU"]) == pytest.approx(best)
    assert entry["scores"]["iou"]["foreground"] == pytest.approx(float(results["foreground"]))


def test_resuming_with_other_data_is_refused_before_features_are_computed(
    data_dir, in_tmp, capsys, monkeypatch
):
    argv = ["--data", data_dir, *TINY, "--cache-features", "1", "--epochs", "1"]
    train.main(list(map(str, argv)))
    computed = AssertionError("features are computed")
    monkeypatch.setattr(train, "cached_loaders", Mock(side_effect=computed))
    mask = data_dir / "valid_masks/0.png"
    os.utime(mask, (1, mask.stat().st_mtime - 3600))
    words = "last.pth was made with another valid_masks/0.png: its size or time of"
    assert words in fails(capsys, train.main, *argv, "--resume")


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_split_without_a_labelled_pixel_is_refused(data_dir, in_tmp, capsys, split):
    for path in (data_dir / f"{split}_masks").iterdir():
        Image.fromarray(np.full(np.asarray(Image.open(path)).shape, 200, np.uint8)).save(path)
    (data_dir / "dataset.yaml").write_text("names: [a, b]\nignore: [200]\n")
    message = fails(capsys, train.main, "--data", data_dir, *TINY)
    assert f"the masks of the {split} split have no labelled pixel" in message


def test_a_fine_tuned_checkpoint_takes_no_other_backbone(data_dir, in_tmp):
    run_train(data_dir, "--fine-tune", "--epochs", "1")
    tuned = in_tmp / "outputs" / "best_model_iou.pth"
    infer_image.main(["--input", str(data_dir / "valid_images"), "--model", str(tuned)])
    for path, words in (
        (CHECKPOINT, "--weights nowhere: no such file"),
        (tuned, "leave out --weights"),
    ):
        with pytest.raises(InputError, match=words):
            load_predictor(path, torch.device("cpu"), PredictorOptions(weights="nowhere"))


def test_bad_input_to_training_is_one_line(data_dir, in_tmp, capsys):
    def said(*more):
        return fails(capsys, train.main, "--data", data_dir, *TINY, "--epochs", "1", *more)

    assert "no such folder" in said("--data", "nowhere")
    (in_tmp / "data.yaml").touch()
    assert "it is a file; give --data ." in said("--data", "data.yaml")
    assert "no such folder" in said("--train-images", "x", "--train-masks", "y")
    assert "unknown backbone 'vit'; nearest: dinov" in said("--backbone", "vit")
    assert "--device cuda:9 cannot be used here" in said("--device", "cuda:9")
    assert "Invalid device" not in said("--device", "99")  # as others write them
    assert "torchrun" in said("--device", "0,1")
    assert "Invalid device" in said("--device", "cpu,1")
    assert "no such checkpoint" in said("--resume", "gone.pth")
    (in_tmp / "empty" / "train_images").mkdir(parents=True)
    (in_tmp / "empty" / "train_masks").mkdir()
    assert "no pictures in it" in said("--data", "empty")


def test_a_script_ends_without_a_traceback(in_tmp):
    command = [sys.executable, str(REPO / "infer_video.py"), "--input", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


def test_importing_does_nothing(in_tmp):
    """Nothing printed, written or asked of the network."""
    code = (
        "import socket\n"
        "def refuse(*args): raise AssertionError('network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "import train, infer_image, infer_video, model, datasets, check_data, demo.__main__\n"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    env = {"PYTHONPATH": str(REPO), "PATH": "", "HOME": str(in_tmp)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=in_tmp)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(in_tmp.iterdir()) == []


SCRIPTS = (benchmark, check_data, demo_script, export, infer_image, infer_video, model, train)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_every_script_explains_its_flags_and_says_the_projects_version(script, capsys):
    parser = script.get_args_parser()
    for action in parser._actions:
        assert action.help, action.option_strings
    said = parser.format_help()
    assert len(said) > 200
    assert "working directory" in said  # where outputs/ and input/ lie
    with pytest.raises(SystemExit) as stop:
        script.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.split()[-1] == config.VERSION


def refused(capsys, main, *argv) -> str:
    """The one line of a refused command line."""
    with pytest.raises(SystemExit) as stop:
        main(list(argv))
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "--help shows all flags" in said
    return said


@pytest.mark.parametrize(
    ("script", "argv", "words"),
    [
        (train, ["--seed", "-1"], "'-1' is not a whole number at least 0 and at most 4294967295"),
        (train, ["--seed", "4294967296"], "at most 4294967295"),
        (check_data, ["--seed", "1.5"], "'1.5' is not a whole number"),
        (train, ["--workers", "-1"], "'-1' is not a whole number"),
        (train, ["--batch", "1e3"], "'1e3' is not a whole number"),
        (train, ["--lr", "inf"], "'inf' is not a number above 0"),
        (train, ["--lr", "nan"], "'nan' is not a number above 0"),
        (infer_image, ["--alpha", "1.1"], "'1.1' is not a number at least 0 and at most 1"),
        (train, ["--imgsz", "100000"], "'100000' is not a whole number at least 1"),
        (train, ["--imgsz", "0"], "argument --imgsz"),
        (train, ["--imgsz", "1", "2", "3"], "argument --imgsz"),
        (check_data, ["--valid-fraction", "0"], "argument --valid-fraction"),
        (check_data, ["--valid-fraction", "1"], "argument --valid-fraction"),
        (export, ["--to", "a.onnx", "--imgsz", "640", "8193"], "'8193' is not a whole number"),
        (train, ["--epohcs=3"], "unknown flag --epohcs; did you mean --epochs?"),
        (infer_image, ["--input", "a", "--sav", "mask", "--colour"], "unknown flag --colour ("),
        (model, ["vits14"], "unexpected 'vits14': which flag does it belong to?"),
        (train, ["--head", "lineer"], "argument --head: invalid choice: 'lineer'"),
        (export, [], "required: --to"),
        (infer_video, ["--input", "a", "--start", "x"], "'x' is not a time; give 75.5 or 1:15.5"),
        (infer_video, ["--input", "a", "--start", "-1"], "argument --start"),
        (infer_video, ["--input", "a", "--every", "0"], "argument --every"),
        (infer_video, ["--input", "a", "--smooth", "1"], "argument --smooth"),
        (infer_video, ["--input", "a", "--crf", "52"], "argument --crf"),
        (infer_video, ["--input", "a", "--save", "gif"], "argument --save"),
    ],
)
def test_bad_flags_are_one_line(capsys, script, argv, words):
    assert words in refused(capsys, script.main, *argv)


@pytest.mark.parametrize(
    ("script", "flags", "words"),
    [
        (export, "--to a.onnx --model a --head conv", "--head is what --model"),
        (demo_script, "--workers 99", "--workers has no effect without --pretrain; add that"),
        (check_data, "--imgsz 64", "--imgsz has no effect without --show-augment; add that"),
        (train, "--scheduler --schedule poly", "--schedule step"),
        (train, "--schedule cosine --scheduler-epochs 3", "no effect without --scheduler"),
        (train, "--layer-decay 0.9", "--layer-decay has no effect without --fine-tune"),
        (train, "--backbone-lr 0.1", "--backbone-lr has no effect without --fine-tune"),
        (train, "--unfreeze-blocks 2", "--unfreeze-blocks has no effect without --fine-tune"),
        (train, "--checkpoint-activations", "--checkpoint-activations has no effect without"),
        (train, "--split valid", "--split has no effect without --test-only"),
        (train, "--test-only --lr 0.1", "--lr has no effect with --test-only"),
        (train, "--test-only --cache-features 2", "--cache-features has no effect with --test-"),
        (train, "--dtype bfloat16", "--dtype has no effect without --test-only"),
        (train, "--no-flip", "--flip has no effect without --test-only"),
        (train, "--tile-overlap 0", "--tile-overlap has no effect without --test-only"),
        (train, "--compile --runtime openvino", "--compile does nothing"),
    ],
)
def test_flags_without_effect_are_refused(in_tmp, capsys, script, flags, words):
    assert words in fails(capsys, script.main, *flags.split())
    assert list(in_tmp.iterdir()) == []


def test_penn_fudan_trains(in_tmp, capsys):
    data = shared_data("PennFudanPed")
    train.main(["--data", str(data), *TINY, "--epochs", "2", "--lr", "0.01"])
    said = capsys.readouterr().out
    assert "146 pairs to train on, 24 to validate" in said
    assert "warning" not in said
    rows = list(csv.DictReader((in_tmp / "outputs" / "history.csv").open()))
    assert float(rows[1]["train_loss"]) < float(rows[0]["train_loss"])


def test_a_run_says_that_it_replaces_an_earlier_one(data_dir, in_tmp, capsys):
    run_train(data_dir)
    assert "is replaced" not in capsys.readouterr().out
    run_train(data_dir, "--epochs", "1")
    assert "outputs: the earlier run there is replaced" in capsys.readouterr().out
    assert [p.name for p in (in_tmp / "outputs/valid_preds").iterdir()] == ["epoch_001.jpg"]


def test_a_run_is_repeated_with_changes(data_dir, in_tmp, capsys, monkeypatch):
    """--like takes the flags of a run.json, those of its own --like too; given ones win."""
    command = ["train.py", "--data", str(data_dir), *TINY, "--epochs", "1", "--lr", "0.02"]
    for name, argv in {
        "first": command[1:],
        "second": ["--like", "outputs/first/run.json", "--lr", "0.03"],
        "third": ["--like", "outputs/second/run.json", "--seed", "7"],
    }.items():
        monkeypatch.setattr(sys, "argv", ["train.py", *argv, "--out-dir", name])
        train.main()
    rows = list(csv.DictReader((in_tmp / "outputs" / "third" / "history.csv").open()))
    assert [row["lr"] for row in rows] == ["0.03"]
    assert json.loads((in_tmp / "outputs/third/run.json").read_text())[0]["seed"] == 7
    like = ["--like", "outputs/first/run.json", "--out-dir", "first"]
    assert "--out-dir" in fails(capsys, train.main, *like)
    (in_tmp / "odd.json").write_text('[{"command": 3}]')
    assert "odd.json" in fails(capsys, train.main, "--like", "odd.json", "--out-dir", "new")
    (in_tmp / "odd.json").write_bytes(b"\x9d" * 9999)  # a checkpoint, say
    assert len(fails(capsys, train.main, "--like", "odd.json", "--out-dir", "new")) < 300
    (in_tmp / "odd.json").write_text('[{"command": "train.py --like odd.json"}]')
    assert "of another run" in fails(capsys, train.main, "--like", "odd.json", "--out-dir", "new")
