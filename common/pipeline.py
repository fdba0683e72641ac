"""Stages of a job that run at the same time, each in a thread, a few items ahead of the next."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator
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


def in_background(
    items: Generator[T, None, None], ahead: int = 2, stop: Callable[[], bool] = lambda: False
) -> Generator[T, None, None]:
    """The items in order, made by a thread that is at most `ahead` + 1 items ahead.

    They end early once `stop` returns True. An exception of the thread is raised here. close() ends
    the thread, which closes `items`, before it returns.
    """
    queue, stopped = Queue(ahead), Event()

    def work() -> None:
        try:
            with closing(items):
                for item in items:
                    queue.put(item)
                    if stopped.is_set():
                        return
            queue.put(_End())
        except BaseException as error:
            queue.put(_End(error))

    thread = Thread(target=work, daemon=True)
    try:
        thread.start()
        while not isinstance(item := _next(queue, stop), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        while thread.is_alive():
            with suppress(Empty):  # the thread may be waiting for room in the queue
                queue.get_nowait()
            thread.join(0.01)


def _next(queue: Queue, stop: Callable[[], bool]) -> object:
    while not stop():
        with suppress(Empty):
            return queue.get(timeout=SECONDS_PER_LOOK)
    return _End()


@contextmanager
def overlapping(
    source: Generator,
    *stages: Callable[[Iterator], Generator],
    ahead: int = 2,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Iterator]:
    """The items of `source` after all stages; source and stages run at the same time.

    ahead: items that wait before each stage. stop: see in_background.

    After the with-block, however it was left, their threads have ended.
    """
    with ExitStack() as stack:
        items = stack.enter_context(closing(in_background(source, ahead, stop)))
        for stage in stages:
            items = stack.enter_context(closing(in_background(stage(items), ahead, stop)))
        yield items


class Stopwatch:
    """Counts the seconds that each stage of a job worked, and the job's wall-clock time."""

    def __init__(self, *stages: str):
        self.seconds = dict.fromkeys(stages, 0.0)
        self._started = time.perf_counter()

    @contextmanager
    def working(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started

    def timed(self, stage: str, function: Callable[..., T]) -> Callable[..., T]:
        """The function, with the time of its calls counted for the stage."""
        return self.working(stage)(function)

    def timed_items(self, stage: str, items: Iterable[T]) -> Generator[T, None, None]:
        """The items, with the time that each takes to arrive counted for the stage."""
        iterator = iter(items)
        while True:
            with self.working(stage):
                item = next(iterator, _End)
            if item is _End:
                return
            yield item

    def summary(self, count: int, unit: str, compiling: float = 0.0) -> str:
        """One line: count, seconds, rate, and the share of the time that each stage worked.

        compiling: seconds of it that went into compiling the model.
        """
        wall = time.perf_counter() - self._started
        shares = ", ".join(f"{name} {part / wall:.0%}" for name, part in self.seconds.items())
        compiled = f" ({compiling:.1f} s of them to compile the model)" if compiling else ""
        return (
            f"{count} {unit} in {wall:.2f} s{compiled}, {count / wall:.2f} {unit} per second; "
            f"busy meanwhile: {shares}"
        )
