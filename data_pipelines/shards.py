"""Writes the ArrayRecord shards that `records.ShardReader` reads, in order, without TensorFlow.

The division of clips into shards depends on the clips alone, so the files have the same bytes
whether this process writes them or the workers of a Beam runner (`beam.write_shards`).
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from talkjax import files
from talkjax.conventions import NUM_LANDMARKS, NUM_MELS
from talkjax.data import records

SHARD_BYTES = 256 << 20  # approximate size of a shard


@dataclasses.dataclass(frozen=True)
class Shard:
    """The path of a shard and the `.npz` records that go into it, in order."""

    path: str
    clips: tuple[str, ...]


def features() -> tfds.features.FeaturesDict:
    """Describes `talkjax.data.records.ClipRecord` in the terms of TFDS.

    Images are JPEG bytes under a Text feature, because TFDS's Image feature requires TensorFlow or
    another decoder to check them. `as_data_source` returns bytes.
    """
    points = (None, NUM_LANDMARKS, 2)
    tensor = tfds.features.Tensor
    return tfds.features.FeaturesDict(
        {
            "clip_id": tfds.features.Text(),
            "frames": tfds.features.Sequence(tfds.features.Text()),
            "timestamps": tensor(shape=(None,), dtype=np.float32),
            "frame_landmarks": tensor(shape=points, dtype=np.float32),
            "transforms": tensor(shape=(None, 2, 3), dtype=np.float32),
            "face_found": tensor(shape=(None,), dtype=np.bool_),
            "landmarks": tensor(shape=points, dtype=np.float32),
            "mel": tensor(shape=(None, NUM_MELS), dtype=np.float32),
            "source_fps": tfds.features.Scalar(np.float32),
        }
    )


def plan(clips: Sequence[str], path_of: Callable[..., str | os.PathLike]) -> list[Shard]:
    """Divides the records of a split among shards.

    Args:
      clips: Paths of `.npz` records in the order that they will have in the shards.
      path_of: Returns a shard's path from its `shard_index` and the number of shards, `num_shards`.
    """
    total = sum(os.path.getsize(path) for path in clips)
    parts = np.array_split(np.array(clips), min(len(clips), -(-total // SHARD_BYTES)))
    return [
        Shard(os.fspath(path_of(shard_index=number, num_shards=len(parts))), tuple(map(str, part)))
        for number, part in enumerate(parts)
    ]


def write(shard: Shard) -> None:
    """Writes one shard, complete or not at all.

    Raises:
      UserError: A record holds NaN or Inf, its shapes disagree, or the shard cannot be written.
    """
    from array_record.python import array_record_module

    serialize = _serializer()
    with files.replacing(shard.path) as temporary:
        # Groups of one record, as TFDS writes them, so that random access reads one record only.
        writer = array_record_module.ArrayRecordWriter(os.fspath(temporary), "group_size:1")
        with contextlib.closing(writer):
            for path in shard.clips:
                record = records.check_record(records.load_npz(path))
                example = {key: getattr(record, key) for key in records.ARRAY_KEYS}
                example |= {
                    "clip_id": record.clip_id,
                    "frames": list(record.frames),
                    "source_fps": np.float32(record.source_fps),
                }
                writer.write(serialize(example))


def _serializer() -> Callable[[dict[str, Any]], bytes]:
    """Returns a deterministic `serialize_example`.

    That of TFDS orders the fields differently from one process to the next.
    """
    described = features()
    serializer = tfds.core.example_serializer.ExampleSerializer(described.get_serialized_info())

    def serialize(example: dict[str, Any]) -> bytes:
        message = serializer.get_tf_example(described.encode_example(example))
        return message.SerializeToString(deterministic=True)

    return serialize
