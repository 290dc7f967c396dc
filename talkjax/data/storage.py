"""Prepared data on disk: where the shards lie, and what their index tells.

    DATASET/2.0.0/index.json                        what the data are, and what each clip is
    DATASET/2.0.0/SPLIT.frames.npz                  the frames of each clip: time, whether usable
    DATASET/2.0.0/DATASET-SPLIT.array_record-...    the part `clips` of the records
    DATASET/2.0.0/frames/DATASET-SPLIT...           the part `frames`
    DATASET/2.0.0/pictures/DATASET-SPLIT...         the part `pictures`

`talkjax.data.records` says what the parts hold, and `talkjax.data.stored_clips` reads them. Each
part's folder is a data set that TFDS reads. The clips have the same order in all parts, and
`index.json` tells how many frames each has, so the records of a clip are found without a search.
Nothing but the index is read at the start, and nothing but the index is kept in memory. The files
may be in a bucket (`talkjax.data.remote`); a part that is not asked for is not fetched.
"""

import dataclasses
import io
import re
import zipfile
import zlib
from typing import Any

import numpy as np
from etils import epath

from talkjax import files
from talkjax.data import records, remote
from talkjax.errors import UserError

INDEX = "index.json"
INFO = "dataset_info.json"
REMEDY = "prepare the data again"


def find_dataset(data_dir: files.PathLike, version: int = records.VERSION) -> epath.Path:
    """Finds the shards: in `data_dir` itself, or in its newest `VERSION` or `NAME/VERSION`.

    Args:
      data_dir: The folder, local or in a bucket.
      version: The version that the records must have.

    Raises:
      UserError: There are no shards, there are several data sets, the records have another version,
        or the bucket cannot be read.
    """
    root = files.as_path(data_dir)
    with remote.bucket_errors(root):
        folder = root if (root / INFO).exists() else _newest_version(root)
    found = files.read_json_object(folder / INFO, REMEDY).get("version", "0")
    _check_version(folder, str(found).partition(".")[0], version)
    return folder


def _newest_version(root: epath.Path) -> epath.Path:
    found = _find_versions(root)
    for child in _list_folder(root):
        found += [] if child.name.startswith(".") else _find_versions(child)
    if not found:
        raise UserError(
            f"{root} holds no prepared data; make it with "
            f"`python -m data_pipelines.prepare --source=VIDEOS --out={root}`"
        )
    names = sorted({folder.parent.name for folder in found})
    if len(names) > 1:
        raise UserError(
            f"{root} holds {', '.join(names)}; give the folder of one of them, such as "
            f"{root / names[0]}"
        )
    return max(found, key=lambda folder: [int(n) for n in folder.name.split(".")])


def _find_versions(folder: epath.Path) -> list[epath.Path]:
    return [
        child
        for child in _list_folder(folder)
        if re.fullmatch(r"\d+\.\d+\.\d+", child.name) and (child / INFO).exists()
    ]


