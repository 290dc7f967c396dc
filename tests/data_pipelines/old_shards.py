"""Shards of version 1, as the first builders wrote them: a record is a whole clip."""

import json

import numpy as np
import tensorflow_datasets as tfds

from talkjax.data import records


def features():
    tensor, text = tfds.features.Tensor, tfds.features.Text
    shapes = {key: (None, *tail) for key, tail in records.FLOAT_SHAPES.items()}
    return tfds.features.FeaturesDict(
        {
            "clip_id": text(),
            "frames": tfds.features.Sequence(text()),
            "face_found": tensor(shape=(None,), dtype=np.bool_),
            "source_fps": tfds.features.Scalar(np.float32),
        }
        | {key: tensor(shape=shape, dtype=np.float32) for key, shape in shapes.items()}
    )


def write_old_shards(root, splits, name="video_folder", shards=1, index=None):
    """Writes {split: [record, ...]} below `root`; returns the folder of the shards."""
    from array_record.python import array_record_module

    described, folder = features(), root / name / "1.0.0"
    serializer = tfds.core.example_serializer.ExampleSerializer(described.get_serialized_info())
    folder.mkdir(parents=True)
    info = {"name": name, "version": "1.0.0", "fileFormat": "array_record", "splits": []}
    for split, clips in splits.items():
        parts = np.array_split(np.arange(len(clips)), shards)
        for number, part in enumerate(parts):
            path = folder / f"{name}-{split}.array_record-{number:05d}-of-{shards:05d}"
            writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
            for row in part:
                values = {key: getattr(clips[row], key) for key in records.ARRAY_KEYS}
                values |= {"clip_id": clips[row].clip_id, "frames": list(clips[row].frames)}
                values["source_fps"] = np.float32(clips[row].source_fps)
                writer.write(serializer.serialize_example(described.encode_example(values)))
            writer.close()
        lengths = [str(len(part)) for part in parts]
        info["splits"].append({"name": split, "shardLengths": lengths, "numBytes": "1"})
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "metadata.json").write_text(json.dumps({"lists_sha256": {"list.txt": "00"}}))
    if index is not None:
        (folder / "index.json").write_text(json.dumps(index))
    return folder
