"""Writes the ArrayRecord shards that `records.ShardReader` reads: in order, without TensorFlow.

Which clips lie in which shard follows from the clips alone, so the files are the same bytes whoever
writes them: this process or the workers of a Beam runner (`beam_runner.write_shards`).
"""

import dataclasses
import os
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from talkjax.conventions import NUM_LANDMARKS, NUM_MELS
from talkjax.data import records

SHARD_BYTES = 256 << 20  # about what a shard holds


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file to be, and the `.npz` records that it holds, in order."""

    path: str
    clips: tuple[str, ...]


def features() -> tfds.features.FeaturesDict:
    """The record of `talkjax.data.records.ClipRecord` in TFDS terms.

    Images are encoded JPEG bytes under a Text feature, since TFDS's own Image feature wants
    TensorFlow or one more decoder to check what it is given; `as_data_source` returns bytes.
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
      clips: paths of `.npz` records in the order in which they are to lie in the shards.
      path_of: gives a shard's path from its `shard_index` and the number of all, `num_shards`.
    """
    total = sum(os.path.getsize(path) for path in clips)
    parts = np.array_split(np.array(clips), min(len(clips), -(-total // SHARD_BYTES)))
    return [
        Shard(os.fspath(path_of(shard_index=number, num_shards=len(parts))), tuple(map(str, part)))
        for number, part in enumerate(parts)
    ]


def write(shard: Shard) -> None:
    """Writes one shard; a process killed meanwhile leaves none under its name.

    Raises:
      UserError: a record holds NaN or Inf, or its shapes disagree.
    """
    from array_record.python import array_record_module

    serialize = _serializer()
    temporary = f"{shard.path}.{uuid.uuid4().hex}.tmp"  # a runner may try a shard twice at once
    # Groups of one record, as TFDS writes them: random access reads no more than it wants.
    writer = array_record_module.ArrayRecordWriter(temporary, "group_size:1")
    try:
        for path in shard.clips:
            record = records.check_record(records.load_npz(path))
            example = {key: getattr(record, key) for key in records.ARRAY_KEYS}
            example |= {
                "clip_id": record.clip_id,
                "frames": list(record.frames),
                "source_fps": np.float32(record.source_fps),
            }
            writer.write(serialize(example))
    finally:
        writer.close()
    os.replace(temporary, shard.path)


def _serializer() -> Callable[[dict[str, Any]], bytes]:
    """As TFDS's `serialize_example`, but always with the same bytes.

    TFDS's puts the fields into an order that differs from one process to the next.
    """
    described = features()
    serializer = tfds.core.example_serializer.ExampleSerializer(described.get_serialized_info())

    def serialize(example: dict[str, Any]) -> bytes:
        message = serializer.get_tf_example(described.encode_example(example))
        return message.SerializeToString(deterministic=True)

    return serialize
