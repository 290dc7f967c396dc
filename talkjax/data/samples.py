"""One training sample: what it holds and how it is drawn from a clip. `loader` makes batches."""

import logging
import os

import numpy as np

from talkjax.conventions import NUM_POSE, Box, mel_windows
from talkjax.data import audio_augmentation, records, sound_offsets, windows
from talkjax.data import latents as latents_lib
from talkjax.data.options import LoaderOptions
from talkjax.data.stored_clips import ShardReader, StoredClip
from talkjax.errors import UserError

_log = logging.getLogger(__name__)


class ClipStore:
    """The clips of one split, as a stage uses them. Threads may share a store.

    Nothing but the index is kept in memory: a sample reads its few records from the files.
    """

    def __init__(self, data_dir: str | os.PathLike, split: str, options: LoaderOptions):
        parts = [
            part
            for part, used in (
                ("clips", options.stage not in ("diffusion", "autoencoder")),
                ("frames", options.has_images),
                ("pictures", options.needs_pixels),
            )
            if used
        ]
        self.reader = ShardReader(data_dir, split, parts)
        self._max_damaged = options.max_damaged
        self._damaged: set[int] = set()
        offsets = options.sound_offsets
        self._offsets = sound_offsets.read_offsets(offsets) if offsets else {}
        self.name = f"{data_dir} ({split})"

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, position: int) -> StoredClip:
        """Returns a clip, of which nothing is read yet."""
        offset = sound_offsets.offset_of(self.reader.clip_ids[position], self._offsets)
        return self.reader.clip(position, offset)

    def count_damaged(self, position: int, error: records.DamagedRecordError) -> None:
        """Reports a damaged record, once per process.

        Raises:
          UserError: More records are damaged than `max_damaged` allows.
        """
        known = position in self._damaged
        self._damaged.add(position)
        found, allowed = len(self._damaged), max(1, int(self._max_damaged * len(self)))
        if found > allowed or found == len(self):
            raise UserError(
                f"{self.name}: {found} of {len(self)} records are damaged, where "
                f"max_damaged={self._max_damaged:g} allows {allowed}; prepare the data again (the "
                f"last one: {error})"
            ) from error
        if not known:
            _log.warning("%s; left out (%d of at most %d)", error, found, allowed)


