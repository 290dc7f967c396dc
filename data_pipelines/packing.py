"""Packs prepared clips into shards and replaces a folder's shards at once."""

import contextlib
import io
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from absl import logging

from talkjax import files
from talkjax.data import storage
from talkjax.errors import UserError

from .preparation import Packing

if TYPE_CHECKING:
    from . import shards

_NAMELESS = "talkjax_clips"  # for clips that belong to no data set


def claim(out: str | os.PathLike, dataset: str) -> None:
    """Checks that a folder does not hold another data set's shards.

    Raises:
      UserError: The folder holds another data set, or is in a bucket.
    """
    if files.is_remote(out):
        raise UserError(f"out={out} is in a bucket; write to a local folder and copy it")
    out = pathlib.Path(out)
    found = {path.parent.parent.name for path in out.glob("[!.]*/*.*.*/dataset_info.json")}
    if others := found - {dataset, _NAMELESS}:
        raise UserError(f"out={out} holds {', '.join(others)}; choose another folder")


def pack(
    out: pathlib.Path,
    packing: Packing,
    dataset: str = _NAMELESS,
    lists: Mapping[str, str] | None = None,
    beam_options: Sequence[str] = (),
    source: "shards.Source | None" = None,
) -> bool:
    """Writes the shards, unless they hold exactly these clips already; returns whether it did.

    Args:
      out: The folder; the shards are written to its `DATASET/VERSION`.
      packing: The contents of the shards.
      dataset: A name of `builder.BUILDERS`.
      lists: SHA-256 of the data set's published lists, for its metadata.
      beam_options: Pipeline options. If there are any, Apache Beam writes the shards.
      source: Where the records come from, see `shards.Source`.

    Raises:
      UserError: `out` holds another data set or is in a bucket, or a record cannot be used.
    """
    claim(out, dataset)
    before = out / (dataset if (out / dataset).is_dir() else _NAMELESS)
    with contextlib.suppress(UserError, OSError, ValueError, KeyError):
        if storage.read_index(before)["fingerprint"] == packing.index["fingerprint"]:
            return False
    # The shards are built in a staging folder, so that readers find the old ones or the new ones.
    staging, old = out / ".packing", out / ".packed_before"
    for leftover in (staging, old):
        shutil.rmtree(leftover, ignore_errors=True)
    _build_shards(staging, packing, dataset, lists or {}, beam_options, source)
    if before.is_dir():
        os.rename(before, old)
    os.rename(staging / dataset, out / dataset)
    for leftover in (staging, old):
        shutil.rmtree(leftover, ignore_errors=True)
    return True


def _build_shards(
    data_dir: pathlib.Path, packing: Packing, dataset: str, lists, beam_options, source
) -> None:
    import tensorflow_datasets as tfds

    from .builder import BUILDERS

    tfds.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        # It prints that it downloads, although it does not.
        with contextlib.redirect_stdout(io.StringIO()):
            BUILDERS[dataset](
                data_dir=os.fspath(data_dir), clips=packing.clips, index=packing.index,
                lists=lists, beam_options=beam_options, source=source,
            ).download_and_prepare()  # fmt: skip
    finally:
        logging.set_verbosity(verbosity)
