import csv

import numpy as np
import pytest
import torch
from helpers.basics import CHECKPOINT
from helpers.published import published_content
from helpers.scripts import run_train
from helpers.stubs import fails
from PIL import Image

import train
from config import ModelConfig
from data.labels.classes import PERSON, VOC2012, Classes
from inference.published_heads import OFFICIAL_HEADS, start_from_head
from metrics import BoundaryIoU, ConfusionMatrix
from model import LinearHead
from results.scores import write_scores
from results.tables import class_fractions
from train import check_same_classes
from utils import InputError

HEAD = OFFICIAL_HEADS["dinov2_vits14_voc2012_linear"]


@pytest.mark.plots
def test_the_test_run_repeats_the_validation_score(data_dir, in_tmp, capsys):
    run_train(data_dir, "--out-dir", "run")
    rows = list(csv.DictReader((in_tmp / "outputs/run/history.csv").open()))
    best = max(rows, key=lambda row: float(row["valid_miou"]))
    capsys.readouterr()
    model = str(in_tmp / "outputs/run/best_model_iou.pth")
    train.main(["--data", str(data_dir), "--test-only", "--model", model, "--out-dir", "test"])
    folder = in_tmp / "outputs/test"
    results = {row[0]: row[1] for row in csv.reader((folder / "results.csv").open())}
    assert float(results["mIoU"]) == pytest.approx(float(best["valid_miou"]), abs=1e-6)
    assert f"mIoU: {float(best['valid_miou']):.4f}" in capsys.readouterr().out
    confusion = list(csv.reader((folder / "confusion.csv").open()))
    pixels = sum(int(n) for row in confusion[1:] for n in row[1:])
    masks = (data_dir / "valid_masks").iterdir()
    assert pixels == sum(np.asarray(Image.open(mask)).size for mask in masks)
    assert Image.open(folder / "confusion.png").size[0] > 100


def test_a_model_of_other_classes_is_refused(data_dir, in_tmp, capsys):
    (data_dir / "dataset.yaml").write_text("ALL_CLASSES: [road, sky]\n")
    message = fails(capsys, train.main, "--data", data_dir, "--test-only", "--model", CHECKPOINT)
    assert "background, foreground" in message
    assert "road, sky" in message
    check_same_classes(PERSON, Classes(PERSON.names, ((1, 1, 1), (2, 2, 2))))  # colours may differ


def scores_of(preds, targets, num_classes):
    matrix, near = ConfusionMatrix(num_classes), BoundaryIoU(num_classes)
    preds, targets = np.array(preds, np.uint8), np.array(targets, np.uint8)
    matrix.update(torch.from_numpy(preds), torch.from_numpy(targets))
    near.update(preds, targets)
    return matrix.compute() | {"matrix": matrix, "boundary_iou": near.compute()}


def test_the_tables_hold_all_scores_of_each_class(tmp_path):
    """3 x 6 pixels, two classes side by side, the border one column too far left."""
    classes = Classes(("left, far", "right", "never"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)))
    scores = scores_of([[0, 0, 1, 1, 1, 1]] * 3, [[0, 0, 0, 1, 1, 1]] * 3, 3)
    said = write_scores(scores, classes, tmp_path).splitlines()
    header, *rows = csv.reader((tmp_path / "results.csv").open())
    assert header == ["class", "iou", "boundary_iou", "precision", "recall", "f1"]
    # Boundaries of the target: 8 pixels of each class; predicted: 6 and 10; common: 5 and 7.
    expected = [[6 / 9, 5 / 9, 1, 6 / 9, 12 / 15], [9 / 12, 7 / 11, 9 / 12, 1, 18 / 21]]
    assert [row[0] for row in rows[:3]] == list(classes.names)
    assert [[float(v) for v in row[1:]] for row in rows[:2]] == [pytest.approx(e) for e in expected]
    assert rows[2][1:] == ["nan"] * 5
    totals = {row[0]: row[1:] for row in rows[3:]}
    assert float(totals["mean boundary IoU"][0]) == pytest.approx((5 / 9 + 7 / 11) / 2)
    assert said[2].split() == ["left,", "far", "0.6667", "0.5556", "1.0000", "0.6667", "0.8000"]
    assert said[4].split() == ["never", "absent"]


def test_starting_from_a_published_head(tmp_path):
    content = published_content(HEAD)
    path = tmp_path / "dinov2_vits14_voc2012_linear_head.pth"
    torch.save(content, path)
    classes = Classes(("background", "wombat", "person"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)))
    module = LinearHead(384, 3)
    fresh = module.conv_seg.weight[1].clone()
    spec = ModelConfig("dinov2_vits14", "linear", 3)
    said = start_from_head(str(path), spec, module, classes)
    assert said == "from dinov2_vits14_voc2012_linear: background, person; fresh: wombat"
    stored = content["state_dict"]
    person = VOC2012.names.index("person")
    weight = module.conv_seg.weight
    assert torch.equal(weight[0], stored["decode_head.conv_seg.weight"][0])
    assert torch.equal(weight[2], stored["decode_head.conv_seg.weight"][person])
    assert torch.equal(weight[1], fresh)
    assert module.conv_seg.bias[2] == stored["decode_head.conv_seg.bias"][person]
    assert torch.equal(module.bn.running_var, stored["decode_head.bn.running_var"])


def test_a_head_that_does_not_fit_is_refused():
    module = LinearHead(384, 2)
    with pytest.raises(InputError, match="wants --backbone dinov2_vits14 --head linear"):
        start_from_head(HEAD.name, ModelConfig("dinov2_vitb14", "ms", 2), module, PERSON)
    with pytest.raises(InputError, match="not a published head"):
        start_from_head("mine", ModelConfig("dinov2_vits14", "linear", 2), module, PERSON)


@pytest.mark.parametrize("own_data", [True, False])
def test_the_papers_number_is_for_the_papers_data(data_dir, in_tmp, capsys, own_data):
    """A published head on a folder that is called VOC, and on one that only has its classes."""
    torch.save(published_content(HEAD), in_tmp / f"{HEAD.name}_head.pth")
    names = list(VOC2012.names)
    (data_dir / "dataset.yaml").write_text(f"ALL_CLASSES: {names}\n")
    classes = ["--classes", "voc2012"] if own_data else []
    train.main(
        ["--data", str(data_dir), "--test-only", "--model", str(in_tmp / f"{HEAD.name}_head.pth"),
         "--weights", "none", "--imgsz", "56", *classes]
    )  # fmt: skip
    assert ("in the paper 81.1 %" in capsys.readouterr().out) == own_data


def test_fractions_are_of_all_pixels_the_ignored_ones_last():
    labels = np.uint8([[0, 2, 2, 255], [0, 0, 255, 255]])
    assert class_fractions(labels, 3) == [3 / 8, 0, 2 / 8, 3 / 8]
