"""Measures the speed of the synthetic corpus, and how well FaceMesh agrees with its ground truth.

    uv run benchmarks/synthesis.py [--identities=50] [--seconds=2] [--keep=DIR]

Makes one clip of each identity in a single process, detects the faces in the videos and compares
their landmarks with the sidecars. Prints one JSON line.
"""

import argparse
import collections
import json
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from data_pipelines.synthetic import clip, sidecar
from data_pipelines.synthetic.plan import SPLITS, CorpusSettings, plan_corpus
from talkjax import conventions
from talkjax.media.facemesh import FaceMesh
from talkjax.media.video import VideoReader
from talkjax.metrics import closures, signals


class Clock:
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
    clock, frames, paths = Clock(), 0, []
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


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--identities", type=int, default=50, help="number of clips")
    parser.add_argument("--seconds", type=float, default=2.0, help="approximate clip duration")
    parser.add_argument("--seed", type=int, default=0, help="seed of the corpus")
    parser.add_argument("--keep", help="folder that keeps the clips; they are deleted otherwise")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = arguments.keep or folder
        paths, speed = make_clips(folder, arguments.identities, arguments.seconds, arguments.seed)
        print(json.dumps(speed | compare_landmarks(paths)))


if __name__ == "__main__":
    main()
