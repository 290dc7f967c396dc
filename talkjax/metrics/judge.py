"""The numbers of one clip in one row of `talkjax.metrics.protocol`."""

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
from talkjax.metrics.videos import Clip, Comparison, Videos

Numbers = dict[str, float | None]
Perceptual = Callable[[np.ndarray, np.ndarray], np.ndarray]
BOXES = {"": MOUTH_REGION, "_crop": FULL}  # of LPIPS and FID, by the metric's ending


@dataclasses.dataclass(frozen=True)
class Instruments:
    """What is measured with, besides FaceMesh; None: not measured.

    Attributes:
      perceptual: LPIPS of two (N, H, W, 3) uint8 arrays.
      embedding: of faces, for CSIM.
      features: of pictures, for FID.
      expert: on lip sync.
    """

    perceptual: Perceptual | None = None
    embedding: identity.FaceEmbedding | None = None
    features: fid.FeatureNet | None = None
    expert: sync.SyncExpert | None = None


@dataclasses.dataclass(frozen=True)
class Judged:
    """One clip in one row.

    Attributes:
      numbers: {metric: value}; None where it is undefined.
      curves: {"opening", "truth"}: (ticks,) each.
      features: {"fid", "fid_crop"}: ((n, D) of the file, (m, D) of the original).
    """

    numbers: Numbers
    curves: dict[str, np.ndarray]
    features: dict[str, tuple[np.ndarray, np.ndarray]]


