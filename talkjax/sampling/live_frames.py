"""Frames of an avatar with a mouth that landmarks describe, for a live session."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from talkjax.media import outline
from talkjax.media.mark import Mark
from talkjax.sampling import generation, pasting
from talkjax.sampling.avatar import Avatar
from talkjax.sampling.generation import Generated
from talkjax.sampling.options import Options

if TYPE_CHECKING:
    from talkjax.sampling.sampler import Sampler


# Crop units, 0.03 pixels of a crop of 300: lips that are so near to rest are painted at rest.
_AT_REST = 1e-4


class AvatarPainter:
    """Paints frames of one avatar; not for several threads at once.

    Frames at rest are kept up to `Options.pixel_cache` bytes, so that a session in which nothing is
    said costs next to nothing.

    Attributes:
      size: (width, height) of the frames in pixels.
    """

    def __init__(self, sampler: Sampler, avatar: Avatar, options: Options, chunk: int) -> None:
        """Compiles what is not compiled yet, and paints one frame to load the rest.

        Args:
          sampler: The checkpoint that the avatar was prepared with.
          avatar: The avatar.
          options: Options with a number of steps.
          chunk: Number of frames that are computed together.
        """
        self._sampler, self._avatar, self.size = sampler, avatar, avatar.size
        self._key = sampler.make_key(options.seed)
        self._bounces = options.sync_mode == "bounce"
        tensors = avatar.tensors
        count = sampler.references_for(options)
        landmarks = tensors["image_landmarks"][:count]
        self._references = None
        if sampler.warps_references(options):
            self._references = tensors["sharp_images"][:count], landmarks
        self._encoded = None
        if options.steps:
            self._encoded = sampler.encode_reference(tensors["images"][:count], landmarks)
        self._mark = Mark(options.mark, *avatar.size)
        self._resting: dict[int, np.ndarray] = {}
        self._kept = options.pixel_cache // (3 * avatar.size[0] * avatar.size[1])
        # One frame at rest must not cost as much as a whole chunk.
        sizes = {chunk, 1}
        self._compiled = {
            size: sampler.compile(dataclasses.replace(options, batch=size)) for size in sizes
        }
        self._sizes = {
            size: sampler.batch_size(dataclasses.replace(options, batch=size)) for size in sizes
        }
        self.paint([0], tensors["rest"][:1])

    def index(self, tick: int) -> int:
        """Returns the number of the avatar's frame that is shown at a tick of the session."""
        count = self._avatar.frames
        if count == 1 or not self._bounces:
            return tick % count
        place = tick % (2 * count - 2)
        return place if place < count else 2 * count - 2 - place

    def poses(self, ticks: np.ndarray) -> np.ndarray:
        """Returns the (n, 74, 2) poses at (n,) ticks; before the first, its own is held."""
        places = [self.index(max(int(tick), 0)) for tick in ticks]
        return self._avatar.tensors["poses"][places]

    def rest(self, tick: int) -> np.ndarray:
        """Returns the (57, 2) lips and jaw at a tick at which nothing is said."""
        return self._avatar.tensors["rest"][self.index(tick)]

    def paint(self, ticks: Sequence[int], contents: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Paints the frames at some ticks.

        Args:
          ticks: At most as many as a chunk has.
          contents: (57, 2) lips and jaw at each.

        Returns:
          (H, W, 3) uint8 each. Frames without a face to be seen are those of the template.
        """
        indices = [self.index(tick) for tick in ticks]
        if len(indices) > 1 or np.abs(contents[0] - self.rest(ticks[0])).max() > _AT_REST:
            return self._paint_marked(indices, contents)
        index = indices[0]
        if index in self._resting:
            return [self._resting[index].copy()]
        painted = self._paint_marked(indices, contents)
        if len(self._resting) < self._kept:
            self._resting[index] = painted[0].copy()
        return painted

    def _paint_marked(self, indices: list[int], contents: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [self._mark.draw(picture) for picture in self._paint(indices, contents)]

    def _paint(self, indices: list[int], contents: Sequence[np.ndarray]) -> list[np.ndarray]:
        avatar, tensors = self._avatar, self._avatar.tensors
        pictures = [avatar.picture(index) for index in indices]
        usable = [k for k, index in enumerate(indices) if tensors["usable"][index]]
        if not usable:
            return pictures
        landmarks = np.stack(
            [np.concatenate([tensors["poses"][indices[k]], contents[k]]) for k in usable]
        )
        generated = self._generate([indices[k] for k in usable], landmarks)
        for number, k in enumerate(usable):
            own = jax.tree.map(operator.itemgetter(number), generated)
            pictures[k] = pasting.paste(
                self._sampler,
                pictures[k],
                own,
                tensors["transforms"][indices[k]],
                avatar.look(indices[k]),
                outline.inside(landmarks[number], avatar.widest),
            )
        return pictures

    def _generate(self, indices: list[int], landmarks: np.ndarray) -> Generated:
        chosen = min(size for size in self._compiled if size >= len(indices))
        size, full = self._sizes[chosen], [*range(len(indices))]
        full += full[-1:] * (size - len(full))  # one shape, compiled once
        shape = (size, *self._sampler.networks.image_size, 3)
        masked = np.zeros(shape, np.float32)  # which no step looks at
        paint = None
        if self._encoded is not None:
            chosen_regions = self._avatar.tensors["regions"][[indices[k] for k in full]]
            masked = pasting.hide_mouth(self._sampler, chosen_regions)

            def paint(shown: np.ndarray, landmarks: np.ndarray) -> Any:
                function, reference = self._compiled[chosen], self._encoded
                return self._sampler.generate_batch(
                    function, reference, shown, landmarks, self._key
                )

        generated = generation.generate(
            self._sampler, masked, landmarks[full], self._references, paint
        )
        return jax.tree.map(np.asarray, generated)
