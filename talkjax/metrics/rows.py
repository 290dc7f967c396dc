"""The rows of an evaluation and the numbers of one clip in each of them.

Let V_i and A_i be video and audio of test clip i, p its partner (the clip half of the list away),
M(V, A) the model's video of V speaking A, and open(.) the mouth's opening over time, found by
FaceMesh in a decoded file. *Paired* rows are compared with V_i at the same times, frame by frame
and tick by tick; *unpaired* ones share only the clock of their audio with what they are compared
with.

    row             file                                       compared with
    self            M(V_i, A_i)                                V_i, paired
    cross           M(V_i, A_p)                                open(V_p), unpaired
    silence         M(V_i, zeros as long as A_i)               the range of open(V_i)
    ground_truth    V_i, decoded and encoded again             V_i, paired
    round_trip      V_i, its mouth through the autoencoder     V_i, paired
    copy_template   V_i, decoded and encoded again             open(V_p), unpaired
    copy_reference  V_i, the reference frame's mouth in all    V_i, paired
    wrong_audio     M(V_i, A_p)                                V_i, paired

In `self` the template is the answer, so copying it would be perfect and mean nothing. Hence two
baselines: `copy_template` leaves the template's own mouth where `cross` asks for another clip's;
`copy_reference` pastes the mouth of the one frame that the model gets as its reference image, by
the frames' own crop transforms and with the same feathering as generated mouths. That frame is
left out of PSNR, SSIM and LPIPS in every row.

Landmarks are compared in crop coordinates, each file by its own crop transform, so that head
motion is taken out. Pictures are compared in crops cut by the original's transforms, inside of
`talkjax.media.crop.MASK` (LPIPS: `MOUTH_REGION`), wherever a checkpoint's own mask may be.

Closures are those of the speech that is heard (in `cross`, the partner's); the ground truth's share
is what FaceMesh sees of them, those of the `copy_` rows what chance gives.
"""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from talkjax.media import crop
from talkjax.metrics import closures, identity, images, measure, signals
from talkjax.metrics.measure import Measurement
from talkjax.metrics.videos import Clip, Videos

LPIPS_STRIDE = 5  # frames
EMBEDDED = 8  # faces of a video that are embedded

ROWS = {
    "self": "the model, each clip driven by its own audio, against that clip",
    "cross": "the model, each clip driven by its partner's audio; the mouth against the partner's",
    "silence": "the model, each clip driven by digital silence as long as its own audio",
    "ground_truth": "the originals, written by the same encoder; what measuring itself costs",
    "round_trip": "the originals' mouths through the autoencoder; what diffusion can reach at best",
    "copy_template": "no lip sync: each clip as it is, the mouth against its partner's",
    "copy_reference": "no lip motion: the reference frame's mouth pasted into every frame",
    "wrong_audio": "the videos of `cross`, against the clip whose video they were made from",
}
NEEDS_PARTNER = ("cross", "copy_template", "wrong_audio")


@dataclasses.dataclass(frozen=True)
class Metric:
    """How a number is read.

    Attributes:
      title: in the printed table.
      better: "higher", "lower", "one" or "zero": which is best.
      description: what it is.
      digits: printed.
      median: over clips, instead of the mean.
    """

    title: str
    better: str
    description: str
    digits: int = 3
    median: bool = False


