"""Data sets by name. Each finds the clips in a folder and knows which split they belong to."""

import os
import pathlib
from collections.abc import Callable

from talkjax.errors import UserError

from . import hdtf, video_folder, voxceleb2
from .catalog import Catalog, check_lists

CATALOGS: dict[str, Callable[[pathlib.Path, pathlib.Path], Catalog]] = {
    "video_folder": video_folder.read_catalog,
    "hdtf": hdtf.read_catalog,
    "voxceleb2": voxceleb2.read_catalog,
}


def read_catalog(
    dataset: str,
    source: str | os.PathLike,
    out: str | os.PathLike,
    lists_sha256: str | os.PathLike | None = None,
) -> Catalog:
    """Finds the clips of a data set in a folder.

    Args:
      dataset: A name of `CATALOGS`.
      source: The folder, laid out as the data set is published.
      out: Folder of the shards, which is skipped if it is inside `source`.
      lists_sha256: Output of `sha256sum`; the data set's lists must have these hashes.

    Raises:
      UserError: The data set or the folder does not exist, a list is missing, malformed or has
        another hash, or nothing is found.
    """
    if dataset not in CATALOGS:
        raise UserError(f"dataset={dataset} is unknown; use one of {', '.join(CATALOGS)}")
    source = pathlib.Path(source)
    if not source.is_dir():
        raise UserError(f"source={source} is not a folder; give a folder of videos")
    catalog = CATALOGS[dataset](source, pathlib.Path(out).resolve())
    if lists_sha256:
        check_lists(catalog, lists_sha256)
    return catalog
