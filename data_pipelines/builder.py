"""TFDS builders `hdtf`, `voxceleb2` and `video_folder`, which need no TensorFlow.

    import tensorflow_datasets as tfds
    from .builder import Hdtf

    config = tfds.download.DownloadConfig(manual_dir=HDTF)  # downloaded by hand
    Hdtf(data_dir=DATA).download_and_prepare(download_config=config)
    source = tfds.builder("hdtf", data_dir=DATA).as_data_source(split="train")

The preparation is that of `python -m data_pipelines.prepare --dataset=hdtf`. Extracted clips are
cached in DATA/.cache, so an interrupted run can be resumed. Training reads DATA/hdtf.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from talkjax import files
from talkjax.data import records, storage
from talkjax.errors import UserError

from . import datasets, preparation, shards
from .datasets import hdtf, video_folder, voxceleb2

_RECORD = "Clips of one talking face each: landmarks on the landmark clock, log-mels."
_PARTS = {
    "frames": "Landmarks and transforms of the clips' frames, one record a clip.",
    "pictures": f"Aligned crops of the clips' frames, {records.GROUP} a record.",
}


class TalkjaxClips(tfds.core.GeneratorBasedBuilder):
    """Clips of talking faces from existing records.

    Args:
      clips: Clips of `source` by split, in the order that they will have in the shards. Only needed
        to write the data set.
      index: See `preparation.Packing`.
      source: Where the records come from; by default clips are paths of `.npz` files.
      lists: SHA-256 of the data set's published lists, for its metadata.
      beam_options: Pipeline options. If there are any, Apache Beam writes the shards.
      **kwargs: Arguments of any TFDS builder (`data_dir`, ...).
    """

    VERSION = tfds.core.Version(f"{records.VERSION}.0.0")
    name = "talkjax_clips"
    # TFDS's own search for this path imports `importlib_resources`, which it does not install.
    code_path = epath.Path(__file__)
    HOMEPAGE = CITATION = None

    def __init__(
        self,
        *,
        clips: Mapping[str, Sequence[str]] | None = None,
        index: Mapping[str, Any] | None = None,
        source: shards.Source | None = None,
        lists: Mapping[str, str] | None = None,
        beam_options: Sequence[str] = (),
        **kwargs,
    ):
        self._source = source or shards.NpzSource()
        self._packing = preparation.Packing(dict(clips or {}), dict(index or {}))
        self._lists, self._beam_options = dict(lists or {}), beam_options
        kwargs.setdefault("file_format", "array_record")
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        # The loader shuffles; on disk the order of the names is easier to follow.
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{type(self).__doc__.splitlines()[0]}\n\n{_RECORD}",
            features=shards.features("clips"),
            disable_shuffling=True,
            homepage=self.HOMEPAGE,
            citation=self.CITATION,
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager):
        raise NotImplementedError("records are written by _generate_splits")

    _generate_examples = _split_generators

    def _generate_splits(self, dl_manager, download_config) -> list[tfds.core.SplitInfo]:
        """Writes the shards in order.

        TFDS's own writer would sort all records first, and needs TensorFlow for more than 1 GB.
        """
        del dl_manager, download_config
        return self._write(self._packing, self._lists, self._beam_options)

    def _write(
        self, packing: preparation.Packing, lists: Mapping[str, str], beam_options
    ) -> list[tfds.core.SplitInfo]:
        templates = {name: self._get_filename_template(split_name=name) for name in packing.clips}
        plans = {
            name: shards.plan(clips, templates[name].sharded_filepath, self._source)
            for name, clips in packing.clips.items()
        }
        _write_shards([shard for plan in plans.values() for shard in plan], beam_options)
        counts = shards.write_index(self.data_dir, plans, packing.index)
        self.info.metadata["lists_sha256"] = dict(lists)
        splits = {}
        for part in records.PARTS:
            folder = storage.part_folder(epath.Path(self.data_dir), part)
            splits[part] = [
                tfds.core.SplitInfo(
                    name=name,
                    shard_lengths=counts[part][name],
                    num_bytes=sum(os.path.getsize(shard.path_of(part)) for shard in plan),
                    filename_template=templates[name].replace(data_dir=folder),
                )
                for name, plan in plans.items()
            ]
            if part != "clips":
                tfds.folder_dataset.write_metadata(
                    data_dir=folder,
                    features=shards.features(part),
                    split_infos=splits[part],
                    version=self.VERSION,
                    filename_template=next(iter(templates.values())).replace(
                        data_dir=folder, split=None
                    ),
                    check_data=False,  # that would take TensorFlow
                    description=_PARTS[part],
                    disable_shuffling=True,
                )
        return splits["clips"]


def _write_shards(plan: Sequence[shards.Shard], beam_options: Sequence[str]) -> None:
    if beam_options:
        from . import beam

        beam.write_shards(plan, beam_options)
        return
    for shard in plan:
        shards.write(shard)


class _Footage(TalkjaxClips, skip_registration=True):
    """Footage in TFDS's `manual_dir`, which is prepared first unless its clips are given.

    Args:
      settings: Settings of the preparation; `beam_options` may also be in the `DownloadConfig`.
      **kwargs: Arguments of `TalkjaxClips`.
    """

    def __init__(self, *, settings: preparation.PrepareOptions | None = None, **kwargs):
        self._settings = settings or preparation.PrepareOptions()
        super().__init__(**kwargs)

    def _generate_splits(self, dl_manager, download_config) -> list[tfds.core.SplitInfo]:
        if self._packing.clips:
            return super()._generate_splits(dl_manager, download_config)
        try:
            source = os.fspath(dl_manager.manual_dir)
        except AssertionError as error:
            how = " ".join(self.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
            raise UserError(
                f"{self.name}: the manual directory is empty or missing; {how}"
            ) from error
        root, folder = pathlib.Path(self._data_dir_root), pathlib.Path(self.data_dir)
        settings = self._settings
        if download_config.beam_options:
            settings = dataclasses.replace(settings, beam_options=download_config.beam_options)
        catalog = datasets.read_catalog(self.name, source, root, settings.lists_sha256)
        prepared = preparation.run(
            catalog, source, root / ".cache", settings, folder / "manifest.jsonl"
        )
        files.write_json(folder / "summary.json", prepared.summary)
        return self._write(prepared.packing, catalog.lists, settings.beam_options)


class VideoFolder(_Footage):
    """Any folder of videos of talking people."""

    name = "video_folder"
    MANUAL_DOWNLOAD_INSTRUCTIONS = video_folder.HOW_TO_GET


class Hdtf(_Footage):
    """HDTF: about 400 speeches from YouTube in high definition."""

    name = "hdtf"
    MANUAL_DOWNLOAD_INSTRUCTIONS = hdtf.HOW_TO_GET
    HOMEPAGE = hdtf.HOMEPAGE
    CITATION = hdtf.CITATION


class Voxceleb2(_Footage):
    """VoxCeleb2: a million utterances of 6,112 people, cut from interviews."""

    name = "voxceleb2"
    MANUAL_DOWNLOAD_INSTRUCTIONS = voxceleb2.HOW_TO_GET
    HOMEPAGE = voxceleb2.HOMEPAGE
    CITATION = voxceleb2.CITATION


BUILDERS = {cls.name: cls for cls in (VideoFolder, Hdtf, Voxceleb2, TalkjaxClips)}
