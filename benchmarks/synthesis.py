"""How fast the synthetic corpus is made, and how well FaceMesh agrees with its truth.

    uv run benchmarks/synthesis.py [--identities=50] [--seconds=2] [--keep=DIR]

Makes one clip of each identity in a single process (one core), decodes the files, finds the faces
in them and compares with the sidecars. Prints one JSON line.
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
from data_pipelines.synthetic.plan import SPLITS, Settings, plan
from talkjax import conventions
from talkjax.media.facemesh import FaceMesh
from talkjax.media.video import VideoReader
from talkjax.metrics import closures, signals


class Clock:
    """Seconds of processor time by stage, all threads together: what one core would need."""

    def __init__(self):
        self.seconds = collections.Counter()
        self._last = time.process_time()

    def __call__(self, stage: str) -> None:
        """Ends a stage."""
        now = time.process_time()
        self.seconds[stage] += now - self._last
        self._last = now


def make(folder: str, identities: int, seconds: float, seed: int) -> tuple[list[Path], dict]:
    """Makes the clips; returns their paths and how long it took."""
    cv2.setNumThreads(1)
    settings = Settings(seconds=seconds)
    for split in SPLITS:
        (Path(folder) / split).mkdir(parents=True, exist_ok=True)
    plans = plan(identities + 1, 1, seed, identities // 5, settings)
    clip.make_clip(plans.pop(0), settings, folder)  # compiles
    clock, frames, paths = Clock(), 0, []
    for p in plans:
        frames += clip.make_clip(p, settings, folder, clock=clock)["frames"]
        paths.append(Path(folder) / p.split / f"{p.clip_id}.mp4")
    total = sum(clock.seconds.values())
    return paths, {
        "frames": frames,
        "frames_per_second_and_core": round(frames / total, 1),
        "rendered_per_second_and_core": round(frames / clock.seconds["render"], 1),
        "seconds": {stage: round(value, 1) for stage, value in clock.seconds.items()},
    }


def compare(paths: list[Path]) -> dict:
    """Finds the faces and compares them with the truth."""
    found, frames, worst = 0, 0, (2.0, "")
    errors, correlations, shares = [], [], []
    with FaceMesh() as mesh:
        for path in paths:
            truth = conventions.select(sidecar.load(path).landmarks)[..., :2]
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
        "lip_error": round(float(np.mean(errors)), 4),  # interocular units
        "lip_error_95": round(float(np.percentile(errors, 95)), 4),
        "opening_correlation": round(float(np.nanmean(correlations)), 3),
        "closures_seen": round(float(np.nanmean(shares)), 3),
    }


def main() -> None:
    """Makes, measures and reports."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--identities", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each clip, about")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", help="folder for the clips; they are deleted otherwise")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = arguments.keep or folder
        paths, speed = make(folder, arguments.identities, arguments.seconds, arguments.seed)
        print(json.dumps(speed | compare(paths)))


if __name__ == "__main__":
    main()
