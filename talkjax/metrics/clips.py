"""Which clips are evaluated."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from talkjax.errors import UserError
from talkjax.metrics.videos import Clip

SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts",
    ".flv", ".wmv", ".3gp", ".ogv", ".mxf", ".vob",
)  # fmt: skip


def in_folder(folder: str | os.PathLike, flag: str = "--videos") -> list[Clip]:
    """All videos under a folder, hidden ones passed over, sorted by relative path.

    Args:
      folder: to look in.
      flag: that named it.

    Raises:
      UserError: it is no folder, or holds no video.
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
        raise UserError(f"no video in {folder}; check {flag}")
    return [Clip(name.as_posix(), root / name) for name in names]


def matched(
    generated: str | os.PathLike, truth: str | os.PathLike
) -> tuple[dict[str, Path], list[Clip], list[str]]:
    """Pairs the videos of two folders by relative path, whatever their suffixes.

    Returns:
      {clip name: generated video}, the originals that have one, and the names (of either folder)
      that found no partner.

    Raises:
      UserError: no folder, no video, no pair, or two videos of one name in a folder.
    """
    made, originals = (
        _by_stem(in_folder(folder, flag))
        for folder, flag in ((generated, "--generated"), (truth, "--truth"))
    )
    both = sorted(made.keys() & originals.keys())
    if not both:
        raise UserError(
            f"no video in {generated} is named as one in {truth} (suffixes aside); rename them"
        )
    files = {originals[stem].name: made[stem].path for stem in both}
    unmatched = sorted(made.keys() ^ originals.keys())
    return files, [originals[stem] for stem in both], unmatched


def _by_stem(clips: Sequence[Clip]) -> dict[str, Clip]:
    found: dict[str, Clip] = {}
    for clip in clips:
        other = found.setdefault(clip.name.removesuffix(clip.path.suffix), clip)
        if other is not clip:
            raise UserError(f"{other.path} and {clip.path} have one name; leave one of them")
    return found


def listed(clips: Sequence[Clip], path: str | os.PathLike) -> list[Clip]:
    """Those that a text file names, one relative path a line (a suffix may be left out).

    Raises:
      UserError: the file cannot be read, or names something that is not there.
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
        raise UserError(f"--list={path} names no video; write one a line")
    return list(chosen.values())


def from_manifest(
    data_dir: str | os.PathLike, split: str, videos: str | os.PathLike | None = None
) -> list[Clip]:
    """The original videos of a split of prepared data.

    Args:
      data_dir: what `data_pipelines.prepare` made: `manifest.jsonl`, `summary.json`.
      split: e.g. "test".
      videos: the folder that was prepared; by default what `summary.json` says under "source".

    Raises:
      UserError: no manifest, no such split, or the videos are not there any more.
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
        raise UserError(f"{data_dir} does not say where its videos are; add --videos=DIR")
    names = sorted(source for source, own in outcomes if own == split)
    if not names:
        have = sorted({own for _, own in outcomes if own})
        raise UserError(f"{path} has no split {split!r}; it has {', '.join(have) or 'none'}")
    clips = [Clip(name, Path(root) / name) for name in names]
    gone = [clip.name for clip in clips if not clip.path.is_file()]
    if gone:
        raise UserError(
            f"{len(gone)} of {len(clips)} videos are not in {root} (the first: {gone[0]}); "
            "give the folder that was prepared as --videos"
        )
    return clips


def evenly(clips: Sequence[Clip], count: int | None) -> list[Clip]:
    """At most `count` of them, evenly spread."""
    if not count or count >= len(clips):
        return list(clips)
    return [clips[i] for i in np.linspace(0, len(clips) - 1, count).round().astype(int)]
