"""Whether the evaluator sees what is wrong: known defects planted into real videos, measured.

    uv run -m benchmarks.planted_defects --videos=DIR --out=DIR [--clips=8] [--sync_expert=FILE]
        [--lpips=FILE] [--face_embedding=FILE] [--fid=FILE]

Every defect is written as ordinary videos with sound and goes through `evaluate.py`'s own code for
given videos. Prints a table, metrics against defects; `!` marks a metric that a defect was to move
and did not. Exit code 1 if there is one.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from talkjax.conventions import MOUTH_REGION, SAMPLE_RATE
from talkjax.media import audio, composite, crop
from talkjax.media.video import probe
from talkjax.media.video_writer import VideoWriter
from talkjax.metrics import baselines, clips, evaluator, measure
from talkjax.metrics.measure import Detector, Measurement
from talkjax.metrics.protocol import METRICS
from talkjax.metrics.videos import Clip

_BOX = MOUTH_REGION
_SIZE = 256  # px of the crops that are spoilt


@dataclasses.dataclass(frozen=True)
class Source:
    """What a defect is planted into.

    Attributes:
      clip: the video.
      other: another one, of somebody else.
      measured: of the clip.
      pictures: its frames, (H, W, 3) uint8 each.
      others: the other one's.
    """

    clip: Clip
    other: Clip
    measured: Measurement
    pictures: list[np.ndarray]
    others: list[np.ndarray]


Planted = tuple[list[np.ndarray], Path | np.ndarray]  # frames; whose sound, or a wave of 16 kHz


def shifted(source: Source, frames: int) -> Planted:
    """The pictures so many frames later (or earlier), under the same sound."""
    last = len(source.pictures) - 1
    return [source.pictures[min(max(i - frames, 0), last)] for i in range(last + 1)], (
        source.clip.path
    )


def padded(source: Source, frames: int = 2) -> Planted:
    """So many frames put before pictures and sound alike: in sync, but not with the original."""
    wave = audio.load_audio(source.clip.path)
    seconds = frames * float(np.median(np.diff(source.measured.times)))
    silence = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    return [source.pictures[0]] * frames + source.pictures, np.concatenate([silence, wave])


def spoilt(source: Source, change: Callable[[np.ndarray, int], np.ndarray]) -> Planted:
    """Every mouth region changed by `change(region, frame number)` and pasted back."""
    out = []
    for number, rgb in enumerate(source.pictures):
        transform = source.measured.transforms[number]
        if np.isfinite(transform).all():
            region = _BOX.cut(crop.warp_crop(rgb, transform, _SIZE))
            rgb = composite.paste(rgb, change(region, number), transform)
        out.append(rgb)
    return out, source.clip.path


def frozen(source: Source) -> Planted:
    """One frame's mouth in all."""
    chosen = baselines.reference_frame(source.measured)
    image = crop.warp_crop(source.pictures[chosen], source.measured.transforms[chosen], _SIZE)
    return spoilt(source, lambda *_: _BOX.cut(image))


def blurred(source: Source) -> Planted:
    """Mouths blurred by a Gaussian of 4 px of a 256-px crop."""
    return spoilt(source, lambda region, _: cv2.GaussianBlur(region, (0, 0), 4.0))


def trembling(source: Source) -> Planted:
    """Mouths moved at random from frame to frame, by some 2 px of a 256-px crop."""
    moves = np.random.default_rng(0).normal(0, 2, (len(source.pictures), 2))

    def change(region: np.ndarray, number: int) -> np.ndarray:
        matrix = np.concatenate([np.eye(2), moves[number][:, None]], 1)
        size = region.shape[1], region.shape[0]
        return cv2.warpAffine(region, matrix, size, borderMode=cv2.BORDER_REPLICATE)

    return spoilt(source, change)


def mumbling(source: Source) -> Planted:
    """Every frame the mean of the seven about it: the mouth moves less, and is smeared."""
    stack = np.stack(source.pictures).astype(np.float32)
    wide = np.concatenate([stack[:1]] * 3 + [stack] + [stack[-1:]] * 3)
    means = [wide[i : i + 7].mean(0) for i in range(len(stack))]
    return [np.round(m).astype(np.uint8) for m in means], source.clip.path


