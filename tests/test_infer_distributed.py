"""infer_image.py under torchrun: many processes leave what a single one does."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.basics import REPO, draw_pair
from PIL import Image

import config
import infer_image
from common import distributed
from common.job_record import JobRecord
from data.labels.classes import PERSON
from data.transforms import Resize
from inference.windows import Prediction
from model import build_model
from networks.weights import fingerprint
from results.tables import ResultsTable
from training.run_folder import describe_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not torch.distributed.is_available(), reason="this torch has no torch.distributed"
    ),
]


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """An untrained head on the tiny backbone, its classes far enough apart to be sure of them."""
    spec = config.ModelConfig("dinov2_vitt14", "ms", 2, "none")
    torch.manual_seed(0)
    model = build_model(spec)
    torch.nn.init.normal_(model.head.conv_seg.weight)
    untrained = describe_model(spec, fingerprint(model.backbone), PERSON, Resize((56, 70)))
    path = tmp_path / "head.pth"
    replace(untrained, epoch=1, model_state_dict=model.trained()).save(path)
    return path


@pytest.fixture
def photos(in_tmp) -> Path:
    """Five pictures, one of them in a folder below, and two broken ones."""
    folder = in_tmp / "photos"
    (folder / "sub").mkdir(parents=True)
    for i, name in enumerate(("a.png", "b.png", "d.jpg", "sub/e.png", "sub/f.png")):
        Image.fromarray(draw_pair(i, 60 + 7 * i, 50 + 3 * i)[0]).save(folder / name)
    for name in ("c.png", "sub/g.png"):
        (folder / name).write_bytes(b"no picture")
    return folder


def torchrun(checkpoint: Path, *argv) -> subprocess.CompletedProcess:
    """infer_image.py in two processes."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2,
        REPO / "infer_image.py", "--model", checkpoint, "--device", "cpu", *argv,
    ]  # fmt: skip
    # As many threads as the tests' own process has: the split of a sum decides its last bits.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=environment, check=False
    )


def run(checkpoint: Path, *argv) -> None:
    """infer_image.py in this process."""
    infer_image.main(["--model", str(checkpoint), "--device", "cpu", *map(str, argv)])


def files(out_dir: str) -> dict[str, bytes]:
    """What lies in an output folder, but for the page, which tells its command and its time."""
    folder = config.OUTPUTS / out_dir
    found = (p for p in folder.rglob("*") if p.is_file() and p != folder / "index.html")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_two_processes_leave_what_one_does(checkpoint, photos, capsys):
    options = ["--input", photos, "--save", "overlay,mask,confidence", "--sort-by-confidence"]
    with pytest.raises(SystemExit) as stop:
        run(checkpoint, *options, "--out-dir", "by_one")
    alone = str(stop.value.code).splitlines()
    assert len(alone) == 2
    both = torchrun(checkpoint, *options, "--out-dir", "by_two")
    assert both.returncode == 1
    assert [line for line in both.stderr.splitlines() if line.startswith("error: ")] == alone
    assert both.stdout.count("5 of 7 pictures segmented") == 1
    assert files("by_two") == files("by_one")
    assert len(files("by_one")) == 3 * 5 + 5 + 5  # and one of each picture for the page


def test_a_run_of_one_process_is_ended_by_two_of_which_one_has_nothing_to_do(
    checkpoint, photos, capsys
):
    pictures = [photos / "a.png", photos / "b.png"]
    run(checkpoint, "--input", *pictures, "--out-dir", "whole")
    run(checkpoint, "--input", pictures[1], "--out-dir", "parts")
    rest = torchrun(checkpoint, "--input", *pictures, "--skip-existing", "--out-dir", "parts")
    assert rest.returncode == 0, rest.stderr
    assert "1 of 2 pictures segmented" in rest.stdout
    assert files("parts") == files("whole")


RECORD = JobRecord({})


def test_rows_of_a_killed_run_are_those_of_all_processes(tmp_path, monkeypatch):
    names = [Path(name) for name in "abcd"]
    ones = Prediction(np.ones((4, 5), np.uint8), np.ones((4, 5), np.float32), None)
    main = ResultsTable(tmp_path, PERSON, False, RECORD)
    main.begin()
    with monkeypatch.context() as patch:
        patch.setattr(distributed, "is_main", lambda: False)
        other = ResultsTable(tmp_path, PERSON, False, RECORD)
    for table, name in zip((main, other, other, main), names, strict=True):
        table.add(name, name, ones)
    again = ResultsTable(tmp_path, PERSON, True, RECORD)
    again.begin()
    assert all(name in again for name in names)
    again.finish(least_confident_first=True)  # all are equally sure, so by name
    assert [row[1] for row in again.rows.values()] == ["a", "b", "c", "d"]
