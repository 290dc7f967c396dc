"""TFDS builder: packs clip records into sharded ArrayRecord files, without TensorFlow.

    from data_pipelines.builder import TalkjaxClips
    TalkjaxClips(data_dir=SHARDS, clips={"train": [npz, ...], "test": [...]}).download_and_prepare()
    source = TalkjaxClips(data_dir=SHARDS).as_data_source(split="train")

Images are stored as encoded JPEG bytes under a Text feature, since TFDS's own Image feature wants
TensorFlow or one more decoder to check what it is given. `as_data_source` therefore returns bytes.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from data_pipelines import records

_DESCRIPTION = "Clips of one talking face each: aligned crops, landmarks on two clocks, log-mel."


SHARD_BYTES = 256 << 20  # about what a shard holds


def features() -> tfds.features.FeaturesDict:
    """The record of `data_pipelines.records.ClipRecord` in TFDS terms."""
    points = (None, records.NUM_LANDMARKS, 2)
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
            "mel": tensor(shape=(None, records.NUM_MELS), dtype=np.float32),
            "source_fps": tfds.features.Scalar(np.float32),
        }
    )


def to_example(path: str | os.PathLike) -> tuple[str, dict[str, Any]]:
    """Loads one cached record as a (key, TFDS example) pair. A top-level function, so Beam maps it.

    Raises:
      UserError: the record holds NaN or Inf, or its shapes disagree.
    """
    record = records.check_record(records.load_npz(path))
    example = {key: getattr(record, key) for key in records.ARRAY_KEYS}
    example |= {
        "clip_id": record.clip_id,
        "frames": list(record.frames),
        "source_fps": np.float32(record.source_fps),
    }
    return record.clip_id, example


class TalkjaxClips(tfds.core.GeneratorBasedBuilder):
    """Clips of talking faces, from the records that `data_pipelines.prepare` extracts.

    Args:
      clips: split name -> paths of `.npz` records, in the order in which they are to lie in the
        shards; only needed to write the data set.
      beam: whether to pack with Apache Beam, whose options go into the `DownloadConfig`. The order
        in the shards is then one of Beam's making.
      **kwargs: as of any TFDS builder (`data_dir`, ...).
    """

    VERSION = tfds.core.Version("1.0.0")
    name = records.DATASET_NAME
    # TFDS's own search for this path imports `importlib_resources`, which it does not install.
    code_path = epath.Path(__file__)

    def __init__(
        self, *, clips: Mapping[str, Sequence[str]] | None = None, beam: bool = False, **kwargs
    ):
        self._clips, self._beam = dict(clips or {}), beam
        kwargs.setdefault("file_format", "array_record")
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        # The loader shuffles; the order on disk stays that of the names, so that it can be read.
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            features=features(),
            disable_shuffling=not self._beam,  # Beam knows integer keys alone in an order
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        del dl_manager  # nothing is downloaded
        return {split: self._generate_examples(paths) for split, paths in self._clips.items()}

    def _generate_splits(self, dl_manager, download_config):
        """Writes the shards; without Beam one record at a time, in the order given.

        TFDS's own writer sorts all records first: in memory up to 1 GB, beyond that through files
        for which it wants TensorFlow.
        """
        if self._beam:
            return super()._generate_splits(dl_manager, download_config)
        return [self._write_split(split, paths) for split, paths in self._clips.items()]

    def _write_split(self, split: str, paths: Sequence[str]) -> tfds.core.SplitInfo:
        from array_record.python import array_record_module

        template = self._get_filename_template(split_name=split)
        total = sum(os.path.getsize(path) for path in paths)
        shards = np.array_split(np.array(paths), min(len(paths), -(-total // SHARD_BYTES)))
        num_bytes = 0
        for number, shard in enumerate(shards):
            path = template.sharded_filepath(shard_index=number, num_shards=len(shards))
            # Groups of one record, as TFDS writes them: random access reads no more than it wants.
            writer = array_record_module.ArrayRecordWriter(os.fspath(path), "group_size:1")
            for clip in shard:
                data = self.info.features.serialize_example(to_example(str(clip))[1])
                writer.write(data)
                num_bytes += len(data)
            writer.close()
        return tfds.core.SplitInfo(
            name=split,
            shard_lengths=[len(shard) for shard in shards],
            num_bytes=num_bytes,
            filename_template=template,
        )

    def _generate_examples(self, paths: Sequence[str]):
        import apache_beam

        return apache_beam.Create(list(paths)) | apache_beam.Map(to_example)
