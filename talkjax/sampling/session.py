"""A live session: sound in pieces goes in, frames with their sound come out."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import NamedTuple, Self

import numpy as np

from talkjax.conventions import TICKS_PER_SECOND
from talkjax.errors import UserError
from talkjax.sampling.live_content import LiveContent, Utterance, ease
from talkjax.sampling.live_frames import AvatarPainter
from talkjax.sampling.output_queue import OutputQueue, StreamItem

TICK = 1 / TICKS_PER_SECOND
RATES = (8000, 192_000)
MAX_WAITING_S = 600.0  # of speech that nobody has read
_LATE_S = 0.5  # a session that falls behind by more goes on from there instead of catching up
_PATIENCE = 4  # ticks for which an utterance that has begun waits for sound that is late
_LOUDEST = 4.0  # float samples beyond it are integers that somebody forgot to scale


class _Plan(NamedTuple):
    """What is made next: some ticks of an utterance, or one tick at rest."""

    epoch: int
    tick: int
    count: int
    utterance: Utterance | None = None
    first: int = 0  # tick of the utterance
    heard: np.ndarray | None = None
    ended: bool = False
    sound: tuple[np.ndarray, ...] = ()


class Session:
    """Frames of one avatar, 25 a second, which speaks what is pushed.

        with sampler.stream("person.safetensors", rate=24_000) as session:
            session.push_audio(samples)
            session.flush()
            for item in session:
                show(item.frame, item.sound)
                if item.end_of_speech:
                    break

    In coroutines, `async with` and `async for` do the same without blocking the event loop. All
    methods may be called from any thread. Nothing is made before the first item is asked for.

    Attributes:
      rate: Samples a second of the sound, both ways.
      size: (width, height) of the frames in pixels.
      latency: Seconds from a sound to its frame, without the time of computing.
      repeated: Number of frames that show what another one shows, because the machine is too slow
        to paint all of them in real time; their sound is their own.
    """

    def __init__(
        self,
        painter: AvatarPainter,
        content: LiveContent,
        *,
        rate: int,
        look_ahead: float | None,
        chunk: int,
        queue: int,
        drop: bool,
        realtime: bool,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        """Starts a session; see `Sampler.stream`, which checks the arguments."""
        self.rate, self.size = rate, painter.size
        self.latency = None if look_ahead is None else look_ahead + (chunk - 1) * TICK
        self._painter, self._content = painter, content
        self.repeated = 0
        self._predict_s = self._paint_s = 0.0  # newest times of a prediction and of one frame
        self._look_ahead, self._chunk, self._realtime = look_ahead, chunk, realtime
        self._on_close = on_close
        self._queue = OutputQueue(queue, drop)
        self._changed = self._queue.changed
        self._worker: threading.Thread | None = None
        self._closed = False
        self._utterance: Utterance | None = None
        self._level: tuple[float, ...] = ()
        self._ending = False  # flushed, and the mark has not been read yet
        self._cut = False  # the next item says that speech was cut off
        self._ended = False  # the next item says that speech has ended
        self._epoch = 0  # number of interruptions
        self._tick = 0
        self._zero = 0.0  # time at which tick 0 is due
        self._shown: np.ndarray | None = None  # content of the newest item

    @property
    def dropped(self) -> int:
        """Number of items that were dropped because nobody read them."""
        return self._queue.dropped

    # ---- sound in --------------------------------------------------------------------------------

    def push_audio(self, samples: np.ndarray, rate: int | None = None) -> None:
        """Appends speech.

        Args:
          samples: (n,) mono, float32 in [-1, 1] or int16; n may be 0.
          rate: Samples a second, which must be the session's; None if they are.

        Raises:
          UserError: The samples have another rate, type or shape or hold NaN; the session is
            closed; `flush` was called and what was pushed before has not been said yet; or ten
            minutes of speech wait already. Nothing is taken then, and the session goes on.
        """
        if rate is not None and rate != self.rate:
            raise UserError(
                f"push_audio: sound of {rate} Hz does not fit this session; resample it, or open "
                f"the session with rate={rate} instead of {self.rate}"
            )
        sound = _as_float(samples)
        with self._changed:
            self._check_open("push_audio")
            if self._ending:
                raise UserError(
                    "push_audio after flush: what was said before goes on; wait for the item with "
                    "end_of_speech, or call interrupt() first"
                )
            speech = self._utterance or Utterance(self.rate, self._level)
            if speech.waiting + len(sound) / self.rate > MAX_WAITING_S:
                raise UserError(
                    f"push_audio: {MAX_WAITING_S:g} s of speech wait to be said; read the items of "
                    "the session, or push less"
                )
            if len(sound):
                speech.push(sound)
                self._utterance = speech
                self._queue.notify()

    def flush(self) -> None:
        """Says that the utterance is complete: the rest of it is said without waiting for more.

        The item that ends it has the mark `end_of_speech`. Without speech, nothing happens.

        Raises:
          UserError: The session is closed.
        """
        with self._changed:
            self._check_open("flush")
            if self._utterance is not None:
                self._utterance.flushed = self._ending = True
                self._queue.notify()

    def interrupt(self) -> None:
        """Stops speaking at once: drops speech that was pushed but not read, and closes the mouth.

        The next item has the mark `interrupted`, if there was speech. New speech may be pushed.

        Raises:
          UserError: The session is closed.
        """
        with self._changed:
            self._check_open("interrupt")
            spoken = self._utterance is not None or self._ending
            first = next((k for k, item in enumerate(self._queue.items) if item.speaking), None)
            if first is not None:
                while len(self._queue.items) > first:
                    removed = self._queue.items.pop()
                    self._tick, self._shown = removed.tick, removed.before
                    self._cut |= removed.interrupted
            self._cut |= spoken or first is not None
            self._utterance, self._ending, self._ended = None, False, False
            self._epoch += 1
            self._queue.notify()

    def close(self) -> None:
        """Ends the session; iterators end, and waiting threads are woken. May be called again."""
        with self._changed:
            first, self._closed = not self._closed, True
            worker = self._worker
        self._queue.close()
        if worker is not None and worker is not threading.current_thread():
            worker.join()
        if first:
            self._on_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *unused: object) -> None:
        await asyncio.to_thread(self.close)  # which waits for the frames that are being made

    def _check_open(self, what: str) -> None:
        if self._closed:
            raise UserError(f"{what}: the session is closed; open another one")

    # ---- frames out ------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[StreamItem]:
        return self

    def __next__(self) -> StreamItem:
        self._start()
        return self._read(self._queue.take())

    def __aiter__(self) -> AsyncIterator[StreamItem]:
        return self

    async def __anext__(self) -> StreamItem:
        self._start()
        return self._read(await self._queue.take_async())

    def _read(self, item: StreamItem) -> StreamItem:
        if item.end_of_speech:
            with self._changed:
                self._ending = False
        return item

    def _start(self) -> None:
        with self._changed:
            if self._worker is None and not self._closed:
                self._zero = time.monotonic()
                self._worker = threading.Thread(target=self._work, name="talkjax", daemon=True)
                self._worker.start()

    def _work(self) -> None:
        try:
            while (plan := self._next_plan()) is not None:
                self._commit(plan, *self._make(plan))
        except BaseException as error:  # it is raised where items are read
            self._queue.close(error)

    def _next_plan(self) -> _Plan | None:
        """Waits until something is to be made; returns None once the session is closed."""
        with self._changed:
            while not self._closed:
                speech = self._utterance
                if speech is not None and speech.tick == speech.length:
                    # It was flushed after all of it was said.
                    self._utterance, speech, self._ended = None, None, True
                count = speech.ready(self._chunk, self._look_ahead) if speech else 0
                wait = self._wait(count)
                if wait is None:
                    self._changed.wait()
                elif wait > 0:
                    self._changed.wait(wait)
                elif speech is None or not count:
                    return _Plan(self._epoch, self._tick, 1)
                else:
                    first = speech.tick
                    heard, ended, sound = speech.take(count, self._content.reach)
                    return _Plan(
                        self._epoch, self._tick, count, speech, first, heard, ended, tuple(sound)
                    )
        return None

    def _wait(self, count: int) -> float | None:
        """Returns for how many seconds nothing is made; None waits for a reader or for speech.

        Args:
          count: Number of ticks of speech that are ready; 0 makes one at rest.
        """
        if not self._queue.room(max(count, 1)):
            return None
        if not self._realtime:
            # What is at rest is made on demand, so that it never lies before new speech.
            return 0.0 if count or not self._queue.items else None
        # What is at rest is made late, so that new speech follows at once. Within speech it would
        # be a gap: a microphone sends its sound hardly before it is due, and sometimes after.
        begun = self._utterance is not None and self._utterance.tick > 0
        ahead = 2 * self._chunk + 1 if count else -_PATIENCE if begun else 1
        return self._zero + (self._tick - ahead) * TICK - time.monotonic()

    def _make(self, plan: _Plan) -> tuple[list[StreamItem], np.ndarray]:
        """Makes the items of a plan; returns them and the content of the last one."""
        ticks = range(plan.tick, plan.tick + plan.count)
        rest = np.stack([self._painter.rest(tick) for tick in range(plan.tick - 1, ticks.stop)])
        speech, sound = plan.utterance, plan.sound
        if speech is None:
            predicted = rest
            start, stop = (k * self.rate // TICKS_PER_SECOND for k in (plan.tick, plan.tick + 1))
            sound = (np.zeros(stop - start, np.float32),)
        else:
            started = time.monotonic()
            speech.speech.push(plan.heard)
            if plan.ended:
                speech.speech.end()
            begin = plan.tick - plan.first  # tick of the session at which the utterance began
            predicted = self._content.predict(
                speech, plan.first, plan.count, lambda at: self._painter.poses(at + begin)
            )
            if plan.first == 0:  # before it, the mouth is at rest
                predicted[0] = rest[0]
            self._predict_s = _mix(self._predict_s, time.monotonic() - started)
        shown = predicted[0] if self._shown is None else self._shown
        contents = ease(predicted, shown)
        frames = self._paint(ticks, contents)
        items = [
            StreamItem(tick, frame, own, speech is not None, before=before)
            for tick, frame, own, before in zip(
                ticks, frames, sound, [shown, *contents[:-1]], strict=True
            )
        ]
        return items, contents[-1]

    def _paint(self, ticks: range, contents: np.ndarray) -> list[np.ndarray]:
        """Paints the frames; only one of them where there is no time for all."""
        count, started = len(ticks), time.monotonic()
        painted = slice(0, count)
        if self._realtime and self._predict_s + count * self._paint_s > count * TICK:
            painted = slice(count // 2, count // 2 + 1)
        frames = self._painter.paint(ticks[painted], contents[painted])
        if count > 1:  # one frame alone is at rest, and may be a copy
            self._paint_s = _mix(self._paint_s, (time.monotonic() - started) / len(frames))
        missing = count - len(frames)
        self.repeated += missing
        return frames + [frames[0].copy() for _ in range(missing)]

    def _commit(self, plan: _Plan, items: list[StreamItem], shown: np.ndarray) -> None:
        with self._changed:
            if plan.epoch != self._epoch or self._closed:
                return  # what was made has been cut off
            items[0].interrupted, self._cut = self._cut, False
            items[0].end_of_speech, self._ended = self._ended, False
            speech = plan.utterance
            if speech is not None:
                self._level = speech.speech.level
                if speech.tick == speech.length:
                    items[-1].end_of_speech, self._utterance = True, None
            late = time.monotonic() - self._zero - plan.tick * TICK
            if late > (_LATE_S if speech is None else 0):
                self._zero += late  # what follows is as late, and evenly so
            for item in items:
                item.due = self._zero + item.tick * TICK if self._realtime else 0.0
                self._queue.put(item)
            self._tick, self._shown = plan.tick + plan.count, shown
            self._queue.notify()


def _mix(old: float, new: float) -> float:
    return (old + new) / 2 if old else new


def _as_float(samples: np.ndarray) -> np.ndarray:
    """Checks pushed samples: (n,) float32."""
    if not isinstance(samples, np.ndarray) or samples.dtype not in (np.float32, np.int16):
        kind = getattr(samples, "dtype", type(samples).__name__)
        raise UserError(
            f"push_audio: samples of {kind} cannot be used; give a NumPy array of float32 in "
            "[-1, 1] or of int16"
        )
    if samples.ndim != 1:
        raise UserError(
            f"push_audio: samples of the shape {samples.shape} cannot be used; give one channel, "
            "(n,)"
        )
    if samples.dtype == np.int16:
        return samples.astype(np.float32) / 32768
    if not np.isfinite(samples).all():
        raise UserError("push_audio: the samples hold NaN or infinity; check where they come from")
    if len(samples) and np.abs(samples).max() > _LOUDEST:
        raise UserError(
            "push_audio: float samples must lie in [-1, 1]; divide integers by their largest value"
        )
    return np.clip(samples, -1.0, 1.0)
