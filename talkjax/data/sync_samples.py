"""Samples of stage `sync`: consecutive pictures of a mouth and the sound around them.

A sample of W lip windows has W + 4 pictures (`options.window`), one per tick, which neighboring
windows share, and the log-mel frames of the W windows and of `options.sound_margin` more windows
on either side.
"""

import numpy as np

from talkjax.conventions import LIPS_SLICE, MEL_FLOOR, MELS_PER_TICK, NUM_MELS
from talkjax.data import audio_augmentation, windows
from talkjax.data.records import ClipRecord
from talkjax.data.samples import WindowSampler
from talkjax.data.stored_clips import StoredClip
from talkjax.models.sync_expert import FIRST_STEP, FRAMES, STEPS, STEPS_PER_FRAME

AnyClip = ClipRecord | StoredClip

_NEAR = 0.6  # the picture shown at a tick is at most so many ticks away
_SPEECH = 0.5  # runs that are quieter than this share of the clip's loudest one are not used


class SyncWindowSampler(WindowSampler):
    """Makes samples of lips (L, H, W, 3) uint8, mel (F, 80) and shape (W, 80)."""

    def _random_sample(
        self, position: int, rng: np.random.Generator
    ) -> dict[str, np.ndarray] | None:
        record = self.store[position]
        usable = self.usable_frames(record)
        starts = speaking_starts(record, usable, self.options.window)
        if not len(starts):
            return None
        return self.sample_window(record, usable, int(rng.choice(starts)), rng)

    def sample_window(
        self,
        record: StoredClip,
        usable: np.ndarray,
        start: int,
        rng: np.random.Generator | None,
    ) -> dict[str, np.ndarray]:
        """Makes the sample that starts at tick `start`; without `rng` its sound is undistorted.

        The training stage distorts the pictures.
        """
        options = self.options
        near, _ = nearest_frames(record.frame_ticks[usable], start + np.arange(options.window))
        mel = sync_span(record.mel, start, options.window - FRAMES + 1, options.sound_margin)
        if rng is not None:
            amounts = options.audio_amounts
            mel = audio_augmentation.draw_channel(rng, amounts).apply(mel)
            mel = np.ascontiguousarray(audio_augmentation.mask_moments(rng, mel, amounts.masks))
        lips = self._regions(record, usable[near])
        return {"lips": lips, "mel": mel, "shape": lip_shapes(record, start, options.window)}


def lip_shapes(record: AnyClip, start: int, length: int) -> np.ndarray:
    """Returns the lip landmarks in the middle of each window, in units of their spread in the clip.

    They are relative to the clip's mean, so that only the motion of speech remains, not the face
    or its place.

    Returns:
      (length - 4, 80) float32.
    """
    lips = record.landmarks[:, LIPS_SLICE].reshape(record.num_ticks, -1)
    lips = lips - lips.mean(0)
    middle = start + FRAMES // 2 + np.arange(length - FRAMES + 1)
    return (lips[middle] / max(float(lips.std()), 1e-4)).astype(np.float32)


def nearest_frames(frame_ticks: np.ndarray, ticks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds the frame nearest to each tick: positions (T,) int64 and distances (T,) in ticks."""
    right = np.clip(np.searchsorted(frame_ticks, ticks), 1, max(len(frame_ticks) - 1, 1))
    right = np.minimum(right, len(frame_ticks) - 1)
    left = np.maximum(right - 1, 0)
    off = np.abs(np.stack([frame_ticks[left], frame_ticks[right]]) - ticks)
    return np.where(off[0] <= off[1], left, right), off.min(0)


def speaking_starts(record: AnyClip, usable: np.ndarray, length: int) -> np.ndarray:
    """Returns first ticks of the runs with a face throughout and with speech, (S,) int64.

    In silence, lips and sound agree at every lag. So a run's loudness, the mean of its log-mel
    frames above silence, must be at least half of the clip's loudest run.
    """
    starts = windows.possible_starts(record.num_ticks, length)
    if not len(usable) or not len(starts):
        return starts[:0]
    _, off = nearest_frames(record.frame_ticks[usable], np.arange(record.num_ticks))
    seen = np.lib.stride_tricks.sliding_window_view(off <= _NEAR, length).all(1)[starts]
    level = record.mel.mean(1, dtype=np.float64) - MEL_FLOOR
    total = np.concatenate([[0.0], np.cumsum(level)])
    first = MELS_PER_TICK * starts
    last = np.minimum(first + MELS_PER_TICK * length, len(level))
    loud = (total[last] - total[first]) / np.maximum(last - first, 1)
    starts = starts[seen]
    return starts[loud[seen] >= _SPEECH * loud[seen].max() - 1e-9] if len(starts) else starts


def sync_span(mel: np.ndarray, start: int, count: int, margin: int) -> np.ndarray:
    """Cuts the mel frames of lip windows start ... start + count - 1 and `margin` on either side.

    Returns:
      (4 (count + 2 margin - 1) + 20, 80), padded with silence beyond the clip.
    """
    first = STEPS_PER_FRAME * (start - margin) + FIRST_STEP
    last = first + STEPS_PER_FRAME * (count + 2 * margin - 1) + STEPS
    out = np.full((last - first, NUM_MELS), MEL_FLOOR, np.float32)
    a, b = max(first, 0), min(last, len(mel))
    out[a - first : b - first] = mel[a:b]
    return out
