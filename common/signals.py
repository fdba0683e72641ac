"""Signals that ask a process to end: Ctrl-C, SIGTERM, and SIGHUP of a terminal that was closed."""

import atexit
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import Event
from types import FrameType

import cv2

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
# Signals that follow faster count once: torchrun passes on what the terminal has sent already.
SECONDS_BETWEEN = 0.5


class Interrupted(KeyboardInterrupt):
    """Raised by a signal wherever the main thread is."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


class Stopped(Exception):
    """A signal asked the program to end, and its work is saved."""

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.number = number


class SignalCounter:
    """Calls `react(number, count)` at the first, second, ... signal within the with-block.

    Signals that the process was started to ignore, as by nohup, stay ignored.
    """

    def __init__(self, react: Callable[[int, int], None]):
        self.count = 0
        self._react, self._time, self._handlers = react, 0.0, {}

    def __enter__(self) -> "SignalCounter":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.count == 0 or time.monotonic() - self._time > SECONDS_BETWEEN:
            self.count, self._time = self.count + 1, time.monotonic()
            self._react(number, self.count)


class StopSignals(SignalCounter):
    """Within the with-block signals are noted in `number`, for the job to end where it can.

    noted: how many; the next one ends the process at once.
    """

    def __init__(self, advice: str = "finishing this step", noted: int = 1):
        super().__init__(self._note_number)
        self.number: int | None = None
        self._advice, self._noted = advice, noted

    def _note_number(self, number: int, count: int) -> None:
        if count > self._noted:
            os._exit(128 + number)
        self.number = number
        again = "once more" if count == self._noted else "twice more"
        tell(f"\n{self._advice}; {again} to stop at once\n")


@contextmanager
def raised_signals() -> Iterator[None]:
    """Within the with-block the first signal raises Interrupted; the second ends the process."""

    def react(number: int, count: int) -> None:
        if count > 1:
            os._exit(128 + number)
        raise Interrupted(number)

    with SignalCounter(react):
        yield


@contextmanager
def delayed_signals() -> Iterator[None]:
    """Signals that come in the with-block take effect at its end."""
    numbers = []
    with SignalCounter(lambda number, _: numbers.append(number)):
        yield
    for number in numbers:
        signal.raise_signal(number)


def tell(text: str) -> None:
    """Write to stderr from a signal handler, where print() may be running already."""
    if os.environ.get("RANK", "0") == "0":  # the other processes of torchrun stay silent
        with suppress(OSError):
            os.write(2, text.encode(errors="backslashreplace"))


def worker_init() -> Callable[[int], None]:
    """A DataLoader's worker_init_fn: workers ignore signals until the main process ends.

    Ctrl-C, SIGHUP and a cluster's SIGTERM reach the workers too, but the main process still needs
    them to finish the step. At its end it sends SIGTERM to those that are left and waits for them.
    """
    ending = Event()
    atexit.register(ending.set)
    return partial(_init_worker, ending.is_set)


def _init_worker(is_ending: Callable[[], bool], _: int) -> None:
    cv2.setNumThreads(0)  # the workers are the parallelism
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0) if is_ending() else None)
