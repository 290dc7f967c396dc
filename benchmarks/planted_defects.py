"""Tests whether the evaluation detects known defects that are planted into real videos.

  python -m benchmarks.planted_defects --videos=DIR --out=DIR [--clips=8] [--sync_expert=FILE]
    [--lpips=FILE] [--face_embedding=FILE] [--fid=FILE]

Videos with each defect are written as ordinary files with sound and evaluated like any given
videos. A table shows metrics against defects; ! marks a metric that a defect should have changed
but did not. The exit code is 1 if there is one.
"""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from talkjax import commands
from talkjax.conventions import MOUTH_REGION, SAMPLE_RATE
from talkjax.media import audio, composite, crop
from talkjax.media.video import probe
from talkjax.media.video_writer import VideoWriter
from talkjax.metrics import baselines, clips, evaluator, measure
from talkjax.metrics.clip_evaluator import MetricModels
from talkjax.metrics.measure import Measurement, VersionedDetector
from talkjax.metrics.protocol import METRICS
from talkjax.metrics.videos import EvaluationClip

_BOX = MOUTH_REGION
_SIZE = 256  # pixels of the edited crops


@dataclasses.dataclass(frozen=True)
class Source:
    """The video that a defect is planted into.

    Attributes:
      clip: The video.
      other: A video of another person.
      measured: Measurement of the clip.
      frames: Frames of the clip, (H, W, 3) uint8 each.
      other_frames: Frames of the other video.
    """

    clip: EvaluationClip
    other: EvaluationClip
    measured: Measurement
    frames: list[np.ndarray]
    other_frames: list[np.ndarray]


# Frames, and the file with the sound or its samples at 16 kHz.
Planted = tuple[list[np.ndarray], Path | np.ndarray]


def shift(source: Source, count: int) -> Planted:
    """Shows frames `count` frames later (or earlier) with the same sound."""
    last = len(source.frames) - 1
    frames = [source.frames[min(max(i - count, 0), last)] for i in range(last + 1)]
    return frames, source.clip.path


def pad(source: Source, count: int = 2) -> Planted:
    """Inserts `count` frames before video and audio: in sync, but later than the original."""
    wave = audio.load_audio(source.clip.path)
    seconds = count * float(np.median(np.diff(source.measured.times)))
    silence = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    return [source.frames[0]] * count + source.frames, np.concatenate([silence, wave])


def edit_mouths(source: Source, change: Callable[[np.ndarray, int], np.ndarray]) -> Planted:
    """Replaces every mouth region by `change(region, frame number)`."""
    out = []
    for number, rgb in enumerate(source.frames):
        transform = source.measured.transforms[number]
        if np.isfinite(transform).all():
            region = _BOX.cut(crop.warp_crop(rgb, transform, _SIZE))
            rgb = composite.paste(rgb, change(region, number), transform)
        out.append(rgb)
    return out, source.clip.path


def freeze(source: Source) -> Planted:
    """Pastes one frame's mouth into all frames."""
    chosen = int(baselines.choose_reference_frames(source.measured).max())
    image = crop.warp_crop(source.frames[chosen], source.measured.transforms[chosen], _SIZE)
    return edit_mouths(source, lambda *_: _BOX.cut(image))


def blur(source: Source) -> Planted:
    """Blurs mouths by a Gaussian of 4 pixels in a crop of 256."""
    return edit_mouths(source, lambda region, _: cv2.GaussianBlur(region, (0, 0), 4.0))


def tremble(source: Source) -> Planted:
    """Moves mouths at random from frame to frame, by about 2 pixels in a crop of 256."""
    moves = np.random.default_rng(0).normal(0, 2, (len(source.frames), 2))

    def change(region: np.ndarray, number: int) -> np.ndarray:
        matrix = np.concatenate([np.eye(2), moves[number][:, None]], 1)
        size = region.shape[1], region.shape[0]
        return cv2.warpAffine(region, matrix, size, borderMode=cv2.BORDER_REPLICATE)

    return edit_mouths(source, change)


def mumble(source: Source) -> Planted:
    """Averages seven frames around each: the mouth moves less, and is smeared."""
    stack = np.stack(source.frames).astype(np.float32)
    wide = np.concatenate([stack[:1]] * 3 + [stack] + [stack[-1:]] * 3)
    means = [wide[i : i + 7].mean(0) for i in range(len(stack))]
    return [np.round(m).astype(np.uint8) for m in means], source.clip.path


DEFECTS: dict[str, Callable[[Source], Planted]] = {
    "none": lambda source: (source.frames, source.clip.path),
    "2 frames late": lambda source: shift(source, 2),
    "2 frames early": lambda source: shift(source, -2),
    "padded by 2": pad,
    "blurred": blur,
    "frozen": freeze,
    "trembling": tremble,
    "mumbling": mumble,
    "wrong sound": lambda source: (source.frames, source.other.path),
    "somebody else": lambda source: (
        source.other_frames[: len(source.frames)], source.clip.path
    ),
}  # fmt: skip
# Defect -> {metric: check of its value, given the value without a defect}.
Check = Callable[[float, float], bool]


def _near(change: float, tolerance: float) -> Check:
    return lambda value, none: abs(value - none - change) <= tolerance


def _below(factor: float) -> Check:
    return lambda value, none: value < factor * none


def _above(factor: float) -> Check:
    return lambda value, none: value > factor * none


