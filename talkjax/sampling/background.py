"""Two ways to let a thread work beside the main one, in order and with a bound on what waits.

Decoding, detection and encoding spend their time outside of Python, so they overlap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")
_END = object()


class _Thread:
    """One worker thread; leaving the context drops what has not begun and waits for the rest."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._waiting: deque[Future] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class Prefetch(_Thread, Generic[T]):
    """An iterator whose next `depth` items are made ahead of time."""

    def __init__(self, items: Iterator[T], depth: int) -> None:
        """Nothing is made before the first item is asked for."""
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


class Behind(_Thread):
    """Calls made one after another, at most `depth` of them behind."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self._depth = depth

    def __call__(self, function: Callable[..., T], *args: Any) -> Future[T]:
        """Has `function(*args)` called soon; raises what an earlier call raised."""
        call = self._pool.submit(function, *args)
        self._waiting.append(call)
        while len(self._waiting) > self._depth:
            self._waiting.popleft().result()
        return call

    def finish(self) -> None:
        """Waits for all calls; raises what one of them raised."""
        while self._waiting:
            self._waiting.popleft().result()
