"""The truth beside each clip: what was drawn and said, exactly.

    ID.mp4     the clip
    ID.npz     arrays, see `Truth`; no pickle
    ID.json    everything else, see `Truth`; written last, so it vouches for the other two

The files depend on the plan alone: no dates, no timings, no machine.
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
CURVE_RATE = 100.0  # Hz
_ARRAYS = ("times", "landmarks", "curves", "poses", "bilabial")
POSE_CHANNELS = (
    "yaw", "pitch", "roll", "x", "y", "z", "blink", "brow", "gaze_right", "gaze_down", "breath"
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known of a clip.

    Attributes:
      times: (T,) float64 seconds of the frames.
      landmarks: (T, 478, 3) float32 FaceMesh points in frame pixels (0 is the frame's edge), z at
        x's scale.
      curves: (N, 7) float32 viseme channels (`visemes.CHANNELS`) at `CURVE_RATE`.
      poses: (T, 11) float32 head, eyes and breath, see `POSE_CHANNELS`; radians and inter-ocular
        units.
      bilabial: (n, 2) float64 seconds: when the lips begin and cease to be shut for each p, b, m.
      info: JSON-able: "plan", "settings", "spoken" (the sentences), "phonemes"
        ([symbol, start, end] each), "look", "shape", "light", "camera", "seconds".
    """

    times: np.ndarray
    landmarks: np.ndarray
    curves: np.ndarray
    poses: np.ndarray
    bilabial: np.ndarray
    info: dict[str, Any]


def paths(video: str | os.PathLike) -> tuple[pathlib.Path, pathlib.Path]:
    """The two files beside a clip: arrays and JSON."""
    video = pathlib.Path(video)
    return video.with_suffix(".npz"), video.with_suffix(".json")


def save(video: str | os.PathLike, truth: Truth) -> None:
    """Writes both files beside a clip that is complete, each whole or not at all."""
    arrays = {name: getattr(truth, name) for name in _ARRAYS}
    # Closures are in both, so that who measures lip sync needs nothing but the small file.
    head = {"format": FORMAT, "version": VERSION, "bilabial": truth.bilabial.round(4).tolist()}
    text = json.dumps(head | truth.info, allow_nan=False, ensure_ascii=False, indent=1) + "\n"
    arrays_path, text_path = paths(video)
    with files.replacing(arrays_path) as temporary:
        np.savez_compressed(temporary, **arrays)
    files.write_text(text_path, text)


def read_info(video: str | os.PathLike) -> dict[str, Any] | None:
    """The JSON file beside a clip, or None if there is none that is whole."""
    try:
        info = json.loads(paths(video)[1].read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    known = isinstance(info, dict) and info.get("format") == FORMAT
    return info if known and info.get("version") == VERSION else None


def load(video: str | os.PathLike) -> Truth:
    """Reads the truth of a clip.

    Raises:
      UserError: it is not there, or damaged.
    """
    info = read_info(video)
    try:
        if info is None:
            raise ValueError("no sidecar")
        with np.load(paths(video)[0], allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in _ARRAYS}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{video}: the truth beside it cannot be read; synthesize it") from error
    assert {f.name for f in fields(Truth)} == {*_ARRAYS, "info"}
    return Truth(**found, info=info)


def is_finished(video: str | os.PathLike, plan: dict[str, Any], settings: dict[str, Any]) -> bool:
    """Whether a clip and its truth are there, made to just this plan."""
    info = read_info(video)
    if info is None or not os.path.isfile(video) or not paths(video)[0].is_file():
        return False
    return info.get("plan") == plan and info.get("settings") == settings
