"""Data sets by name: what of a folder is to be prepared, and which clip belongs to which split."""

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
    """Looks through a folder for the clips of a data set.

    Args:
      dataset: one of `CATALOGS`.
      source: the folder, laid out as the data set is published.
      out: where the shards go; passed over if it lies inside of `source`.
      lists_sha256: a file as `sha256sum` writes it; the data set's lists must have these hashes.

    Raises:
      UserError: no such data set or folder, lists missing, malformed or other ones, nothing found.
    """
    if dataset not in CATALOGS:
        raise UserError(f"--dataset={dataset} is unknown; there are {', '.join(CATALOGS)}")
    source = pathlib.Path(source)
    if not source.is_dir():
        raise UserError(f"--source={source} is not a folder; give a folder of videos")
    catalog = CATALOGS[dataset](source, pathlib.Path(out).resolve())
    if lists_sha256:
        check_lists(catalog, lists_sha256)
    return catalog
