"""Threads beside the main one: order, bounds, errors, endings."""

import threading
import time

import pytest

from talkjax.sampling.background import Behind, Prefetch


def test_prefetch_keeps_order_and_is_bounded():
    made = []

    def items():
        for i in range(50):
            made.append(i)
            yield i

    with Prefetch(items(), 4) as ahead:
        assert not made
        for i in range(50):
            assert next(ahead) == i
            assert len(made) <= i + 1 + 4
        for _ in range(2):
            with pytest.raises(StopIteration):
                next(ahead)


def test_prefetch_hands_errors_on_in_their_place():
    def items():
        yield 1
        yield 2
        raise KeyboardInterrupt

    with Prefetch(items(), 8) as ahead:
        assert [next(ahead), next(ahead)] == [1, 2]
        with pytest.raises(KeyboardInterrupt):
            next(ahead)


def test_calls_are_made_in_order_and_few_wait():
    done = []

    def call(i):
        time.sleep(0.001)
        done.append(i)

    with Behind(3) as behind:
        for i in range(30):
            behind(call, i)
            assert i + 1 - len(done) <= 3
        behind.finish()
        assert done == list(range(30))


def test_failed_call_is_told():
    with Behind(2) as behind, pytest.raises(ZeroDivisionError):
        behind(divmod, 1, 0)
        behind.finish()


def test_nothing_runs_after_the_end():
    before = threading.active_count()
    calls = []
    with pytest.raises(ValueError, match="stop"), Behind(100) as behind:
        for _ in range(20):
            behind(lambda: (time.sleep(0.01), calls.append(1)))
        raise ValueError("stop")
    count = len(calls)
    assert count < 20
    time.sleep(0.05)
    assert len(calls) == count and threading.active_count() == before
