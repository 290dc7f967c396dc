"""A session behind LiveKit's own classes; the room is replaced."""

import asyncio
import types

import numpy as np
import pytest

from talkjax.errors import UserError

pytest.importorskip("livekit.agents", reason="needs `pip install talkjax[livekit]`")

from livekit import rtc
from livekit.agents.voice.avatar import AudioSegmentEnd, AvatarRunner, QueueAudioOutput

from talkjax.livekit import SessionVideoGenerator

RATE = 16_000


def sound(seconds=0.2, rate=RATE, channels=1):
    count = round(seconds * rate)
    samples = np.arange(count * channels, dtype=np.int16)
    return rtc.AudioFrame(samples.tobytes(), rate, channels, count)


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 300))


def test_a_segment(stream):
    async def check():
        session = stream(rate=RATE)
        generator = SessionVideoGenerator(session)
        options = generator.avatar_options()
        await generator.push_audio(sound())
        await generator.push_audio(AudioSegmentEnd())
        frames = []
        async for frame in generator:
            frames.append(frame)
            if isinstance(frame, AudioSegmentEnd):
                break
        await generator.aclose()
        return options, frames

    options, frames = run(check())
    video = [frame for frame in frames if isinstance(frame, rtc.VideoFrame)]
    spoken = [frame for frame in frames if isinstance(frame, rtc.AudioFrame)]
    assert len(spoken) == 5 and options.video_fps == 25 and options.audio_sample_rate == RATE
    heard = np.concatenate([np.frombuffer(frame.data, np.int16) for frame in spoken])
    np.testing.assert_array_equal(heard, np.arange(3200))  # exactly what was pushed
    assert {(f.width, f.height) for f in video} == {(options.video_width, options.video_height)}
    converted = video[0].convert(rtc.VideoBufferType.I420)  # as publishing does
    assert converted.width == options.video_width


def test_the_next_segment_waits_and_a_cleared_one_is_dropped(stream):
    async def check():
        generator = SessionVideoGenerator(stream(rate=RATE))
        await generator.push_audio(AudioSegmentEnd())  # of nothing
        await generator.push_audio(sound())
        await generator.push_audio(AudioSegmentEnd())
        waiting = asyncio.create_task(generator.push_audio(sound()))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        frames = aiter(generator)
        while not isinstance(await anext(frames), AudioSegmentEnd):
            pass
        await waiting
        await generator.push_audio(AudioSegmentEnd())
        stale = asyncio.create_task(generator.push_audio(sound()))
        await asyncio.sleep(0.05)
        generator.clear_buffer()
        await stale
        shown = [await anext(frames) for _ in range(4)]
        assert all(isinstance(frame, rtc.VideoFrame) for frame in shown)
        await generator.push_audio(sound())  # goes on
        await generator.push_audio(AudioSegmentEnd())
        while not isinstance(await anext(frames), AudioSegmentEnd):
            pass
        await generator.aclose()
        with pytest.raises(UserError, match="closed"):
            await generator.push_audio(sound())

    run(check())


def test_sound_that_does_not_fit(stream):
    async def check():
        generator = SessionVideoGenerator(stream(rate=RATE))
        with pytest.raises(UserError, match="48000 Hz does not fit"):
            await generator.push_audio(sound(rate=48_000))
        with pytest.raises(UserError, match="one channel"):
            await generator.push_audio(sound(channels=2))
        await generator.aclose()

    run(check())


class Room:
    """Connected, and publishes nothing."""

    def __init__(self):
        async def publish_track(*unused):
            async def subscribed():
                pass

            return types.SimpleNamespace(wait_for_subscription=subscribed)

        self.local_participant = types.SimpleNamespace(publish_track=publish_track)

    def isconnected(self):
        return True

    def on(self, *unused):
        pass

    off = on


def test_livekits_runner(stream):
    async def check():
        generator = SessionVideoGenerator(stream(rate=RATE, realtime=True))
        output = QueueAudioOutput(sample_rate=RATE)
        finished = asyncio.get_running_loop().create_future()
        output.on("playback_finished", lambda event: finished.set_result(event))
        runner = AvatarRunner(
            Room(), audio_recv=output, video_gen=generator, options=generator.avatar_options()
        )
        await runner.start()
        await output.capture_frame(sound(0.4))
        output.flush()
        event = await finished
        await runner.aclose()
        await generator.aclose()
        return event

    event = run(check())
    assert not event.interrupted and event.playback_position == pytest.approx(0.4)
