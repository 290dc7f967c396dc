"""Clip records: what one prepared clip holds, and how it is kept on disk.

A record is the unit of everything in this package. Extraction writes it as one `.npz` (no pickle),
the TFDS builder packs it into ArrayRecord shards, and the loader reads those shards back. Shards
hold `tf.train.Example` messages; that format is small enough to be parsed here in a few lines, so
that training needs neither TensorFlow nor TensorFlow Datasets nor protobuf.
"""

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from talkjax import files, head_pose
from talkjax.conventions import MELS_PER_TICK, NUM_LANDMARKS, NUM_MELS, TICKS_PER_SECOND
from talkjax.errors import UserError

# Shapes after the leading, clip-dependent axis; `frames` and `clip_id` are bytes.
_FLOAT_SHAPES = {
    "timestamps": (),
    "frame_landmarks": (NUM_LANDMARKS, 2),
    "transforms": (2, 3),
    "landmarks": (NUM_LANDMARKS, 2),
    "mel": (NUM_MELS,),
}
ARRAY_KEYS = (*_FLOAT_SHAPES, "face_found")


class DamagedRecordError(UserError):
    """A record that cannot be used, named; the loader leaves it out."""


@dataclasses.dataclass(frozen=True)
class ClipRecord:
    """One continuous shot of one face with its speech.

    Attributes:
      clip_id: unique in its data set.
      timestamps: (N,) float32, seconds from the clip's audio zero, one per image frame.
      frame_landmarks: (N, 131, 2) float32, unit-crop coordinates, measured in each frame.
      transforms: (N, 2, 3) float32, frame pixels -> unit-crop coordinates.
      face_found: (N,) bool; False where the landmarks were interpolated.
      landmarks: (T, 131, 2) float32, unit-crop coordinates at ticks k / 25 s.
      mel: (M, 80) float32 log-mel at 100 Hz, M >= 4 T.
      source_fps: frames per second of the source.
      frames: N encoded JPEG crops, or None where they were not read.
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
        """T, the length on the landmark clock."""
        return len(self.landmarks)

    @property
    def num_frames(self) -> int:
        """N, the number of image frames."""
        return len(self.timestamps)

    @property
    def frame_ticks(self) -> np.ndarray:
        """(N,) float64: where each image frame lies on the landmark clock."""
        return self.timestamps.astype(np.float64) * TICKS_PER_SECOND


def with_normalized_pose(record: ClipRecord) -> ClipRecord:
    """The record as the networks may see it: see `talkjax.head_pose.normalize_pose`.

    Shards keep what was measured; measured pose points betray the mouth.
    """
    pose = head_pose.normalize_pose(
        record.frame_landmarks, record.transforms, record.timestamps, record.face_found
    )
    ticks = np.arange(record.num_ticks) / TICKS_PER_SECOND
    # As the ticks' landmarks were made: interpolated linearly between frames.
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
    """Returns the record if its shapes agree and all numbers are finite, else raises UserError."""
    remedy = "prepare this clip again or leave it out"

    def fail(what: str) -> UserError:
        return UserError(f"clip {record.clip_id!r}: {what}; {remedy}")

    for key, tail in _FLOAT_SHAPES.items():
        value = getattr(record, key)
        if value.shape[1:] != tail or value.dtype != np.float32:
            raise fail(f"{key} is {value.dtype}{value.shape}, not float32(n, *{tail})")
        if not np.isfinite(value).all():
            raise fail(f"{key} holds NaN or Inf")
    lengths = {len(record.timestamps), len(record.frame_landmarks), len(record.transforms)}
    lengths |= {len(record.face_found)}
    if record.frames is not None:
        lengths |= {len(record.frames)}
    if len(lengths) != 1:
        raise fail(f"its per-frame arrays have different lengths {sorted(lengths)}")
    if len(record.mel) < MELS_PER_TICK * record.num_ticks:
        raise fail(f"{len(record.mel)} mel frames do not cover {record.num_ticks} ticks")
    return record


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
    """Reads what `save_npz` wrote."""
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


# ---- tf.train.Example on the wire -------------------------------------------------------------
# Example{1: Features{1: repeated entry{1: key, 2: Feature}}}, Feature{1: BytesList | 2: FloatList |
# 3: Int64List}, each list holding its values in field 1 (numbers packed). Only wire type 2 (length
# delimited) occurs. https://protobuf.dev/programming-guides/encoding


def _fields(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yields (field number, payload) of the length-delimited fields of one message."""
    position, end = 0, len(view)
    while position < end:
        tag = view[position]
        if tag & 7 != 2 or tag >= 0x80:
            raise ValueError(f"unexpected wire tag {tag}")
        position += 1
        size = shift = 0
        while True:
            byte = view[position]
            position += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if position + size > end:
            raise ValueError("a field is longer than its message")
        yield tag >> 3, view[position : position + size]
        position += size


def _feature_values(feature: memoryview) -> np.ndarray | tuple[bytes, ...]:
    for kind, values in _fields(feature):
        if kind == 1:
            return tuple(bytes(item) for _, item in _fields(values))
        packed = b"".join(item for _, item in _fields(values))
        if kind == 2:
            return np.frombuffer(packed, "<f4")
        flags = np.frombuffer(packed, np.uint8)
        if flags.size and flags.max() > 1:
            raise ValueError("an integer feature holds more than 0 and 1")
        return flags.astype(bool)
    return np.zeros((0,), np.float32)


