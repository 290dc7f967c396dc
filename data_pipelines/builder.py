"""TFDS builders `hdtf`, `voxceleb2` and `video_folder`; they need no TensorFlow.

    import tensorflow_datasets as tfds
    from data_pipelines.builder import Hdtf

    config = tfds.download.DownloadConfig(manual_dir=HDTF)  # what was downloaded by hand
    Hdtf(data_dir=DATA).download_and_prepare(download_config=config)
    source = tfds.builder("hdtf", data_dir=DATA).as_data_source(split="train")

It is the same preparation as that of `python -m data_pipelines.prepare --dataset=hdtf`; extracted
clips are cached in DATA/.cache, so a run that was stopped goes on. Training reads DATA/hdtf.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from talkjax import files
from talkjax.errors import UserError

from . import datasets, preparation, shards
from .datasets import hdtf, video_folder, voxceleb2

_RECORD = "Clips of one talking face each: aligned crops, landmarks on two clocks, log-mel."


class TalkjaxClips(tfds.core.GeneratorBasedBuilder):
    """Clips of talking faces from records that exist already.

    Args:
      clips: split name -> paths of `.npz` records, in the order in which they are to lie in the
        shards; only needed to write the data set.
      index: the contents of `index.json`, see `preparation.Packing`.
      lists: SHA-256 of the data set's published lists, for its metadata.
      beam_options: if there are any, Apache Beam writes the shards.
      **kwargs: as of any TFDS builder (`data_dir`, ...).
    """

    VERSION = tfds.core.Version("1.0.0")
    name = "talkjax_clips"
    # TFDS's own search for this path imports `importlib_resources`, which it does not install.
    code_path = epath.Path(__file__)
    HOMEPAGE = CITATION = None

    def __init__(
        self,
        *,
        clips: Mapping[str, Sequence[str]] | None = None,
        index: Mapping[str, Any] | None = None,
        lists: Mapping[str, str] | None = None,
        beam_options: Sequence[str] = (),
        **kwargs,
    ):
        self._packing = preparation.Packing(dict(clips or {}), dict(index or {}))
        self._lists, self._beam_options = dict(lists or {}), beam_options
        kwargs.setdefault("file_format", "array_record")
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        # The loader shuffles; the order on disk stays that of the names, so that it can be read.
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{type(self).__doc__.splitlines()[0]}\n\n{_RECORD}",
            features=shards.features(),
            disable_shuffling=True,
            homepage=self.HOMEPAGE,
            citation=self.CITATION,
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager):
        raise NotImplementedError("records are written by _generate_splits")

    _generate_examples = _split_generators

    def _generate_splits(self, dl_manager, download_config) -> list[tfds.core.SplitInfo]:
        """Writes shards, in order.

        TFDS's own writer sorts all records first, in memory up to 1 GB and beyond that through
        files for which it needs TensorFlow.
        """
        del dl_manager, download_config
        return self._write(self._packing, self._lists, self._beam_options)

    def _write(
        self, packing: preparation.Packing, lists: Mapping[str, str], beam_options
    ) -> list[tfds.core.SplitInfo]:
        templates = {name: self._get_filename_template(split_name=name) for name in packing.clips}
        plans = {
            name: shards.plan(clips, templates[name].sharded_filepath)
            for name, clips in packing.clips.items()
        }
        planned = [shard for plan in plans.values() for shard in plan]
        if beam_options:
            from . import beam_runner  # needs the extra `beam`

            beam_runner.write_shards(planned, beam_options)
        else:
            for shard in planned:
                shards.write(shard)
        if packing.index:
            files.write_json(pathlib.Path(self.data_dir) / "index.json", packing.index)
        self.info.metadata["lists_sha256"] = dict(lists)
        return [
            tfds.core.SplitInfo(
                name=name,
                shard_lengths=[len(shard.clips) for shard in plan],
                num_bytes=sum(os.path.getsize(shard.path) for shard in plan),
                filename_template=templates[name],
            )
            for name, plan in plans.items()
        ]


class _Footage(TalkjaxClips, skip_registration=True):
    """Footage in TFDS's `manual_dir`, which is prepared first unless its clips are given.

    Args:
      settings: How to prepare; `beam_options` may also come from the `DownloadConfig`.
      **kwargs: See `TalkjaxClips`.
    """

    def __init__(self, *, settings: preparation.Settings | None = None, **kwargs):
        self._settings = settings or preparation.Settings()
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
    """HDTF: some 400 speeches from YouTube in high definition."""

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
