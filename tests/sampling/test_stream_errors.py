"""Live sessions that are used wrongly: one clear error, nothing lost, the session lives on."""

import threading
import time

import numpy as np
import pytest

import talkjax
from talkjax.errors import UserError
from talkjax.sampling import session as session_module
from tests.sampling import fakes


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros(160, np.float32), 8000, "8000 Hz does not fit .* rate=8000 instead of 16000"),
        (np.zeros(160, np.int32), 16000, "samples of int32 cannot be used; .* float32"),
        (np.zeros(160), None, "samples of float64"),
        ([0.0, 0.1], None, "samples of list"),
        (np.zeros((160, 2), np.float32), None, r"shape \(160, 2\) cannot be used; give one"),
        (np.full(160, np.nan, np.float32), None, "hold NaN or infinity"),
        (np.full(160, 3000, np.float32), None, r"must lie in \[-1, 1\]"),
    ],
)
def test_sound_that_cannot_be_used(stream, spoken, samples, rate, message):
    session = stream()
    session.push_audio(spoken[1][:6400])
    with pytest.raises(UserError, match=message):
        session.push_audio(samples, rate)
    session.flush()
    items = fakes.until_end(session)  # the session lives on, and nothing is lost
    np.testing.assert_array_equal(np.concatenate([i.sound for i in items]), spoken[1][:6400])


def test_too_much_waits(stream, monkeypatch):
    monkeypatch.setattr(session_module, "MAX_WAITING_S", 2.0)
    session = stream()
    second = np.zeros(16000, np.float32)
    session.push_audio(second)
    session.push_audio(second)
    with pytest.raises(UserError, match="2 s of speech wait to be said; read the items"):
        session.push_audio(second)
    session.flush()
    assert len(fakes.until_end(session)) == 50


def test_closed(stream, spoken):
    session = stream()
    next(session)
    session.close()
    session.close()
    assert list(session) == []
    for call in (lambda: session.push_audio(spoken[1]), session.flush, session.interrupt):
        with pytest.raises(UserError, match="the session is closed; open another one"):
            call()


def test_closing_wakes_a_reader(stream):
    session = stream(realtime=True)
    read = []
    thread = threading.Thread(target=lambda: read.extend(session))
    thread.start()
    time.sleep(0.2)
    session.close()
    thread.join(5)
    assert not thread.is_alive()


def test_an_error_reaches_the_reader(stream, monkeypatch):
    session = stream()
    next(session)

    def broken(ticks, contents):
        raise UserError("the picture is damaged")

    monkeypatch.setattr(session._painter, "paint", broken)
    with pytest.raises(UserError, match="the picture is damaged"):
        for _ in range(5):
            next(session)


def test_two_sessions(stream, spoken):
    first = stream()
    with pytest.raises(UserError, match=r"1 open session\(s\) already; .* sessions=2"):
        stream()
    second = stream(sessions=2)
    for session in (first, second):
        session.push_audio(spoken[1][:6400])
        session.flush()
    made = [[item.frame for item in fakes.until_end(session)] for session in (first, second)]
    np.testing.assert_array_equal(*made)
    first.close()
    second.close()
    stream()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 4000}, "rate=4000 is out of range; give 8000 to 192000"),
        ({"rate": 16000.0}, "rate=16000.0 is out of range"),
        ({"look_ahead_ms": 20}, "look_ahead_ms=20 is out of range; give 40 to 10000, or None"),
        ({"chunk": 0}, "chunk=0 is out of range"),
        ({"chunk": 4, "queue": 3}, "queue=3 is out of range; give 4"),
        ({"when_full": "wait"}, "when_full=wait is unknown; give one of block, drop"),
        ({"when_full": "drop"}, "when_full=drop .* give realtime=True or when_full=block"),
        ({"options": talkjax.Options(sync_mode="hold")}, "sync_mode=hold ends"),
        ({"options": talkjax.Options(steps=-1)}, "steps=-1 is out of range"),
    ],
)
def test_settings_that_cannot_be_used(stream, options, message):
    with pytest.raises(UserError, match=message):
        stream(**options)
