"""Groups frames into batches of one fixed shape and returns them in their order."""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from talkjax.media.appearance import Look
from talkjax.media.occlusion import touches_face
from talkjax.sampling.faces import Face
from talkjax.sampling.summary import Summary


class FrameInputs(NamedTuple):
    """What is computed from a frame with a face.

    Attributes:
      face: The frame's `Face`.
      masked: (H, W, 3) float32 region without the mouth.
      landmarks: (131, 2) float32 target landmarks, crop coordinates.
      scene: Number of the frame's scene; a batch has frames of one scene.
      look: What is special about the frame's light, colours and cover.
      inside: (128, 128) where the generated region is pasted (`outline.inside`).
    """

    face: Face
    masked: np.ndarray
    landmarks: np.ndarray
    scene: int = 0
    look: Look | None = None
    inside: np.ndarray | None = None


class _Frame(NamedTuple):
    time: float
    rgb: np.ndarray
    inputs: FrameInputs | None
    occluded: bool


class FrameBatcher:
    """Collects frames into batches; one batch is computed while another is pasted.

    Frames come out in order, and never more than four batches' worth of them wait.
    """

    def __init__(
        self,
        generate: Callable[[int, np.ndarray, np.ndarray], Any],
        size: int,
        paste: Callable[[np.ndarray, Any, FrameInputs], np.ndarray],
        summary: Summary,
    ) -> None:
        """Starts without frames.

        Args:
          generate: Computes arrays (size, ...) or a tree of them, such as `regions.Generated`,
            from the number of a scene and stacked `FrameInputs.masked` and `FrameInputs.landmarks`.
            It must not wait for its result.
          size: Number of frames in a batch.
          paste: Puts what was generated for a frame into it: `paste(rgb, generated, inputs)`.
          summary: Counts the frames and the time spent waiting.
        """
        self._generate, self._size = generate, size
        self._paste, self._summary = paste, summary
        self._frames: list[_Frame] = []
        self._inputs: list[FrameInputs] = []
        self._running: deque[tuple[list[_Frame], Any]] = deque()

    def add(
        self, time: float, rgb: np.ndarray, inputs: FrameInputs | None, occluded: bool = False
    ) -> Iterator[tuple[float, np.ndarray]]:
        """Adds a frame, which passes through unchanged if `inputs` is None.

        `occluded` says whether that is because something hides the mouth.

        Yields:
          (seconds, (H, W, 3) uint8) of the frames that are finished.
        """
        if inputs is not None and self._inputs and inputs.scene != self._inputs[0].scene:
            yield from self._start()
        self._frames.append(_Frame(time, rgb, inputs, occluded))
        if inputs is not None:
            self._inputs.append(inputs)
        if len(self._inputs) == self._size:
            yield from self._start()
        elif not self._inputs and not self._running:
            yield from self._finish(self._take(), None)
        elif len(self._frames) >= 2 * self._size:
            yield from self._start()

    def flush(self) -> Iterator[tuple[float, np.ndarray]]:
        """Yields the remaining frames, as `add` does."""
        yield from self._start()
        while self._running:
            yield from self._finish(*self._running.popleft())

    def _take(self) -> list[_Frame]:
        frames, self._frames, self._inputs = self._frames, [], []
        return frames

    def _start(self) -> Iterator[tuple[float, np.ndarray]]:
        inputs, result = self._inputs, None
        if inputs:
            full = inputs + inputs[-1:] * (self._size - len(inputs))  # one shape, compiled once
            result = self._generate(
                inputs[0].scene,
                np.stack([item.masked for item in full]),
                np.stack([item.landmarks for item in full]),
            )
        self._running.append((self._take(), result))
        while len(self._running) > 1:
            yield from self._finish(*self._running.popleft())

    def _finish(self, frames: list[_Frame], result: Any) -> Iterator[tuple[float, np.ndarray]]:
        with self._summary.phase("denoising"):  # the part that is not finished yet
            result = jax.tree.map(np.asarray, result)
        number = 0
        for time, rgb, inputs, occluded in frames:
            if inputs is None:
                self._summary.add(False, False, occluded, False)
                yield time, rgb
                continue
            covered = inputs.look is not None and touches_face(inputs.look.cover)
            self._summary.add(True, inputs.face.found, occluded, covered)
            own = jax.tree.map(operator.itemgetter(number), result)
            number += 1
            yield time, self._paste(rgb, own, inputs)
