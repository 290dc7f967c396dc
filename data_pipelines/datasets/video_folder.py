"""Any folder of videos."""

import pathlib

from talkjax.errors import UserError

from .. import extract
from .catalog import Catalog, Clip, find_videos

HOW_TO_GET = "Any videos with one speaking face each, in any folders below the manual directory."


def read_catalog(source: pathlib.Path, out: pathlib.Path) -> Catalog:
    """All videos below a folder, by relative path; see `preparation.assign_splits` for the splits.

    Raises:
      UserError: there is none.
    """
    clips = [Clip(name, path) for name, path in find_videos(source, out)]
    if not clips:
        kinds = ", ".join(sorted(extract.VIDEO_SUFFIXES))
        raise UserError(f"no video in {source}; files must end in one of {kinds}")
    return Catalog("video_folder", sorted(clips, key=lambda clip: clip.clip_id))
