"""The table and plot of heads that were trained on few pictures."""

import csv
from types import SimpleNamespace

import pytest
from helpers.stubs import fails

import train
from benchmarks import few_pictures


@pytest.fixture
def commands(monkeypatch, in_tmp):
    """The flags of all runs; in place of a training, two epochs' scores are written."""
    made = []

    def run(command, **kwargs):
        args = train.get_args_parser().parse_args(command[2:])
        made.append(args)
        folder = in_tmp / "outputs" / args.out_dir
        folder.mkdir(parents=True)
        score = 0.7 if args.refine else 0.6
        text = f"class,iou\nbackground,0.9\nmIoU,{score}\nmean boundary IoU,{score - 0.3}\n"
        (folder / "results.csv").write_text(text)
        (folder / "history.csv").write_text("epoch,valid_miou\n1,0.6\n2,0.5\n")
        return SimpleNamespace(returncode=int(args.seed == 1), stderr="error: x.png is cut\n")

    monkeypatch.setattr(few_pictures, "subprocess", SimpleNamespace(run=run))
    return made


@pytest.mark.parametrize(
    ("head", "pictures", "epochs", "batch", "lr"),
    [("ms", 5, 20, 2, 0.003), ("mask", 60, 10, 8, 0.001), ("spread", 5, 120, 2, 0.001),
     ("spread", 146, 20, 2, 0.001)],
)  # fmt: skip
def test_a_recipe_fits_head_and_number_of_pictures(head, pictures, epochs, batch, lr):
    args = train.get_args_parser().parse_args(few_pictures.recipe(head, pictures))
    assert (args.head, args.epochs, args.batch, args.lr) == (head, epochs, batch, lr)


def test_each_run_is_made_once_and_scored(data_dir, in_tmp, commands, capsys):
    argv = ["--data", str(data_dir), "--backbone", "dinov2_vitt14", "--weights", "none"]
    argv += ["--imgsz", "42", "28", "--heads", "ms", "--refine", "--pictures"]
    few_pictures.main([*argv, "2", "--draws", "1"])
    training, test = commands
    assert (training.head, training.imgsz, training.seed) == ("ms", (28, 42), 0)
    assert (test.test_only, test.refine, test.runtime) == (True, True, "auto")
    few_pictures.main([*argv, "2", "0", "--draws", "1"])
    assert len(commands) == 4, "the first run was made again"
    folder = in_tmp / "outputs/few-pictures"
    assert len(list((folder / "data-data-2-0/train_images").rglob("*.png"))) == 2
    assert len(list((folder / "data-data-2-0/valid_images").rglob("*.png"))) == 3
    with open(folder / "scores-data-refined.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["pictures"] for row in rows] == ["2", "6"]
    for row in rows:
        names = ("miou", "boundary_iou", "last_miou", "refined_miou", "refined_boundary_iou")
        assert [float(row[name]) for name in names] == pytest.approx([0.6, 0.3, 0.5, 0.7, 0.4])
        assert row["best_epoch"] == "1"
    assert (folder / "scores-data-refined.png").read_bytes().startswith(b"\x89PNG")
    assert "x.png is cut" in fails(capsys, few_pictures.main, *argv, "0", "--draws", "2")
    message = fails(capsys, few_pictures.main, *argv, "7", "--draws", "1")
    assert "--pictures 7" in message
    assert "has 6 to train on" in message
