"""Stages at work at the same time: same items, same order, nothing left running."""

import threading

from helpers.waiting import LIMIT

from common.pipeline import Background, overlapping, speed


def count(n, log):
    try:
        for i in range(n):
            log.append(i)
            yield i
    finally:
        log.append("closed")


def test_no_more_than_a_few_items_are_made_ahead():
    log = []
    items = Background(count(100, log), ahead=2)
    for item in range(50):
        assert next(items) == item
        assert len(log) <= item + 5
    items.close()
    assert log[-1] == "closed"


def test_leaving_early_ends_every_thread_and_closes_the_source():
    before, log = threading.active_count(), []
    with overlapping(count(10**9, log), lambda items: (i for i in items), ahead=3) as items:
        assert next(items) == 0
    assert threading.active_count() == before
    assert log[-1] == "closed"


def test_stages_overlap():
    at_work = threading.Barrier(3)  # breaks unless all three are at work at the same time

    def stage(items, meet_at):
        for number, item in enumerate(items):
            if number == meet_at:
                at_work.wait(timeout=LIMIT)
            yield item

    stages = [lambda items: stage(items, 1), lambda items: stage(items, 0)]
    with overlapping(stage(range(10), 2), *stages) as items:
        assert list(items) == list(range(10))
        assert next(items, "end") == "end"  # again and again, as for every iterator


def test_a_wish_to_stop_ends_the_wait_for_a_stage_that_gives_nothing():
    released, wished = threading.Event(), threading.Event()

    def stuck():
        yield 0
        released.wait(LIMIT)
        yield 1

    stage = lambda items: (i for i in items)  # noqa: E731
    with overlapping(stuck(), stage, stage, stop=wished.is_set) as items:
        assert next(items) == 0
        threading.Timer(0.05, wished.set).start()
        assert list(items) == []  # what was made is finished before the thread is waited for
        released.set()


def test_the_speed_is_of_wall_clock_seconds(monkeypatch):
    monkeypatch.setattr("common.pipeline.time.perf_counter", lambda: 15.0)
    assert speed(3, "frames", 3.0) == "3 frames in 12.00 s, 0.25 frames per second"
