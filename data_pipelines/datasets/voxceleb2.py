"""VoxCeleb2 (Chung et al., Interspeech 2018): interviews, cut and cropped to tracked faces.

Expected in the source folder, as it is distributed:

    vox2_meta.csv                        the identities and whether they are of dev or test
    dev/mp4/id00012/VIDEO/00001.mp4      pictures; the same below test/
    dev/aac/id00012/VIDEO/00001.m4a      sound; where it is missing, the mp4's own is taken

Splits: test is the official one. A part of dev's identities (`VALIDATION_SHARE`, by their ids) is
validation, the rest is train.
"""

import pathlib
import re

from talkjax.errors import UserError

from . import catalog
from .catalog import Absent, Catalog, Clip

HOMEPAGE = "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/vox2.html"
META = "vox2_meta.csv"
HOW_TO_GET = f"""Follow {HOMEPAGE}; put {META} and the unpacked archives into the manual directory:
dev/mp4/IDENTITY/VIDEO/CLIP.mp4, dev/aac/IDENTITY/VIDEO/CLIP.m4a, and the same below test/."""
CITATION = """@inproceedings{chung2018voxceleb2,
  title={VoxCeleb2: Deep Speaker Recognition},
  author={Chung, Joon Son and Nagrani, Arsha and Zisserman, Andrew},
  booktitle={Interspeech},
  pages={1086--1090},
  year={2018}
}"""
VALIDATION_SHARE = 0.02  # of dev's identities

_COLUMNS = ["VoxCeleb2 ID", "VGGFace2 ID", "Gender", "Set"]


def read_catalog(source: pathlib.Path, out: pathlib.Path) -> Catalog:
    """All clips of identities that the list names.

    Raises:
      UserError: the list is missing or malformed, or there is no clip.
    """
    meta = source / META
    sets = _read_meta(meta)
    clips, absent, seen = [], [], set()
    for clip_id, path in catalog.find_videos(source, out):
        parts = clip_id.split("/")
        if len(parts) != 5 or parts[0] not in ("dev", "test") or parts[1] != "mp4":
            absent.append(
                Absent(clip_id, "not_listed", "not of the form dev/mp4/ID/VIDEO/CLIP.mp4")
            )
            continue
        identity = parts[2]
        seen.add(identity)
        if identity not in sets:
            absent.append(Absent(clip_id, "not_listed", f"{META} does not name {identity}"))
        elif sets[identity] != parts[0]:
            detail = f"{META} has {identity} in {sets[identity]}"
            absent.append(Absent(clip_id, "wrong_set", detail))
        else:
            sound = pathlib.Path(path).parents[3] / "aac" / parts[2] / parts[3]
            sound = (sound / parts[4]).with_suffix(".m4a")
            audio = str(sound) if sound.is_file() else None
            clips.append(Clip(clip_id, path, audio, split=split_of(identity, sets[identity])))
    if not clips:
        raise UserError(f"no clip of VoxCeleb2 in {source}; {' '.join(HOW_TO_GET.split())}")
    for identity in sets.keys() - seen:
        where = f"{sets[identity]}/mp4/{identity}"
        absent.append(Absent(where, "missing", f"{META} names it, but the folder has no video"))
    return Catalog(
        "voxceleb2",
        sorted(clips, key=lambda clip: clip.clip_id),
        sorted(absent, key=lambda item: item.clip_id),
        catalog.hash_lists([meta]),
    )


def split_of(identity: str, official: str) -> str:
    """The split of an identity, e.g. "id00012", which is officially in "dev" or "test"."""
    if official == "test":
        return "test"
    share = catalog.share_of("voxceleb2", identity)
    return "validation" if share < VALIDATION_SHARE else "train"


def _read_meta(path: pathlib.Path) -> dict[str, str]:
    """Identity -> "dev" or "test"."""
    if not path.is_file():
        raise UserError(f"VoxCeleb2's list {META} is not in {path.parent}; get it from {HOMEPAGE}")
    lines = path.read_text("utf-8-sig", "replace").splitlines()
    rows = [[field.strip() for field in line.split(",")] for line in lines]
    sets = {}
    for number, row in enumerate(rows, 1):
        if row == [""] or (number == 1 and row == _COLUMNS):
            continue
        known = len(row) == len(_COLUMNS) and row[3] in ("dev", "test")
        if not known or not re.fullmatch(r"id\d{5}", row[0]):
            raise UserError(
                f"{path}:{number}: {lines[number - 1].strip()[:60]!r} is not of the form "
                f"`{' ,'.join(_COLUMNS)}`; get the list again from {HOMEPAGE}"
            )
        sets[row[0]] = row[3]
    return sets
