"""Writes the ArrayRecord shards that `talkjax.data.storage` describes, without TensorFlow.

The division of clips into shards depends on the clips alone, so the files have the same bytes
whether this process writes them or the workers of a Beam runner (`beam.write_shards`). Who writes a
shard leaves what the index needs to know of its clips in a file beside it, which `collect` reads.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from talkjax import files
from talkjax.conventions import NUM_LANDMARKS, NUM_MELS, NUM_POSE
from talkjax.data import record_files, records, storage, windows
from talkjax.errors import UserError

SHARD_BYTES = 256 << 20  # approximate size of the pictures of a shard


class Source(Protocol):
    """Where records come from. It must be possible to pickle it."""

    def size(self, clip: str) -> int:
        """Returns the approximate size of a record in bytes."""

    def load(self, clip: str) -> records.ClipRecord:
        """Loads a record with its frames; a `DamagedRecordError` leaves it out."""


class NpzSource:
    """Records as extraction writes them: a clip is the path of an `.npz` file."""

    def size(self, clip: str) -> int:
        """Returns the size of the file."""
        return os.path.getsize(clip)

    def load(self, clip: str) -> records.ClipRecord:
        """Reads the file."""
        return records.load_npz(clip)


@dataclasses.dataclass(frozen=True)
class Shard:
    """A shard: its path in the part `clips`, and the clips that go into it, in order."""

    path: str
    clips: tuple[str, ...]
    source: Source

    def path_of(self, part: str) -> pathlib.Path:
        """Returns the path of the shard in a part."""
        path = pathlib.Path(self.path)
        return path if part == "clips" else path.parent / part / path.name

    @property
    def facts(self) -> pathlib.Path:
        """The file that says what the index needs to know of the clips."""
        return self.path_of("clips").with_name(f".{pathlib.Path(self.path).name}.json")


def features(part: str) -> tfds.features.FeaturesDict:
    """Describes a part of `talkjax.data.records.ClipRecord` in the terms of TFDS.

    Images are JPEG bytes under a Text feature, because TFDS's Image feature requires TensorFlow or
    another decoder to check them. `as_data_source` returns bytes.
    """
    tensor = tfds.features.Tensor

    def floats(*tail: int) -> Any:
        return tensor(shape=(None, *tail), dtype=np.float32)

    described = {
        "clips": {
            "source_fps": tfds.features.Scalar(np.float32),
            "landmarks": floats(NUM_LANDMARKS, 2),
            "mel": floats(NUM_MELS),
        },
        "frames": {
            "timestamps": floats(),
            "frame_landmarks": floats(NUM_LANDMARKS, 2),
            "measured_pose": floats(NUM_POSE, 2),
            "transforms": floats(2, 3),
            "face_found": tensor(shape=(None,), dtype=np.bool_),
        },
        "pictures": {"frames": tfds.features.Sequence(tfds.features.Text())},
    }
    return tfds.features.FeaturesDict({"clip_id": tfds.features.Text()} | described[part])


def plan(
    clips: Sequence[str], path_of: Callable[..., str | os.PathLike], source: Source
) -> list[Shard]:
    """Divides the clips of a split among shards.

    Args:
      clips: Clips of the source, in the order that they will have in the shards.
      path_of: Returns a shard's path from its `shard_index` and the number of shards, `num_shards`.
      source: See `Source`.
    """
    total = sum(map(source.size, clips))
    count = min(len(clips), record_files.MOST_FILES, -(-total // SHARD_BYTES))
    parts = np.array_split(np.array(clips), max(1, count))
    return [
        Shard(
            os.fspath(path_of(shard_index=number, num_shards=len(parts))),
            tuple(map(str, part)),
            source,
        )
        for number, part in enumerate(parts)
    ]


def write(shard: Shard) -> None:
    """Writes one shard in all parts, complete or not at all.

    Raises:
      UserError: A record holds NaN or Inf, its shapes disagree, or the shard cannot be written.
    """
    from array_record.python import array_record_module

    facts = []
    with contextlib.ExitStack() as stack:
        serialize, writers = {}, {}
        for part in records.PARTS:
            path = shard.path_of(part)
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = stack.enter_context(files.replacing(path))
            serialize[part] = _serializer(part)
            writers[part] = stack.enter_context(
                contextlib.closing(
                    array_record_module.ArrayRecordWriter(
                        os.fspath(temporary), record_files.WRITER_OPTIONS
                    )
                )
            )
        for clip in shard.clips:
            try:
                record = shard.source.load(clip)
            except records.DamagedRecordError as error:
                logging.warning("%s; left out", error)
                continue
            parts = records.encode_parts(record)
            for part in records.PARTS:
                for values in parts[part]:
                    writers[part].write(serialize[part](values))
            facts.append(_facts_of(record))
    files.write_json(shard.facts, facts)


def _facts_of(record: records.ClipRecord) -> dict[str, Any]:
    ticks = record.frame_ticks
    usable = windows.usable_frames(ticks, record.face_found, record.num_ticks)
    return {
        "clip_id": record.clip_id,
        "ticks": record.num_ticks,
        "half_ticks": windows.half_ticks(ticks).tolist(),
        "usable": usable.astype(int).tolist(),
    }


def write_index(
    folder: str | os.PathLike, plans: dict[str, list[Shard]], index: dict[str, Any]
) -> dict[str, dict[str, list[int]]]:
    """Writes the index of shards that have been written.

    Args:
      folder: Folder of the data set.
      plans: The shards by split.
      index: `fingerprint` and `crop_size` of `storage.read_index`.

    Returns:
      The number of records in each shard, by part and split.
    """
    folder = pathlib.Path(folder)
    lists: dict[str, dict[str, list]] = {
        name: {split: [] for split in plans} for name in ("clips", "ticks", "frames", "usable")
    }
    counts: dict[str, dict[str, list[int]]] = {part: {} for part in records.PARTS}
    for split, shards in plans.items():
        facts = [json.loads(shard.facts.read_text()) for shard in shards]
        clips = [clip for found in facts for clip in found]
        if not clips:
            raise UserError(f"no clip of split {split!r} can be used; prepare the data again")
        lists["clips"][split] = [clip["clip_id"] for clip in clips]
        lists["ticks"][split] = [clip["ticks"] for clip in clips]
        lists["frames"][split] = [len(clip["usable"]) for clip in clips]
        lists["usable"][split] = [sum(clip["usable"]) for clip in clips]
        times = [np.array(clip["half_ticks"], np.int64) for clip in clips]
        usable = [np.array(clip["usable"], bool) for clip in clips]
        storage.write_frame_index(
            folder / f"{split}.frames.npz", np.concatenate(times), np.concatenate(usable)
        )
        for part in ("clips", "frames"):
            counts[part][split] = [len(found) for found in facts]
        counts["pictures"][split] = [
            sum(records.count_groups(len(clip["usable"]), records.GROUP) for clip in found)
            for found in facts
        ]
        for shard in shards:
            shard.facts.unlink()
    version = {"version": records.VERSION, "group": records.GROUP}
    files.write_json(folder / storage.INDEX, version | index | lists)
    return counts


def _serializer(part: str) -> Callable[[dict[str, Any]], bytes]:
    """Returns a deterministic `serialize_example`.

    That of TFDS orders the fields differently from one process to the next.
    """
    described = features(part)
    serializer = tfds.core.example_serializer.ExampleSerializer(described.get_serialized_info())

    def serialize(example: dict[str, Any]) -> bytes:
        message = serializer.get_tf_example(described.encode_example(example))
        return message.SerializeToString(deterministic=True)

    return serialize
