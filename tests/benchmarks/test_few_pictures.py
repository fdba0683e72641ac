"""The table and plot of heads that were trained on few pictures."""

import csv
import subprocess

import train
from benchmarks import few_pictures


def test_each_run_is_made_once_and_scored(data_dir, in_tmp, monkeypatch, capsys):
    commands = []

    def run(command, **kwargs):
        commands.append(command)
        train.main(command[2:])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    argv = ["--data", str(data_dir), "--backbone", "dinov2_vitt14", "--weights", "none"]
    argv += ["--imgsz", "42", "28", "--heads", "ms", "--draws", "1", "--refine", "--pictures"]
    few_pictures.main([*argv, "2"])
    assert len(commands) == 2, "one training, one test of its model"
    few_pictures.main([*argv, "2", "0"])
    assert len(commands) == 4, "the first run was made again"
    folder = in_tmp / "outputs/few-pictures"
    with open(folder / "scores-data.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["pictures"] for row in rows] == ["2", "6"]
    trained_on = folder / "data-data-2-0"
    assert len(list((trained_on / "train_images").iterdir())) == 2
    assert len(list((trained_on / "valid_images").iterdir())) == 3
    for row in rows:
        numbers = {name: float(row[name]) for name in few_pictures.SCORES}
        assert 1 <= numbers.pop("best_epoch") <= 20
        assert all(0 <= value <= 1 for value in numbers.values())
        assert numbers["last_miou"] <= numbers["miou"] + 1e-6
    assert (folder / "scores-data.png").read_bytes().startswith(b"\x89PNG")
