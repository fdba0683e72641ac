"""How scripts end: signals, closed pipes, consoles that lack letters."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from helpers.basics import REPO
from helpers.waiting import LIMIT

from common import signals
from common.distributed import session
from common.exits import exits_cleanly
from common.signals import SIGNALS, Interrupted, Stopped, StopSignals, delayed_signals
from utils import InputError, progress


def code_of(function) -> int | str:
    """What a decorated main leaves as exit code; the handlers of signals are restored."""
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(SystemExit) as stop:
        exits_cleanly(function)()
    assert [signal.getsignal(number) for number in SIGNALS] == before
    return stop.value.code


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_cleans_up_and_gives_the_shells_exit_code(name, capfd):
    number, cleaned = getattr(signal, name, signal.SIGINT), []  # Windows has no SIGHUP
    assert number in SIGNALS  # else it would end the tests

    def main():
        try:
            signal.raise_signal(number)
            time.sleep(LIMIT)
        finally:
            cleaned.append(True)

    assert code_of(main) == 128 + number
    assert cleaned
    said = capfd.readouterr().err.strip()
    assert said == ("interrupted" if number == signal.SIGINT else f"ended by {number.name}")


def test_errors_and_wishes_to_stop_are_lines(capfd):
    def fail():
        raise InputError("a.png: no picture")

    def fill():
        torch.empty(2**60)

    def stop():
        raise Stopped("\udcff.mp4 is saved", signal.SIGTERM)

    assert code_of(fail) == "error: a.png: no picture"
    assert code_of(fill) == "error: out of memory; pass a smaller --batch or --imgsz"
    assert code_of(stop) == 143
    assert capfd.readouterr().err.strip() == "\\udcff.mp4 is saved"


def test_what_nohup_ignores_stays_ignored(monkeypatch):
    usual = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        exits_cleanly(lambda: signal.raise_signal(signal.SIGTERM))()
        with StopSignals() as wish:
            signal.raise_signal(signal.SIGTERM)
        assert wish.number is None
    finally:
        signal.signal(signal.SIGTERM, usual)


def test_signals_are_counted_noted_and_delayed(monkeypatch, capfd):
    ends = []
    monkeypatch.setattr(signals, "SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(signals.os, "_exit", ends.append)
    with StopSignals("closing the files", noted=2) as wish:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert (wish.number, ends) == (signal.SIGTERM, [])
        signal.raise_signal(signal.SIGINT)
    assert ends == [130]
    assert "closing the files; twice more to stop at once" in capfd.readouterr().err
    done = []
    with pytest.raises(Interrupted), signals.raised_signals():
        with delayed_signals():
            signal.raise_signal(signal.SIGTERM)
            done.append(True)
        done.append("never")
    assert done == [True]


PATH = "import sys\nsys.path.insert(0, sys.argv[1])\n"
RUN = (  # without utils, whose imports take seconds
    f"{PATH}import types\n"
    "sys.modules['common.memory'] = types.SimpleNamespace(is_out_of_memory=lambda _: False)\n"
    "sys.modules['utils'] = types.SimpleNamespace(InputError=ValueError)\n"
    "from common.exits import exits_cleanly\n"
)


def run(code: str, before: str = RUN, **options) -> subprocess.CompletedProcess:
    command = ["bash", "-c", options.pop("shell", '"$@"'), "bash", sys.executable, "-c"]
    command.append(before + code)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run(
        [*command, str(REPO)], text=True, errors="replace", timeout=LIMIT,
        **streams,
    )  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="the shell's redirections")
def test_pipes_that_are_closed_and_consoles_that_lack_letters():
    code = (
        "@exits_cleanly\n"
        "def main():\n"
        "    print('\\u4e2d.png', '\\udcff.png')\n"
        "    print('error', file=sys.stderr)\n"
        "    sys.stderr.isatty()\n"
        "main()\n"
    )
    latin = run(code, env=os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"})
    assert (latin.returncode, latin.stderr) == (0, "error\n")
    assert latin.stdout == "\\u4e2d.png \\udcff.png\n"
    # stdout's reader has gone; stdout closed; stderr closed
    reader, writer = os.pipe()
    os.close(reader)
    gone = run(code, stdout=writer)
    os.close(writer)
    assert gone.returncode == 141
    assert gone.stderr in ("", "error\n")  # unbuffered, the first line ends it
    closed = run(code, shell='"$@" >&-; echo $?')
    assert (closed.stdout, closed.stderr) == ("0\n", "error\n")
    code += "\nassert open(sys.argv[1] + '/README.md').fileno() > 2"
    assert run(code, shell='"$@" <&- >&- 2>&-').returncode == 0


def test_progress_off_a_terminal_is_a_line_each_minute(capsys, monkeypatch):
    clock = iter(range(0, 10**6, 25))
    monkeypatch.setattr("tqdm.std.time", lambda: next(clock))
    assert list(progress(range(6), "drawing")) == list(range(6))
    lines = capsys.readouterr().err.split("\n")
    assert re.fullmatch(r"\rdrawing: \d of 6 done in \d\d:\d\d, about \d\d:\d\d left", lines[0])
    assert 2 <= len(lines) <= 4
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert list(progress(range(3), "drawing")) == [0, 1, 2]
    assert "drawing: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({"WORLD_SIZE": "two", "LOCAL_RANK": "0", "RANK": "0"}, "WORLD_SIZE is two"),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": ""}, "LOCAL_RANK is "),
    ],
)
def test_an_environment_without_numbers_is_refused(monkeypatch, environment, found):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=found), session("cpu"):
        pass
