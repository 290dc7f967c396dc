"""The catalog of a data set: clips to prepare, clips that cannot be, hashes of its lists."""

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
      clip_id: Path below the source folder. A piece of a longer video has the name that it would
        have as a file.
      path: The video.
      audio: A file with the sound, or None for the video's own.
      interval: (start, end) in seconds of the video, or None for all of it.
      box: Part of the picture, or None for all of it.
      split: "train", "validation" or "test"; None if the data set has no splits of its own.
    """

    clip_id: str
    path: str
    audio: str | None = None
    interval: tuple[float, float] | None = None
    box: PixelBox | None = None
    split: str | None = None


@dataclasses.dataclass(frozen=True)
class Absent:
    """A clip that cannot be prepared, for the manifest; `reason` is a word for statistics."""

    clip_id: str
    reason: str
    detail: str


@dataclasses.dataclass(frozen=True)
class Catalog:
    """A data set as found in a folder.

    Attributes:
      dataset: Name of the data set.
      clips: Clips sorted by their ids, which are unique.
      absent: Files and clips that are left out without being opened.
      lists: SHA-256 of the published lists that were read, by file name.
    """

    dataset: str
    clips: list[Clip]
    absent: list[Absent] = dataclasses.field(default_factory=list)
    lists: dict[str, str] = dataclasses.field(default_factory=dict)


def find_videos(source: pathlib.Path, out: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Yields (id, path) of all videos below `source`, without `out` and hidden files."""
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
    """Returns the SHA-256 of files by name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def check_lists(catalog: Catalog, expected: str | os.PathLike) -> None:
    """Compares the hashes of the lists with the output of `sha256sum`.

    Raises:
      UserError: The file cannot be read, lacks the hash of a list, or has another one.
    """
    wanted = {}
    try:
        lines = pathlib.Path(expected).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"lists_sha256={expected} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        found = re.fullmatch(r"([0-9a-fA-F]{64}) [ *](.+)", line.rstrip())
        if not found:
            raise UserError(f"{expected}:{number}: expected `HASH  FILE`, the output of sha256sum")
        wanted[os.path.basename(found[2])] = found[1].lower()
    for name, digest in catalog.lists.items():
        if name not in wanted:
            raise UserError(f"{expected} has no hash of {name}; add it or omit lists_sha256")
        if wanted[name] != digest:
            raise UserError(
                f"{name} has SHA-256 {digest}, but {expected} says {wanted[name]}; fetch the list "
                "again"
            )


def share_of(salt: str, key: str) -> float:
    """Returns a number in [0, 1) that depends only on the key, for splits that never change."""
    digest = hashlib.sha256(f"{salt}\0{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
