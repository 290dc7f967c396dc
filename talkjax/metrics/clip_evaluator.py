"""Computes the metrics of one clip in one row of `talkjax.metrics.protocol`."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from talkjax.conventions import FULL, MASK, MOUTH_REGION, TICKS_PER_SECOND
from talkjax.media import crop
from talkjax.metrics import closures, fid, identity, images, measure, signals, sync
from talkjax.metrics.measure import Measurement
from talkjax.metrics.protocol import EMBEDDED, STRIDE
from talkjax.metrics.videos import Comparison, EvaluationClip, EvaluationVideos

Numbers = dict[str, float | None]
PerceptualDistance = Callable[[np.ndarray, np.ndarray], np.ndarray]
REGIONS = {"": MOUTH_REGION, "_crop": FULL}  # of LPIPS and FID, by the ending of the metric's name


@dataclasses.dataclass(frozen=True)
class MetricModels:
    """Networks that metrics need besides FaceMesh. Metrics whose network is None are not measured.

    Attributes:
      perceptual: LPIPS of two (N, H, W, 3) uint8 arrays.
      embedding: Face embedding, for CSIM.
      features: Image features, for FID.
      sync_expert: Lip sync scorer, for LSE and the AV offset.
    """

    perceptual: PerceptualDistance | None = None
    embedding: identity.FaceEmbedding | None = None
    features: fid.FeatureNet | None = None
    sync_expert: sync.SyncScorer | None = None


@dataclasses.dataclass(frozen=True)
class ClipScores:
    """The metrics of one clip in one row.

    Attributes:
      numbers: {metric: value}; None where a metric is undefined.
      curves: {"opening", "truth"}: (ticks,) mouth openings.
      features: {"fid", "fid_crop"}: (n, D) features of the file and (m, D) of the original.
    """

    numbers: Numbers
    curves: dict[str, np.ndarray]
    features: dict[str, tuple[np.ndarray, np.ndarray]]


class ClipEvaluator:
    """Computes the metrics of clips, row by row."""

    def __init__(self, videos: EvaluationVideos, models: MetricModels):
        """Takes the files, and the networks to measure them with."""
        self.videos, self.models = videos, models
        self._speech = functools.lru_cache(64)(self._embed_speech)
        self._faces = functools.lru_cache(64)(self._embed_faces)

    def evaluate(
        self, row: str, clip: EvaluationClip, partner: EvaluationClip | None
    ) -> ClipScores:
        """Computes the metrics of one clip in one row.

        Raises:
          UserError: A file cannot be read or made.
        """
        videos = self.videos
        comparison = videos.prepare(row, clip, partner or clip)
        measured = videos.measure(comparison.path)
        truth = videos.measure_original(comparison.truth)
        if row == "wrong_audio" and comparison.paired:
            # The other clip's speech begins with the template's first frame.
            measured = dataclasses.replace(measured, times=measured.times + truth.times[0])
        numbers: Numbers = {"face_found": float(measured.found.mean())}
        opening, true_opening = measured.opening(), truth.opening()
        if row == "silence":
            numbers["silence_leak"] = signals.articulation_ratio(opening, true_opening)
        else:
            numbers |= self._motion_metrics(measured, truth, comparison)
            speech = videos.speech_source(comparison)
            if self.models.sync_expert is not None and speech is not None:
                numbers |= self._sync_metrics(measured, comparison.path, speech)
        if comparison.paired:
            numbers["lmd"] = signals.lip_distance(measured.aligned(), truth.aligned())
            numbers |= self._image_metrics(measured, truth, comparison)
        features = {}
        if row not in ("wrong_audio", "copy_template"):
            if self.models.embedding is not None:
                faces = self._faces(comparison.path), self._faces(clip.path)
                numbers["csim"] = identity.similarity(*faces)
            if self.models.features is not None:
                features = self._paired_features(clip, comparison.path)
        curves = {"opening": opening, "truth": true_opening}
        return ClipScores({k: _finite_or_none(v) for k, v in numbers.items()}, curves, features)

    def _motion_metrics(
        self, measured: Measurement, truth: Measurement, comparison: Comparison
    ) -> Numbers:
        opening, true_opening = measured.opening(), truth.opening()
        lag = signals.find_lag(opening, true_opening)
        numbers: Numbers = {
            "opening_correlation": signals.correlation(opening, true_opening),
            "articulation": signals.articulation_ratio(opening, true_opening),
            "jitter": signals.jitter_ratio(measured.aligned(), truth.aligned()),
            "opening_lag_ms": lag * 1000 / TICKS_PER_SECOND,
        }
        due = closures.read_closures(comparison.truth.path)
        if due is not None:
            numbers["closures"] = closures.closed_share(opening, true_opening, due)
        return numbers

    # ---- lip sync

    def _sync_metrics(self, measured: Measurement, path: Path, speech: Path) -> Numbers:
        lips, visible = self._embed_lips(path, measured)
        scores = self.models.sync_expert.score(lips, self._speech(speech), visible)
        return {
            "lse_c": scores.lse_c, "lse_d": scores.lse_d, "av_offset_ms": scores.av_offset_ms
        }  # fmt: skip

    def _embed_speech(self, path: Path) -> np.ndarray:
        return self.models.sync_expert.embed_audio(self.videos.wave(path))

    def _embed_lips(self, path: Path, measured: Measurement) -> tuple[np.ndarray, np.ndarray]:
        """Returns the embeddings of a file's lip windows, (T - 4, D), and which are visible."""
        scorer, videos = self.models.sync_expert, self.videos
        inputs = videos.cache_key(path) | {"expert": scorer.sha256, "version": sync.VERSION}
        inputs["times"] = float(measured.times[0])

        def make(out: Path) -> None:
            crops, visible = crops_at_ticks(path, measured, scorer.crop_size)
            lips = scorer.embed_video(crops)
            with open(out, "wb") as file:
                np.savez(file, lips=lips, seen=sync.find_visible_windows(visible))

        cached = videos.workspace.get_or_make("lips", path.stem, inputs, ".npz", make)
        with np.load(cached, allow_pickle=False) as arrays:
            return arrays["lips"], arrays["seen"]

    # ---- images

    def _image_metrics(
        self, measured: Measurement, truth: Measurement, comparison: Comparison
    ) -> Numbers:
        pairs = measure.match_frames(truth, measured)
        # The model was given these frames as reference images, so they do not count in any row.
        for number in np.unique(self.videos.reference_frames(comparison.truth)):
            pairs.pop(int(number), None)
        size = self.videos.crop_size
        same_size = np.abs(measured.size - truth.size).max() <= 1  # odd sizes are padded by one
        values: dict[str, list[float]] = {k: [] for k in ("psnr", "psnr_crop", "ssim", "ssim_crop")}
        sampled: list[tuple[np.ndarray, np.ndarray]] = []
        brightness: list[tuple[int, np.ndarray, np.ndarray]] = []
        stream = measure.read_frame_pairs(comparison.truth.path, comparison.path, pairs)
        with contextlib.closing(stream):
            for count, (number, a, b) in enumerate(stream):
                transform = truth.transforms[number]
                own = transform if same_size else measured.transforms[pairs[number]]
                if not np.isfinite(own).all():
                    continue
                crops = crop.warp_crop(a, transform, size), crop.warp_crop(b, own, size)
                similarity = images.ssim_map(*crops)
                values["psnr"].append(images.masked_psnr(*crops))
                values["psnr_crop"].append(images.psnr(*crops))
                values["ssim"].append(float(MASK.cut(similarity).mean()))
                values["ssim_crop"].append(float(similarity.mean()))
                brightness.append((number, *map(images.coarse, crops)))
                if self.models.perceptual and count % STRIDE == 0:
                    sampled.append(crops)
        numbers: Numbers = {name: _mean_or_none(value) for name, value in values.items()}
        if brightness:
            frames, original, made = map(np.stack, zip(*brightness, strict=True))
            numbers["flicker"] = images.flicker_ratio(made, original, frames)
        if sampled:
            for ending, box in REGIONS.items():
                a, b = (np.stack([box.cut(x) for x in side]) for side in zip(*sampled, strict=True))
                numbers[f"lpips{ending}"] = _mean_or_none(self.models.perceptual(a, b))
        return numbers

    def _paired_features(
        self, clip: EvaluationClip, path: Path
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Returns the image features of the file and of the original, for FID."""
        own, original = (self._embed_images(p) for p in (path, clip.path))
        return {f"fid{ending}": (own[ending], original[ending]) for ending in REGIONS}

    def _embed_images(self, path: Path) -> dict[str, np.ndarray]:
        videos, net = self.videos, self.models.features
        inputs = videos.cache_key(path) | {"net": net.sha256, "crop_size": videos.crop_size}
        inputs["stride"] = STRIDE

        def make(out: Path) -> None:
            measured = videos.measure(path)
            with contextlib.closing(measure.read_frames(path, videos.seconds)) as frames:
                crops = [
                    crop.warp_crop(frame.rgb, measured.transforms[i], videos.crop_size)
                    for i, frame in enumerate(frames)
                    if i % STRIDE == 0 and np.isfinite(measured.transforms[i]).all()
                ]
            stacked = np.stack(crops) if crops else np.zeros((0, *[videos.crop_size] * 2, 3), "u1")
            with open(out, "wb") as file:
                np.savez(file, **{f"of{e}": net(box.cut(stacked)) for e, box in REGIONS.items()})

        cached = videos.workspace.get_or_make("features", path.stem, inputs, ".npz", make)
        with np.load(cached, allow_pickle=False) as arrays:
            return {ending: arrays[f"of{ending}"] for ending in REGIONS}

    # ---- identity

    def _embed_faces(self, path: Path) -> list[np.ndarray]:
        measured = self.videos.measure(path)
        visible = np.flatnonzero(np.isfinite(measured.landmarks).all((1, 2)))
        if not len(visible):
            return []
        chosen = set(visible[np.linspace(0, len(visible) - 1, EMBEDDED).round().astype(int)])
        with contextlib.closing(measure.read_frames(path, self.videos.seconds)) as frames:
            return [
                self.models.embedding(identity.align(frame.rgb, measured.landmarks[number]))
                for number, frame in enumerate(frames)
                if number in chosen
            ]


def crops_at_ticks(path: Path, measured: Measurement, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts the crops that are shown at ticks 0, 1, ... of 1/25 s.

    Args:
      path: Video file.
      measured: Measurement of the file.
      size: Side of a crop in pixels.

    Returns:
      (T, size, size, 3) uint8 crops and (T,) bool; black and False where no face was found within
      40 ms.
    """
    times = np.arange(measured.ticks) / TICKS_PER_SECOND
    nearest = np.abs(measured.times[None] - times[:, None]).argmin(1)
    visible = np.abs(measured.times[nearest] - times) <= 1 / TICKS_PER_SECOND
    visible &= np.isfinite(measured.transforms[nearest]).all((1, 2))
    crops = np.zeros((len(times), size, size, 3), np.uint8)
    ticks_of_frame: dict[int, list[int]] = {}
    for tick in np.flatnonzero(visible):
        ticks_of_frame.setdefault(int(nearest[tick]), []).append(int(tick))
    with contextlib.closing(measure.read_frames(path)) as frames:
        for number, frame in enumerate(frames):
            if ticks := ticks_of_frame.get(number):
                crops[ticks] = crop.warp_crop(frame.rgb, measured.transforms[number], size)
    return crops, visible


def _mean_or_none(values) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _finite_or_none(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
