"""One training sample: what it holds and how it is drawn from a clip. `loader` makes batches."""

import dataclasses
import logging
import os

import numpy as np

from talkjax.conventions import MELS_PER_TICK, NUM_LANDMARKS, NUM_MELS, NUM_POSE, Box
from talkjax.data import latents as latents_lib
from talkjax.data import records, windows
from talkjax.errors import UserError

STAGES = ("autoencoder", "landmark", "diffusion", "joint", "sync")
_BYTES_PER_TICK = 4 * (2 * NUM_LANDMARKS * 2 + MELS_PER_TICK * NUM_MELS)
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class LoaderOptions:
    """What a batch holds and how it is made.

    Attributes:
      stage: Decides which parts a batch has: `landmark` the audio and landmark part, `diffusion`
        the image part, `joint` both, `autoencoder` single images, `sync` those of `sync_samples`.
      batch_size: Samples per batch *of this process*.
      window: T, the ticks of a window.
      references: R, the number of landmark references per sample.
      frames: F, the number of image frames per window (unused by `landmark` and `autoencoder`).
      region: Part of the crop that the image models see, (y0, x0, y1, x1) in the unit square.
      latents: Folder of the latent cache; None for pixels.
      reference_margin: No reference is taken from so many ticks around the window if the clip is
        long enough: a neighboring tick would give half of the answer away.
      geometry_scale, geometry_rotation, geometry_shift: Standard deviations of the landmark jitter
        (of the logarithm, in radians, in crop units). Stage `landmark` only, because images would
        not move with the landmarks.
      audio_gain, audio_noise, audio_masks, audio_warp, audio_equalizer: See
        `windows.augment_mel`.
      drop_all: Chance that a sample drops landmarks and reference together.
      drop_reference: Chance that a sample drops the reference alone. These two are the conditions
        that `talkjax.diffusion.guidance` evaluates besides the full one; the landmarks are never
        dropped alone.
      sound_margin: Ticks of sound on either side of a window (stage `sync` only).
      max_damaged: Share of a split's records that may be damaged; one always may.
      memory_limit: Bytes of decoded clips to keep in memory. Clips beyond it are read each time.
      num_workers: Worker processes; 0 for threads only, which is enough for data held in memory.
      num_threads: Reading threads of each process.
      prefetch: Number of batches made ahead of time.
    """

    stage: str = "landmark"
    batch_size: int = 32
    window: int = 25
    references: int = 4
    frames: int = 4
    region: tuple[float, float, float, float] = (0.375, 0.0625, 1.0, 0.9375)
    latents: str | None = None
    reference_margin: int = 5
    geometry_scale: float = 0.03
    geometry_rotation: float = 0.02
    geometry_shift: float = 0.01
    audio_gain: float = 0.5
    audio_noise: float = 5.0
    audio_masks: int = 2
    audio_warp: float = 0.0
    audio_equalizer: float = 0.0
    drop_all: float = 0.1
    drop_reference: float = 0.1
    sound_margin: int = 0
    max_damaged: float = 0.01
    memory_limit: int = 4 << 30
    num_workers: int = 0
    num_threads: int = 2
    prefetch: int = 4

    def __post_init__(self):
        if self.stage not in STAGES:
            raise UserError(f"no stage {self.stage!r}; use one of {', '.join(STAGES)}")
        for name in ("batch_size", "window", "references", "frames"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be at least 1")
        chances = self.drop_all, self.drop_reference
        if min(chances) < 0 or sum(chances) > 1:
            raise UserError(
                f"drop_all={chances[0]:g} and drop_reference={chances[1]:g} must be chances whose "
                "sum is at most 1"
            )

    @property
    def has_landmark_part(self) -> bool:
        """Whether batches hold audio and landmarks."""
        return self.stage in ("landmark", "joint")

    @property
    def has_images(self) -> bool:
        """Whether batches hold images or latents."""
        return self.stage != "landmark"

    @property
    def needs_pixels(self) -> bool:
        """Whether JPEGs are decoded."""
        whole = self.latents is None or self.stage in ("autoencoder", "sync")
        return self.has_images and whole


class ClipStore:
    """The clips of one split, kept in memory as far as they fit. Threads may share a store.

    A pickled store leaves its contents behind and reads them again (once in every worker process).
    """

    def __init__(self, data_dir: str | os.PathLike, split: str, options: LoaderOptions):
        self._reader = records.ShardReader(data_dir, split)
        self._with_frames, self._limit = options.needs_pixels, options.memory_limit
        self._max_damaged = options.max_damaged
        self._damaged: set[int] = set()
        self.lengths = self._reader.lengths()
        self.name = f"{data_dir} ({split})"
        self._fill()

    def _fill(self) -> None:
        arrays = int(self.lengths.sum()) * _BYTES_PER_TICK
        whole = self._reader.num_bytes()
        frames = self._with_frames and whole <= self._limit
        held = frames or arrays <= self._limit
        count = len(self._reader) if held else 0
        self._held = [self._read_or_none(i, frames) for i in range(count)]
        if not held:
            for position in map(int, np.flatnonzero(self.lengths == 0)):
                self._read_or_none(position, False)  # damaged: count it
        if held and frames == self._with_frames:
            self._reader.close()  # nothing more is read

    def __getstate__(self):
        return {k: v for k, v in vars(self).items() if k != "_held"}

    def __setstate__(self, state):
        vars(self).update(state)
        self._fill()

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, position: int) -> records.ClipRecord:
        """Returns a record, with its frames only if the batches need pixels.

        Raises:
          DamagedRecordError: The record is damaged; it has been counted.
        """
        record = self._held[position] if self._held else None
        if record is not None and (record.frames is not None or not self._with_frames):
            return record
        return self._read(position, self._with_frames)

    def _read(self, position: int, frames: bool) -> records.ClipRecord:
        try:
            return records.with_normalized_pose(self._reader.read(position, frames))
        except records.DamagedRecordError as error:
            self.count_damaged(position, error)
            raise

    def _read_or_none(self, position: int, frames: bool) -> records.ClipRecord | None:
        try:
            return self._read(position, frames)
        except records.DamagedRecordError:
            return None

    def count_damaged(self, position: int, error: records.DamagedRecordError) -> None:
        """Reports a damaged record, once per process.

        Raises:
          UserError: More records are damaged than `max_damaged` allows.
        """
        if position in self._damaged:
            return
        self._damaged.add(position)
        found, allowed = len(self._damaged), max(1, int(self._max_damaged * len(self)))
        if found > allowed or found == len(self):
            raise UserError(
                f"{self.name}: {found} of {len(self)} records are damaged, where "
                f"max_damaged={self._max_damaged:g} allows {allowed}; prepare the data again (the "
                f"last one: {error})"
            ) from error
        _log.warning("%s; left out (%d of at most %d)", error, found, allowed)


