"""Runs that are killed, stopped or hit by trouble lose nothing, and end as they would have.

KILLS=20 pytest tests/training/test_survival.py -k killed: as often as that.
"""

import json
import os
import random
import shutil
import signal
import time
from contextlib import suppress

import pytest
import torch
from helpers.basics import draw_data_set
from helpers.forked import Forks
from helpers.scripts import TINY
from helpers.waiting import LIMIT, wait_until

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("KILLS", "4"))
EVERY_STEP = ["--save-every", "0.00001"]
STEP = "training.optimizers.ScheduledOptimizer.step"
# With all that has a state: warm-up, milestones, gradients of several batches, a clipped norm.
RECIPE = (
    "--batch 1 --grad-accum 2 --warmup 2.5 --scheduler --scheduler-epochs 3 --clip-grad 1"
).split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("survival")


@pytest.fixture(scope="module")
def forks(folder):
    forks = Forks(folder)
    yield forks
    forks.close()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """One for all runs here: a resumed run must find the files unchanged."""
    return draw_data_set(tmp_path_factory.mktemp("survival_data"))


@pytest.fixture
def command(data_dir):
    """Of a run of three epochs into outputs/<name>."""

    def command(name, *more):
        return ["--data", data_dir, *TINY, *RECIPE, "--epochs", "3", "--out-dir", name, *more]

    return command


def said(output):
    """The lines of an output that are not a bar's."""
    lines = (line.split("\r")[-1].strip() for line in output.splitlines())
    return [line for line in lines if line and "it/s]" not in line and "pair/s]" not in line]


def assert_equal(a, b):
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b


def assert_same_results(a, b):
    """Files of two runs: checkpoints equal bit for bit, random states and optimiser too."""
    names = sorted(path.relative_to(a) for path in a.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(b) for path in b.rglob("*") if path.is_file())
    for name in names:
        if name.suffix == ".pth":
            assert_equal(*(torch.load(f / name, weights_only=True) for f in (a, b)))
        elif name.name not in ("run.json", ".lock", "index.html"):
            assert (a / name).read_bytes() == (b / name).read_bytes(), name


def is_gone(group):
    """Whether no process of a group lives."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def assert_nothing_left(forks, pid):
    assert not list(forks.folder.rglob("*.part"))
    # Workers look every 5 seconds whether their parent lives.
    wait_until(lambda: is_gone(pid), lambda: "workers are left")


@pytest.fixture
def whole(forks, command):
    """The folder of an undisturbed run."""
    folder = forks.folder / "outputs/undisturbed"
    if not folder.exists():
        assert forks.run(*command("undisturbed"))[0] == 0
    return folder


def assert_goes_on(forks, command, name, whole):
    """The run resumed ends as the undisturbed one did."""
    code, output = forks.run(*command(name, "--resume"))
    assert code == 0, output
    assert "continuing after" in output
    assert_same_results(whole, forks.folder / "outputs" / name)


def fails(forks, *argv, setup=""):
    """The one line that a process of ours ends with."""
    code, output = forks.run(*argv, setup=setup)
    assert code == 1, output
    assert "Traceback" not in output
    lines = [line for line in said(output) if line.startswith("error: ")]
    assert said(output)[-1:] == lines
    assert not list(forks.folder.rglob("*.part"))
    return lines[0]


def last_epoch(forks, name):
    content = torch.load(forks.folder / f"outputs/{name}/last.pth", weights_only=True)
    return content["epoch"]


DRAWS = """
import random, numpy, torch
from training import optimizers
step = optimizers.ScheduledOptimizer.step
def drawing(optimizer):
    step(optimizer)
    optimizer.lately = random.gauss(0, 1), numpy.random.normal(), torch.rand(1)
