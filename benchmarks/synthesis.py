"""Measures the speed of the synthetic corpus, and how well FaceMesh agrees with its ground truth.

    python -m benchmarks.synthesis [--identities=50] [--seconds=2] [--keep=DIR]

Makes one clip of each identity in a single process, detects the faces in the videos and compares
their landmarks with the sidecars. Prints one JSON line.
"""

import collections
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from data_pipelines.synthetic import clip, sidecar
from data_pipelines.synthetic.plan import SPLITS, CorpusSettings, plan_corpus
from talkjax import commands, conventions
from talkjax.media.facemesh import FaceMesh
from talkjax.media.video import VideoReader
from talkjax.metrics import closures, signals


class StageClock:
    """Sums the processor time of each stage over all threads, in seconds."""

    def __init__(self):
        self.seconds = collections.Counter()
        self._last = time.process_time()

    def __call__(self, stage: str) -> None:
        """Ends a stage and starts the next one."""
        now = time.process_time()
        self.seconds[stage] += now - self._last
        self._last = now


def make_clips(folder: str, identities: int, seconds: float, seed: int) -> tuple[list[Path], dict]:
    """Makes the clips; returns their paths and the speed."""
    cv2.setNumThreads(1)
    settings = CorpusSettings(seconds=seconds)
    for split in SPLITS:
        (Path(folder) / split).mkdir(parents=True, exist_ok=True)
    plans = plan_corpus(identities + 1, 1, seed, identities // 5, settings)
    clip.make_clip(plans.pop(0), settings, folder)  # Compiles the rasterizer.
    clock, frames, paths = StageClock(), 0, []
    for p in plans:
        frames += clip.make_clip(p, settings, folder, on_stage=clock)["frames"]
        paths.append(Path(folder) / p.split / f"{p.clip_id}.mp4")
    total = sum(clock.seconds.values())
    return paths, {
        "frames": frames,
        "frames_per_second_and_core": round(frames / total, 1),
        "rendered_per_second_and_core": round(frames / clock.seconds["render"], 1),
        "seconds": {stage: round(value, 1) for stage, value in clock.seconds.items()},
    }


def compare_landmarks(paths: list[Path]) -> dict:
    """Detects the faces and compares them with the ground truth."""
    found, frames, worst = 0, 0, (2.0, "")
    errors, correlations, shares = [], [], []
    with FaceMesh() as mesh:
        for path in paths:
            truth = conventions.select(sidecar.load_truth(path).landmarks)[..., :2]
            mesh.reset()
            seen = np.full(truth.shape, np.nan)
            for frame in VideoReader(path):
                faces = mesh.detect(frame.rgb)
                if len(faces):
                    seen[frame.index] = conventions.select(faces[0])[..., :2]
            good = np.isfinite(seen).all((1, 2))
            found, frames = found + good.sum(), frames + len(good)
            worst = min(worst, (float(good.mean()), path.stem))
            if not good.any():
                continue
            distance = np.linalg.norm(
                signals.select_lips(seen) - signals.select_lips(truth), axis=-1
            )
            errors.append(np.nanmean(distance / conventions.interocular(truth)[:, None]))
            opening, true = conventions.mouth_opening(seen), conventions.mouth_opening(truth)
            correlations.append(signals.correlation(opening, true))
            due = closures.read_closures(path)
            shares.append(closures.closed_share(opening, opening, due))
    return {
        "found": round(float(found / frames), 4),
        "worst_clip": worst,
        "lip_error": round(float(np.mean(errors)), 4),  # In interocular distances.
        "lip_error_95": round(float(np.percentile(errors, 95)), 4),
        "opening_correlation": round(float(np.nanmean(correlations)), 3),
        "closures_seen": round(float(np.nanmean(shares)), 3),
    }


def make_parser() -> commands.Parser:
    """Returns the parser of this command's flags."""
    parser = commands.Parser(__doc__, prog="python -m benchmarks.synthesis")
    add = parser.add_argument
    add(
        "--identities",
        type=commands.bounded(int, 5),
        default=50,
        help="number of clips (default: %(default)s)",
    )
    add(
        "--seconds",
        type=commands.bounded(float, 0.5),
        default=2.0,
        help="approximate duration of a clip (default: %(default)s)",
    )
    add("--seed", type=int, default=0, help="seed of the corpus (default: %(default)s)")
    add("--keep", metavar="DIR", help="folder that keeps the clips (default: they are deleted)")
    return parser


def main(argv: Sequence[str]) -> None:
    """Makes the clips, measures them and prints the result."""
    args = make_parser().parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or temporary
        paths, speed = make_clips(folder, args.identities, args.seconds, args.seed)
        print(json.dumps(speed | compare_landmarks(paths)))


def run() -> None:
    """Runs the command."""
    commands.run(main)


if __name__ == "__main__":
    run()
