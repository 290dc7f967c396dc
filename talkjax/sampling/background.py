"""Two ways to let one thread work ahead of or after the main one, in order and bounded.

Decoding, detection and encoding spend their time outside of Python, so such threads run in
parallel with the main one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")
_END: Any = object()


class _Worker:
    """One thread. Leaving the context cancels what has not started and waits for the rest."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._waiting: deque[Future] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class Prefetcher(_Worker, Generic[T]):
    """An iterator that computes its next `depth` items ahead of time."""

    def __init__(self, items: Iterator[T], depth: int) -> None:
        """Computes nothing until the first item is requested."""
        super().__init__()
        self._items, self._depth = items, depth

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        while len(self._waiting) <= self._depth:
            self._waiting.append(self._pool.submit(next, self._items, _END))
        item = self._waiting.popleft().result()
        if item is _END:
            raise StopIteration
        return item


class TaskQueue(_Worker):
    """Calls functions one after another in a thread; at most `depth` calls wait."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self._depth = depth

    def submit(self, function: Callable[..., T], *args: Any) -> Future[T]:
        """Queues `function(*args)`, and raises the exception of an earlier call that failed."""
        call = self._pool.submit(function, *args)
        self._waiting.append(call)
        while len(self._waiting) > self._depth:
            self._waiting.popleft().result()
        return call

    def finish(self) -> None:
        """Waits for all calls, and raises the exception of the first that failed."""
        while self._waiting:
            self._waiting.popleft().result()
