"""Clip records: what one prepared clip holds, and how it is stored.

Extraction writes a record as one `.npz` file (without pickle), the TFDS builder packs records into
ArrayRecord shards, and the loader reads those shards. They may be in a bucket
(`talkjax.data.remote`).
"""

import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from etils import epath

from talkjax import files, head_pose
from talkjax.conventions import MELS_PER_TICK, NUM_LANDMARKS, NUM_MELS, TICKS_PER_SECOND
from talkjax.data import examples, remote
from talkjax.errors import UserError

# Shapes after the leading, clip-dependent axis; `frames` and `clip_id` are bytes.
_FLOAT_SHAPES = {
    "timestamps": (),
    "frame_landmarks": (NUM_LANDMARKS, 2),
    "transforms": (2, 3),
    "landmarks": (NUM_LANDMARKS, 2),
    "mel": (NUM_MELS,),
}
_SPLITS = ("train", "validation", "test")
ARRAY_KEYS = (*_FLOAT_SHAPES, "face_found")


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
    Shards keep what was measured.
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


def decode_record(raw: bytes, with_frames: bool) -> ClipRecord:
    """Parses one shard entry.

    Raises:
      UserError: The entry is damaged, or `check_record` refuses the record.
    """
    keys = {"clip_id", "source_fps", *ARRAY_KEYS} | ({"frames"} if with_frames else set())
    try:
        values = examples.parse_example(raw, keys)
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

_INFO = "dataset_info.json"
_REMEDY = "prepare the data again"


def find_dataset(data_dir: str | os.PathLike) -> epath.Path:
    """Finds the shards: in `data_dir` itself, or in its newest `VERSION` or `NAME/VERSION`.

    Raises:
      UserError: There are no shards, there are several data sets, or the bucket cannot be read.
    """
    root = files.as_path(data_dir)
    with remote.bucket_errors(root):
        if (root / _INFO).exists():
            return root
        found = _find_versions(root)
        for child in _list_folder(root):
            found += [] if child.name.startswith(".") else _find_versions(child)
    if not found:
        raise UserError(
            f"{root} holds no prepared data; make it with "
            f"`python -m data_pipelines.prepare --source=VIDEOS --out={root}`"
        )
    names = sorted({folder.parent.name for folder in found})
    if len(names) > 1:
        raise UserError(
            f"{root} holds {', '.join(names)}; give the folder of one of them, such as "
            f"{root / names[0]}"
        )
    return max(found, key=lambda folder: [int(n) for n in folder.name.split(".")])


def _find_versions(folder: epath.Path) -> list[epath.Path]:
    return [
        child
        for child in _list_folder(folder)
        if re.fullmatch(r"\d+\.\d+\.\d+", child.name) and (child / _INFO).exists()
    ]


def _list_folder(folder: epath.Path) -> list[epath.Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def list_splits(data_dir: str | os.PathLike) -> dict[str, int]:
    """Returns the number of clips of each split."""
    return {name: sum(lengths) for name, lengths in _shard_lengths(data_dir).items()}


def _shard_lengths(data_dir: str | os.PathLike) -> dict[str, list[int]]:
    info = files.read_json_object(find_dataset(data_dir) / _INFO, _REMEDY)
    return {s["name"]: [int(length) for length in s["shardLengths"]] for s in info["splits"]}


def read_index(data_dir: str | os.PathLike) -> dict[str, Any]:
    """Reads `index.json`, which preparation writes beside shards; {} if there is none.

    It holds `crop_size` in pixels (0 for speech without pictures), and by split the `clips` (ids)
    and their `ticks`.
    """
    path = find_dataset(data_dir) / "index.json"
    with remote.bucket_errors(path):
        return files.read_json_object(path, _REMEDY) if path.exists() else {}


def _open_shards(paths: list[epath.Path]) -> Any:
    import grain  # slow to import, and not needed by preparation

    try:
        return grain.sources.ArrayRecordDataSource([os.fspath(path) for path in paths])
    except Exception as error:  # the C++ reader raises bare RuntimeErrors and more
        raise UserError(
            f"the shard {paths[0]} cannot be read ({files.one_line(error, 300)}); {_REMEDY}"
        ) from error


class ShardReader:
    """Random access to the records of one split.

    Threads may share a reader, and it can be pickled. Used in a `with` statement, it closes its
    files at the end; a later `read` opens them again.
    """

    def __init__(self, data_dir: str | os.PathLike, split: str):
        self.directory = find_dataset(data_dir)
        self.split = split
        splits = _shard_lengths(self.directory)
        if split not in splits:
            raise UserError(
                f"{self.directory} has no split {split!r}; it has {', '.join(sorted(splits))}"
            )
        name = re.compile(rf".*-{re.escape(split)}\.array_record-\d+-of-\d+")
        with remote.bucket_errors(self.directory):
            listed = self.directory.iterdir()
            self.paths = sorted(path for path in listed if name.fullmatch(path.name))
        if not self.paths:
            raise UserError(f"the shards of split {split!r} are missing in {self.directory}")
        self._files = remote.local_copies(self.paths)
        try:
            self._source = _open_shards(self._files)
        except UserError:
            for path in self._files:  # name the one that is damaged
                _open_shards([path])
            raise
        self._ends = np.cumsum(splits[split])
        if len(self._source) != self._ends[-1]:
            raise UserError(
                f"{self.directory} has {len(self._source)} clips of split {split!r} where "
                f"{_INFO} says {self._ends[-1]}; {_REMEDY}"
            )

    def __len__(self) -> int:
        return len(self._source)

    def __enter__(self) -> "ShardReader":
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files."""
        self._source.__exit__(None, None, None)

    def num_bytes(self) -> int:
        """Returns the size of the shards."""
        return sum(os.path.getsize(path) for path in self._files)

    def read(self, position: int, with_frames: bool = True) -> ClipRecord:
        """Reads the record at `position` in [0, len); `with_frames=False` leaves the JPEGs out.

        Raises:
          DamagedRecordError: The record cannot be used. The message names the file, the place in
            it, and the clip if its id is known.
        """
        try:
            return decode_record(self._source[position], with_frames)
        except (RuntimeError, UserError) as error:  # the C++ reader raises bare RuntimeErrors
            shard = int(np.searchsorted(self._ends, position, "right"))
            row = position - (self._ends[shard - 1] if shard else 0)
            raise DamagedRecordError(
                f"record {row} of {self.paths[shard]}: {files.one_line(error, 300)}"
            ) from error

    def first_readable(self) -> ClipRecord:
        """Reads the first record that is not damaged.

        Raises:
          DamagedRecordError: All records are damaged.
        """
        for position in range(len(self)):
            try:
                return self.read(position)
            except DamagedRecordError as error:
                last = error
        raise last

    def scan(self) -> Iterator[ClipRecord]:
        """Reads all records in order, without their frames."""
        return (self.read(i, with_frames=False) for i in range(len(self)))

    def lengths(self) -> np.ndarray:
        """Returns the ticks of every record, (len,) int64, from `index.json` or by reading all.

        A damaged record that had to be read has 0.
        """
        ticks = read_index(self.directory).get("ticks", {}).get(self.split, [])
        if len(ticks) == len(self):
            return np.asarray(ticks, np.int64)
        return np.array([self._num_ticks(position) for position in range(len(self))], np.int64)

    def _num_ticks(self, position: int) -> int:
        try:
            return self.read(position, with_frames=False).num_ticks
        except DamagedRecordError:
            return 0
