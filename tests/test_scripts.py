"""The commands of the README, run as a user runs them, on drawn data."""

import csv
import json
import os
import shutil
import subprocess
import sys
from argparse import ArgumentTypeError

import numpy as np
import pytest
import torch
from helpers.basics import REPO, draw_pair, shared_data
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
from common.parser import number
from predictor import PredictorOptions, load_predictor
from utils import InputError


@pytest.fixture
def checkpoint(data_dir, in_tmp):
    run_train(data_dir)
    return in_tmp / "outputs" / "best_model_iou.pth"


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, size in (("a.png", (70, 50)), ("b.jpg", (33, 47)), ("sub/c.png", (400, 13))):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(draw_pair(1, *size)[0]).save(folder / name)
    return folder


def test_a_run_leaves_the_files_that_the_readme_lists(data_dir, in_tmp, capsys):
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
    previews = [Image.open(path) for path in (folder / "valid_preds").iterdir()]
    assert all(preview.width <= 720 for preview in previews)
    (entry,) = json.loads((folder / "run.json").read_text())
    best = max(float(row["valid_miou"]) for row in rows)
    assert entry["scores"]["miou"] == pytest.approx(best)
    assert entry["scores"]["checkpoint"] == "best_model_iou.pth"
    results = {row[0]: row[1] for row in csv.reader((folder / "results.csv").open())}
    assert float(results["mIoU"]) == pytest.approx(best)
    assert entry["scores"]["iou"]["foreground"] == pytest.approx(float(results["foreground"]))
    out = capsys.readouterr().out
    for words in ("EPOCH: 2 of 2", "Valid loss:", "IoU per class:", "TRAINING COMPLETE"):
        assert words in out


def test_two_runs_of_one_seed_are_equal(data_dir, in_tmp):
    for name, more in (("a", []), ("b", ["--workers", "2"]), ("c", ["--seed", "7"])):
        run_train(data_dir, "--out-dir", name, *more)
    a, b, c = (
        torch.load(in_tmp / "outputs" / name / "final_model.pth", weights_only=True)[
            "model_state_dict"
        ]
        for name in "abc"
    )
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], c[key]) for key in a)


def write_classes(data_dir, background, foreground):
    entries = f"0: {{name: a, labels: [{background}]}}, 1: {{name: b, labels: [{foreground}]}}"
    (data_dir / "dataset.yaml").write_text(f"classes: {{{entries}}}\n")


def other_classes(data_dir):
    write_classes(data_dir, 1, 0)


def other_mask(data_dir):
    path = data_dir / "valid_masks/0.png"
    os.utime(path, (1, path.stat().st_mtime - 3600))


def fewer_pictures(data_dir):
    for folder in ("train_images", "train_masks"):
        (data_dir / folder / "0.png").unlink()


def test_resuming_with_other_data_is_refused_before_features_are_computed(
    data_dir, in_tmp, capsys, monkeypatch
):
    def refuse(*args):
        raise AssertionError("features are computed")

    write_classes(data_dir, 0, 1)
    run_train(data_dir, "--cache-features", "1")
    monkeypatch.setattr(train, "with_features", refuse)
    argv = ["--data", data_dir, *TINY, "--batch", "4", "--epochs", "3", "--cache-features", "1"]
    for change, words in (
        (other_classes, "last.pth was made with mask_values [[0, 0], [1, 1]], not [[0, 1],"),
        (other_mask, "last.pth was made with another valid_masks/0.png: its size or time of"),
        (fewer_pictures, "last.pth was made with train_pictures 6, not 5; resume with the same"),
    ):
        copy = shutil.copytree(data_dir, in_tmp / change.__name__, copy_function=shutil.copy2)
        change(copy)
        assert words in fails(capsys, train.main, *argv, "--data", copy, "--resume")
    assert "no such checkpoint" in fails(capsys, train.main, *argv, "--resume", "gone/last.pth")


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_split_without_a_labelled_pixel_is_refused(data_dir, in_tmp, capsys, split):
    for path in (data_dir / f"{split}_masks").iterdir():
        Image.fromarray(np.full(np.asarray(Image.open(path)).shape, 200, np.uint8)).save(path)
    (data_dir / "dataset.yaml").write_text("names: [a, b]\nignore: [200]\n")
    message = fails(capsys, train.main, "--data", data_dir, *TINY)
    assert f"the masks of the {split} split have no labelled pixel" in message


@pytest.mark.parametrize("head", ["ms", "mask"])
def test_a_resumed_run_ends_where_the_whole_one_does(data_dir, in_tmp, head):
    schedule = ["--head", head, "--scheduler", "--scheduler-epochs", "2"]
    run_train(data_dir, *schedule, "--out-dir", "whole", "--epochs", "3")
    run_train(data_dir, *schedule, "--out-dir", "parts", "--epochs", "1")
    run_train(data_dir, *schedule, "--out-dir", "parts", "--epochs", "3", "--resume")
    outputs = in_tmp / "outputs"
    whole, parts = (
        torch.load(outputs / name / "last.pth", weights_only=True) for name in ("whole", "parts")
    )
    assert whole["training"]["history"] == parts["training"]["history"]
    assert [row["lr"] for row in whole["training"]["history"]] == pytest.approx([1e-3, 1e-3, 1e-4])
    for key, value in whole["model_state_dict"].items():
        assert torch.equal(value, parts["model_state_dict"][key])


