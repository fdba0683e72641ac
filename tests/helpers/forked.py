"""Real processes that run train.main, forked from one that has imported it: a start costs nothing.

Run as a script it is that one: for each line {"argv", "cwd", "output", "setup"} on stdin it says a
process's id, and its exit code when it has ended.
"""

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where this file is the script

from helpers.waiting import wait_until


class Forks:
    """One training process at a time. setup: Python code that it runs before."""

    def __init__(self, folder: Path, output: str = "output.txt"):
        self.folder = folder
        self.output = folder / output
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment,
        )  # fmt: skip
        assert self._server.stdout.readline() == "ready\n"

    def start(self, *argv, setup: str = "") -> int:
        """The id of the process and of its group."""
        request = {"argv": [str(a) for a in argv], "cwd": str(self.folder), "setup": setup}
        self._server.stdin.write(json.dumps(request | {"output": str(self.output)}) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def end(self) -> tuple[int, str]:
        """Exit code, negative for a signal, and what the process said."""
        return int(self._server.stdout.readline()), self.output.read_text()

    def run(self, *argv, setup: str = "") -> tuple[int, str]:
        self.start(*argv, setup=setup)
        return self.end()

    def wait_for(self, condition: Callable[[str], bool]) -> None:
        """Until the condition holds of what the process has said."""

        def said() -> str:
            return self.output.read_text() if self.output.is_file() else ""

        wait_until(lambda: condition(said()), said)

    def wait_for_epochs(self, count: int) -> None:
        """Until so many have begun, or the run is over."""
        self.wait_for(lambda said: said.count("EPOCH") >= count or "COMPLETE" in said)

    def close(self) -> None:
        self._server.stdin.close()
        self._server.wait()


def serve() -> None:
    sys.modules["triton"] = None  # as where there is no GPU; it complains of what gc.freeze keeps
    import albumentations  # noqa: F401  (these, too, are slow to import)
    import matplotlib.backends.backend_agg  # noqa: F401
    import torch._dynamo

    import train

    torch.set_num_threads(1)
    gc.freeze()  # so that a fork's end does not go through, and copy, all that was imported
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        Path(request["output"]).write_text("")
        pid = os.fork()
        if pid == 0:
            become(request)
            exec(request["setup"], {})
            train.main(request["argv"])
            return
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def become(request: dict) -> None:
    """A process of its own group, as a terminal would start it."""
    os.setpgid(0, 0)
    os.chdir(request["cwd"])
    output = os.open(request["output"], os.O_WRONLY | os.O_APPEND)
    for stream, target in ((0, os.open(os.devnull, os.O_RDONLY)), (1, output), (2, output)):
        os.dup2(target, stream)
    sys.argv = ["train.py", *request["argv"]]


if __name__ == "__main__":
    serve()
