"""Live sessions: the same frames as of a file, marks, pauses, interruption, slow readers."""

import asyncio
import dataclasses
import threading
import time

import numpy as np
import pytest

import talkjax
from talkjax.errors import UserError
from talkjax.media.video import VideoReader
from talkjax.sampling import session as session_module
from tests.sampling import fakes


def offline(sampler, options, template, spoken, tmp_path, steps):
    out = tmp_path / "o.mkv"
    sampler.generate(
        video=template, audio=spoken, out=out, detector=fakes.opening_mesh(),
        options=dataclasses.replace(options, steps=steps),
    )  # fmt: skip
    return np.stack([frame.rgb for frame in VideoReader(out)])


@pytest.mark.parametrize("steps", [0, 2])
def test_the_same_frames_as_of_a_file(sampler, options, template, spoken, stream, tmp_path, steps):
    path, wave = spoken
    expected = offline(sampler, options, template, path, tmp_path, steps)
    session = stream(steps=steps, chunk=4)
    session.push_audio(wave)
    session.flush()
    items = fakes.until_end(session)
    made = np.stack([item.frame for item in items])
    assert made.shape == expected.shape and made.std() > 5
    difference = np.abs(made.astype(int) - expected)
    # With a denoiser, references are reduced from larger ones, and regions are in whole levels.
    assert difference.max() <= (0 if steps == 0 else 8) and difference.mean() < 0.01
    sound = np.concatenate([item.sound for item in items])
    np.testing.assert_array_equal(sound[: len(wave)], wave)
    assert len(sound) == 640 * len(items) and not sound[len(wave) :].any()
    assert [item.tick for item in items] == [*range(len(items))]
    assert all(item.speaking for item in items)


