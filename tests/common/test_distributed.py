"""train.py in several processes: the numbers of a single one, and an end that is told."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.basics import REPO, draw_data_set
from helpers.forked import Forks

import datasets

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
    "ms": "--loss ce+dice --class-weights auto --grad-accum 2 --cache-features 1".split(),
    "token": ["--head", "token", "--loss", "focal", "--fine-tune", "--unfreeze-blocks", "2"],
    "conv": ["--head", "conv", "--fine-tune", "--lr", "0.001", "--checkpoint-activations"],
    "spread": ["--head", "spread", "--lr", "0.001", "--loss", "ce+dice", "--cache-features", "2"],
    "mask": ["--head", "mask", "--lr", "0.001", "--fine-tune", "--unfreeze-blocks", "1"],
}
SCHEDULE = "--scheduler --scheduler-epochs 1 --warmup 1 --fine-tune --lr 0.001".split()
IN_A_STEP = "at_call('training.optimizers.ScheduledOptimizer.step', 4, interrupt({}))"
IN_VALIDATION = "at_call('losses.Criterion.of_picture', 2, interrupt({}))"
WHILE_WRITING = "at_call('common.checkpoints.save_tensors', 2, interrupt({}))"
PICTURES_BREAK = """
import datasets, utils
def unreadable(pair, *more):
    raise utils.InputError(f"{pair.image}: not a readable picture")
datasets.read_pair = unreadable
"""


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jobs")
    draw_data_set(folder / "data", **PAIRS, ignored_rows=3)
    forks = Forks(folder)
    yield forks
    forks.close()


def run(forks: Forks, name: str, *argv: str, setups=("", "")) -> tuple[list, list]:
    """Exit codes and what was said, by rank, of a job in as many processes as setups.

    The work is the same for any number: four pictures a step.
    """
    batch = ["--batch", 4 // len(setups), "--epochs", 2, "--out-dir", name]
    ended = forks.run_together(*TINY, *batch, *argv, setups=setups)
    return tuple(map(list, zip(*ended, strict=True)))


@pytest.fixture(scope="module")
def undisturbed(forks) -> Path:
    """The folder of a run that none of the stopped ones may differ from."""
    assert run(forks, "undisturbed", *SCHEDULE)[0] == [0, 0]
    return forks.folder / "outputs" / "undisturbed"


def history(folder: Path) -> np.ndarray:
    """(epochs, columns)"""
    rows = csv.DictReader((folder / "history.csv").open())
    return np.array([list(map(float, row.values())) for row in rows])


def boundary_iou(folder: Path) -> float:
    (entry,) = json.loads((folder / "run.json").read_text())
    return entry["scores"]["boundary_iou"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "final_model.pth", weights_only=True)["model_state_dict"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_two_processes_get_the_scores_of_one(forks, recipe):
    for count in (1, 2):
        name = f"{recipe}-{count}"
        codes, said = run(forks, name, *RECIPES[recipe], setups=[""] * count)
        assert codes == [0] * count, said
        assert "TRAINING COMPLETE" in said[0]
    if recipe == "ms":  # of others torch warns; some releases tell how the processes met
        assert [line for line in said[1].splitlines() if not line.startswith("[Gloo]")] == []
    folders = [forks.folder / "outputs" / f"{recipe}-{count}" for count in (1, 2)]
    one, two = map(history, folders)
    assert one.shape == (2, 10)
    assert abs(one - two).max() < 1e-4
    assert boundary_iou(folders[0]) == pytest.approx(boundary_iou(folders[1]), abs=1e-4)
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


@pytest.mark.parametrize(
    ("place", "dead"),
    [(IN_A_STEP, 1), (IN_VALIDATION, 1), (WHILE_WRITING, 0)],
    ids=["step", "validation", "writing"],
)
def test_when_one_is_killed_the_other_says_so_and_ends(forks, place, dead):
    setups = ["", ""]
    setups[dead] = place.format(int(signal.SIGKILL))
    codes, said = run(forks, "killed", setups=setups)
    assert codes[dead] == -signal.SIGKILL
    assert codes[1 - dead] == 1
    last = said[1 - dead].splitlines()[-1]
    assert f"error: process {1 - dead} of 2 lost another one (Connection " in last
    assert last.endswith("--resume")
    assert "Traceback" not in "".join(said)


@pytest.mark.parametrize(
    ("place", "done", "processes"),
    [(IN_A_STEP, "1 epochs and 1 batches", 1), (IN_VALIDATION, "0 epochs and 3 batches", 2)],
    ids=["in_step", "in_validation"],
)
def test_a_signal_to_one_stops_all_at_once_and_nothing_is_lost(
    forks, undisturbed, place, done, processes
):
    """processes: in which the run is resumed."""
    setups = ["", place.format(int(signal.SIGTERM))]
    codes, said = run(forks, "stopped", *SCHEDULE, setups=setups)
    assert codes == [143, 143]
    assert f"stopped after {done}, all is saved" in said[0]
    assert "stopped" not in said[1]
    codes, _ = run(forks, "stopped", *SCHEDULE, "--resume", setups=[""] * processes)
    assert codes == [0] * processes
    folder = forks.folder / "outputs" / "stopped"
    assert abs(history(folder) - history(undisturbed)).max() < 1e-4
    if processes == 2:
        resumed, expected = weights(folder), weights(undisturbed)
        assert all(torch.equal(resumed[key], expected[key]) for key in expected)


def test_what_one_process_cannot_read_ends_all(forks):
    codes, said = run(forks, "broken", setups=["", PICTURES_BREAK])
    assert codes == [1, 1]
    assert "not a readable picture" in said[1].splitlines()[-1]
    assert "lost another one (Connection " in said[0].splitlines()[-1]
    assert "Traceback" not in "".join(said)


def test_torchrun_tells_an_error_once(forks):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
        str(REPO / "train.py"), *TINY, "--test-only",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=forks.folder, env=environment
    )
    assert done.returncode != 0
    assert done.stderr.count("error: ") == 1
    assert "--test-only runs in a single process: start it without torchrun" in done.stderr
