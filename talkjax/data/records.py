"""Clip records: what one prepared clip holds, and how its parts are stored.

Extraction writes a record as one `.npz` file (without pickle), and the TFDS builder packs records
into ArrayRecord shards, which `talkjax.data.storage` reads. There a clip has three parts, so that a
sample reads only what it uses:

    clips       one record a clip: what lies on the landmark clock, and the sound
    frames      one record a clip: what lies on the clock of the images, without the images
    pictures    one record for each `GROUP` images of a clip: their JPEGs

Extraction keeps the pose points as they were measured. Shards hold the steady ones that networks
may see (`with_normalized_pose`), and in the part `frames` the measured ones as well, which nothing
here reads.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from talkjax import files, head_pose
from talkjax.conventions import (
    MELS_PER_TICK,
    NUM_LANDMARKS,
    NUM_MELS,
    NUM_POSE,
    TICKS_PER_SECOND,
)
from talkjax.data import examples
from talkjax.errors import UserError

VERSION = 2  # of the records in shards
# Images in a record of the part `pictures`. A sample needs a few frames of a second: smaller groups
# are less to read, larger ones fewer records. The index tells the size, so readers take any.
GROUP = 5

# Shapes after the leading, clip-dependent axis; `frames` and `clip_id` are bytes.
FLOAT_SHAPES = {
    "timestamps": (),
    "frame_landmarks": (NUM_LANDMARKS, 2),
    "transforms": (2, 3),
    "landmarks": (NUM_LANDMARKS, 2),
    "mel": (NUM_MELS,),
}
_LEAVE_OUT = "prepare this clip again or leave it out"
_SPLITS = ("train", "validation", "test")
ARRAY_KEYS = (*FLOAT_SHAPES, "face_found")
_PARTS: dict[str, tuple[str, ...]] = {
    "clips": ("source_fps", "landmarks", "mel"),
    "frames": ("timestamps", "frame_landmarks", "transforms", "face_found"),
}
PARTS = (*_PARTS, "pictures")


class DamagedRecordError(UserError):
    """A record that cannot be used. The message names it, and the loader leaves it out."""


@dataclasses.dataclass(frozen=True)
class ClipRecord:
    """One continuous shot of one face with its speech.

    Attributes:
      clip_id: Id, unique in its data set.
      timestamps: (N,) float32 times of the image frames, in seconds from the start of the audio.
      frame_landmarks: (N, 131, 2) float32 landmarks of each frame, in unit-crop coordinates.
      transforms: (N, 2, 3) float32 transforms from frame pixels to unit-crop coordinates.
      face_found: (N,) bool; False where the landmarks were interpolated.
      landmarks: (T, 131, 2) float32 landmarks at the ticks k / 25 s, in unit-crop coordinates.
      mel: (M, 80) float32 log-mel at 100 Hz, M >= 4 T.
      source_fps: Frame rate of the source.
      frames: N encoded JPEG crops, or None if they were not read.
    """

    clip_id: str
    timestamps: np.ndarray
    frame_landmarks: np.ndarray
    transforms: np.ndarray
    face_found: np.ndarray
    landmarks: np.ndarray
    mel: np.ndarray
    source_fps: float
    frames: tuple[bytes, ...] | None = None

    @property
    def num_ticks(self) -> int:
        """T, the length in ticks of the landmark clock."""
        return len(self.landmarks)

    @property
    def num_frames(self) -> int:
        """N, the number of image frames."""
        return len(self.timestamps)

    @property
    def frame_ticks(self) -> np.ndarray:
        """Times of the image frames in ticks of the landmark clock, (N,) float64."""
        return self.timestamps.astype(np.float64) * TICKS_PER_SECOND


def person_of(clip_id: str) -> str:
    """Returns the person of a clip, by its name.

    It is the folder of the file. In a folder of many people, that is a split's or none, it is the
    file's name without its last part (`test_00003` of `test/test_00003_001.mp4`).
    """
    path = PurePosixPath(clip_id)
    if path.parent.name and path.parent.name not in _SPLITS:
        return path.parent.as_posix()
    return path.stem.rpartition("_")[0] or path.stem


def with_normalized_pose(record: ClipRecord) -> ClipRecord:
    """Replaces the measured pose points by those that the networks may see.

    Measured pose points move with the mouth, so networks get `talkjax.head_pose.normalize_pose`.
    """
    pose = head_pose.normalize_pose(record.frame_landmarks, record.timestamps, record.face_found)
    ticks = np.arange(record.num_ticks) / TICKS_PER_SECOND
    # The ticks' landmarks were interpolated linearly between frames, and so are these.
    right = np.clip(np.searchsorted(record.timestamps, ticks), 1, max(len(pose) - 1, 1))
    right = np.minimum(right, len(pose) - 1)
    left = np.maximum(right - 1, 0)
    span = np.maximum(record.timestamps[right] - record.timestamps[left], 1e-6)
    share = np.clip((ticks - record.timestamps[left]) / span, 0, 1)[:, None, None]
    at_ticks = (pose[left] * (1 - share) + pose[right] * share).astype(np.float32)
    count = pose.shape[1]
    return dataclasses.replace(
        record,
        frame_landmarks=np.concatenate([pose, record.frame_landmarks[:, count:]], 1),
        landmarks=np.concatenate([at_ticks, record.landmarks[:, count:]], 1),
    )


def check_record(record: ClipRecord) -> ClipRecord:
    """Returns the record unchanged.

    Raises:
      UserError: Its shapes disagree, or a number is NaN or infinite.
    """

    def fail(what: str) -> UserError:
        return UserError(f"clip {record.clip_id!r}: {what}; {_LEAVE_OUT}")

    for key, tail in FLOAT_SHAPES.items():
        value = getattr(record, key)
        if value.shape[1:] != tail or value.dtype != np.float32:
            raise fail(f"{key} is {value.dtype}{value.shape}, not float32(n, *{tail})")
    _check_numbers({key: getattr(record, key) for key in FLOAT_SHAPES}, record.clip_id)
    lengths = {len(record.timestamps), len(record.frame_landmarks), len(record.transforms)}
    lengths |= {len(record.face_found)}
    if record.frames is not None:
        lengths |= {len(record.frames)}
    if len(lengths) != 1:
        raise fail(f"its per-frame arrays have different lengths {sorted(lengths)}")
    if len(record.mel) < MELS_PER_TICK * record.num_ticks:
        raise fail(f"{len(record.mel)} mel frames do not cover {record.num_ticks} ticks")
    return record


def _check_numbers(values: Mapping[str, Any], clip_id: str) -> None:
    for key, value in values.items():
        if key in FLOAT_SHAPES and not np.isfinite(value).all():
            raise UserError(f"clip {clip_id!r}: {key} holds NaN or Inf; {_LEAVE_OUT}")


def save_npz(path: str | os.PathLike, record: ClipRecord) -> None:
    """Writes a record with its frames to one `.npz`, atomically and without pickle."""
    if record.frames is None:
        raise ValueError("a record without frames cannot be saved")
    arrays = {key: getattr(record, key) for key in ARRAY_KEYS}
    arrays["frame_sizes"] = np.array([len(frame) for frame in record.frames], np.int64)
    arrays["frame_bytes"] = np.frombuffer(b"".join(record.frames), np.uint8)
    arrays["clip_id"] = np.frombuffer(record.clip_id.encode(), np.uint8)
    arrays["source_fps"] = np.float32(record.source_fps)
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def load_npz(path: str | os.PathLike) -> ClipRecord:
    """Reads a record that `save_npz` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        ends = np.cumsum(arrays["frame_sizes"])
        data = arrays["frame_bytes"].tobytes()
        starts = ends - arrays["frame_sizes"]
        return ClipRecord(
            clip_id=arrays["clip_id"].tobytes().decode(),
            source_fps=float(arrays["source_fps"]),
            frames=tuple(data[a:b] for a, b in zip(starts, ends, strict=True)),
            **{key: arrays[key] for key in ARRAY_KEYS},
        )


