"""The bounded queue between the thread that makes frames and whoever reads them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
import time
from collections import deque

import numpy as np


@dataclasses.dataclass(slots=True, eq=False)
class StreamItem:
    """One frame of a session with its 40 ms of sound.

    Attributes:
      tick: Number of the frame since the session began; numbers are missing where frames were
        dropped.
      frame: (H, W, 3) uint8 RGB.
      sound: (n,) float32 in [-1, 1] at the session's rate, as it was pushed; zeros where nothing is
        said.
      speaking: Whether the sound is speech that was pushed.
      end_of_speech: Whether everything up to `flush` has been said with this item.
      interrupted: Whether speech before this item was cut off by `interrupt`.
    """

    tick: int
    frame: np.ndarray
    sound: np.ndarray
    speaking: bool = False
    end_of_speech: bool = False
    interrupted: bool = False
    due: float = dataclasses.field(default=0.0, repr=False)  # on the clock of `time.monotonic`
    before: np.ndarray | None = dataclasses.field(default=None, repr=False)  # landmarks before it


class OutputQueue:
    """Items in order, each of which can be read once it is due.

    Attributes:
      changed: Condition that guards the queue and what its owner shares with other threads.
      dropped: Number of items that were dropped because nobody read them.
    """

    def __init__(self, size: int, drop: bool) -> None:
        """Starts empty.

        Args:
          size: Largest number of items.
          drop: Whether `put` drops the oldest items where the queue is full; otherwise whoever puts
            asks `room` first.
        """
        self.changed = threading.Condition()
        self.dropped = 0
        self.items: deque[StreamItem] = deque()
        self._size, self._drop = size, drop
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._closed, self._error = False, None

    def room(self, count: int) -> bool:
        """Returns whether so many items may be put."""
        return self._drop or len(self.items) + count <= self._size

    def put(self, item: StreamItem) -> None:
        """Appends an item; marks of dropped items move on to the next one."""
        self.items.append(item)
        while len(self.items) > self._size:
            old = self.items.popleft()
            self.dropped += 1
            self.items[0].end_of_speech |= old.end_of_speech
            self.items[0].interrupted |= old.interrupted

    def notify(self) -> None:
        """Wakes all threads and tasks that wait for a change; the caller holds `changed`."""
        self.changed.notify_all()
        for loop, event in self._waiting:
            with contextlib.suppress(RuntimeError):  # its loop is closed
                loop.call_soon_threadsafe(event.set)

    def close(self, error: BaseException | None = None) -> None:
        """Ends reading, with an error if there is one."""
        with self.changed:
            self._closed = True
            self._error = self._error or error
            self.notify()

    def poll(self) -> tuple[StreamItem | None, float | None]:
        """Removes the next item if it is due; the caller holds `changed`.

        Returns:
          The item, or None and the seconds until it is due (None where there is no item).

        Raises:
          StopIteration: The queue is closed.
        """
        if self._closed:
            if self._error is not None:
                raise self._error
            raise StopIteration
        if not self.items:
            return None, None
        left = self.items[0].due - time.monotonic()
        if left > 0:
            return None, left
        item = self.items.popleft()
        self.notify()
        return item, None

    def take(self) -> StreamItem:
        """Waits for the next item."""
        with self.changed:
            while True:
                item, left = self.poll()
                if item is not None:
                    return item
                self.changed.wait(left)

    async def take_async(self) -> StreamItem:
        """Waits for the next item without blocking the event loop."""
        waiter = asyncio.get_running_loop(), asyncio.Event()
        try:
            while True:
                with self.changed:
                    item, left = self.poll()
                    if item is not None:
                        return item
                    self._waiting.add(waiter)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(waiter[1].wait(), left)
                waiter[1].clear()
        except StopIteration:  # which a coroutine must not raise
            raise StopAsyncIteration from None
        finally:
            with self.changed:
                self._waiting.discard(waiter)
