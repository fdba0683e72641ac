"""Jobs of train.py, each in some processes of this machine: python processes.py JOBS.json

Forked after all imports, which take longer than a job. Each process gets what torchrun would set.
Job `name` leaves the file name.json: for each rank, `code` (negative: the signal that killed it,
None: it hung) and `said`.
"""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch._dynamo  # imported by the optimiser, which would take each process two seconds

import datasets
import train
from common import checkpoints
from helpers.waiting import LIMIT
from losses import Criterion
from training import run_folder
from training.optimizers import ScheduledOptimizer
from utils import InputError


def signal_at_call(owner, name: str, call: int, number: int) -> None:
    """Let this process get a signal when it calls owner.name for that time, from 1."""
    function, calls = getattr(owner, name), 0

    def counted(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), number)
        return function(*args, **kwargs)

    setattr(owner, name, counted)


def break_pictures() -> None:
    def unreadable(pair, *more):
        raise InputError(f"{pair.image}: not a readable picture")

    datasets.read_pair = unreadable


TROUBLES = {
    "": lambda: None,
    "killed in a step": lambda: signal_at_call(ScheduledOptimizer, "step", 4, signal.SIGKILL),
    "killed in validation": lambda: signal_at_call(Criterion, "of_picture", 2, signal.SIGKILL),
    "killed while writing": lambda: signal_at_call(checkpoints, "save_tensors", 2, signal.SIGKILL),
    "asked to end in a step": lambda: signal_at_call(ScheduledOptimizer, "step", 4, signal.SIGTERM),
    "asked to end in validation": lambda: signal_at_call(
        Criterion, "of_picture", 2, signal.SIGTERM
    ),
    "pictures break": break_pictures,
}


def run_job(name: str, argv: list[str], processes: int = 2, rank: int = 0, trouble: str = ""):
    """rank: of the process that has the trouble, a key of TROUBLES."""
    port = free_port()
    children = {}
    for number in range(processes):
        if (child := os.fork()) == 0:
            join(number, processes, port, f"{name}.{number}.txt")
            TROUBLES[trouble if number == rank else ""]()
            leave_with(argv)
        children[child] = number
    codes = wait_for(children)
    result = [
        {"code": codes.get(number), "said": Path(f"{name}.{number}.txt").read_text()}
        for number in range(processes)
    ]
    Path(f"{name}.json").write_text(json.dumps(result))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def join(rank: int, processes: int, port: int, log: str) -> None:
    for stream in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def leave_with(argv: list[str]) -> None:
    code = 0
    try:
        train.main(argv)
    except SystemExit as stop:
        code = stop.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 70
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait_for(children: dict[int, int]) -> dict[int, int]:
    """Exit codes by rank, without those that had to be killed."""
    codes, end = {}, time.monotonic() + LIMIT
    while children and time.monotonic() < end:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            codes[children.pop(child)] = os.waitstatus_to_exitcode(status)
        else:
            time.sleep(0.02)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return codes


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_folder.draw_curve = lambda *_: b""  # most of a small job's time
    for job in json.loads(Path(sys.argv[1]).read_text()):
        run_job(**job)
