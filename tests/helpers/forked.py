"""Real processes that run a script, forked from one that has imported it: a start costs nothing.

Run as a script it is that one: for each line of Forks.start on stdin it says the first process's
id, and all exit codes when they have ended.
"""

import gc
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from pkgutil import resolve_name

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where this file is the script

from helpers.waiting import LIMIT, wait_until


class Forks:
    """One run of a script's main at a time, in one or several processes.

    setup: Python code that a process runs before; it may call at_call and interrupt.
    """

    def __init__(self, folder: Path, output: str = "output", script: str = "train"):
        self.folder, self._output, self._script = folder, output, script
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        )  # fmt: skip
        assert self._server.stdout.readline() == "ready\n"

    def start(self, *argv, setup: str = "") -> int:
        """The id of the process and of its group."""
        return self._start(argv, [setup])

    def end(self) -> tuple[int, str]:
        """Exit code, negative for a signal, and what the process said."""
        ((code, said),) = self._end()
        return code, said

    def run(self, *argv, setup: str = "") -> tuple[int, str]:
        self.start(*argv, setup=setup)
        return self.end()

    def run_together(self, *argv, setups: Sequence[str]) -> list[tuple[int, str]]:
        """As many processes as setups, which torchrun would have started; `end` of each."""
        self._start(argv, setups)
        return self._end()

    def _start(self, argv: Sequence, setups: Sequence[str]) -> int:
        request = {"argv": [str(a) for a in argv], "cwd": str(self.folder), "setups": list(setups)}
        request["script"] = self._script
        names = [f"{self._output}{rank}.txt" for rank in range(len(setups))]
        self._outputs = [self.folder / name for name in names]
        for path in self._outputs:
            path.write_text("")
        request["outputs"] = list(map(str, self._outputs))
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def _end(self) -> list[tuple[int, str]]:
        codes = json.loads(self._server.stdout.readline())
        return [(code, path.read_text()) for code, path in zip(codes, self._outputs, strict=True)]

    def wait_for(self, condition: Callable[[str], bool]) -> None:
        """Until the condition holds of what the process has said."""
        said = self._outputs[0].read_text
        wait_until(lambda: condition(said()), said)

    def wait_for_epochs(self, count: int) -> None:
        """Until so many have begun, or the run is over."""
        self.wait_for(lambda said: said.count("EPOCH") >= count or "COMPLETE" in said)

    def close(self) -> None:
        self._server.stdin.close()
        self._server.wait()


def at_call(place: str, number: int, action: Callable) -> None:
    """Let the function at `place` first do `action`, when it is called for that time, from 1."""
    owner, name = place.rsplit(".", 1)
    owner, calls = resolve_name(owner), count(1)
    function = getattr(owner, name)

    def counted(*args, **kwargs):
        if next(calls) == number:
            action(*args)
        return function(*args, **kwargs)

    setattr(owner, name, counted)


def interrupt(number: int) -> Callable:
    """An action that sends this process a signal."""
    return lambda *_: os.kill(os.getpid(), number)


def serve() -> None:
    sys.modules["triton"] = None  # as where there is no GPU; it complains of what gc.freeze keeps
    import albumentations  # noqa: F401  (it, too, is slow to import)
    import torch._dynamo

    from helpers.scripts import without_plots

    without_plots(setattr)

    torch.set_num_threads(1)
    gc.freeze()  # so that a fork's end does not go through, and copy, all that was imported
    print("ready", flush=True)
    for line in sys.stdin:
        request, pids, port = json.loads(line), [], free_port()
        for rank, setup in enumerate(request["setups"]):
            pids.append(os.fork())
            if pids[-1] == 0:
                become(request, rank, port)
                exec(setup, {"at_call": at_call, "interrupt": interrupt})
                resolve_name(request["script"]).main(request["argv"])
                return
        print(pids[0], flush=True)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        print(json.dumps(codes), flush=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def become(request: dict, rank: int, port: int) -> None:
    """A process of its own group, as a terminal would start it, or one of several."""
    signal.alarm(int(LIMIT))  # a process that hangs ends by a signal
    os.setpgid(0, 0)
    os.chdir(request["cwd"])
    output = os.open(request["outputs"][rank], os.O_WRONLY | os.O_APPEND)
    for stream, target in ((0, os.open(os.devnull, os.O_RDONLY)), (1, output), (2, output)):
        os.dup2(target, stream)
    sys.argv = [f"{request['script']}.py", *request["argv"]]
    if (processes := len(request["setups"])) > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


if __name__ == "__main__":
    serve()
