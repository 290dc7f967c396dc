"""Any folder of videos."""

import pathlib

from talkjax.errors import UserError

from .. import extract
from .catalog import Catalog, Clip, find_videos

HOW_TO_GET = "Put videos with one speaking face each into any folders below the manual directory."


def read_catalog(source: pathlib.Path, out: pathlib.Path) -> Catalog:
    """Finds all videos below a folder; `preparation.assign_splits` assigns their splits.

    Raises:
      UserError: There is no video.
    """
    clips = [Clip(name, path) for name, path in find_videos(source, out)]
    if not clips:
        kinds = ", ".join(sorted(extract.VIDEO_SUFFIXES))
        raise UserError(f"{source} has no video; files must end in one of {kinds}")
    return Catalog("video_folder", sorted(clips, key=lambda clip: clip.clip_id))
