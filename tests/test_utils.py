"""Files are written whole or not at all, whoever else writes beside."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import psutil
import pytest
import torch
from helpers.basics import leftover_of

from data import scans
from data.pairs import Pair
from utils import (
    InputError,
    amp_dtype,
    cpu_computes_in,
    output_folder,
    remove_leftovers,
    select_dtype,
    temporary_folder,
    temporary_path,
    write_atomically,
)


def test_many_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "cache.json"
    contents = [bytes([number]) * 100_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: write_atomically(path, content), contents * 8))
    assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["a" * 255, "\u4f60" * 85, "a" * 251 + ".jpg"])
def test_the_longest_names_can_be_written(tmp_path, name):
    write_atomically(tmp_path / name, b"x")
    assert os.listdir(tmp_path) == [name]
    assert temporary_path(tmp_path / name, ".mp4").name.endswith(".part.mp4")
    assert len(os.fsencode(temporary_path(tmp_path / name, ".mp4").name)) <= 255


def test_only_the_files_of_ended_writers_are_removed(tmp_path):
    mine = temporary_path(tmp_path / "mine.mp4", ".mp4")
    ended = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    dead = Path(str(mine).replace(f"-{os.getpid()}-", f"-{ended.stdout.strip()}-"))
    leftover_of(tmp_path / "older.png")  # an earlier process had the same number
    nested = leftover_of(tmp_path / "page" / "sub" / "a.js")
    elsewhere = tmp_path / ".x.otherhost-1-00000000.part"
    first = temporary_path(tmp_path / "first.png")  # the process's start is rounded to a second
    for path in (mine, dead, elsewhere, first, tmp_path / ".of_old.png.part"):
        path.touch()
    started = psutil.Process().create_time()
    os.utime(first, (started - 1, started - 1))
    remove_leftovers(tmp_path)
    assert set(tmp_path.iterdir()) == {mine, elsewhere, first, nested.parents[1]}
    assert not nested.exists()


def test_a_temporary_folder_is_gone_afterwards(tmp_path):
    theirs, mine = tmp_path / ".other.bin.part", leftover_of(tmp_path / "masks [1]")
    mine.unlink()
    (mine / "images").mkdir(parents=True)
    os.utime(mine, (10**9, 10**9))
    theirs.touch()
    with temporary_folder(tmp_path / "masks [1]") as folder:
        assert set(tmp_path.iterdir()) == {folder, theirs}
        (folder / "a.png").touch()
    assert list(tmp_path.iterdir()) == [theirs]


def test_a_cache_that_cannot_be_written_ends_no_run(in_tmp, monkeypatch):
    full_disk = InputError("a.json: cannot write (No space left on device)")
    monkeypatch.setattr(scans, "write_atomically", Mock(side_effect=full_disk))
    left = leftover_of(Path("outputs/dataset_scans/x-01234567.json"))
    scans.keep_scans({Pair(Path("a.png"), Path("b.png")): scans.Scan(digest="0")})
    assert not left.exists()


@pytest.mark.parametrize(
    "name", ["\\evil", "C:evil", "C:\\evil", "\\\\host\\evil", "a\\..\\..\\b", "/x", "../x"]
)
def test_names_that_lead_out_of_outputs_on_any_system_are_refused(in_tmp, name):
    with pytest.raises(InputError, match="give a name below outputs/"):
        output_folder(name)
    assert list(in_tmp.iterdir()) == []


CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_a_cpu_without_the_arithmetic_computes_in_float32_and_says_so(name, monkeypatch, capsys):
    monkeypatch.setattr("utils.cpu_computes_in", lambda dtype: dtype == torch.float32)
    assert select_dtype("float32", CPU) is torch.float32
    assert capsys.readouterr().out == ""
    assert select_dtype(name, CPU) is torch.float32
    assert f"no arithmetic for {name}: computing in float32" in capsys.readouterr().out
    assert amp_dtype(CPU) is None
    assert "no arithmetic for bfloat16" in capsys.readouterr().out


def test_a_cpu_is_asked_for_its_arithmetic(monkeypatch):
    assert cpu_computes_in(torch.float32)
    for answer in (False, True):
        operators = SimpleNamespace(_is_mkldnn_bf16_supported=lambda answer=answer: answer)
        monkeypatch.setattr(torch.ops, "mkldnn", operators)
        assert cpu_computes_in(torch.bfloat16) is answer
        assert not cpu_computes_in(torch.float16)  # this torch cannot tell