@pytest.mark.parametrize("look_ahead_ms", [40, 200, None])
def test_pieces(stream, spoken, look_ahead_ms):
    """Sound that comes in small pieces gives as many frames, with all of the sound."""
    wave = spoken[1]
    session = stream(look_ahead_ms=look_ahead_ms, chunk=2, queue=4)
    done = threading.Event()

    def speak():
        for start in range(0, len(wave), 333):
            session.push_audio((wave[start : start + 333] * 32767).astype(np.int16), 16000)
        session.flush()
        done.set()

    thread = threading.Thread(target=speak)
    thread.start()
    items = fakes.until_end(session, 5000)
    thread.join()
    speech = [item for item in items if item.speaking]
    sound = np.concatenate([item.sound for item in speech])[: len(wave)]
    np.testing.assert_allclose(sound, wave, atol=1e-4)
    assert len(speech) == -(-len(wave) // 640)
    if look_ahead_ms is None:  # nothing is said before the end is known
        assert done.is_set() and [item.speaking for item in items[-len(speech) :]]


def test_another_rate(stream, spoken):
    """48 kHz in 16 bits gives the frames of the same sound at 16 kHz, and its own sound back."""
    import soxr

    fine = soxr.resample(spoken[1], 16000, 48000)
    fine = np.rint(np.clip(fine, -1, 1) * 32767).astype(np.int16)
    made = []
    for rate, wave in ((16000, spoken[1]), (48000, fine)):
        session = stream(rate=rate)
        session.push_audio(wave, rate)
        session.flush()
        made.append(fakes.until_end(session))
        session.close()
    coarse, other = (np.stack([item.frame for item in items]).astype(int) for items in made)
    assert np.abs(coarse - other).mean() < 0.05 and np.abs(coarse - other).max() < 20
    sound = np.concatenate([item.sound for item in made[1]])
    np.testing.assert_array_equal(sound[: len(fine)] * 32768, fine)


def test_nothing_is_said(stream, avatar):
    """The template plays back and forth, with a mouth at rest, and no sound."""
    session = stream(rate=44100)
    items = [next(session) for _ in range(30)]
    assert not any(item.speaking or item.end_of_speech or item.sound.any() for item in items)
    assert {item.sound.shape for item in items} == {(1764,)}
    np.testing.assert_array_equal(items[0].frame, items[22].frame)  # 12 frames: 0 ... 11 ... 0
    np.testing.assert_array_equal(items[10].frame, items[12].frame)
    assert (items[0].frame != items[11].frame).any()
    painted = items[3].frame != avatar.picture(3)
    assert painted.any() and not painted.all()


def test_frames_at_rest_are_painted_once(stream, avatar, monkeypatch):
    session = stream()
    drawn = []
    plain = session._painter._paint
    monkeypatch.setattr(
        session._painter, "_paint", lambda indices, x: drawn.extend(indices) or plain(indices, x)
    )
    items = [next(session) for _ in range(60)]
    assert sorted(drawn) == [*range(1, 12)]  # the first was painted when the session was opened
    items[0].frame[:] = 0  # whatever a reader does with its frames
    np.testing.assert_array_equal(items[22].frame, items[44].frame)
    assert items[44].frame.any()


def test_no_more_frames_are_kept_than_allowed(stream):
    frame = 3 * fakes.WIDTH * fakes.HEIGHT
    session = stream(options=talkjax.Options(steps=0, pixel_cache=4 * frame + 1))
    for _ in range(30):
        next(session)
    assert len(session._painter._resting) == 4


def test_looped(stream, sampler, avatar):
    looped = talkjax.Options(steps=0, sync_mode="loop")
    session = stream(options=looped)
    items = [next(session) for _ in range(14)]
    np.testing.assert_array_equal(items[0].frame, items[12].frame)


def test_utterances_follow_each_other(stream, spoken):
    session = stream()
    for _ in range(3):
        session.push_audio(spoken[1][:8000])
        session.flush()
        items = fakes.until_end(session)
        assert sum(item.speaking for item in items) == 13  # half a second, rounded up
        assert items[-1].end_of_speech and not any(item.end_of_speech for item in items[:-1])
    assert not next(session).speaking
    session.flush()  # nothing was pushed: nothing ends
    assert not any(next(session).end_of_speech for _ in range(5))


def test_flush_after_all_was_said(stream, spoken):
    session = stream(look_ahead_ms=40, chunk=1)
    session.push_audio(spoken[1][:1280])
    items = [next(session) for _ in range(6)]
    assert [item.speaking for item in items] == [True, True, False, False, False, False]
    session.flush()
    assert fakes.until_end(session)[-1].end_of_speech
    session.push_audio(spoken[1][:640])


def test_push_after_flush(stream, spoken):
    session = stream()
    session.push_audio(spoken[1])
    session.flush()
    next(session)
    with pytest.raises(UserError, match=r"push_audio after flush: .* wait for the item with"):
        session.push_audio(spoken[1])
    assert len(fakes.until_end(session)) == 57  # nothing is lost
    session.push_audio(spoken[1])


def test_interrupt(stream, spoken):
    session = stream(queue=6)
    session.push_audio(spoken[1])
    session.flush()
    said = [next(session) for _ in range(5)]
    time.sleep(0.2)  # the queue fills
    session.interrupt()
    after = [next(session) for _ in range(8)]
    assert after[0].interrupted and not any(item.interrupted for item in after[1:])
    assert not any(item.speaking or item.end_of_speech for item in after)
    assert [item.tick for item in said + after] == [*range(13)]  # the template goes on
    session.push_audio(spoken[1][:3200])
    session.flush()
    assert sum(item.speaking for item in fakes.until_end(session)) == 5
    session.interrupt()  # nothing is said
    assert not next(session).interrupted


def test_the_mouth_does_not_jump(sampler, stream, spoken):
    """Where speech is cut off, lips go to rest over some frames."""
    session = stream(chunk=1, queue=1)
    shown = []
    plain = session._painter.paint
    session._painter.paint = lambda ticks, contents: (
        shown.extend(contents) or plain(ticks, contents)
    )
    session.push_audio(spoken[1])
    for _ in range(20):
        next(session)
    session.interrupt()
    for _ in range(20):
        next(session)
    rest = np.stack([session._painter.rest(tick) for tick in range(len(shown))])
    away = np.abs(np.stack(shown) - rest).max((1, 2))
    assert away[-1] < 0.01 * away.max()


def test_async(stream, spoken):
    session = stream(realtime=True)

    async def read():
        beats = 0

        async def beat():
            nonlocal beats
            while True:
                await asyncio.sleep(0.01)
                beats += 1

        heart = asyncio.create_task(beat())
        items = []
        session.push_audio(spoken[1][:8000])
        session.flush()
        async for item in session:
            items.append(item)
            if item.end_of_speech:
                break
        heart.cancel()
        return items, beats

    items, beats = asyncio.run(read())
    assert sum(item.speaking for item in items) == 13
    assert beats > 10  # the loop is never blocked
    session.close()

    async def read_closed():
        return [item async for item in session]

    assert asyncio.run(read_closed()) == []


def test_async_with(sampler, avatar, spoken):
    async def speak():
        items = []
        async with sampler.stream(avatar, options=talkjax.Options(steps=0)) as session:
            assert session.size == avatar.size
            session.push_audio(spoken[1][:4000])
            session.flush()
            async for item in session:
                items.append(item)
                if item.end_of_speech:
                    break
        return items

    items = asyncio.run(asyncio.wait_for(speak(), 60))
    assert sum(item.speaking for item in items) == 7 and not sampler.open_sessions


def test_the_mark_is_in_the_frames(sampler, avatar):
    frames = []
    for mark in ("", "AI"):
        options = talkjax.Options(steps=0, mark=mark)
        with sampler.stream(avatar, realtime=False, options=options) as session:
            frames.append(np.stack([next(session).frame for _ in range(avatar.frames * 2)]))
    different = (frames[0] != frames[1]).any(-1)
    assert different.any((1, 2)).all()  # also in frames at rest, of which the second are kept ones
    rows, columns = np.nonzero(different.any(0))
    assert rows.min() > avatar.size[1] / 2 and columns.min() > avatar.size[0] / 2
    np.testing.assert_array_equal(frames[1][1], frames[1][2 * avatar.frames - 3])  # once, not twice


def test_a_cancelled_wait_loses_nothing(stream, spoken):
    session = stream(realtime=True)

    async def read():
        ticks = []
        for _ in range(12):
            try:
                ticks.append((await asyncio.wait_for(anext(session), 0.03)).tick)
            except TimeoutError:
                ticks.append(None)
        return ticks

    ticks = asyncio.run(read())
    known = [tick for tick in ticks if tick is not None]
    assert None in ticks and known == [*range(len(known))]


def test_real_time(stream, spoken):
    """25 items a second, none before its time, and speech that is there is said at once."""
    session = stream(realtime=True, look_ahead_ms=80, chunk=2)
    assert session.latency == pytest.approx(0.12)
    first = next(session)
    session.push_audio(spoken[1][:16000])
    session.flush()
    items, early = [first], 0
    while not items[-1].end_of_speech:
        items.append(next(session))
        early += time.monotonic() < items[-1].due
    assert not early and sum(item.speaking for item in items) == 25
    assert len(items) < 35  # one or two at rest before it
    steps = np.diff([item.due for item in items])
    assert steps.min() > 0.0399  # longer where the machine was busy


def test_a_microphone(stream, spoken, monkeypatch):
    """Sound that comes as fast as it is said, in uneven pieces, is said without a gap."""
    monkeypatch.setattr(session_module, "_PATIENCE", 50)  # for machines that are busy
    session = stream(realtime=True, look_ahead_ms=80, chunk=3)
    wave, start = spoken[1][:24000], time.monotonic()
    next(session)

    def speak():
        for number, end in enumerate(range(320, len(wave) + 320, 320)):
            time.sleep(max(start + end / 16000 + 0.02 * (number % 3) - time.monotonic(), 0))
            session.push_audio(wave[end - 320 : end])
        session.flush()

    thread = threading.Thread(target=speak)
    thread.start()
    items = fakes.until_end(session)
    thread.join()
    first = next(k for k, item in enumerate(items) if item.speaking)
    assert all(item.speaking for item in items[first:]) and len(items) - first == 38


def test_a_slow_machine_repeats_frames(stream, spoken, monkeypatch):
    """Sound goes on in real time, although a frame takes longer to paint than it lasts."""
    session = stream(realtime=True)
    plain = session._painter.paint

    def paint(ticks, contents):
        time.sleep(0.07 * len(ticks))
        return plain(ticks, contents)

    next(session)
    monkeypatch.setattr(session._painter, "paint", paint)
    session.push_audio(spoken[1])  # 57 frames, 4 s if all of them were painted
    session.flush()
    items = fakes.until_end(session)
    assert 30 <= session.repeated <= 38 and session.dropped == 0
    sound = np.concatenate([item.sound for item in items if item.speaking])
    np.testing.assert_array_equal(sound[: len(spoken[1])], spoken[1])


def test_a_reader_that_stops_blocks(stream, spoken):
    session = stream(realtime=True, queue=5)
    session.push_audio(spoken[1])
    session.flush()
    first = next(session)
    time.sleep(0.6)
    assert len(session._queue.items) <= 5 and not session.dropped
    assert [first.tick, *(item.tick for item in fakes.until_end(session))] == [*range(58)]


def test_a_reader_that_stops_drops(stream, spoken):
    session = stream(realtime=True, queue=5, when_full="drop")
    session.push_audio(spoken[1][:6400])
    session.flush()
    next(session)
    deadline = time.monotonic() + 60
    while session.dropped < 15 and time.monotonic() < deadline:
        time.sleep(0.05)
    item = next(session)
    assert session.dropped >= 15 and item.tick >= 15
    assert item.end_of_speech  # the mark of an item that was dropped
    session.push_audio(spoken[1][:6400])


def test_memory_stays_flat(stream, spoken):
    """What a session keeps does not grow with what was said."""
    session = stream(look_ahead_ms=80)
    for _ in range(12):
        session.push_audio(spoken[1])
        for _ in range(50):
            next(session)
    utterance = session._utterance
    assert utterance.pushed > 25 * 16000 and utterance.waiting < 5
    assert len(utterance.speech._powers) < 1000 and len(utterance.windows) < 5
