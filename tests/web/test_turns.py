"""Who waits, and work in the background."""

import threading

import pytest

from talkjax.errors import UserError
from talkjax.web import turns
from talkjax.web.turns import StoppedError, Turns, Work


@pytest.fixture
def gate():
    """An event for which work waits, set in the end."""
    event = threading.Event()
    yield event
    event.set()


def until(condition):
    for _ in range(2000):
        if condition():
            return
        threading.Event().wait(0.005)
    raise AssertionError("it does not come")


def test_first_come_first_served(gate):
    line, order = Turns(2), []
    works = []
    for number in range(3):
        works.append(Work(line, lambda work, number=number: (gate.wait(), order.append(number))[1]))
        until(lambda: len(line) == len(works))
    until(lambda: works[2].progress.text == "Waiting: 2 people are before you")
    assert works[1].progress.text == "Waiting: one person is before you"
    with pytest.raises(UserError, match="3 people use this page"), line.take():
        pass
    gate.set()
    assert all(work.wait(20) for work in works)
    assert order == [0, 1, 2] and not len(line)


def test_who_waits_can_go(gate):
    line = Turns(2)
    first = Work(line, lambda work: gate.wait())
    until(lambda: len(line) == 1)
    second = Work(line, lambda work: pytest.fail("its turn never came"))
    until(lambda: "one person" in second.progress.text)
    second.stop()
    assert second.wait(20) and second.stopped and second.error is None and len(line) == 1
    gate.set()
    assert first.wait(20) and first.result is True


def test_work_ends_at_its_next_report(gate):
    started = threading.Event()

    def do(work):
        work.report("Half", 0.5)
        started.set()
        gate.wait(20)
        work.report("More")

    work = Work(Turns(0), do)
    assert started.wait(20) and work.progress == turns.Progress("Half", 0.5)
    work.stop()
    gate.set()
    assert work.wait(20) and work.stopped and work.result is None


def test_failures_and_what_comes_after(capsys):
    def fail(error):
        raise error

    after, line = [], Turns(0)
    work = Work(line, lambda _: fail(UserError("a; b")), lambda error: f"<{error}>")
    assert work.wait(20) and work.error == "<a; b>"
    work = Work(line, lambda _: fail(ZeroDivisionError()), after=lambda: after.append(1))
    assert work.wait(20) and work.error == turns.BROKEN and after == [1]
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert not len(line)
    with pytest.raises(StoppedError), line.take(lambda: True):
        pass
    assert not len(line)