METRICS = {
    "opening_correlation": Metric(
        "corr", "higher", "Pearson correlation of the mouth's opening with the truth's, per clip"
    ),
    "articulation": Metric(
        "artic", "one", "range (95th - 5th percentile) of the opening over the truth's"
    ),
    "closures": Metric(
        "closed", "higher",
        "share of p, b, m at which the lips shut: smallest opening within "
        f"{1000 * closures.WINDOW:.0f} ms at most {closures.THRESHOLD:.0%} of the truth's range",
    ),
    "lmd": Metric(
        "LMD", "lower", "mean lip landmark distance, head motion removed, inter-ocular units", 4
    ),
    "jitter": Metric("jitter", "one", "mean |second difference| of the lips over the truth's"),
    "offset": Metric(
        "offset", "zero",
        f"ticks (40 ms) by which the opening is late: best correlation within {signals.MAX_LAG}",
        1, True,
    ),
    "offset_audio": Metric(
        "av-off", "compare",
        "the same against the audio's loudness; the ground truth has a lag of its own", 1, True,
    ),
    "psnr": Metric("PSNR", "higher", "dB inside of the mask, crops, mean over frames", 2),
    "ssim": Metric("SSIM", "higher", "inside of the mask, crops, mean over frames", 4),
    "lpips": Metric(
        "LPIPS", "lower", f"SqueezeNet, mouth region of the crop, every {LPIPS_STRIDE}th frame", 4
    ),
    "csim": Metric(
        "CSIM", "higher",
        f"cosine of face embeddings of {EMBEDDED} frames with those of the template's original", 3,
    ),
    "leak": Metric(
        "leak", "zero", "range of the opening on silent audio over the clip's true range of speech"
    ),
    "leak_std": Metric("leak-sd", "zero", "the same with standard deviations"),
    "face_found": Metric("faces", "one", "share of frames in which FaceMesh finds the face"),
    "fid": Metric("FID", "lower", "Fréchet Inception distance"),
    "lse_c": Metric("LSE-C", "higher", "SyncNet confidence"),
    "lse_d": Metric("LSE-D", "lower", "SyncNet distance"),
}  # fmt: skip

MISSING = {
    "fid": "needs Inception-v3 weights and far more frames than a test split has; not computed",
    "lse_c": "needs SyncNet's weights, which cannot be had here under a usable licence",
    "lse_d": "needs SyncNet's weights, which cannot be had here under a usable licence",
}
_MOTION = (
    "opening_correlation", "articulation", "closures", "jitter", "offset", "offset_audio"
)  # fmt: skip
_PICTURE = ("psnr", "ssim", "lpips")
EXPECTED = {
    "silence": ("leak", "leak_std", "csim", "face_found"),
    "cross": (*_MOTION, "csim", "face_found"),
    "copy_template": (*_MOTION, "csim", "face_found"),
    "wrong_audio": (
        "opening_correlation", "articulation", "lmd", "jitter", "offset", *_PICTURE, "face_found"
    ),
}  # fmt: skip
_PAIRED = (*_MOTION, "lmd", *_PICTURE, "csim", "face_found")

Numbers = dict[str, float | None]
Perceptual = Callable[[np.ndarray, np.ndarray], np.ndarray]


def expected(row: str) -> tuple[str, ...]:
    """The metrics that a row has, in the order of `METRICS`, those that are missing included."""
    own = set(EXPECTED.get(row, _PAIRED)) | set(MISSING)
    return tuple(name for name in METRICS if name in own)


