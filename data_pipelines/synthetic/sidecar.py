"""Reads and writes the ground truth beside each clip.

    ID.mp4     the clip
    ID.npz     the arrays of `GroundTruth`, without pickle
    ID.json    `GroundTruth.info`, written last, so that it vouches for the other two files

The files depend on the plan alone; they hold no dates, durations or names of machines.
"""

import json
import os
import pathlib
import zipfile
import zlib
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from talkjax import files
from talkjax.errors import UserError

FORMAT = "talkjax-truth"
VERSION = 1
CURVE_RATE = 100.0  # Hz.
POSE_CHANNELS = (
    "yaw", "pitch", "roll", "x", "y", "z", "blink", "brow", "gaze_right", "gaze_down", "breath"
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Ground truth of a clip.

    Attributes:
      times: Times of the frames in seconds, (T,) float64.
      landmarks: FaceMesh points in pixels, where 0 is the frame's edge and z has the scale of x,
        (T, 478, 3) float32.
      curves: Viseme curves at `CURVE_RATE` in the order of `visemes.CHANNELS`, (N, 7) float32.
      poses: Motion of head, eyes and chest, see `POSE_CHANNELS`, in radians and interocular
        distances, (T, 11) float32.
      bilabial: Start and end of the lip closure of each p, b and m in seconds, (n, 2) float64.
      info: Plain data: "plan", "settings", "seconds", "spoken" (the sentences), "phonemes"
        ([symbol, start, end] each), "channels", "look", "shape", "light", "camera",
        "props" and "capture".
    """

    times: np.ndarray
    landmarks: np.ndarray
    curves: np.ndarray
    poses: np.ndarray
    bilabial: np.ndarray
    info: dict[str, Any]


_ARRAYS = tuple(field.name for field in fields(GroundTruth) if field.name != "info")


def sidecar_paths(video: str | os.PathLike) -> tuple[pathlib.Path, pathlib.Path]:
    """Returns the paths of the arrays and of the JSON file beside a clip."""
    video = pathlib.Path(video)
    return video.with_suffix(".npz"), video.with_suffix(".json")


def save_truth(video: str | os.PathLike, truth: GroundTruth) -> None:
    """Writes both files beside a finished clip, each completely or not at all.

    Raises:
      WriteError: A file cannot be written.
    """
    arrays = {name: getattr(truth, name) for name in _ARRAYS}
    # Closures are in both files, so that lip sync can be measured with the small file alone.
    head = {"format": FORMAT, "version": VERSION, "bilabial": truth.bilabial.round(4).tolist()}
    text = json.dumps(head | truth.info, allow_nan=False, ensure_ascii=False, indent=1) + "\n"
    arrays_path, text_path = sidecar_paths(video)
    with files.replacing(arrays_path) as temporary:
        np.savez_compressed(temporary, **arrays)
    files.write_text(text_path, text)


def read_info(video: str | os.PathLike) -> dict[str, Any] | None:
    """Reads the JSON file beside a clip; None if it is missing, damaged or of another version."""
    try:
        info = json.loads(sidecar_paths(video)[1].read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    known = isinstance(info, dict) and info.get("format") == FORMAT
    return info if known and info.get("version") == VERSION else None


def load_truth(video: str | os.PathLike) -> GroundTruth:
    """Reads the ground truth of a clip.

    Raises:
      UserError: A file is missing or damaged.
    """
    remedy = f"the ground truth of {video} is missing or damaged; run synthesize again"
    info = read_info(video)
    if info is None:
        raise UserError(remedy)
    try:
        with np.load(sidecar_paths(video)[0], allow_pickle=False) as arrays:
            return GroundTruth(**{name: arrays[name] for name in _ARRAYS}, info=info)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(remedy) from error


def is_finished(video: str | os.PathLike, plan: dict[str, Any], settings: dict[str, Any]) -> bool:
    """Whether a clip and its ground truth are complete and were made to this plan."""
    info = read_info(video)
    if info is None or not os.path.isfile(video) or not sidecar_paths(video)[0].is_file():
        return False
    return info.get("plan") == plan and info.get("settings") == settings
