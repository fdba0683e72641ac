"""Tensors from pairs: repeatable draws, targets at their own size, proportions kept."""

import math
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.basics import draw_data_set
from helpers.models import StripeBackbone, criterion
from helpers.scripts import TINY
from helpers.stubs import fails
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import check_data
import datasets
import train
from common import pipeline
from config import InputFormat
from data.pairs import tile_pairs
from data.transforms import Resize
from datasets import EpochBatches, SegmentationDataset, timed_epoch
from engine import evaluate
from model import LinearHead, SegmentationModel
from predictor import load_predictor
from training import run_folder
from training.run_folder import collapse_warning


def test_windows_beyond_the_picture_show_the_mean_colour_of_the_backbone(data):
    """As the crops of training do: zero once normalised, but for rounding."""
    grey = InputFormat(16, (0.5, 0.25, 0.75), (0.25, 0.25, 0.25))
    size = (608, 608)  # larger than the pictures
    pairs = tile_pairs(data.splits.valid, size)
    dataset = SegmentationDataset(pairs, data.encoding, Resize(size, input_format=grey))
    image, target = dataset[0]
    assert (target[-1] == 255).all()
    assert image[:, -1].abs().max() < 0.01


def test_every_epoch_draws_each_picture_once_in_its_own_order():
    sampler = EpochBatches(7, 3, seed=3)
    draws = []
    for epoch in (1, 2):
        sampler.epoch = epoch
        assert [len(batch) for batch in sampler] == [3, 3, 1]
        draws.append([draw for batch in sampler for draw in batch])
        assert sorted(d % 7 for d in draws[-1]) == list(range(7))
    assert not set(draws[0]) & set(draws[1])
    assert [d % 7 for d in draws[0]] != [d % 7 for d in draws[1]]
    assert [draw for batch in sampler for draw in batch] == draws[1]
    other = EpochBatches(7, 3, seed=4)
    other.epoch = 2
    assert [draw for batch in other for draw in batch] != draws[1]


@pytest.mark.parametrize("flags", [[], ["--keep-ratio"]])
def test_a_checkpoint_keeps_the_proportions_for_inference(data_dir, in_tmp, flags):
    train.main(["--data", str(data_dir), *TINY, "--epochs", "1", *flags])
    path = in_tmp / "outputs" / "best_model_iou.pth"
    predictor = load_predictor(path, torch.device("cpu"))
    assert predictor.protocol.resize == Resize((56, 56), keep_ratio=bool(flags))
    seen = []
    predictor.model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    picture = np.zeros((40, 160, 3), np.uint8)
    assert predictor.predict([picture])[0].labels.shape == (40, 160)
    is_padding = seen[0][0].abs().amax(0) < 0.02  # a black picture is far below zero
    assert is_padding.float().mean().item() == pytest.approx(0.75 if flags else 0)


class ColourOracle(SegmentationModel):
    """Class 1 where a patch's red is bright."""

    def __init__(self):
        super().__init__(StripeBackbone(), LinearHead(8, 2))

    def forward(self, images):
        red = torch.nn.functional.avg_pool2d(images[:, :1], 14)
        return torch.cat([-red, red], dim=1)