class WindowSampler:
    """Makes single samples: dicts of arrays without a batch axis.

    Landmark part: mel (past + T + future, 16, 80), pose (T, 74, 2), content (T, 57, 2),
    reference_landmarks (R, 131, 2), reference_mel (R, 16, 80), reference_heard (R,) bool.

    Image part: target_latent and masked_latent (F, h, w, c) and reference_latent (Q, h, w, c),
    normalized, or target (F, H, W, 3) and reference (Q, H, W, 3) uint8, or both without
    masked_latent (`LoaderOptions.pixels`); frame_landmarks (F, 131, 2), image_reference_landmarks
    (Q, 131, 2), frame_tick (F,), keep_landmarks, keep_reference. Q is `image_references`.

    Stage `autoencoder`: target (H, W, 3) uint8 and frame_landmarks (131, 2); with `pixels` also
    reference and image_reference_landmarks.

    Floats are float32, landmarks are in unit-crop coordinates, and frame_tick counts from the
    window's first tick.
    """

    def __init__(self, data_dir: str | os.PathLike, split: str, options: LoaderOptions):
        self.options = options
        self.store = ClipStore(data_dir, split, options)
        self.cache = None
        if options.needs_latents:
            self.cache = latents_lib.LatentCache(options.latents, self.store.reader)
            if not np.allclose(self.cache.region, options.region):
                raise UserError(
                    f"the latents in {options.latents} show region {self.cache.region} where the "
                    f"config has {tuple(options.region)}; cache them again or set region"
                )
        ticks = self.store.reader.ticks
        least = 0 if options.stage == "autoencoder" else options.window
        long = ticks > least  # one tick is left for references
        if not long.any():
            raise UserError(
                f"{self.store.name} has no clip longer than the window of {options.window} ticks; "
                "prepare longer clips or shorten the window"
            )
        seen = self.store.reader.usable > 0 if options.has_images else True
        self.clips = np.flatnonzero(long & seen)
        if not len(self.clips):
            raise UserError(
                f"{self.store.name} has no clip with usable image frames; prepare the data again"
            )
        if short := np.count_nonzero(~long):
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
        usable = self.usable_frames(record)
        if options.stage == "autoencoder":
            return self.image(record, usable, rng.choice(usable), rng) if len(usable) else None
        starts = windows.possible_starts(record.num_ticks, options.window)
        if options.has_images:
            starts, _ = windows.starts_with_frames(
                record.frame_ticks[usable], starts, options.window, options.reference_margin
            )
            if not len(starts):
                return None
        return self.sample_window(record, usable, int(rng.choice(starts)), rng)

    def usable_frames(self, record: StoredClip) -> np.ndarray:
        """Returns the frames with a face, on the landmark clock and in the latent cache, (n,)."""
        if not self.options.has_images:
            return np.zeros(0, np.int64)
        return self.cached_frames(record.usable)

    def cached_frames(self, usable: np.ndarray) -> np.ndarray:
        """Returns those of the usable frames of a clip that have latents, if these are used.

        Args:
          usable: (N,) bool.

        Returns:
          (n,) int64 numbers of frames.
        """
        return np.flatnonzero(usable) if self.cache is None else self.cache.frames(usable)

    def sample_window(
        self,
        record: StoredClip,
        usable: np.ndarray,
        start: int,
        rng: np.random.Generator | None,
    ) -> dict[str, np.ndarray]:
        """Makes the sample of the window that starts at tick `start`; undistorted without `rng`."""
        sample = {}
        if self.options.has_landmark_part:
            sample |= self._landmark_part(record, start, rng)
        if self.options.has_images:
            sample |= self._image_part(record, usable, start, rng)
        return sample

    def _landmark_part(self, record, start: int, rng) -> dict[str, np.ndarray]:
        options, window = self.options, self.options.window
        outside = windows.outside_ticks(record.num_ticks, start, window, options.reference_margin)
        chosen = np.sort(windows.draw(rng, outside, options.references))
        points = record.landmarks[np.arange(start, start + window)]
        faces, at, heard = record.landmarks[chosen], chosen, True
        span = windows.mel_span(record.mel, start, window, options.past, options.future)
        if rng is not None:
            if rng.random() < options.reference_still:
                faces = np.broadcast_to(faces[rng.integers(len(faces))], faces.shape)
                heard = False
            heard = heard and rng.random() >= options.reference_silent
            if rng.random() < options.reference_wrong:
                # Half a clip away, no sound belongs to its face.
                away = rng.uniform(0.3, 0.7) * record.num_ticks
                at = (chosen + int(away)) % record.num_ticks
        sound = mel_windows(record.mel, at)
        if rng is not None:
            amounts = options.audio_amounts
            channel = audio_augmentation.draw_channel(rng, amounts)
            if not options.has_images and rng.random() < options.silence:
                rest = record.landmarks[windows.rest_tick(record.landmarks)]
                points = points.copy()
                points[:, NUM_POSE:] = rest[NUM_POSE:]
                span = audio_augmentation.random_silence(rng, len(span), amounts.noise)
            span = audio_augmentation.mask_moments(rng, channel.apply(span), amounts.masks)
            sound = channel.apply(sound)
            if not options.has_images:
                jitter = windows.random_similarity(
                    rng, options.geometry_scale, options.geometry_rotation, options.geometry_shift
                )
                points = windows.move_points(points, jitter)
                faces = windows.move_points(faces, jitter)
                points, faces = windows.stretch_content(
                    rng, points, faces, options.geometry_content
                )
        # Worker processes pass C-ordered arrays through shared memory, others through a slow pipe.
        span = np.ascontiguousarray(span, np.float32)
        return {
            "mel": windows.tick_windows(span),
            "pose": points[:, :NUM_POSE],
            "content": points[:, NUM_POSE:],
            "reference_landmarks": np.ascontiguousarray(faces),
            "reference_mel": sound,
            "reference_heard": np.full(len(faces), heard),
        }

    def _image_part(self, record, usable, start: int, rng) -> dict[str, np.ndarray]:
        options = self.options
        ticks = record.frame_ticks[usable]
        margin = options.reference_margin
        inside, outside = windows.split_frames(ticks, start, options.window, margin)
        if not len(outside):
            inside, outside = windows.split_frames(ticks, start, options.window, 0)
        chosen = np.sort(windows.draw(rng, inside, options.frames))
        frames = usable[chosen]
        shown = self._reference_frames(record, usable[outside], rng)
        drawn = 1.0 if rng is None else rng.random()
        sample = {
            "frame_landmarks": record.frame_landmarks[frames],
            "image_reference_landmarks": record.frame_landmarks[shown],
            "frame_tick": np.clip(ticks[chosen] - start, 0, options.window - 1).astype(np.float32),
            "keep_landmarks": np.bool_(drawn >= options.drop_all),
            "keep_reference": np.bool_(drawn >= options.drop_all + options.drop_reference),
        }
        if options.needs_pixels:
            sample |= {
                "target": self._regions(record, frames),
                "reference": self._regions(record, shown),
            }
        if self.cache is None:
            return sample
        rows = np.searchsorted(usable, np.concatenate([frames, shown]))  # of those with latents
        whole, masked = self.cache.read(record.position, rows)
        count = len(frames)
        sample |= {"target_latent": whole[:count], "reference_latent": whole[count:]}
        if not options.pixels:
            sample["masked_latent"] = masked[:count]
        return sample

    def _reference_frames(self, record, pool: np.ndarray, rng) -> np.ndarray:
        count, still = self.options.image_references, self.options.reference_still
        chosen = windows.draw_references(rng, pool, record.frame_landmarks[pool], count)
        if count > 1 and rng is not None and rng.random() < still:
            chosen = np.repeat(rng.choice(chosen, 1), count)
        return chosen

    def image(
        self,
        record: StoredClip,
        usable: np.ndarray,
        frame: int,
        rng: np.random.Generator | None,
    ) -> dict[str, np.ndarray]:
        """Returns the sample of stage `autoencoder` that shows a frame of the clip.

        Args:
          record: Record of the clip.
          usable: Frames of the clip that may be references.
          frame: Number of the frame.
          rng: Random numbers, or None.
        """
        sample = {
            "target": self._region(record, frame),
            "frame_landmarks": record.frame_landmarks[frame],
        }
        if self.options.pixels:
            shown = self._reference_frames(record, usable, rng)
            sample |= {
                "reference": self._regions(record, shown),
                "image_reference_landmarks": record.frame_landmarks[shown],
            }
        return sample

    def _region(self, record: StoredClip, frame: int) -> np.ndarray:
        return self._regions(record, np.array([frame]))[0]

    def _regions(self, record: StoredClip, frames: np.ndarray) -> np.ndarray:
        """Decodes the regions of some frames, (n, H, W, 3) uint8."""
        found = {}
        for frame, picture in zip(frames, record.pictures(frames), strict=True):
            if frame in found:
                continue
            try:
                crop = windows.decode_jpeg(picture)
            except (ValueError, OSError) as error:
                raise records.DamagedRecordError(
                    f"clip {record.clip_id!r}: frame {frame} cannot be decoded ({error}); prepare "
                    "the data again"
                ) from error
            found[frame] = Box(*self.options.region).cut(crop)
        return np.stack([found[frame] for frame in frames])