def test_frozen_and_fine_tuned_checkpoints(data_dir, in_tmp):
    run_train(data_dir, "--out-dir", "frozen")
    run_train(data_dir, "--out-dir", "tuned", "--fine-tune")
    frozen, tuned = (in_tmp / "outputs" / n / "best_model_iou.pth" for n in ("frozen", "tuned"))
    assert frozen.stat().st_size < 64 * 1024 < tuned.stat().st_size
    for path in (frozen, tuned):
        infer_image.main(["--input", str(data_dir / "valid_images"), "--model", str(path)])
    for path, words in (
        (frozen, "--weights nowhere: no such file"),
        (tuned, "leave out --weights"),
    ):
        with pytest.raises(InputError, match=words):
            load_predictor(path, torch.device("cpu"), PredictorOptions(weights="nowhere"))
    trained = torch.load(tuned, weights_only=True)["model_state_dict"]
    initial = torch.hub.load(str(REPO), "dinov2_vitt14", source="local", pretrained=False)
    assert trained["backbone.norm.weight"].ne(initial.norm.weight).any()


def test_pictures_come_out_at_their_own_size(checkpoint, pictures, capsys):
    argv = ["--input", str(pictures), "--model", str(checkpoint), "--save", "overlay,mask"]
    infer_image.main([*argv, "--batch", "2"])
    results = checkpoint.parent / "inference_results_image"
    for name, size in (("a", (70, 50)), ("b", (33, 47)), ("sub/c", (400, 13))):
        assert Image.open(results / f"{name}_overlay.jpg").size == size
        mask = Image.open(results / f"{name}_mask.png")
        assert (mask.size, mask.mode) == (size, "P")
        assert set(np.unique(mask)) <= {0, 1}
    assert "3 of 3 pictures segmented" in capsys.readouterr().out


def test_batches_and_single_pictures_give_the_same_masks(checkpoint, pictures):
    base = ["--input", str(pictures), "--model", str(checkpoint), "--save", "mask"]
    infer_image.main([*base, "--out-dir", "one", "--batch", "1"])
    infer_image.main([*base, "--out-dir", "three", "--batch", "3"])
    outputs = checkpoint.parent
    for name in ("a", "b", "sub/c"):
        one, three = (
            np.asarray(Image.open(outputs / n / f"{name}_mask.png")) for n in ("one", "three")
        )
        assert np.mean(one == three) > 0.999


def test_bad_input_to_training_is_one_line(data_dir, in_tmp, capsys):
    def said(*more):
        return fails(capsys, train.main, "--data", data_dir, *TINY, "--epochs", "1", *more)

    assert "no such folder" in said("--data", "nowhere")
    assert "no such folder" in said("--train-images", "x", "--train-masks", "y")
    assert "unknown backbone 'vit'; nearest: dinov" in said("--backbone", "vit")
    assert "--device cuda:9 cannot be used here" in said("--device", "cuda:9")
    assert "below outputs/" in said("--out-dir", "../x")
    assert "no such class file" in said("--classes", "mine.yaml")
    assert "no such checkpoint" in said("--resume", "gone.pth")
    (in_tmp / "empty" / "train_images").mkdir(parents=True)
    (in_tmp / "empty" / "train_masks").mkdir()
    assert "no pictures in it" in said("--data", "empty")


def change_pixels(path, change):
    Image.fromarray(np.ascontiguousarray(change(np.array(Image.open(path))))).save(path)


def label_two(pixels):
    pixels[0, :3] = 2
    return pixels


@pytest.mark.parametrize(
    ("kind", "spoil", "words"),
    [
        ("masks", lambda path: path.unlink(), "no mask of this name in"),
        ("images", lambda path: path.unlink(), "no image of this name in"),
        ("images", lambda p: p.write_bytes(p.read_bytes()[:-200]), "not a readable picture"),
        ("masks", lambda p: p.write_bytes(p.read_bytes()[:-30]), "not a readable picture"),
        ("masks", lambda p: change_pixels(p, lambda a: a[:, 1:]), "but its image 2.png has 70x56"),
        ("masks", lambda p: change_pixels(p, np.transpose), "has 70x56; turn it by 90 degrees"),
        ("masks", lambda p: change_pixels(p, label_two), "value 2 (3 pixels) belongs to no class"),
    ],
)
def test_bad_files_stop_training_before_it_starts(data_dir, in_tmp, capsys, kind, spoil, words):
    spoil(data_dir / f"train_{kind}" / "2.png")
    (data_dir / "dataset.yaml").write_text("ALL_CLASSES: [background, box]\n")
    message = fails(capsys, train.main, "--data", data_dir, *TINY)
    assert words in message
    assert "2.png" in message
    assert len(message.splitlines()) == 1
    outputs = (in_tmp / "outputs").rglob("*")
    assert [path.name for path in outputs if path.is_file() and path.name[0] != "."] == []