optimizers.ScheduledOptimizer.step = drawing
"""


def test_a_run_killed_at_random_moments_ends_as_if_it_had_not_been(forks, command):
    epochs = 2 + KILLS // 2
    started = time.monotonic()
    assert forks.run(*command("whole", "--epochs", epochs), setup=DRAWS)[0] == 0
    an_epoch = (time.monotonic() - started) / epochs
    moments = random.Random(seed := random.randrange(1000))
    print(f"seed {seed}")
    for kill in range(KILLS):
        # A run that has all its epochs finishes once more, and may be killed at that.
        more = EVERY_STEP if kill % 3 else []
        argv = command("parts", "--epochs", epochs, "--resume", *more)
        pid = forks.start(*argv, setup=DRAWS)
        forks.wait_for_epochs(moments.choice((0, 1, 1, 2, 2)))
        time.sleep(moments.uniform(0, an_epoch))
        with suppress(ProcessLookupError):  # it has ended already
            os.kill(pid, signal.SIGKILL)
        code, output = forks.end()
        assert code in (0, -signal.SIGKILL), output
        parts = list((forks.folder / "outputs/parts").rglob("*.part"))
        print(kill, code, *said(output)[-1:], *parts)
    code, output = forks.run(*command("parts", "--epochs", epochs, "--resume"), setup=DRAWS)
    assert code == 0, output
    assert_same_results(forks.folder / "outputs/whole", forks.folder / "outputs/parts")


@pytest.mark.parametrize(
    ("number", "code", "workers"), [(signal.SIGINT, 130, 2), (signal.SIGTERM, 143, 0)]
)
def test_a_signal_finishes_the_step_and_saves(forks, command, whole, number, code, workers):
    """To the whole group, as a terminal sends Ctrl-C."""
    name = f"stopped{code}"
    pid = forks.start(*command(name, "--workers", workers))
    forks.wait_for_epochs(2)
    os.killpg(pid, number)
    found, output = forks.end()
    assert found == code, output
    assert "Traceback" not in output
    line = said(output)[-1]
    assert line.startswith("stopped after ")
    assert line.endswith("all is saved; continue with the same command and --resume")
    assert_nothing_left(forks, pid)
    assert_goes_on(forks, command, name, whole)


@pytest.mark.parametrize(
    ("place", "done"),
    [
        ("train.evaluate", "0 epochs and 6 batches"),
        ("training.checkpointer.Checkpointer.__exit__", "3 epochs and 0 batches"),
    ],
    ids=["validation", "end"],
)
def test_a_signal_outside_of_the_steps(forks, command, whole, request, place, done):
    name = request.node.callspec.id
    code, output = forks.run(*command(name), setup=f"at_call({place!r}, 1, interrupt(15))")
    assert code == 143, output
    assert f"stopped after {done}" in said(output)[-1]
    assert_goes_on(forks, command, name, whole)


def test_a_second_signal_ends_at_once(forks, command):
    slow = (
        "import time\n"
        "from common import signals\n"
        "signals.SECONDS_BETWEEN = 0.0  # what comes sooner is torchrun's echo of the first one\n"
        f"at_call({STEP!r}, 1, lambda *_: (print('asleep', flush=True), time.sleep({LIMIT})))"
    )
    pid = forks.start(*command("second", "--workers", "2"), setup=slow)
    forks.wait_for(lambda output: "asleep" in output)  # the workers have begun to ignore signals
    os.killpg(pid, signal.SIGINT)
    forks.wait_for(lambda output: "once more to stop at once" in output)
    os.killpg(pid, signal.SIGINT)
    code, output = forks.end()
    assert code == 128 + signal.SIGINT
    assert "Traceback" not in output
    assert_nothing_left(forks, pid)


def test_resume_asks_for_nothing_where_nothing_was_saved(forks, command, whole):
    left = forks.folder / "outputs/fresh/valid_preds/.epoch_009.jpg.part"
    left.parent.mkdir(parents=True)
    left.touch()  # of a process that was killed
    code, output = forks.run(*command("fresh", "--resume"))
    assert code == 0, output
    assert any("nothing was saved yet" in line for line in said(output))
    assert_same_results(whole, forks.folder / "outputs/fresh")


def test_another_folders_run_goes_on(forks, command, whole):
    """Where no epoch is better than those of the other folder, the last one is tested."""
    argv = command("elsewhere", "--resume", whole / "last.pth", "--epochs", "4")
    code, output = forks.run(*argv)
    assert code == 0, output
    assert "TRAINING COMPLETE: best mIoU" in output
    assert ("final_model.pth" in output) != ("which chose this checkpoint" in output)
    assert last_epoch(forks, "elsewhere") == 4


def test_a_run_killed_before_its_last_file_is_completed(forks, command, whole):
    folder = shutil.copytree(whole, forks.folder / "outputs/incomplete")
    (folder / "final_model.pth").unlink()
    assert_goes_on(forks, command, "incomplete", whole)


def test_a_run_that_stopped_early_stays_stopped(forks, command):
    base = command("patient", "--patience", "1", "--epochs", "30", "--lr", "0.1")
    assert forks.run(*base)[0] == 0
    epochs = last_epoch(forks, "patient")
    assert epochs < 30
    final = forks.folder / "outputs/patient/final_model.pth"
    final.unlink()  # as if it had been killed just then
    assert forks.run(*base, "--resume")[0] == 0
    assert last_epoch(forks, "patient") == epochs
    assert final.is_file()


def test_workers_and_deterministic_algorithms_change_nothing(forks, command, whole):
    """And run.json says how each part of a run came about."""
    base = command("facts", "--workers", "2", "--deterministic")
    for _ in range(2):  # a run that begins anew forgets the one before
        assert forks.run(*base, "--epochs", "1")[0] == 0
    assert forks.run(*base, "--resume")[0] == 0
    assert_same_results(whole, forks.folder / "outputs/facts")
    entries = json.loads((forks.folder / "outputs/facts/run.json").read_text())
    assert len(entries) == 2
    for entry in entries:
        assert entry["command"].startswith("train.py --data ")
        assert entry["versions"]["torch"] == torch.__version__
        assert entry["seed"] == 42
        assert (entry["device"], entry["deterministic"]) == ("cpu", True)
        assert entry["git_commit"] is None or len(entry["git_commit"].rstrip("+")) == 40
    assert entries[1]["command"].endswith("--resume")


# -- trouble ---------------------------------------------------------------------------------------


LOSS_NOT_FINITE = """
at_call("engine.EpochTotals.add_loss", 15, lambda _, loss, count: loss.data.fill_(float("inf")))
"""
WEIGHTS_NOT_FINITE = f"""
def break_weights(step):
    step.optimizer.param_groups[0]["params"][0].data.fill_(float("nan"))
