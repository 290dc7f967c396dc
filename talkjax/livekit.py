"""A live session as a video generator of LiveKit Agents.

    session = sampler.stream("person.safetensors", rate=24_000)
    generator = SessionVideoGenerator(session)
    runner = AvatarRunner(
        room, audio_recv=receiver, video_gen=generator, options=generator.avatar_options()
    )

LiveKit's `AvatarRunner` reads the speech of an agent from a receiver, pushes it here, and publishes
the frames and the sound in the room. Importing this module needs the extra `livekit`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np

from talkjax.conventions import TICKS_PER_SECOND
from talkjax.errors import UserError
from talkjax.sampling.session import Session

try:
    from livekit import rtc
    from livekit.agents.voice.avatar import AudioSegmentEnd, AvatarOptions, VideoGenerator
except ImportError:
    raise UserError(
        "talkjax.livekit needs livekit-agents; run `pip install talkjax[livekit]`"
    ) from None


class SessionVideoGenerator(VideoGenerator):
    """Frames and sound of a session for LiveKit; all methods belong to one event loop.

    At rest there are video frames alone, so that LiveKit counts as played what was spoken.
    """

    def __init__(self, session: Session) -> None:
        """Takes over the session, which is read here alone and closed by `aclose`.

        Args:
          session: A session of `Sampler.stream`, at the rate of the agent's speech.
        """
        self._session = session
        self._pushed = False  # speech that no end has followed yet
        self._clears = 0  # number of times that the buffer was cleared
        self._free = asyncio.Event()  # the last segment has been said, so the next may be pushed
        self._free.set()

    def avatar_options(self) -> AvatarOptions:
        """Returns what LiveKit must know of the frames and the sound."""
        width, height = self._session.size
        return AvatarOptions(width, height, TICKS_PER_SECOND, self._session.rate, 1)

    async def push_audio(self, frame: rtc.AudioFrame | AudioSegmentEnd) -> None:
        """Pushes speech, or says that a segment is complete.

        A new segment waits until the one before it has been said. What `clear_buffer` drops in the
        meantime is not pushed.

        Args:
          frame: Mono sound at the session's rate, or the mark of the segment's end.

        Raises:
          UserError: The sound has another rate or several channels, the session is closed, or ten
            minutes of speech wait already.
        """
        clears = self._clears
        await self._free.wait()
        if clears != self._clears:
            return
        if isinstance(frame, AudioSegmentEnd):
            if self._pushed:  # nothing marks the end of a segment without speech
                self._pushed = False
                self._free.clear()
                self._session.flush()
            return
        samples = np.frombuffer(frame.data, np.int16)
        if frame.num_channels != 1:
            samples = samples.reshape(-1, frame.num_channels)  # which the session refuses
        self._session.push_audio(samples, frame.sample_rate)
        self._pushed |= bool(len(samples))

    def clear_buffer(self) -> None:
        """Stops speaking at once."""
        self._clears += 1
        self._pushed = False
        self._session.interrupt()
        self._free.set()

    def __aiter__(self) -> AsyncIterator[rtc.VideoFrame | rtc.AudioFrame | AudioSegmentEnd]:
        """Yields a video frame 25 times a second, each before the sound that belongs to it."""
        return self._frames()

    async def aclose(self) -> None:
        """Closes the session, which ends the iteration and wakes whoever waits in `push_audio`."""
        self._clears += 1
        self._free.set()
        await asyncio.to_thread(self._session.close)

    async def _frames(self) -> AsyncIterator[rtc.VideoFrame | rtc.AudioFrame | AudioSegmentEnd]:
        width, height = self._session.size
        async for item in self._session:
            yield rtc.VideoFrame(
                width, height, rtc.VideoBufferType.RGB24, bytearray(item.frame.tobytes())
            )
            if item.speaking:
                sound = np.clip(np.rint(item.sound * 32768), -32768, 32767).astype(np.int16)
                yield rtc.AudioFrame(bytearray(sound.tobytes()), self._session.rate, 1, len(sound))
            if item.end_of_speech:
                self._free.set()
                yield AudioSegmentEnd()
