"""Frames in batches of one fixed shape, and back in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from talkjax.sampling.faces import Face
from talkjax.sampling.summary import Summary


class Batches:
    """Collects frames into batches of one shape; one batch is computed while others are handled.

    Frames come out in order, and never more than four batches' worth of them wait.
    """

    def __init__(
        self,
        run: Callable[[np.ndarray, np.ndarray], Any],
        size: int,
        paste: Callable[[np.ndarray, np.ndarray, Face], np.ndarray],
        summary: Summary,
    ) -> None:
        """Args: as `Sampler` passes them; `run` must not wait for its result."""
        self._run, self._size, self._paste, self._summary = run, size, paste, summary
        self._frames: list[tuple[float, np.ndarray, Face | None]] = []
        self._inputs: list[tuple[np.ndarray, np.ndarray]] = []
        self._running: deque[tuple[list, Any]] = deque()

    def add(
        self, at: float, rgb: np.ndarray, todo: tuple[Face, np.ndarray, np.ndarray] | None
    ) -> Iterator[tuple[float, np.ndarray]]:
        """Takes a frame, to be passed through if `todo` is None; yields finished ones."""
        self._frames.append((at, rgb, todo and todo[0]))
        if todo is not None:
            self._inputs.append(todo[1:])
        if len(self._inputs) == self._size:
            yield from self._start()
        elif not self._inputs and not self._running:
            yield from self._finish(self._take(), None)
        elif len(self._frames) >= 2 * self._size:
            yield from self._start()

    def flush(self) -> Iterator[tuple[float, np.ndarray]]:
        """The rest."""
        yield from self._start()
        while self._running:
            yield from self._finish(*self._running.popleft())

    def _take(self) -> list:
        frames, self._frames, self._inputs = self._frames, [], []
        return frames

    def _start(self) -> Iterator[tuple[float, np.ndarray]]:
        inputs, result = self._inputs, None
        if inputs:
            full = inputs + inputs[-1:] * (self._size - len(inputs))  # one shape, compiled once
            result = self._run(*(np.stack(part) for part in zip(*full, strict=True)))
        self._running.append((self._take(), result))
        while len(self._running) > 1:
            yield from self._finish(*self._running.popleft())

    def _finish(self, frames: list, result: Any) -> Iterator[tuple[float, np.ndarray]]:
        with self._summary.phase("denoising"):  # what of it is still to be waited for
            regions_left = iter(()) if result is None else iter(np.asarray(result))
        for at, rgb, face in frames:
            self._summary.add(face is not None, face is not None and face.found)
            yield at, rgb if face is None else self._paste(rgb, next(regions_left), face)
