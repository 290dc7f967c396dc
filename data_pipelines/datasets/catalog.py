"""What every data set is read into: clips to prepare, clips that cannot be, hashes of its lists."""

import dataclasses
import hashlib
import os
import pathlib
import re
from collections.abc import Iterator

from talkjax.errors import UserError

from .. import extract
from ..cut import PixelBox


@dataclasses.dataclass(frozen=True)
class Clip:
    """A piece of footage to prepare.

    Attributes:
      clip_id: its path below the source folder; of a piece that is cut out of a longer video, the
        name that the piece would have as a file.
      path: the video.
      audio: a file with its sound, or None for the video's own.
      interval: (start, end) seconds of the video, or None for all of it.
      box: the part of the picture, or None for all of it.
      split: "train", "validation" or "test"; None where the data set has no splits of its own.
    """

    clip_id: str
    path: str
    audio: str | None = None
    interval: tuple[float, float] | None = None
    box: PixelBox | None = None
    split: str | None = None


@dataclasses.dataclass(frozen=True)
class Absent:
    """What cannot be prepared, for the manifest: `reason` is a word for counting."""

    clip_id: str
    reason: str
    detail: str


@dataclasses.dataclass(frozen=True)
class Catalog:
    """A data set as found in a folder.

    Attributes:
      dataset: its name.
      clips: sorted by id; the ids are unique.
      absent: files and clips that are left out before anybody looks into them.
      lists: SHA-256 of the published lists that were read, by file name.
    """

    dataset: str
    clips: list[Clip]
    absent: list[Absent] = dataclasses.field(default_factory=list)
    lists: dict[str, str] = dataclasses.field(default_factory=dict)


def find_videos(source: pathlib.Path, out: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Yields (id, path) of all videos below `source`; `out` and hidden things are passed over."""
    for folder, subfolders, names in os.walk(source):
        subfolders[:] = sorted(
            d
            for d in subfolders
            if not d.startswith(".") and pathlib.Path(folder, d).resolve() != out
        )
        for name in sorted(names):
            if extract.is_video(name) and not name.startswith("."):
                path = os.path.join(folder, name)
                yield extract.safe_id(os.path.relpath(path, source)), path


def hash_lists(paths: list[pathlib.Path]) -> dict[str, str]:
    """SHA-256 of files, by name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def check_lists(catalog: Catalog, expected: str | os.PathLike) -> None:
    """Compares the lists' hashes with those of a file as `sha256sum` writes it.

    Raises:
      UserError: the file cannot be read, names no hash of a list, or a list is another one.
    """
    wanted = {}
    try:
        lines = pathlib.Path(expected).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--lists_sha256={expected} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        found = re.fullmatch(r"([0-9a-fA-F]{64}) [ *](.+)", line.rstrip())
        if not found:
            raise UserError(f"{expected}:{number}: want `HASH  FILE`, as sha256sum writes it")
        wanted[os.path.basename(found[2])] = found[1].lower()
    for name, digest in catalog.lists.items():
        if name not in wanted:
            raise UserError(f"{expected} has no hash of {name}; add it or leave the flag out")
        if wanted[name] != digest:
            raise UserError(
                f"{name} has SHA-256 {digest} where {expected} says {wanted[name]}; "
                "fetch the list again"
            )


def share_of(salt: str, key: str) -> float:
    """A number in [0, 1) that depends on nothing but the key: for splits that never change."""
    digest = hashlib.sha256(f"{salt}\0{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
