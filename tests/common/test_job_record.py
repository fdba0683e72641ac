"""Two jobs share results only if all that decides them is equal."""

import os
import shutil
from dataclasses import replace

import pytest

from common.job_record import JobRecord, record_files

SETTINGS = {"lr": 0.1, "milestones": [1, 2], "seed": 3, "weights": None}


@pytest.fixture
def record(tmp_path):
    for name in ("images/1.png", "images/2.png", "masks/1.png"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text(name)
    return JobRecord(SETTINGS, "1f", {"class_names": ["a", "b"]}, *record_files(files(tmp_path)))


def files(folder):
    return sorted(path for path in (folder / "data").rglob("*.png"))


def test_a_changed_file_is_named(record, tmp_path):
    stat = (tmp_path / "data/masks/1.png").stat()
    for seconds in (1, 3):
        changed = stat.st_mtime_ns + seconds * 10**9
        os.utime(tmp_path / "data/masks/1.png", ns=(stat.st_atime_ns, changed))
        now = replace(record, files=record_files(files(tmp_path))[1])
        assert now.key != record.key
        assert (now.difference(record) is None) == (seconds == 1)
    now = replace(record, files=record_files(files(tmp_path))[1])
    assert now.difference(record) == "another masks/1.png: its size or time of change differs"
    (tmp_path / "data/images/2.png").unlink()
    os.utime(tmp_path / "data/masks/1.png", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    now = replace(record, files=record_files(files(tmp_path))[1])
    assert now.difference(record) == "a file images/2.png, which is not there now"
    assert record.difference(now) == "no file images/2.png, which is there now"
    reordered = replace(record, files=dict(reversed(record.files.items())))
    assert record.difference(reordered) == "its files in another order"


def test_a_moved_data_set_is_the_same_but_has_another_key(record, tmp_path):
    shutil.copytree(tmp_path / "data", tmp_path / "elsewhere/data", copy_function=shutil.copy2)
    root, names = record_files(files(tmp_path / "elsewhere"))
    moved = replace(record, root=root, files=names)
    assert record.difference(moved) is None
    assert moved.key != record.key
