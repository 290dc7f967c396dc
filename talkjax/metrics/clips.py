"""Chooses the clips that are evaluated."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from talkjax.errors import UserError
from talkjax.metrics.videos import EvaluationClip

SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts",
    ".flv", ".wmv", ".3gp", ".ogv", ".mxf", ".vob",
)  # fmt: skip
_Item = TypeVar("_Item")


def find_clips(folder: str | os.PathLike, flag: str = "--videos") -> list[EvaluationClip]:
    """Finds all videos under a folder, sorted by relative path; hidden files are skipped.

    Args:
      folder: Folder to search.
      flag: Flag that named the folder, for error messages.

    Raises:
      UserError: The folder does not exist or holds no video.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"{flag}={folder} is not a folder; give a folder of videos")
    found = [
        path.relative_to(root)
        for path in root.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file()
    ]
    names = sorted(p for p in found if not any(part.startswith(".") for part in p.parts))
    if not names:
        raise UserError(f"{flag}={folder} holds no video; check the path")
    return [EvaluationClip(name.as_posix(), root / name) for name in names]


def match_by_name(
    generated: str | os.PathLike, truth: str | os.PathLike
) -> tuple[dict[str, Path], list[EvaluationClip], list[str]]:
    """Pairs the videos of two folders by relative path, whatever their suffixes are.

    Args:
      generated: Folder of generated videos.
      truth: Folder of the originals.

    Returns:
      {clip name: generated video}, the originals that have one, and the names in either folder that
      have no counterpart in the other.

    Raises:
      UserError: A folder is missing or empty, nothing matches, or two videos of a folder have the
        same name.
    """
    made, originals = (
        _index_by_stem(find_clips(folder, flag))
        for folder, flag in ((generated, "--generated"), (truth, "--truth"))
    )
    both = sorted(made.keys() & originals.keys())
    if not both:
        raise UserError(
            f"no video in {generated} has the name of one in {truth} (apart from the suffix); "
            "rename them"
        )
    files = {originals[stem].name: made[stem].path for stem in both}
    unmatched = sorted(made.keys() ^ originals.keys())
    return files, [originals[stem] for stem in both], unmatched


def _index_by_stem(clips: Sequence[EvaluationClip]) -> dict[str, EvaluationClip]:
    found: dict[str, EvaluationClip] = {}
    for clip in clips:
        other = found.setdefault(clip.name.removesuffix(clip.path.suffix), clip)
        if other is not clip:
            raise UserError(f"{other.path} and {clip.path} have the same name; remove one of them")
    return found


def select_listed(clips: Sequence[EvaluationClip], path: str | os.PathLike) -> list[EvaluationClip]:
    """Selects the clips that a text file names, one relative path per line.

    Suffixes may be left out; empty lines and lines that begin with # are skipped.

    Raises:
      UserError: The file cannot be read, or names a video that does not exist.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"--list={path} cannot be read ({error}); check the path") from error
    by_name = {Path(c.name).with_suffix("").as_posix(): c for c in clips}
    by_name |= {c.name: c for c in clips}
    chosen = {}
    for line in (line.strip() for line in lines):
        if not line or line.startswith("#"):
            continue
        if line not in by_name:
            raise UserError(f"--list={path} names {line!r}, which is not among the videos")
        chosen[by_name[line].name] = by_name[line]
    if not chosen:
        raise UserError(f"--list={path} names no video; write one per line")
    return list(chosen.values())


def find_split_clips(
    data_dir: str | os.PathLike, split: str, videos: str | os.PathLike | None = None
) -> list[EvaluationClip]:
    """Finds the original videos of a split of prepared data.

    Args:
      data_dir: Folder made by `data_pipelines.prepare`, with `manifest.jsonl` and `summary.json`.
      split: Name of the split, e.g. "test".
      videos: Folder that was prepared; by default the "source" in `summary.json`.

    Raises:
      UserError: There is no manifest or no such split, or videos are missing.
    """
    path = Path(data_dir) / "manifest.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        summary = Path(data_dir) / "summary.json"
        known = json.loads(summary.read_text(encoding="utf-8")) if summary.is_file() else {}
        outcomes = [(line["source"], line.get("split")) for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); give a folder made by data_pipelines.prepare"
        ) from error
    root = videos or known.get("source")
    if not root:
        raise UserError(f"{data_dir} does not name the folder of its videos; add --videos=DIR")
    names = sorted(source for source, own in outcomes if own == split)
    if not names:
        available = sorted({own for _, own in outcomes if own})
        raise UserError(f"{path} has no split {split!r}; it has {', '.join(available) or 'none'}")
    clips = [EvaluationClip(name, Path(root) / name) for name in names]
    missing = [clip.name for clip in clips if not clip.path.is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(clips)} videos are missing in {root} (the first is "
            f"{missing[0]}); give the folder that was prepared as --videos"
        )
    return clips


def take_evenly(items: Sequence[_Item], count: int | None) -> list[_Item]:
    """Returns at most `count` items, evenly spread; all of them if `count` is None."""
    if not count or count >= len(items):
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]