at_call({STEP!r}, 9, break_weights)
"""


def test_a_loss_that_is_not_finite(forks, command):
    message = fails(forks, *command("inf", *EVERY_STEP), setup=LOSS_NOT_FINITE)
    assert "epoch 3: the loss became inf in step 3; train again with a lower --lr" in message
    assert message.endswith("outputs/inf/last.pth is intact.")
    assert last_epoch(forks, "inf") == 2


@pytest.mark.parametrize(
    ("more", "words"),
    [(EVERY_STEP, "head.bn.weight is no longer finite"), ([], "the validation loss became nan")],
    ids=["every step", "every epoch"],
)
def test_weights_that_are_not_finite_are_never_saved(forks, command, more, words):
    message = fails(forks, *command("nan", *more), setup=WEIGHTS_NOT_FINITE)
    assert f"epoch 3: {words}" in message
    assert "train again with a lower --lr" in message
    for name in ("last", "best_model_iou", "best_model_loss"):
        content = torch.load(forks.folder / f"outputs/nan/{name}.pth", weights_only=True)
        assert content["epoch"] <= 2
        assert all(value.isfinite().all() for value in content["model_state_dict"].values())
    assert len((forks.folder / "outputs/nan/history.csv").read_text().splitlines()) == 3


WORKER_KILLED = """
import os, datasets
read_pair = datasets.read_pair
def killed(pair, *more):
    if datasets.torch.utils.data.get_worker_info() and pair.image.name == "4.png":
        os.kill(os.getpid(), 9)
    return read_pair(pair, *more)
datasets.read_pair = killed
"""


def test_a_worker_that_the_system_kills(forks, command):
    message = fails(forks, *command("worker", "--workers", "1"), setup=WORKER_KILLED)
    assert "DataLoader worker" in message
    assert "try fewer --workers or a smaller --batch. Nothing was saved yet." in message


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_breaks_in_the_third_epoch(forks, command, whole, data_dir, workers):
    picture = data_dir / "train_images/2.png"
    aside = shutil.copy2(picture, data_dir / "aside.png")
    broken = f"Path({str(picture)!r})." + ("write_bytes(b'?')" if workers else "unlink()")
    setup = f"from pathlib import Path\nat_call('train.train_one_epoch', 3, lambda *_: {broken})"
    name = f"picture{workers}"
    message = fails(forks, *command(name, "--workers", workers), setup=setup)
    assert message.startswith(f"error: epoch 3: {picture}: ")
    assert "last.pth is intact; --resume continues from there with the same" in message
    shutil.copy2(aside, picture)
    assert_goes_on(forks, command, name, whole)


def test_a_full_disk(forks, command, whole):
    """last.pth is longer than the other files: a limit between their lengths stands in."""
    full = (
        "from resource import RLIMIT_FSIZE, setrlimit\n"
        "limit = lambda *_: setrlimit(RLIMIT_FSIZE, (50_000, 50_000))\n"
        "at_call('train.RunFolder.write_preview', 2, limit)"
    )
    message = fails(forks, *command("full"), setup=full)
    assert "epoch 2: outputs/full/last.pth: cannot write (File too large)" in message
    assert last_epoch(forks, "full") == 1
    assert_goes_on(forks, command, "full", whole)


def test_memory_that_does_not_suffice(forks, command):
    out = (
        "import torch\n"
        "def fails(*args): raise torch.OutOfMemoryError('CUDA out of memory. Tried')\n"
        "at_call('train.train_one_epoch', 1, fails)"
    )
    message = fails(forks, *command("memory", "--batch", "4"), setup=out)
    assert "epoch 1: out of memory; train again with half the --batch and twice the" in message
    assert "--amp or a smaller --imgsz. Nothing was saved yet." in message


def test_two_runs_at_once_share_data_and_features(forks, command):
    """Each ends as it would alone, though both compute the same features into the same files."""
    cached = ["--cache-features", "2", "--epochs", "1"]
    assert forks.run(*command("alone", *cached))[0] == 0
    shutil.rmtree(forks.folder / "outputs/features")
    shutil.rmtree(forks.folder / "outputs/dataset_scans")
    other = Forks(forks.folder, "other")
    try:
        other.start(*command("at_once", *cached))
        code, output = forks.run(*command("at_once_too", *cached))
        other_code, other_output = other.end()
    finally:
        other.close()
    assert (code, other_code) == (0, 0), output + other_output
    for name in ("at_once", "at_once_too"):
        assert_same_results(forks.folder / "outputs/alone", forks.folder / "outputs" / name)
    assert not list(forks.folder.rglob("*.part*"))