@dataclasses.dataclass(frozen=True)
class Judge:
    """Measures rows of clips.

    Attributes:
      videos: the files.
      perceptual: LPIPS of two (N, H, W, 3) uint8 arrays, or None.
      embedding: face embedding, or None.
    """

    videos: Videos
    perceptual: Perceptual | None = None
    embedding: identity.FaceEmbedding | None = None

    def row(self, name: str, clip: Clip, partner: Clip | None) -> tuple[Numbers, dict]:
        """One clip in one row: (metrics, curves for plots).

        Raises:
          UserError: a file cannot be read or made.
        """
        videos = self.videos
        other = partner or clip
        if name == "self":
            path, truth, speech, paired = videos.generated(clip, clip), clip, clip, True
        elif name == "cross":
            path, truth, speech, paired = videos.generated(clip, other), other, other, False
        elif name == "silence":
            path, truth, speech, paired = videos.generated(clip, clip, True), clip, None, False
        elif name == "wrong_audio":
            path, truth, speech, paired = videos.generated(clip, other), clip, None, True
        elif name == "copy_template":
            path, truth, speech, paired = videos.reencoded(clip), other, other, False
        else:
            make = {
                "ground_truth": videos.reencoded,
                "round_trip": videos.round_trip,
                "copy_reference": videos.copied,
            }[name]
            path, truth, speech, paired = make(clip), clip, clip, True
        measured, true = videos.measure(path), videos.truth(truth)
        if name == "wrong_audio":  # foreign speech plays from the template's first picture on
            measured = dataclasses.replace(measured, times=measured.times + true.times[0])
        numbers = self._motion(measured, true, speech, row=name)
        if paired:
            numbers["lmd"] = signals.lip_distance(measured.aligned(), true.aligned())
            numbers |= self._pictures(truth, path, measured)
        if self.embedding and name != "wrong_audio":
            numbers["csim"] = self._csim(clip, path, measured)
        curves = {"opening": measured.opening(), "truth": true.opening()}
        return {k: _clean(v) for k, v in numbers.items()}, curves

    def _motion(
        self, measured: Measurement, true: Measurement, speech: Clip | None, row: str
    ) -> Numbers:
        opening, truth = measured.opening(), true.opening()
        numbers: Numbers = {"face_found": float(measured.found.mean())}
        if row == "silence":
            return numbers | {
                "leak": signals.articulation(opening, truth),
                "leak_std": signals.ratio(signals.deviation(opening), signals.deviation(truth)),
            }
        numbers |= {
            "opening_correlation": signals.correlation(opening, truth),
            "articulation": signals.articulation(opening, truth),
            "jitter": signals.jitter(measured.aligned(), true.aligned()),
            "offset": signals.best_lag(opening, truth),
        }
        if speech is not None:
            loud = signals.loudness(self.videos.wave(speech.path), len(opening))
            numbers["offset_audio"] = signals.best_lag(opening, loud)
            due = closures.read(speech.path)
            if due is not None:
                numbers["closures"] = closures.closed_share(opening, truth, due)
        return numbers

    def _pictures(self, truth: Clip, path: Path, measured: Measurement) -> Numbers:
        true = self.videos.truth(truth)
        pairs = measure.matches(true, measured)
        # What the model was given as its reference image is no test of it, in any row.
        pairs.pop(self.videos.reference(truth), None)
        size = self.videos.crop_size
        psnr, ssim, regions = [], [], []
        for count, (number, a, b) in enumerate(measure.paired_frames(truth.path, path, pairs)):
            crops = [crop.warp_crop(x, true.transforms[number], size) for x in (a, b)]
            psnr.append(images.masked_psnr(*crops))
            ssim.append(images.masked_ssim(*crops))
            if self.perceptual and count % LPIPS_STRIDE == 0:
                regions.append([crop.MOUTH_REGION.cut(x) for x in crops])
        numbers: Numbers = {"psnr": _mean(psnr), "ssim": _mean(ssim)}
        if self.perceptual:
            stacked = [np.stack(x) for x in zip(*regions, strict=True)]
            numbers["lpips"] = _mean(self.perceptual(*stacked)) if stacked else None
        return numbers

    def _csim(self, clip: Clip, path: Path, measured: Measurement) -> float:
        template = self._embeddings(clip.path, self.videos.truth(clip))
        return identity.similarity(self._embeddings(path, measured), template)

    def _embeddings(self, path: Path, measured: Measurement) -> list[np.ndarray]:
        seen = np.flatnonzero(np.isfinite(measured.landmarks).all((1, 2)))
        if not len(seen):
            return []
        chosen = set(seen[np.linspace(0, len(seen) - 1, EMBEDDED).round().astype(int)])
        return [
            self.embedding(identity.align(frame.rgb, measured.landmarks[number]))
            for number, frame in enumerate(measure.frames(path, self.videos.seconds))
            if number in chosen
        ]


def _mean(values) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _clean(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