DEFECTS: dict[str, Callable[[Source], Planted]] = {
    "none": lambda source: (source.pictures, source.clip.path),
    "2 frames late": lambda source: shifted(source, 2),
    "2 frames early": lambda source: shifted(source, -2),
    "padded by 2": padded,
    "blurred": blurred,
    "frozen": frozen,
    "trembling": trembling,
    "mumbling": mumbling,
    "wrong sound": lambda source: (source.pictures, source.other.path),
    "somebody else": lambda source: (source.others[: len(source.pictures)], source.clip.path),
}
# Defect -> {metric: whether its value is as it should be, given the value without a defect}.
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
    # Not FID: the set of pictures of all clips together stays the same. Avatars look alike to a
    # network of real faces: their CSIM falls to 0.7.
    "somebody else": {"csim": _below(0.8), "psnr": _below(0.7)},
}  # fmt: skip


def plant(defect: str, source: Source, out: Path) -> None:
    """Writes a spoilt copy of a video, with sound."""
    pictures, sound = DEFECTS[defect](source)
    wav = out.with_suffix(".wav")
    if isinstance(sound, np.ndarray):
        baselines.write_wav(wav, sound)
        sound = wav
    interval = float(np.median(np.diff(source.measured.times)))
    try:
        with VideoWriter.like(out, probe(source.clip.path), audio=sound, crf=12.0) as writer:
            for number, rgb in enumerate(pictures):
                writer.write(rgb, number * interval)
    finally:
        wav.unlink(missing_ok=True)


def measure_defects(
    chosen: Sequence[Clip],
    detector: Detector,
    out: Path,
    instruments: Any = None,
    defects: Sequence[str] = tuple(DEFECTS),
    settings: evaluator.Settings | None = None,
) -> dict[str, dict[str, dict]]:
    """{defect: {metric: {"mean", "ci95", "n"}}} of the planted videos of some clips."""
    partners = evaluator.partner_of(chosen)
    files: dict[str, dict[str, Path]] = {defect: {} for defect in defects}
    for clip in chosen:
        other = partners[clip.name]
        pictures, others = ([f.rgb for f in measure.frames(c.path)] for c in (clip, other))
        source = Source(clip, other, measure.measure(clip.path, detector), pictures, others)
        for defect in defects:
            path = out / defect.replace(" ", "_") / f"{Path(clip.name).stem}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            plant(defect, source, path)
            files[defect][clip.name] = path
    settings = dataclasses.replace(settings or evaluator.Settings(), rows=("model",))
    return {
        defect: evaluator.evaluate_given(
            made, chosen, detector, out / "work", settings, instruments
        ).report["rows"]["model"]
        for defect, made in files.items()
    }


def verdicts(found: dict[str, dict[str, dict]]) -> dict[tuple[str, str], bool]:
    """{(defect, metric): whether it moved as expected}, of the metrics that were measured."""
    return {
        (defect, metric): check(found[defect][metric]["mean"], found["none"][metric]["mean"])
        for defect, checks in EXPECTED.items()
        for metric, check in checks.items()
        if defect in found and metric in found[defect]
    }


def table(found: dict[str, dict[str, dict]]) -> str:
    """Markdown: metrics down, defects across; ! where a defect was not seen."""
    seen = verdicts(found)
    lines = [["", *found], ["---"] * (1 + len(found))]
    for metric in METRICS:
        if metric not in found["none"]:
            continue
        cells = []
        for defect, metrics in found.items():
            mean = metrics[metric]["mean"]
            text = "n/a" if mean is None else f"{mean:.{METRICS[metric].digits}f}"
            if (defect, metric) in seen:
                text = f"**{text}**" if seen[defect, metric] else f"{text} !"
            cells.append(text)
        lines.append([metric, *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> int:
    """Plants, measures, prints."""
    from talkjax.media.facemesh import FaceMesh
    from talkjax.metrics import fid, identity, judge, lpips, sync

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", required=True)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--clips", type=int, default=8)
    for name in ("lpips", "face_embedding", "fid", "sync_expert"):
        parser.add_argument(f"--{name}")
    args = parser.parse_args()
    tools = judge.Instruments(
        perceptual=lpips.metric(args.lpips) if args.lpips else None,
        embedding=identity.FaceEmbedding(args.face_embedding) if args.face_embedding else None,
        features=fid.FeatureNet.load(args.fid) if args.fid else None,
        expert=sync.SyncExpert.load(args.sync_expert) if args.sync_expert else None,
    )
    chosen = clips.evenly(clips.in_folder(args.videos), args.clips)
    with FaceMesh() as detector:
        found = measure_defects(chosen, detector, args.out, tools)
    print(table(found))
    return int(not all(verdicts(found).values()))


if __name__ == "__main__":
    sys.exit(main())
