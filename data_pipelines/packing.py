"""Puts prepared clips into a folder's shards and swaps them in at once."""

import contextlib
import io
import json
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence

from absl import logging

from talkjax.data import records
from talkjax.errors import UserError

from .preparation import Packing

_NAMELESS = "talkjax_clips"  # clips that are of no data set


def claim(out: pathlib.Path, dataset: str) -> None:
    """Makes sure that a folder does not hold another data set's shards.

    Raises:
      UserError: it does.
    """
    found = {path.parent.parent.name for path in out.glob("[!.]*/*.*.*/dataset_info.json")}
    if others := found - {dataset, _NAMELESS}:
        raise UserError(f"--out={out} holds {', '.join(others)}; choose another folder")


def pack(
    out: pathlib.Path,
    packing: Packing,
    dataset: str = _NAMELESS,
    lists: Mapping[str, str] | None = None,
    beam_options: Sequence[str] = (),
) -> bool:
    """Writes the shards unless they hold just these clips already; returns whether it did.

    Args:
      out: the folder; the shards come into its `DATASET/VERSION`.
      packing: what they hold.
      dataset: a name of `builder.BUILDERS`.
      lists: SHA-256 of the data set's published lists, for its metadata.
      beam_options: if there are any, Apache Beam writes the shards.

    Raises:
      UserError: `out` holds another data set, or a record cannot be used.
    """
    claim(out, dataset)
    before = out / (dataset if (out / dataset).is_dir() else _NAMELESS)
    with contextlib.suppress(UserError, OSError, ValueError, KeyError):
        found = json.loads((records.find_dataset(before) / "index.json").read_text())
        if found["fingerprint"] == packing.index["fingerprint"]:
            return False
    # Built beside, then swapped in: whoever reads `out` finds the old shards or the new ones.
    staging, old = out / ".packing", out / ".packed_before"
    for leftover in (staging, old):
        shutil.rmtree(leftover, ignore_errors=True)
    _build(staging, packing, dataset, lists or {}, beam_options)
    if before.is_dir():
        os.rename(before, old)
    os.rename(staging / dataset, out / dataset)
    for leftover in (staging, old):
        shutil.rmtree(leftover, ignore_errors=True)
    return True


def _build(data_dir: pathlib.Path, packing: Packing, dataset: str, lists, beam_options) -> None:
    import tensorflow_datasets as tfds

    from .builder import BUILDERS

    tfds.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        # It prints that it downloads, which it does not.
        with contextlib.redirect_stdout(io.StringIO()):
            BUILDERS[dataset](
                data_dir=os.fspath(data_dir), clips=packing.clips, index=packing.index,
                lists=lists, beam_options=beam_options,
            ).download_and_prepare()  # fmt: skip
    finally:
        logging.set_verbosity(verbosity)
