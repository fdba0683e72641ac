"""train.py in several processes: the numbers of a single one, and an end that is told."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.basics import REPO, draw_data_set
from helpers.models import criterion

import datasets
import losses

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not torch.distributed.is_available(), reason="this torch has no torch.distributed"
    ),
]
PAIRS = {"train": 9, "valid": 5}  # with four pictures a step one is left over, for one process
TINY = [
    "--data", "data", "--backbone", "dinov2_vitt14", "--weights", "none", "--imgsz", "42",
    "--workers", "0", "--device", "cpu", "--lr", "0.01",
]  # fmt: skip
RECIPES = {
    "ms": ["--head", "ms", "--loss", "ce+dice", "--class-weights", "auto", "--grad-accum", "2"],
    "token": ["--head", "token", "--loss", "focal", "--fine-tune", "--unfreeze-blocks", "2"],
    "conv": ["--head", "conv", "--fine-tune", "--lr", "0.001", "--checkpoint-activations"],
    "spread": ["--head", "spread", "--lr", "0.001", "--loss", "ce+dice", "--cache-features", "2"],
    "mask": ["--head", "mask", "--lr", "0.001", "--fine-tune", "--unfreeze-blocks", "1"],
}
SCHEDULE = "--scheduler --scheduler-epochs 1 --warmup 1 --fine-tune --lr 0.001".split()
DEATHS = {
    "step": {"trouble": "killed in a step", "rank": 1},
    "validation": {"trouble": "killed in validation", "rank": 1},
    "writing": {"trouble": "killed while writing", "rank": 0},
}
STOPS = {
    "in_step": {"trouble": "asked to end in a step", "rank": 1},
    "in_validation": {"trouble": "asked to end in validation", "rank": 1},
}
RESUMED_IN = {"in_step": 1, "in_validation": 2}  # processes


def job(name: str, *argv: str, processes: int = 2, epochs: int = 3, **more) -> dict:
    """The same work in any number of processes: four pictures a step."""
    batch = ["--batch", str(4 // processes), "--epochs", str(epochs), "--out-dir", name]
    return {"name": name, "argv": [*TINY, *batch, *argv], "processes": processes, **more}


def all_jobs() -> list[dict]:
    jobs = []
    for name, recipe in RECIPES.items():
        jobs += [job(f"{name}-{count}", *recipe, processes=count) for count in (1, 2)]
    jobs += [job(f"killed-{name}", **death, epochs=2) for name, death in DEATHS.items()]
    jobs.append(job("undisturbed", *SCHEDULE, epochs=2))
    for name, stop in STOPS.items():
        jobs.append(job(name, *SCHEDULE, epochs=2, **stop))
        resumed = job(name, *SCHEDULE, "--resume", epochs=2, processes=RESUMED_IN[name])
        jobs.append(resumed | {"name": f"{name}-resumed"})
    jobs.append(job("broken", epochs=1, trouble="pictures break", rank=1))
    return jobs


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where all jobs have run."""
    folder = tmp_path_factory.mktemp("jobs")
    draw_data_set(folder / "data", **PAIRS, ignored_rows=3)
    (folder / "jobs").write_text(json.dumps(all_jobs()))
    command = [sys.executable, str(REPO / "tests" / "helpers" / "processes.py"), "jobs"]
    subprocess.run(command, cwd=folder, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return folder


def results(folder: Path, name: str) -> tuple[list[int | None], list[str]]:
    """Exit codes and what was said, by rank."""
    ranks = json.loads((folder / f"{name}.json").read_text())
    return [rank["code"] for rank in ranks], [rank["said"] for rank in ranks]


def history(folder: Path, name: str) -> np.ndarray:
    """(epochs, columns)"""
    rows = csv.DictReader((folder / "outputs" / name / "history.csv").open())
    return np.array([list(map(float, row.values())) for row in rows])


def final_scores(folder: Path, name: str) -> dict:
    (entry,) = json.loads((folder / "outputs" / name / "run.json").read_text())
    return entry["scores"]


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    path = folder / "outputs" / name / "final_model.pth"
    return torch.load(path, weights_only=True)["model_state_dict"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_two_processes_get_the_scores_of_one(folder, recipe):
    for count in (1, 2):
        assert results(folder, f"{recipe}-{count}")[0] == [0] * count
    one, two = history(folder, f"{recipe}-1"), history(folder, f"{recipe}-2")
    assert one.shape == (3, 10)
    assert abs(one - two).max() < 1e-4
    scores = [final_scores(folder, f"{recipe}-{count}") for count in (1, 2)]
    assert scores[0]["boundary_iou"] == pytest.approx(scores[1]["boundary_iou"], abs=1e-4)
    assert abs(one[0] - one[1]).max() > 1e-3  # or nothing would have been shown


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_each_picture_belongs_to_one_process(processes, monkeypatch):
    monkeypatch.setattr(datasets, "world_size", lambda: processes)
    for count in range(8):
        batches = datasets.EpochBatches(count, 2, seed=0)
        whole = [batches.batch(number) for number in range(len(batches))]
        assert sorted(sum(whole, [])) == list(range(count, 2 * count))  # noqa: RUF017
        validation, training = [], [[] for _ in whole]
        for rank in range(processes):
            monkeypatch.setattr(datasets, "rank", lambda rank=rank: rank)
            validation += datasets.own_indices(count)
            for joint, mine in zip(training, batches, strict=True):
                assert len(mine) <= 2
                joint += mine
        assert sorted(validation) == list(range(count))
        assert [sorted(batch) for batch in training] == [sorted(batch) for batch in whole]


def test_an_empty_share_weighs_nothing(monkeypatch):
    """Or the others' pixels would lose a little of their weight."""
    sums = []
    monkeypatch.setattr(losses, "global_sum", lambda value: sums.append(value) or value)
    logits, targets = torch.zeros(0, 2, 3, 3), torch.zeros(0, 42, 42, dtype=torch.uint8)
    for class_weights in (None, torch.ones(2)):
        assert criterion(14, "ce+dice", class_weights)(logits, targets) == 0
    assert len(sums) == 2
    assert not torch.cat(sums).any()


def test_one_process_writes_and_speaks(folder):
    _, (first, second) = results(folder, "ms-2")
    assert "TRAINING COMPLETE" in first
    # Some releases of torch tell there how the processes met.
    assert [line for line in second.splitlines() if not line.startswith("[Gloo]")] == []


@pytest.mark.parametrize("name", DEATHS)
def test_when_one_is_killed_the_other_says_so_and_ends(folder, name):
    codes, said = results(folder, f"killed-{name}")
    dead = DEATHS[name]["rank"]
    assert codes[dead] == -9
    assert codes[1 - dead] == 1
    last = said[1 - dead].splitlines()[-1]
    assert f"error: process {1 - dead} of 2 lost another one (Connection " in last
    assert last.endswith("--resume")
    assert "Traceback" not in "".join(said)


@pytest.mark.parametrize("name", STOPS)
def test_a_signal_to_one_stops_all_at_once_and_nothing_is_lost(folder, name):
    codes, said = results(folder, name)
    assert codes == [143, 143]
    place = "1 epochs and 1 batches" if name == "in_step" else "0 epochs and 3 batches"
    assert f"stopped after {place}, all is saved" in said[0]
    assert "stopped" not in said[1]
    assert results(folder, f"{name}-resumed")[0] == [0] * RESUMED_IN[name]
    assert abs(history(folder, name) - history(folder, "undisturbed")).max() < 1e-4
    if RESUMED_IN[name] == 2:
        resumed, expected = weights(folder, name), weights(folder, "undisturbed")
        assert all(torch.equal(resumed[key], expected[key]) for key in expected)


def test_what_one_process_cannot_read_ends_all(folder):
    codes, said = results(folder, "broken")
    assert codes == [1, 1]
    assert "not a readable picture" in said[1].splitlines()[-1]
    assert "lost another one (Connection " in said[0].splitlines()[-1]
    assert "Traceback" not in "".join(said)


def test_torchrun_tells_an_error_once(folder):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
        str(REPO / "train.py"), *TINY, "--test-only",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode != 0
    assert done.stderr.count("error: ") == 1
    assert "--test-only runs in a single process: start it without torchrun" in done.stderr
