"""How long tests wait for what a busy machine does late."""

import time
from collections.abc import Callable

LIMIT = 300.0  # seconds, which only a hang reaches


def wait_until(condition: Callable[[], bool], told: Callable[[], str] = str) -> None:
    """Return once the condition holds. told: what to say where it never does."""
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, told()
        time.sleep(0.01)
