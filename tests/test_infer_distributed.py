"""infer_image.py in several processes leaves what a single one does."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.basics import CHECKPOINT, save_pictures
from helpers.forked import Forks

import config
import infer_image
from common import distributed
from common.job_record import JobRecord
from data.labels.classes import PERSON
from inference.windows import Prediction
from results.tables import ResultsTable

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not torch.distributed.is_available(), reason="this torch has no torch.distributed"
    ),
]


@pytest.fixture
def photos(in_tmp) -> Path:
    """Five pictures, one of them in a folder below, and two broken ones."""
    names = ("a.png", "b.png", "d.jpg", "sub/e.png", "sub/f.png")
    sizes = {name: (60 + 7 * i, 50 + 3 * i) for i, name in enumerate(names)}
    folder = save_pictures(in_tmp / "photos", sizes)
    for name in ("c.png", "sub/g.png"):
        (folder / name).write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    forks = Forks(tmp_path_factory.mktemp("forks"), script="infer_image")
    yield forks
    forks.close()


@pytest.fixture
def together(forks, in_tmp):
    """infer_image.py in two processes: their exit codes, and what both have said."""
    forks.folder = in_tmp

    def together(*argv):
        argv = ["--model", CHECKPOINT, "--device", "cpu", *argv]
        (code, said), (other_code, more) = forks.run_together(*argv, setups=["", ""])
        return (code, other_code), said + more

    return together


def run(*argv) -> None:
    """infer_image.py in this process."""
    infer_image.main(["--model", str(CHECKPOINT), "--device", "cpu", *map(str, argv)])


def files(out_dir: str) -> dict[str, bytes]:
    """What lies in an output folder, but for the page, which tells its command and its time."""
    folder = config.OUTPUTS / out_dir
    found = (p for p in folder.rglob("*") if p.is_file() and p != folder / "index.html")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_two_processes_leave_what_one_does(photos, together):
    options = ["--input", photos, "--save", "overlay,mask,confidence", "--sort-by-confidence"]
    with pytest.raises(SystemExit) as stop:
        run(*options, "--out-dir", "by_one")
    alone = str(stop.value.code).splitlines()
    assert len(alone) == 2
    codes, said = together(*options, "--out-dir", "by_two")
    assert max(codes) == 1
    assert [line for line in said.splitlines() if line.startswith("error: ")] == alone
    assert said.count("5 of 7 pictures segmented") == 1
    assert files("by_two") == files("by_one")
    assert len(files("by_one")) == 3 * 5 + 5 + 5  # and one of each picture for the page


def test_a_run_of_one_process_is_ended_by_two_of_which_one_has_nothing_to_do(photos, together):
    pictures = [photos / "a.png", photos / "b.png"]
    run("--input", *pictures, "--out-dir", "whole")
    run("--input", pictures[1], "--out-dir", "parts")
    codes, said = together("--input", *pictures, "--skip-existing", "--out-dir", "parts")
    assert codes == (0, 0), said
    assert "1 of 2 pictures segmented" in said
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
