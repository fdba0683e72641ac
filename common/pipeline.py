"""Stages of a job that run at the same time, each in a thread, a few items ahead of the next."""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from queue import Empty, Queue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")
SECONDS_PER_LOOK = 0.1  # between two calls of `stop` while no item comes


class _End:
    """Put last into a queue: no more items follow; error: what ended them, if anything did."""

    def __init__(self, error: BaseException | None = None):
        self.error = error


class Background(Iterator[T]):
    """The items in order, made by a thread that is at most `ahead` + 1 items ahead.

    They end early once `stop` returns True. An exception of the thread is raised here. close() ends
    the thread, which closes `items`, before it returns.
    """

    def __init__(
        self,
        items: Generator[T, None, None],
        ahead: int = 2,
        stop: Callable[[], bool] = lambda: False,
    ):
        self._items, self._stop, self._ended = items, stop, False
        self._queue, self._closed = Queue(ahead), Event()
        self._thread = Thread(target=self._work, daemon=True)
        self._thread.start()

    def __next__(self) -> T:
        item = _End()
        while not (self._ended or self._stop()):
            with suppress(Empty):
                item = self._queue.get(timeout=SECONDS_PER_LOOK)
                break
        if isinstance(item, _End):
            self._ended = True
            raise item.error or StopIteration
        return item

    def close(self) -> None:
        self._closed.set()
        while self._thread.is_alive():
            with suppress(Empty):  # the thread may be waiting for room in the queue
                self._queue.get_nowait()
            self._thread.join(0.01)

    def _work(self) -> None:
        try:
            with closing(self._items):
                for item in self._items:
                    self._queue.put(item)
                    if self._closed.is_set():
                        return
            self._queue.put(_End())
        except BaseException as error:
            self._queue.put(_End(error))


@contextmanager
def overlapping(
    source: Generator,
    *stages: Callable[[Iterator], Generator],
    ahead: int = 2,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Iterator]:
    """The items of `source` after all stages; source and stages run at the same time.

    ahead: items that wait before each stage. stop: see Background.

    After the with-block, however it was left, their threads have ended.
    """
    with ExitStack() as stack:
        items = stack.enter_context(closing(Background(source, ahead, stop)))
        for stage in stages:
            items = stack.enter_context(closing(Background(stage(items), ahead, stop)))
        yield items


def speed(count: int, unit: str, started: float, compiling: float = 0.0) -> str:
    """One line: count, seconds since `started` by time.perf_counter, and rate.

    compiling: seconds of it that went into compiling the model.
    """
    wall = time.perf_counter() - started
    compiled = f" ({compiling:.1f} s of them to compile the model)" if compiling else ""
    return f"{count} {unit} in {wall:.2f} s{compiled}, {count / wall:.2f} {unit} per second"
