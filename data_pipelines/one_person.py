"""Prepares footage of one person, for `talkjax.personalize`.

Videos become pieces of a few seconds, so that the end of a single video can be held out. Extracted
pieces are cached: an interrupted extraction goes on where it stopped.
"""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

from tqdm import tqdm

from talkjax.conventions import TICKS_PER_SECOND
from talkjax.media import tracking, video

from . import clip_cache, packing, preparation
from .datasets.catalog import Clip
from .extract import ExtractOptions, safe_id
from .flag_errors import flag_errors
from .workers import cores

PIECE_SECONDS = 4.0
_PERSON = "person"
_SHORTEST_JOB = 30.0  # seconds of a video that one process extracts, at least ...
_JOBS = 4  # ... and the most processes' worth of one video: each decodes what comes before its part
_TIMEOUT = 4 * 3600.0


@dataclasses.dataclass(frozen=True)
class Piece:
    """A piece of footage.

    Attributes:
      clip_id: Id of its record, whose person is the same for all pieces.
      record: File of the record, `.npz`.
      video: The video that it comes from.
      start: Time in that video in seconds.
      seconds: Duration.
    """

    clip_id: str
    record: pathlib.Path
    video: str
    start: float
    seconds: float


def extract_pieces(
    videos: Sequence[str | os.PathLike],
    cache: str | os.PathLike,
    crop_size: int,
    face: str = "largest",
    quiet: bool = False,
) -> tuple[list[Piece], list[str]]:
    """Extracts the pieces of some videos, in order.

    Args:
      videos: Files with one sound track each.
      cache: Folder of the records, which is created if necessary.
      crop_size: Side of the face crops in pixels.
      face: The face to follow, see `talkjax.media.tracking.parse_face`.
      quiet: Whether to show no progress bar.

    Returns:
      The pieces, and a line for each part of a video that cannot be used.

    Raises:
      UserError: A file is not a video, or the face cannot be parsed.
      OSError: The cache cannot be written.
    """
    cache = pathlib.Path(cache)
    cache.mkdir(parents=True, exist_ok=True)
    with flag_errors():
        chosen = tracking.parse_face(face)
    clips = [clip for number, path in enumerate(videos) for clip in _parts(number, path)]
    settings = ExtractOptions(
        crop_size=crop_size, max_seconds=PIECE_SECONDS, face=str(chosen),
        max_faces=3 if chosen == "largest" else max(3, int(chosen) + 1),
    )  # fmt: skip
    jobs = clip_cache.make_jobs(clips, settings)
    outcomes = {}
    found = clip_cache.extract_all(jobs, cache, settings, cores(), _TIMEOUT)
    bar = tqdm(total=len(jobs), desc="finding the face", unit="part", disable=quiet)
    with contextlib.closing(found), bar:
        for outcome, _ in found:
            outcomes[outcome["source"]] = outcome
            bar.update()
    pieces, lines = [], []
    for job in jobs:
        outcome, begin = outcomes[job.clip_id], (job.clip.interval or (0.0,))[0]
        if not outcome["parts"]:
            detail = f" ({outcome['detail']})" if outcome["detail"] else ""
            lines.append(f"{job.clip.path} from {begin:.0f} s: {outcome['reason']}{detail}")
        pieces += [
            Piece(
                part["clip_id"], cache / part["file"], job.clip.path, begin + part["start"],
                part["ticks"] / TICKS_PER_SECOND,
            )
            for part in outcome["parts"]
        ]  # fmt: skip
    return pieces, lines


def _parts(number: int, path: str | os.PathLike) -> list[Clip]:
    """Splits a long video into a few intervals, which processes extract side by side."""
    seconds = video.probe(path).duration_s or 0.0
    name = f"{_PERSON}/{number:03d}_{safe_id(pathlib.Path(path).stem)}"
    count = int(min(_JOBS, max(1.0, seconds // _SHORTEST_JOB)))
    if count == 1:
        return [Clip(name, os.fspath(path))]
    edges = [seconds * i / count for i in range(count)] + [float("inf")]
    return [
        Clip(f"{name}_{i}", os.fspath(path), interval=(edges[i], edges[i + 1]))
        for i in range(count)
    ]


def pack_pieces(
    splits: Mapping[str, Sequence[tuple[str, pathlib.Path, int]]],
    out: str | os.PathLike,
    crop_size: int,
) -> None:
    """Packs records into shards, unless they hold exactly these already.

    Args:
      splits: {split: (clip id, file of the record, number of ticks) of its records}.
      out: Folder of the shards.
      crop_size: Side of their crops in pixels.

    Raises:
      UserError: The folder holds other data, or a record cannot be used.
    """
    # A record counts as a source of its own: the pieces of one video are divided among the splits.
    outcomes = [
        {"source": name, "parts": [{"clip_id": name, "ticks": ticks, "file": os.fspath(path)}]}
        for rows in splits.values()
        for name, path, ticks in rows
    ]
    of = {name: split for split, rows in splits.items() for name, _, _ in rows}
    contents = preparation.make_packing(outcomes, of, pathlib.Path(), crop_size)
    pathlib.Path(out).mkdir(parents=True, exist_ok=True)
    packing.pack(pathlib.Path(out), contents)
