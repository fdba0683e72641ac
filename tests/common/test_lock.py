"""A folder has one writer, and a killed one does not keep it."""

import os

import pytest
from helpers.waiting import locked

from common.lock import sole_writer
from utils import InputError


def test_the_second_writer_is_refused_until_the_first_is_killed(tmp_path):
    with locked(tmp_path) as holder:
        line = rf"{tmp_path} is in use by process {holder.pid} on .*; .* pass another --out-dir"
        for _ in range(2):
            with pytest.raises(InputError, match=line), sole_writer(tmp_path):
                pass
    assert str(holder.pid) in (tmp_path / ".lock").read_text()  # it could not clean up
    with sole_writer(tmp_path):
        assert f"process {os.getpid()} on" in (tmp_path / ".lock").read_text()
    assert (tmp_path / ".lock").read_text() == ""


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / ".lock").mkdir()
    with pytest.raises(InputError, match="cannot write"), sole_writer(tmp_path):
        pass