# ---- parts of a record in shards -----------------------------------------------------------------


def encode_parts(record: ClipRecord) -> dict[str, list[dict[str, Any]]]:
    """Divides a record among the parts of the shards.

    Args:
      record: A record with its frames, as extraction made it.

    Returns:
      The values of each record, by the name of the part.

    Raises:
      UserError: `check_record` refuses the record, or it has no frames.
    """
    if check_record(record).frames is None:
        raise ValueError("a record without frames cannot be stored")
    steady, name = check_record(with_normalized_pose(record)), {"clip_id": record.clip_id}
    images = list(record.frames or ())
    parts: dict[str, list[dict[str, Any]]] = {
        part: [name | {key: getattr(steady, key) for key in keys}] for part, keys in _PARTS.items()
    }
    parts["clips"][0]["source_fps"] = np.float32(record.source_fps)
    parts["frames"][0]["measured_pose"] = record.frame_landmarks[:, :NUM_POSE]
    starts = range(0, len(images), GROUP)
    parts["pictures"] = [name | {"frames": images[i : i + GROUP]} for i in starts]
    return parts


def decode_part(part: str, raw: bytes, clip_id: str, length: int) -> dict[str, Any]:
    """Parses a record of the part `clips` or `frames`.

    Args:
      part: Name of the part.
      raw: The record.
      clip_id: Id of the clip that it must belong to.
      length: The number of ticks or frames that it must have.

    Returns:
      The part's fields of `ClipRecord`, by name.

    Raises:
      UserError: The record is damaged, belongs to another clip, has another length, or holds NaN
        or Inf.
    """
    values = _parse(raw, _PARTS[part], clip_id)
    try:
        out: dict[str, Any] = {}
        for key in _PARTS[part]:
            value = values[key]
            if key in FLOAT_SHAPES:
                value = value.reshape(-1, *FLOAT_SHAPES[key])
            out[key] = float(value[0]) if key == "source_fps" else value
    except (ValueError, IndexError, KeyError) as error:
        raise _damaged(error) from error
    _check_numbers(out, clip_id)
    mel = out.pop("mel", None)
    lengths = {len(value) for value in out.values() if isinstance(value, np.ndarray)}
    if lengths != {length} or (mel is not None and len(mel) < MELS_PER_TICK * length):
        raise _damaged(f"its lengths {sorted(lengths)} are not {length}")
    return out if mel is None else out | {"mel": mel}


def decode_pictures(raw: bytes, clip_id: str, length: int) -> tuple[bytes, ...]:
    """Parses a record of the part `pictures` into JPEGs; see `decode_part`."""
    found = tuple(_parse(raw, ("frames",), clip_id).get("frames", ()))
    if len(found) != length:
        raise _damaged(f"it has {len(found)} pictures, not {length}")
    return found


def _parse(raw: bytes, keys: Sequence[str], clip_id: str) -> dict[str, Any]:
    try:
        values = examples.parse_example(raw, {"clip_id", *keys})
        found = values["clip_id"][0].decode()
    except (ValueError, IndexError, KeyError) as error:
        raise _damaged(error) from error
    if found != clip_id:
        raise UserError(
            f"it belongs to clip {found!r} where the index says {clip_id!r}; prepare the data again"
        )
    return values


def _damaged(why: Exception | str) -> UserError:
    return UserError(f"a shard entry is damaged ({why!r}); prepare the data again")


def count_groups(frames: np.ndarray | int, group: int) -> Any:
    """Returns how many records of `group` pictures so many frames have, elementwise."""
    return -(-frames // group)