def parse_example(raw: bytes, keys: Collection[str]) -> dict[str, Any]:
    """Decodes the named features of a serialised `tf.train.Example`.

    Args:
      raw: the message.
      keys: the features wanted; others are skipped without being copied.

    Returns:
      Flat float32 or bool arrays and tuples of bytes, by feature name.

    Raises:
      ValueError, IndexError: not a message of the expected form.
    """
    out = {}
    for _, features in _fields(memoryview(raw)):
        for _, entry in _fields(features):
            parts = dict(_fields(entry))
            name = bytes(parts[1]).decode()
            if name in keys:
                out[name] = _feature_values(parts[2])
    return out


def decode_record(raw: bytes, with_frames: bool) -> ClipRecord:
    """Parses one shard entry into a checked record (UserError if it cannot be used)."""
    keys = {"clip_id", "source_fps", *ARRAY_KEYS} | ({"frames"} if with_frames else set())
    try:
        values = parse_example(raw, keys)
        shaped = {k: values[k].reshape(-1, *tail) for k, tail in _FLOAT_SHAPES.items()}
        record = ClipRecord(
            clip_id=values["clip_id"][0].decode(),
            source_fps=float(values["source_fps"][0]),
            face_found=values["face_found"],
            frames=values["frames"] if with_frames else None,
            **shaped,
        )
    except (ValueError, IndexError, KeyError) as error:
        raise UserError(f"a shard entry is damaged ({error!r}); prepare the data again") from error
    return check_record(record)


# ---- shards -------------------------------------------------------------------------------------


def find_dataset(data_dir: str | os.PathLike) -> pathlib.Path:
    """Returns the folder with the shards: `data_dir` or its newest `VERSION` or `NAME/VERSION`."""
    root = pathlib.Path(data_dir)
    if (root / "dataset_info.json").is_file():
        return root
    found = [
        path.parent
        for pattern in ("*", "[!.]*/*")
        for path in root.glob(f"{pattern}/dataset_info.json")
        if re.fullmatch(r"\d+\.\d+\.\d+", path.parent.name)
    ]
    if not found:
        raise UserError(
            f"no prepared data in {root}; make it with "
            f"`python -m data_pipelines.prepare --source=VIDEOS --out={root}`"
        )
    names = sorted({folder.parent.name for folder in found})
    if len(names) > 1:
        raise UserError(f"{root} holds {', '.join(names)}; name one of them: {root / names[0]}")
    return max(found, key=lambda folder: [int(n) for n in folder.name.split(".")])


def list_splits(data_dir: str | os.PathLike) -> dict[str, int]:
    """Returns the number of clips of each split."""
    return {name: sum(lengths) for name, lengths in _shard_lengths(data_dir).items()}


def _shard_lengths(data_dir: str | os.PathLike) -> dict[str, list[int]]:
    info = json.loads((find_dataset(data_dir) / "dataset_info.json").read_text())
    return {s["name"]: [int(length) for length in s["shardLengths"]] for s in info["splits"]}


def _open_shards(paths: list[pathlib.Path]) -> Any:
    import grain  # slow to import, and not needed by preparation

    try:
        return grain.sources.ArrayRecordDataSource([os.fspath(path) for path in paths])
    except Exception as error:  # the C++ reader raises bare RuntimeErrors and more
        raise UserError(
            f"cannot read the shard {paths[0]} ({files.one_line(error, 300)}); prepare again"
        ) from error


class ShardReader:
    """Random access to the records of one split. Threads may share it; it can be pickled."""

    def __init__(self, data_dir: str | os.PathLike, split: str):
        self.directory = find_dataset(data_dir)
        self.split = split
        splits = _shard_lengths(self.directory)
        if split not in splits:
            raise UserError(
                f"{self.directory} has no split {split!r}; it has {', '.join(sorted(splits))}"
            )
        self.paths = sorted(self.directory.glob(f"*-{split}.array_record-*-of-*"))
        if not self.paths:
            raise UserError(f"the shards of split {split!r} are missing in {self.directory}")
        try:
            self._source = _open_shards(self.paths)
        except UserError:
            for path in self.paths:  # which one is it?
                _open_shards([path])
            raise
        self._ends = np.cumsum(splits[split])
        if len(self._source) != self._ends[-1]:
            raise UserError(
                f"{self.directory}: {len(self._source)} clips of split {split!r} where "
                f"dataset_info.json says {self._ends[-1]}; prepare again"
            )

    def __len__(self) -> int:
        return len(self._source)

    def read(self, position: int, with_frames: bool = True) -> ClipRecord:
        """Reads record `position` in [0, len); `with_frames=False` leaves the JPEGs out.

        Raises:
          DamagedRecordError: names the file, the place in it, and the clip if that is known.
        """
        try:
            return decode_record(self._source[position], with_frames)
        except (RuntimeError, UserError) as error:  # the C++ reader raises bare RuntimeErrors
            shard = int(np.searchsorted(self._ends, position, "right"))
            row = position - (self._ends[shard - 1] if shard else 0)
            raise DamagedRecordError(
                f"record {row} of {self.paths[shard]}: {files.one_line(error, 300)}"
            ) from error

    def scan(self) -> Iterator[ClipRecord]:
        """Reads all records in order, without their frames."""
        return (self.read(i, with_frames=False) for i in range(len(self)))

    def lengths(self) -> np.ndarray:
        """The ticks of every record, (len,) int64, from `index.json` or by reading all.

        Read, a damaged record has 0.
        """
        path = self.directory / "index.json"
        if path.is_file():
            ticks = json.loads(path.read_text())["ticks"].get(self.split, [])
            if len(ticks) == len(self):
                return np.asarray(ticks, np.int64)
        return np.array([self._num_ticks(position) for position in range(len(self))], np.int64)

    def _num_ticks(self, position: int) -> int:
        try:
            return self.read(position, with_frames=False).num_ticks
        except DamagedRecordError:
            return 0