def test_bad_input_to_inference_is_one_line(checkpoint, data_dir, in_tmp, capsys):
    def said(main, source, *more):
        return fails(capsys, main, "--input", source, "--model", checkpoint, *more)

    (in_tmp / "empty").mkdir()
    assert "no such file or folder" in said(infer_image.main, "nowhere")
    assert "no pictures in it" in said(infer_image.main, "empty")
    assert "no such checkpoint" in said(infer_image.main, data_dir, "--model", "gone.pth")
    assert "below outputs/" in said(infer_video.main, "text.mp4", "--out-dir", "/x")
    (in_tmp / "text.mp4").write_text("no video")
    assert "text.mp4" in said(infer_video.main, "text.mp4")
    assert "nowhere.mp4" in said(infer_video.main, "nowhere.mp4")
    assert not list((in_tmp / "outputs" / "inference_results_video").iterdir())


def test_scripts_end_without_a_traceback(in_tmp):
    for script in ("train.py", "infer_image.py", "infer_video.py"):
        argv = ["--data", "nowhere"] if script == "train.py" else ["--input", "nowhere"]
        command = [sys.executable, str(REPO / script), *argv]
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
def test_every_flag_has_a_help_text(script):
    parser = script.get_args_parser()
    for action in parser._actions:
        assert action.help, action.option_strings
    said = parser.format_help()
    assert len(said) > 200
    assert "working directory" in said  # where outputs/ and input/ lie


@pytest.mark.parametrize(
    ("limits", "good", "bad"),
    [
        ({"low": 1, "whole": True}, ["1", "70000"], ["0", "-1", "1.0", "1e3", "x", "", "inf"]),
        ({"low": 0, "high": 1}, ["0", "1", "0.5", "1e-3"], ["-0.1", "1.1", "nan", "inf"]),
        ({"above": 0}, ["1e-9", "7"], ["0", "-1", "inf", "nan"]),
        ({"above": 0, "below": 1}, ["0.5"], ["0", "1"]),
    ],
)
def test_numbers_within_limits(limits, good, bad):
    parse = number(**limits)
    assert [parse(text) for text in good] == [float(text) for text in good]
    for text in bad:
        with pytest.raises(ArgumentTypeError, match=rf"^'{text}' is not a (whole )?number"):
            parse(text)


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
        (train, ["--imgsz", "100000"], "100000 is more than 8192 pixels; every picture is"),
        (export, ["--to", "a.onnx", "--imgsz", "640", "8193"], "8193 is more than 8192"),
        (train, ["--epohcs=3"], "unknown flag --epohcs; did you mean --epochs?"),
        (infer_image, ["--input", "a", "--sav", "mask", "--colour"], "unknown flag --colour ("),
        (model, ["vits14"], "unexpected 'vits14': which flag does it belong to?"),
        (train, ["--head", "lineer"], "argument --head: invalid choice: 'lineer'"),
        (export, [], "required: --to"),
        (infer_video, ["--input", "a", "--start", "x"], "'x' is not a time; give 75.5 or 1:15.5"),
    ],
)
def test_bad_flags_are_one_line(capsys, script, argv, words):
    assert words in refused(capsys, script.main, *argv)


@pytest.mark.parametrize(
    ("script", "argv", "words"),
    [
        (export, ["--to", "a.onnx", "--model", "a", "--head", "conv"], "--head is what --model"),
        (demo_script, ["--workers", "99"], "--workers has no effect without --pretrain; add that"),
        (check_data, ["--imgsz", "64"], "--imgsz has no effect without --show-augment; add that"),
    ],
)
def test_flags_without_effect_are_refused(capsys, script, argv, words):
    assert words in fails(capsys, script.main, *argv)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_every_script_says_the_projects_version(script, capsys):
    with pytest.raises(SystemExit) as stop:
        script.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.split()[-1] == config.VERSION


def test_image_size_is_width_height_or_one_number():
    parse = train.get_args_parser().parse_args
    assert parse(["--imgsz", "640", "320"]).imgsz == (320, 640)
    assert parse(["--imgsz", "518"]).imgsz == (518, 518)
    for bad in (["0"], ["1", "2", "3"], ["-4", "5"]):
        with pytest.raises(SystemExit):
            parse(["--imgsz", *bad])


def test_penn_fudan_trains(in_tmp, capsys):
    data = shared_data("PennFudanPed")
    train.main(["--data", str(data), *TINY, "--epochs", "2", "--lr", "0.01"])
    assert "146 pairs to train on, 24 to validate" in capsys.readouterr().out
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
    (in_tmp / "odd.json").write_text('[{"command": "train.py --like odd.json"}]')
    assert "like itself" in fails(capsys, train.main, "--like", "odd.json", "--out-dir", "new")


def test_devices_as_others_write_them(data_dir, in_tmp, capsys):
    assert "Invalid device" not in fails(capsys, train.main, "--data", data_dir, "--device", "99")
    assert "torchrun" in fails(capsys, train.main, "--data", data_dir, "--device", "0,1")