def _list_folder(folder: epath.Path) -> list[epath.Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _check_version(folder: epath.Path, found: Any, wanted: int) -> None:
    if str(found) == str(wanted):
        return
    command = f"python -m data_pipelines.convert_shards --data={folder} --out=NEW"
    remedy = {
        "1": f"convert them with `{command}`, which decodes no video",
        str(records.VERSION): "there is nothing to convert",
    }.get(str(found), "update talkjax or prepare the data again")
    raise UserError(f"{folder} has records of version {found}, not {wanted}; {remedy}")


def part_folder(directory: epath.Path, part: str) -> epath.Path:
    """Returns the folder of a part's shards."""
    return directory if part == "clips" else directory / part


def list_splits(data_dir: files.PathLike) -> dict[str, int]:
    """Returns the number of clips of each split."""
    folder = find_dataset(data_dir)
    return {name: sum(lengths) for name, lengths in shard_lengths(folder).items()}


def shard_lengths(folder: epath.Path) -> dict[str, list[int]]:
    """Returns the number of records of each shard of a folder, by split."""
    info = files.read_json_object(folder / INFO, REMEDY)
    return {s["name"]: [int(length) for length in s["shardLengths"]] for s in info["splits"]}


def list_shards(folder: epath.Path, split: str) -> list[epath.Path]:
    """Returns the shards of a split in a folder, in order."""
    name = re.compile(rf".*-{re.escape(split)}\.array_record-\d+-of-\d+")
    with remote.bucket_errors(folder):
        return sorted(path for path in folder.iterdir() if name.fullmatch(path.name))


def read_index(data_dir: files.PathLike) -> dict[str, Any]:
    """Reads `index.json`.

    Returns:
      A dict of
        version: that of the records,
        fingerprint: identity of the clips,
        crop_size: side of the pictures in pixels; 0 for speech without pictures,
        group: number of pictures in a record,
        clips, ticks, frames, usable: by split a list with, for each clip, its id, its length in
          ticks, its number of frames, and how many of these have a face and lie on the landmark
          clock.

    Raises:
      UserError: The file is missing, damaged or of another version.
    """
    path = find_dataset(data_dir) / INDEX
    with remote.bucket_errors(path):
        index = files.read_json_object(path, REMEDY)
    _check_version(path, index.get("version"), records.VERSION)
    needed = ("fingerprint", "crop_size", "clips", "ticks", "frames", "usable")
    if missing := [name for name in needed if name not in index]:
        raise UserError(f"{path} lacks {', '.join(missing)}; {REMEDY}")
    group = index.get("group")
    if not isinstance(group, int) or group < 1:
        raise UserError(f"{path} has groups of {group!r} pictures; {REMEDY}")
    return index


@dataclasses.dataclass(frozen=True)
class FrameIndex:
    """Time and use of the frames of a split's clips.

    Attributes:
      ends: (C,) position behind each clip's last frame.
      ticks: (sum of N,) times in ticks, rounded by `windows.half_ticks`.
      usable: (sum of N,) bool, whether a frame has a face and lies on the landmark clock.
    """

    ends: np.ndarray
    ticks: np.ndarray
    usable: np.ndarray

    def of(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns (ticks, usable) of the frames of one clip, each (N,)."""
        part = slice(self.ends[position - 1] if position else 0, self.ends[position])
        return self.ticks[part], self.usable[part]


def write_frame_index(path: files.PathLike, half_ticks: np.ndarray, usable: np.ndarray) -> None:
    """Writes `SPLIT.frames.npz`; see `FrameIndex` for the arrays, of which times are in halves."""
    content = io.BytesIO()
    # Frames follow each other evenly, so the differences take almost no space.
    steps = np.diff(half_ticks, prepend=0).astype(np.int32)
    np.savez_compressed(content, steps=steps, usable=np.packbits(usable))
    files.write_bytes(path, content.getvalue())


def read_frame_index(directory: epath.Path, split: str, frames: np.ndarray) -> FrameIndex:
    """Reads `SPLIT.frames.npz`.

    Args:
      directory: Folder that `find_dataset` found.
      split: Name of the split.
      frames: (C,) number of frames of each clip.

    Raises:
      UserError: The file is missing or damaged, or its length is another.
    """
    path, ends = directory / f"{split}.frames.npz", np.cumsum(frames)
    count = int(ends[-1]) if len(ends) else 0
    try:
        with remote.bucket_errors(path), np.load(io.BytesIO(path.read_bytes())) as arrays:
            steps, packed = arrays["steps"], arrays["usable"]
        if len(steps) != count:
            raise ValueError(f"{len(steps)} frames where {INDEX} says {count}")
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({files.one_line(error)}); {REMEDY}") from error
    usable = np.unpackbits(packed, count=count).astype(bool)
    return FrameIndex(ends, np.cumsum(steps, dtype=np.int64) / 2, usable)
