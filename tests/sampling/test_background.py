"""Threads beside the main one: order, bounds, errors, endings."""

import threading
import time

import pytest

from talkjax.sampling.background import Prefetcher, TaskQueue


def test_prefetcher_keeps_order_and_is_bounded():
    made = []

    def items():
        for i in range(50):
            made.append(i)
            yield i

    with Prefetcher(items(), 4) as ahead:
        assert not made
        for i in range(50):
            assert next(ahead) == i
            assert len(made) <= i + 1 + 4
        for _ in range(2):
            with pytest.raises(StopIteration):
                next(ahead)


def test_prefetcher_raises_errors_in_their_place():
    def items():
        yield 1
        yield 2
        raise KeyboardInterrupt

    with Prefetcher(items(), 8) as ahead:
        assert [next(ahead), next(ahead)] == [1, 2]
        with pytest.raises(KeyboardInterrupt):
            next(ahead)


def test_calls_are_made_in_order_and_few_wait():
    done = []

    def call(i):
        time.sleep(0.001)
        done.append(i)

    with TaskQueue(3) as queue:
        for i in range(30):
            queue.submit(call, i)
            assert i + 1 - len(done) <= 3
        queue.finish()
        assert done == list(range(30))


def test_failed_call_raises():
    with TaskQueue(2) as queue, pytest.raises(ZeroDivisionError):
        queue.submit(divmod, 1, 0)
        queue.finish()


def test_nothing_runs_after_the_end():
    before = threading.active_count()
    calls = []
    with pytest.raises(ValueError, match="stop"), TaskQueue(100) as queue:
        for _ in range(20):
            queue.submit(lambda: (time.sleep(0.01), calls.append(1)))
        raise ValueError("stop")
    count = len(calls)
    assert count < 20
    time.sleep(0.05)
    assert len(calls) == count and threading.active_count() == before