EXPECTED: dict[str, dict[str, Check]] = {
    "2 frames late": {"av_offset_ms": _near(80, 20), "opening_lag_ms": _near(80, 5)},
    "2 frames early": {"av_offset_ms": _near(-80, 20), "opening_lag_ms": _near(-80, 5)},
    "padded by 2": {
        "av_offset_ms": _near(0, 20), "opening_lag_ms": _near(80, 5), "psnr": _below(0.9),
    },
    "blurred": {"psnr": _below(0.9), "ssim": _below(0.98), "lpips": _above(2), "fid": _above(2)},
    "frozen": {
        "articulation": _below(0.3), "opening_correlation": _below(0.5), "lse_c": _below(0.5),
        "lmd": _above(2),
    },
    "trembling": {"jitter": _above(1.5), "psnr": _below(0.9)},
    "mumbling": {"articulation": _below(0.9), "jitter": _below(0.7)},
    "wrong sound": {
        "lse_c": _below(0.6), "lse_d": _above(1.05), "psnr": _near(0, 0.01),
        "opening_correlation": _near(0, 0.001),
    },
    # FID does not change, because the set of all clips' frames stays the same. To a network of real
    # faces, avatars look alike, so their CSIM only falls to 0.7.
    "somebody else": {"csim": _below(0.8), "psnr": _below(0.7)},
}  # fmt: skip


def plant(defect: str, source: Source, out: Path) -> None:
    """Writes a copy of a video with a defect, with sound."""
    frames, sound = DEFECTS[defect](source)
    wav = out.with_suffix(".wav")
    if isinstance(sound, np.ndarray):
        baselines.write_wav(wav, sound)
        sound = wav
    interval = float(np.median(np.diff(source.measured.times)))
    try:
        with VideoWriter.like(out, probe(source.clip.path), audio=sound, crf=12.0) as writer:
            for number, rgb in enumerate(frames):
                writer.write(rgb, number * interval)
    finally:
        wav.unlink(missing_ok=True)


def measure_defects(
    chosen: Sequence[EvaluationClip],
    detector: VersionedDetector,
    out: Path,
    models: MetricModels | None = None,
    defects: Sequence[str] = tuple(DEFECTS),
    settings: evaluator.EvaluationSettings | None = None,
) -> dict[str, dict[str, dict]]:
    """Evaluates videos with defects: {defect: {metric: {"mean", "ci95", "n"}}}."""
    partners = evaluator.assign_partners(chosen)
    files: dict[str, dict[str, Path]] = {defect: {} for defect in defects}
    for clip in chosen:
        other = partners[clip.name]
        frames, others = ([f.rgb for f in measure.read_frames(c.path)] for c in (clip, other))
        source = Source(clip, other, measure.measure_video(clip.path, detector), frames, others)
        for defect in defects:
            path = out / defect.replace(" ", "_") / f"{Path(clip.name).stem}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            plant(defect, source, path)
            files[defect][clip.name] = path
    settings = dataclasses.replace(settings or evaluator.EvaluationSettings(), rows=("model",))
    return {
        defect: evaluator.evaluate_videos(
            made, chosen, detector, out / "work", settings, models
        ).report["rows"]["model"]
        for defect, made in files.items()
    }


def check_expectations(found: dict[str, dict[str, dict]]) -> dict[tuple[str, str], bool]:
    """Returns {(defect, metric): whether it changed as expected} for all measured metrics."""
    return {
        (defect, metric): check(found[defect][metric]["mean"], found["none"][metric]["mean"])
        for defect, checks in EXPECTED.items()
        for metric, check in checks.items()
        if defect in found and metric in found[defect]
    }


def format_table(found: dict[str, dict[str, dict]]) -> str:
    """Formats a Markdown table of metrics by defects; ! marks defects that were not detected."""
    detected = check_expectations(found)
    lines = [["", *found], ["---"] * (1 + len(found))]
    for metric in METRICS:
        if metric not in found["none"]:
            continue
        cells = []
        for defect, metrics in found.items():
            mean = metrics[metric]["mean"]
            text = "n/a" if mean is None else f"{mean:.{METRICS[metric].digits}f}"
            if (defect, metric) in detected:
                text = f"**{text}**" if detected[defect, metric] else f"{text} !"
            cells.append(text)
        lines.append([metric, *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def make_parser() -> commands.Parser:
    """Creates the command line."""
    parser = commands.Parser(__doc__, prog="python -m benchmarks.planted_defects")
    add = parser.add_argument
    add("--videos", required=True, metavar="DIR", help="folder of videos")
    add("--out", required=True, type=Path, metavar="DIR", help="folder for videos with defects")
    add("--clips", type=commands.bounded(int, 2), default=8, metavar="N",
        help="use at most N videos, evenly spread (default: %(default)s)")  # fmt: skip
    for name in ("lpips", "face_embedding", "fid", "sync_expert"):
        add(f"--{name}", metavar="FILE", help=f"--{name} of evaluate.py")
    return parser


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    from talkjax.media.facemesh import FaceMesh
    from talkjax.metrics import fid, identity, lpips, sync

    args = make_parser().parse_args(argv)
    models = MetricModels(
        perceptual=lpips.load_metric(args.lpips) if args.lpips else None,
        embedding=identity.FaceEmbedding(args.face_embedding) if args.face_embedding else None,
        features=fid.FeatureNet.load(args.fid) if args.fid else None,
        sync_expert=sync.SyncScorer.load(args.sync_expert) if args.sync_expert else None,
    )
    chosen = clips.take_evenly(clips.find_clips(args.videos), args.clips)
    with FaceMesh() as detector:
        found = measure_defects(chosen, detector, args.out, models)
    print(format_table(found))
    if not all(check_expectations(found).values()):
        sys.exit(1)


def run() -> None:
    """Runs the command on the program's arguments and exits."""
    commands.run(main)


if __name__ == "__main__":
    run()