class WindowSampler:
    """Makes single samples: dicts of arrays without a batch axis.

    Landmark part: mel (T, 16, 80), pose (T, 74, 2), content (T, 57, 2),
    reference_landmarks (R, 131, 2).

    Image part: target_latent and masked_latent (F, h, w, c) and reference_latent (h, w, c),
    normalized, or target (F, H, W, 3) and reference (H, W, 3) uint8; frame_landmarks (F, 131, 2),
    image_reference_landmarks (131, 2), frame_tick (F,), keep_landmarks, keep_reference.

    Stage `autoencoder`: target (H, W, 3) uint8 and frame_landmarks (131, 2).

    Floats are float32, landmarks are in unit-crop coordinates, and frame_tick counts from the
    window's first tick.
    """

    def __init__(self, data_dir: str | os.PathLike, split: str, options: LoaderOptions):
        self.options = options
        self.store = ClipStore(data_dir, split, options)
        self.cache = None
        if options.has_images and not options.needs_pixels:
            self.cache = latents_lib.LatentCache(options.latents, split)
            if not np.allclose(self.cache.region, options.region):
                raise UserError(
                    f"the latents in {options.latents} show region {self.cache.region} where the "
                    f"config has {tuple(options.region)}; cache them again or set region"
                )
        ticks = self.store.lengths
        least = 0 if options.stage == "autoencoder" else options.window
        self.clips = np.flatnonzero(ticks > least)  # one tick is left for references
        if not len(self.clips):
            raise UserError(
                f"{self.store.name} has no clip longer than the window of {options.window} ticks; "
                "prepare longer clips or shorten the window"
            )
        if short := np.count_nonzero(ticks[ticks > 0] <= least):
            _log.warning(
                "%s: %d of %d clips are too short for windows of %d ticks and are not used",
                self.store.name, short, len(ticks), options.window,
            )  # fmt: skip
        # A clip has one slot per window's length, so every second of footage counts the same.
        slots = np.maximum(1, np.round(ticks[self.clips] / options.window).astype(np.int64))
        self._slot_ends = np.cumsum(slots)

    def __len__(self) -> int:
        """Number of slots, about one per window's length of footage."""
        return int(self._slot_ends[-1])

    def __call__(self, slot: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draws a sample from the clip that a slot belongs to.

        The next clip replaces a damaged one. That depends on the slot alone, so it is the same
        after a resumption and in every process.
        """
        position = self.clips[np.searchsorted(self._slot_ends, slot, "right")]
        for _ in range(20):
            try:
                sample = self._random_sample(int(position), rng)
            except records.DamagedRecordError as error:
                self.store.count_damaged(int(position), error)
                after = np.searchsorted(self.clips, position, "right")
                position = self.clips[after % len(self.clips)]
                continue
            if sample is not None:
                return sample
            position = rng.choice(self.clips)  # a clip whose frames cannot be used (no face)
        raise UserError(
            f"{self.store.name}: 20 clips in a row have no usable image frames; use a latent "
            "cache with a smaller --stride or a longer window"
        )

    def _random_sample(self, position: int, rng: np.random.Generator) -> dict | None:
        options, record = self.options, self.store[position]
        usable = self.usable_frames(position, record)
        if options.stage == "autoencoder":
            return self.image(record, rng.choice(usable)) if len(usable) else None
        starts = windows.possible_starts(record.num_ticks, options.window)
        if options.has_images:
            starts, _ = windows.starts_with_frames(
                record.frame_ticks[usable], starts, options.window, options.reference_margin
            )
            if not len(starts):
                return None
        return self.sample_window(position, record, usable, int(rng.choice(starts)), rng)

    def usable_frames(self, position: int, record: records.ClipRecord) -> np.ndarray:
        """Returns the frames with a face, on the landmark clock and in the latent cache, (n,)."""
        if not self.options.has_images:
            return np.zeros(0, np.int64)
        ticks = record.frame_ticks
        good = record.face_found & (ticks > -1e-3) & (ticks < record.num_ticks - 1 + 1e-3)
        if self.cache is not None:
            cached = np.zeros(len(good), bool)
            cached[self.cache.frames(position, record.clip_id)] = True
            good &= cached
        return np.flatnonzero(good)

    def sample_window(
        self,
        position: int,
        record: records.ClipRecord,
        usable: np.ndarray,
        start: int,
        rng: np.random.Generator | None,
    ) -> dict[str, np.ndarray]:
        """Makes the sample of the window that starts at tick `start`; undistorted without `rng`."""
        sample = {}
        if self.options.has_landmark_part:
            sample |= self._landmark_part(record, start, rng)
        if self.options.has_images:
            sample |= self._image_part(position, record, usable, start, rng)
        return sample

    def _landmark_part(self, record, start: int, rng) -> dict[str, np.ndarray]:
        options, window = self.options, self.options.window
        outside = windows.outside_ticks(record.num_ticks, start, window, options.reference_margin)
        chosen = windows.draw(rng, outside, options.references)
        points = record.landmarks[np.concatenate([np.arange(start, start + window), chosen])]
        span = windows.mel_span(record.mel, start, window)
        if rng is not None:
            span = windows.augment_mel(
                rng,
                span,
                options.audio_gain,
                options.audio_noise,
                options.audio_masks,
                options.audio_warp,
                options.audio_equalizer,
            )
            if not options.has_images:
                jitter = windows.random_similarity(
                    rng, options.geometry_scale, options.geometry_rotation, options.geometry_shift
                )
                points = windows.move_points(points, jitter)
        return {
            "mel": windows.tick_windows(span),
            "pose": points[:window, :NUM_POSE],
            "content": points[:window, NUM_POSE:],
            "reference_landmarks": points[window:],
        }

    def _image_part(self, position, record, usable, start: int, rng) -> dict[str, np.ndarray]:
        options = self.options
        ticks = record.frame_ticks[usable]
        margin = options.reference_margin
        inside, outside = windows.split_frames(ticks, start, options.window, margin)
        if not len(outside):
            inside, outside = windows.split_frames(ticks, start, options.window, 0)
        chosen = np.sort(windows.draw(rng, inside, options.frames))
        reference = windows.draw(rng, outside, 1)
        frames, reference_frame = usable[chosen], usable[reference[0]]
        drawn = 1.0 if rng is None else rng.random()
        sample = {
            "frame_landmarks": record.frame_landmarks[frames],
            "image_reference_landmarks": record.frame_landmarks[reference_frame],
            "frame_tick": np.clip(ticks[chosen] - start, 0, options.window - 1).astype(np.float32),
            "keep_landmarks": np.bool_(drawn >= options.drop_all),
            "keep_reference": np.bool_(drawn >= options.drop_all + options.drop_reference),
        }
        if self.cache is None:
            images = [self._region(record, f) for f in (*frames, reference_frame)]
            return sample | {"target": np.stack(images[:-1]), "reference": images[-1]}
        rows = np.searchsorted(self.cache.frames(position, record.clip_id), frames)
        row = np.searchsorted(self.cache.frames(position, record.clip_id), reference_frame)
        return sample | {
            "target_latent": self.cache.target(position, rows),
            "masked_latent": self.cache.masked(position, rows),
            "reference_latent": self.cache.target(position, row),
        }

    def image(self, record: records.ClipRecord, frame: int) -> dict[str, np.ndarray]:
        """Returns one frame: target (H, W, 3) uint8 and frame_landmarks (131, 2) float32."""
        points = record.frame_landmarks[frame]
        return {"target": self._region(record, frame), "frame_landmarks": points}

    def _region(self, record: records.ClipRecord, frame: int) -> np.ndarray:
        try:
            crop = windows.decode_jpeg(record.frames[frame])
        except (ValueError, OSError) as error:
            raise records.DamagedRecordError(
                f"clip {record.clip_id!r}: frame {frame} cannot be decoded ({error}); prepare the "
                "data again"
            ) from error
        return np.ascontiguousarray(Box(*self.options.region).cut(crop))