class Judge:
    """Measures rows of clips."""

    def __init__(self, videos: Videos, instruments: Instruments):
        """Takes the files and what to measure them with."""
        self.videos, self.instruments = videos, instruments
        self._speech = functools.lru_cache(64)(self._embed_speech)
        self._faces = functools.lru_cache(64)(self._embed_faces)

    def row(self, name: str, clip: Clip, partner: Clip | None) -> Judged:
        """One clip in one row.

        Raises:
          UserError: a file cannot be read or made.
        """
        videos = self.videos
        what = videos.compare(name, clip, partner or clip)
        measured, true = videos.measure(what.path), videos.truth(what.truth)
        if name == "wrong_audio" and what.paired:
            # Foreign speech plays from the template's first picture on.
            measured = dataclasses.replace(measured, times=measured.times + true.times[0])
        numbers: Numbers = {"face_found": float(measured.found.mean())}
        opening, truth = measured.opening(), true.opening()
        if name == "silence":
            numbers["silence_leak"] = signals.articulation(opening, truth)
        else:
            numbers |= self._motion(measured, true, what)
            sound = videos.heard(what)
            if self.instruments.expert is not None and sound is not None:
                numbers |= self._sync(measured, what.path, sound)
        if what.paired:
            numbers["lmd"] = signals.lip_distance(measured.aligned(), true.aligned())
            numbers |= self._pictures(measured, true, what)
        features = {}
        if name not in ("wrong_audio", "copy_template"):
            if self.instruments.embedding is not None:
                faces = self._faces(what.path), self._faces(clip.path)
                numbers["csim"] = identity.similarity(*faces)
            if self.instruments.features is not None:
                features = self._features(clip, what.path)
        curves = {"opening": opening, "truth": truth}
        return Judged({k: _clean(v) for k, v in numbers.items()}, curves, features)

    def _motion(self, measured: Measurement, true: Measurement, what: Comparison) -> Numbers:
        opening, truth = measured.opening(), true.opening()
        numbers: Numbers = {
            "opening_correlation": signals.correlation(opening, truth),
            "articulation": signals.articulation(opening, truth),
            "jitter": signals.jitter(measured.aligned(), true.aligned()),
            "opening_lag_ms": signals.best_lag(opening, truth) * 1000 / TICKS_PER_SECOND,
        }
        due = closures.read(what.truth.path)
        if due is not None:
            numbers["closures"] = closures.closed_share(opening, truth, due)
        return numbers

    # ---- sync expert

    def _sync(self, measured: Measurement, path: Path, sound: Path) -> Numbers:
        expert = self.instruments.expert
        lips, seen = self._embed_lips(path, measured)
        scores = expert.score(lips, self._speech(sound), seen)
        return {
            "lse_c": scores.lse_c, "lse_d": scores.lse_d, "av_offset_ms": scores.av_offset_ms
        }  # fmt: skip

    def _embed_speech(self, path: Path) -> np.ndarray:
        return self.instruments.expert.audio(self.videos.wave(path))

    def _embed_lips(self, path: Path, measured: Measurement) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings of the lip windows of a file, (T - 4, D), and which of them are seen."""
        expert, videos = self.instruments.expert, self.videos
        inputs = videos.inputs(path) | {"expert": expert.sha256, "version": sync.VERSION}
        inputs["times"] = float(measured.times[0])

        def make(out: Path) -> None:
            crops, seen = tick_crops(path, measured, expert.crop_size)
            with open(out, "wb") as file:
                np.savez(file, lips=expert.video(crops), seen=sync.seen_windows(seen))

        kept = videos.workspace.get("lips", path.stem, inputs, ".npz", make)
        with np.load(kept, allow_pickle=False) as arrays:
            return arrays["lips"], arrays["seen"]

    # ---- pictures

    def _pictures(self, measured: Measurement, true: Measurement, what: Comparison) -> Numbers:
        pairs = measure.matches(true, measured)
        # What the model was given as its reference image is no test of it, in any row.
        pairs.pop(self.videos.reference(what.truth), None)
        size = self.videos.crop_size
        framed_alike = np.array_equal(measured.size, true.size)
        values: dict[str, list[float]] = {k: [] for k in ("psnr", "psnr_crop", "ssim", "ssim_crop")}
        kept: list[tuple[np.ndarray, np.ndarray]] = []
        stream = measure.paired_frames(what.truth.path, what.path, pairs)
        for count, (number, a, b) in enumerate(stream):
            transform = true.transforms[number]
            own = transform if framed_alike else measured.transforms[pairs[number]]
            if not np.isfinite(own).all():
                continue
            crops = crop.warp_crop(a, transform, size), crop.warp_crop(b, own, size)
            similarity = images.ssim_map(*crops)
            values["psnr"].append(images.masked_psnr(*crops))
            values["psnr_crop"].append(images.psnr(*crops))
            values["ssim"].append(float(MASK.cut(similarity).mean()))
            values["ssim_crop"].append(float(similarity.mean()))
            if self.instruments.perceptual and count % STRIDE == 0:
                kept.append(crops)
        numbers: Numbers = {name: _mean(value) for name, value in values.items()}
        if kept:
            for ending, box in BOXES.items():
                a, b = (np.stack([box.cut(x) for x in side]) for side in zip(*kept, strict=True))
                numbers[f"lpips{ending}"] = _mean(self.instruments.perceptual(a, b))
        return numbers

    def _features(self, clip: Clip, path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The file's features and the original's, for FID."""
        own, original = (self._embed_pictures(p) for p in (path, clip.path))
        return {f"fid{ending}": (own[ending], original[ending]) for ending in BOXES}

    def _embed_pictures(self, path: Path) -> dict[str, np.ndarray]:
        videos, net = self.videos, self.instruments.features
        inputs = videos.inputs(path) | {"net": net.sha256, "crop_size": videos.crop_size}
        inputs["stride"] = STRIDE

        def make(out: Path) -> None:
            measured = videos.measure(path)
            crops = [
                crop.warp_crop(frame.rgb, measured.transforms[i], videos.crop_size)
                for i, frame in enumerate(measure.frames(path, videos.seconds))
                if i % STRIDE == 0 and np.isfinite(measured.transforms[i]).all()
            ]
            stacked = np.stack(crops) if crops else np.zeros((0, *[videos.crop_size] * 2, 3), "u1")
            with open(out, "wb") as file:
                np.savez(file, **{f"of{e}": net(box.cut(stacked)) for e, box in BOXES.items()})

        kept = videos.workspace.get("features", path.stem, inputs, ".npz", make)
        with np.load(kept, allow_pickle=False) as arrays:
            return {ending: arrays[f"of{ending}"] for ending in BOXES}

    # ---- identity

    def _embed_faces(self, path: Path) -> list[np.ndarray]:
        measured = self.videos.measure(path)
        seen = np.flatnonzero(np.isfinite(measured.landmarks).all((1, 2)))
        if not len(seen):
            return []
        chosen = set(seen[np.linspace(0, len(seen) - 1, EMBEDDED).round().astype(int)])
        return [
            self.instruments.embedding(identity.align(frame.rgb, measured.landmarks[number]))
            for number, frame in enumerate(measure.frames(path, self.videos.seconds))
            if number in chosen
        ]


def tick_crops(path: Path, measured: Measurement, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The crops that are shown at 0, 1, ... ticks of 1/25 s.

    Args:
      path: video file.
      measured: of it.
      size: px of a crop.

    Returns:
      (T, size, size, 3) uint8 and (T,) bool; black and False where no face was seen within 40 ms.
    """
    at = np.arange(measured.ticks) / TICKS_PER_SECOND
    nearest = np.abs(measured.times[None] - at[:, None]).argmin(1)
    seen = np.abs(measured.times[nearest] - at) <= 1 / TICKS_PER_SECOND
    seen &= np.isfinite(measured.transforms[nearest]).all((1, 2))
    crops = np.zeros((len(at), size, size, 3), np.uint8)
    wanted: dict[int, list[int]] = {}
    for tick in np.flatnonzero(seen):
        wanted.setdefault(int(nearest[tick]), []).append(int(tick))
    for number, frame in enumerate(measure.frames(path)):
        if number in wanted:
            crops[wanted[number]] = crop.warp_crop(frame.rgb, measured.transforms[number], size)
    return crops, seen


def _mean(values) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _clean(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