@pytest.mark.parametrize("size", [(140, 420), (420, 140), (140, 140)])
def test_evaluation_finds_pictures_in_their_padding(size):
    """Boxes on whole patches of the letterboxed picture, found again at the mask's own size."""
    resize = Resize((280, 280), keep_ratio=True)
    mask = np.zeros(size, np.uint8)
    mask[: size[0] // 2] = 1
    image = np.where(mask[..., None] == 1, np.uint8(250), np.uint8(10)).repeat(3, 2)
    tensor = datasets.eval_transform(image, resize)[None]
    loader = [(tensor, [torch.from_numpy(mask)])]
    scores = evaluate(ColourOracle(), loader, criterion(), resize, 2)
    assert scores["miou"] > 0.95
    assert scores["predicted"].sum() == mask.size


@pytest.fixture(scope="module")
def loss_with(tmp_path_factory):
    """The training loss of an epoch with more flags."""
    folder = tmp_path_factory.mktemp("flags")
    draw_data_set(folder / "data", train=3, valid=1)

    def loss_with(*flags):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            train.main(["--data", "data", *TINY, "--epochs", "1", "--no-page", *flags])
        last = torch.load(folder / "outputs/last.pth", weights_only=True)
        return last["training"]["history"][0]["train_loss"]

    return cache(loss_with)


@pytest.mark.parametrize(
    ("flags", "differs"),
    [
        ("--loss ce+dice", True),
        ("--loss focal", True),
        ("--class-weights auto", True),
        ("--augment scale", True),
        ("--augment none", True),
        ("--keep-ratio", True),
        ("--seed 7", True),
        ("--loss ce --class-weights none --augment articles --seed 42", False),
    ],
)
def test_flags_of_training_do_something(loss_with, flags, differs):
    assert (loss_with(*flags.split()) != loss_with()) == differs


def scores(predicted, iou):
    return {"predicted": torch.tensor(predicted), "iou": torch.tensor(iou)}


def test_a_collapse_to_one_class_is_said():
    names = ("background", "car", "person")
    warning = collapse_warning(names, scores([90, 0, 0], [0.9, 0.0, math.nan]))
    assert "every pixel was predicted as background" in warning
    assert collapse_warning(names, scores([80, 10, 0], [0.9, 0.1, 0.0])) is None
    assert collapse_warning(names, scores([90, 0, 0], [1.0, math.nan, math.nan])) is None


def test_training_warns_of_a_collapse(data_dir, in_tmp, capsys, monkeypatch):
    monkeypatch.setattr(run_folder, "collapse_warning", lambda *_: "warning: all is background")
    train.main(["--data", str(data_dir), *TINY, "--epochs", "1"])
    assert "warning: all is background" in capsys.readouterr().out


def test_show_augment_draws_what_the_flags_say(data_dir, in_tmp, capsys):
    sheets = []
    for more in ([], ["--augment", "scale"], ["--keep-ratio"], ["--seed", "1"], ["--imgsz", "84"]):
        check_data.main(["--data", str(data_dir), "--show-augment", "--imgsz", "56", *more])
        path = in_tmp / "outputs" / "dataset_report" / "augment.png"
        sheets.append(np.asarray(Image.open(path)).tobytes())
    assert len(set(sheets)) == 5
    assert "augment.png" in capsys.readouterr().out


def test_folders_and_classes_by_flags(data_dir, in_tmp, capsys):
    (in_tmp / "names.txt").write_text("road\ncar\nbike\n")
    names = ("train-images", "train-masks", "valid-images", "valid-masks")
    folders = [word for n in names for word in (f"--{n}", str(data_dir / n.replace("-", "_")))]
    check_data.main([*folders, "--classes", "names.txt"])
    said = capsys.readouterr().out
    assert "folders given by hand: 6 pairs to train on, 3 to validate" in said
    assert "3 classes (names.txt): road, car, bike" in said
    assert "warning: 1 classes have no pixel in the train split: bike" in said


def test_more_folders_are_trained_on_alone(data_dir, in_tmp, capsys):
    """Where no validation set is given, none of the later folders' pairs is validated on."""
    images, masks = ([data_dir / f"{split}_{kind}" for split in ("train", "valid")]
                     for kind in ("images", "masks"))  # fmt: skip
    for picture in [*data_dir.glob("valid_*/*.png")]:
        picture.rename(picture.with_stem(f"more_{picture.stem}"))
    argv = ["--train-images", *map(str, images), "--train-masks", *map(str, masks)]
    train.main([*argv, *TINY, "--epochs", "1", "--classes", "person"])
    assert "8 pairs to train on, 1 to validate" in capsys.readouterr().out
    folders = ([str(data_dir / f"train_{kind}")] * 2 for kind in ("images", "masks"))
    again = [*["--train-images", *next(folders)], *["--train-masks", *next(folders)]]
    train.main([*again, *TINY, "--epochs", "1", "--classes", "person"])  # not what is validated on
    assert "10 pairs to train on, 1 to validate" in capsys.readouterr().out
    assert "as many" in fails(capsys, train.main, *argv[:-1])
    next(data_dir.glob("valid_masks/*.png")).unlink()
    assert "no mask of this name" in fails(capsys, train.main, *argv, "--classes", "person")


class Slow(Dataset):
    """Loading a picture takes so many seconds of a clock."""

    def __init__(self, clock, seconds):
        self.clock, self.seconds = clock, seconds

    def __len__(self):
        return 6

    def __getitem__(self, index):
        self.clock[0] += self.seconds
        return index


@pytest.mark.parametrize(
    ("load", "work", "said"), [(15.0, 5.0, "try --workers 3"), (0.0, 15.0, "")]
)
def test_slow_loading_is_told_with_a_number(monkeypatch, capsys, load, work, said):
    clock = [0.0]
    for module in (datasets, pipeline):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(datasets.os, "cpu_count", lambda: 3)
    seen = []
    for batch in timed_epoch(DataLoader(Slow(clock, load), batch_size=1)):
        clock[0] += work
        seen.append(batch)
    assert torch.cat(seen).tolist() == list(range(6))
    told = capsys.readouterr().out
    assert said in told
    assert told.count("--workers") == bool(said)


@pytest.mark.parametrize(("flags", "lines"), [([], 1), (["--cache-features", "1"], 0)])
def test_slow_loading_is_told_in_the_first_epoch_if_workers_would_help(
    data_dir, in_tmp, capsys, monkeypatch, flags, lines
):
    monkeypatch.setattr(datasets, "LONG_WAIT", -1.0)
    monkeypatch.setattr(datasets, "MUCH", -1.0)
    monkeypatch.setattr(datasets.os, "cpu_count", lambda: 9)
    flags = [*flags, "--epochs", "2", "--batch", "1", "--workers", "0"]
    train.main(["--data", str(data_dir), *TINY, *flags])
    assert capsys.readouterr().out.count("try --workers") == lines
