"""Measures how well crops follow the head in footage.

    uv run -m benchmarks.placement VIDEO ...

In crops that follow the head, the upper face stands still. What still moves there between frames
0.2 s apart is measured by dense optical flow (DIS), which the crops themselves do not use, and is
told as the distance by which the mouth's place moves, in interocular distances. The row `smoothed`
has crops that are cut by the landmarks' Gaussian average (sigma 0.12 s), `fits` those of every
frame's own landmarks. The flow's own error is about 0.3%.
"""

import sys
from collections import deque

import cv2
import numpy as np

from talkjax import conventions, head_pose
from talkjax.media import crop, detection, head_motion, tracking
from talkjax.media.facemesh import FaceMesh
from talkjax.media.video import VideoReader
from talkjax.smoothing import smooth

SIZE, ROWS = 160, 70  # pixels of the compared crop, and its rows above the mask
APART = 0.2  # seconds
MOUTH = np.array([0.5, 0.69])
MAX_SECONDS = 20.0


def grid() -> np.ndarray:
    """Returns (K, 2) int64 pixels (x, y) on nose, forehead and cheekbones."""
    y, x = np.mgrid[4 : ROWS - 4 : 3, 4 : SIZE - 4 : 3]
    side, down = np.abs(x / SIZE - 0.5), y / SIZE
    nose = (side < 0.09) & (down > 0.18)
    rest = ((side < 0.25) & (down < 0.12)) | ((side > 0.12) & (side < 0.3) & (down > 0.32))
    return np.stack([x[nose | rest], y[nose | rest]], -1)


def mouth_shift(flow: cv2.DISOpticalFlow, before: np.ndarray, after: np.ndarray) -> float:
    """Returns the interocular distances by which the mouth's place moves from crop to crop."""
    points = grid()
    moved = flow.calc(before, after, None)[points[:, 1], points[:, 0]]
    start = (points + 0.5) / SIZE
    motion, _ = head_motion.fit_motion(start, start + moved / SIZE)
    lever = (MOUTH - head_pose.EYE_CENTRE) @ (1, 1j)
    shift = np.exp(motion[0] + 1j * motion[1]) * lever + motion[2] + 1j * motion[3] - lever
    return float(np.abs(shift)) / head_pose.INTEROCULAR


def transforms_by_method(track: tracking.Track, run: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the (n, 2, 3) transforms of a run of frames by each method."""
    mesh, times = track.landmarks[run], track.times[run]
    fits = head_pose.fit_similarity(conventions.select(mesh, conventions.RIGID))
    fits[:, 1] = np.unwrap(fits[:, 1])
    return {
        "smoothed": head_pose.transforms_from_parameters(smooth(fits, times, 0.12)),
        "fits": head_pose.transforms_from_parameters(fits),
        "crop": head_pose.fit_transforms(mesh, times, track.drifts[run]),
    }


def measure(path: str, mesh: FaceMesh) -> dict[str, np.ndarray]:
    """Returns the shifts (n,) of the mouth's place over `APART` seconds by method."""

    def frames():
        for frame in VideoReader(path):
            if frame.time > MAX_SECONDS:
                return
            yield frame

    track = tracking.track_clip(detection.detect_faces(frames(), mesh))
    placed: dict[str, dict[int, np.ndarray]] = {}
    run_of = np.full(len(track.times), -1)
    for number, run in enumerate(track.runs(0.2)):
        run_of[run] = number
        for method, transforms in transforms_by_method(track, run).items():
            placed.setdefault(method, {}).update(zip(run.tolist(), transforms, strict=True))
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    shifts: dict[str, list[float]] = {method: [] for method in placed}
    recent: deque[tuple[int, dict[str, np.ndarray]]] = deque()
    for number, frame in enumerate(frames()):
        if run_of[number] < 0:
            continue
        cut = {
            method: cv2.cvtColor(
                crop.warp_crop(frame.rgb, places[number], SIZE)[:ROWS], cv2.COLOR_RGB2GRAY
            )
            for method, places in placed.items()
        }
        recent.append((number, cut))
        while track.times[number] - track.times[recent[0][0]] > APART + 1e-3:
            recent.popleft()
        old, before = recent[0]
        near = track.times[number] - track.times[old] > 0.75 * APART
        if near and run_of[old] == run_of[number]:
            for method in shifts:
                shifts[method].append(mouth_shift(flow, before[method], cut[method]))
    return {method: np.array(values) for method, values in shifts.items()}


def main(paths: list[str]) -> None:
    """Prints a table."""
    if not paths:
        raise SystemExit(__doc__)
    print(
        "| clip | " + " | ".join(f"{m}: median, 95%" for m in ("smoothed", "fits", "crop")) + " |"
    )
    with FaceMesh(max_faces=1) as mesh:
        for path in paths:
            numbers = [
                f"{np.median(v):.1%}, {np.quantile(v, 0.95):.1%}" if len(v) else "n/a"
                for v in measure(path, mesh).values()
            ]
            print(f"| {path.rsplit('/', 1)[-1]} | " + " | ".join(numbers) + " |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
