"""How long tests wait for what a busy machine does late."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import Process, get_context
from pathlib import Path

LIMIT = 300.0  # seconds, which only a hang reaches


def wait_until(condition: Callable[[], bool], told: Callable[[], str] = str) -> None:
    """Return once the condition holds. told: what to say where it never does."""
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, told()
        time.sleep(0.01)


@contextmanager
def locked(folder: Path) -> Iterator[Process]:
    """In the with-block another process is the sole writer of the folder."""
    context = get_context("fork")
    ready = context.Event()
    process = context.Process(target=_hold, args=(folder, ready), daemon=True)
    process.start()
    assert ready.wait(LIMIT)
    try:
        yield process
    finally:
        process.kill()
        process.join()


def _hold(folder: Path, ready) -> None:
    from common.lock import sole_writer  # not where a browser alone is waited for

    with sole_writer(folder):
        ready.set()
        signal.pause()
