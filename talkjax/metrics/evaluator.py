"""Evaluates a model on test clips: generate, decode the files, find the faces, measure.

    report = evaluate(clips, generator, detector, work="work", ...)

Nothing is measured on anything but decoded video files, and everything slow is kept in the work
folder: an interrupted evaluation goes on where it was, and a new metric costs no generation.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from talkjax.errors import UserError
from talkjax.media import crop
from talkjax.metrics import closures, identity, report, rows, sheets, signals, statistics
from talkjax.metrics.clips import evenly
from talkjax.metrics.measure import Detector
from talkjax.metrics.rows import Judge, Numbers, Perceptual
from talkjax.metrics.videos import Clip, Generator, Videos
from talkjax.metrics.workspace import Workspace, safe

NO_LPIPS = "no weights given; add --lpips=FILE"
NO_CLOSURES = "no phoneme times beside the videos; only the synthetic corpus has them"
NO_CSIM = "no network given; add --face_embedding=FILE"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What an evaluation depends on besides the clips and the model.

    Attributes:
      seconds: longer clips are cut there.
      crop_size: px at which pictures are compared; 0 for the model's own.
      seed: of the bootstrap.
    """

    seconds: float = 20.0
    crop_size: int = 0
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Result:
    """A report, and what pictures are drawn from.

    Attributes:
      report: see `talkjax.metrics.report.build`.
      curves: {row: {clip: {"opening", "truth"}}}, (ticks,) arrays.
      videos: the files.
      partners: {clip name: the clip whose audio drives it in row "cross", or None}.
    """

    report: dict[str, Any]
    curves: dict[str, dict[str, dict[str, np.ndarray]]]
    videos: Videos
    partners: dict[str, Clip | None]


def partner_of(clips: Sequence[Clip]) -> dict[str, Clip | None]:
    """Pairs every clip with the one half of the list away.

    Neighbours by name often say nearly the same, or are cut from one recording: driving one by
    the other would not tell lip sync from luck.
    """
    if len(clips) < 2:
        return {clip.name: None for clip in clips}
    half = len(clips) // 2
    return {clip.name: clips[(i + half) % len(clips)] for i, clip in enumerate(clips)}


def evaluate(
    clips: Sequence[Clip],
    generator: Generator,
    detector: Detector,
    work: str | os.PathLike,
    settings: Settings | None = None,
    protocol: dict[str, Any] | None = None,
    perceptual: Perceptual | None = None,
    embedding: identity.FaceEmbedding | None = None,
    say: Callable[[str], None] | None = None,
) -> Result:
    """Measures all rows of all clips.

    Args:
      clips: test clips.
      generator: the model.
      detector: face finder.
      work: folder of the files that are made.
      settings: see `Settings`.
      protocol: more to put into the report's protocol (checkpoint, steps, seed, ...).
      perceptual: LPIPS, or None.
      embedding: face embedding, or None.
      say: takes a line for people whenever a clip fails.

    Raises:
      UserError: no clip, or none that could be measured in any row.
    """
    if not clips:
        raise UserError("no clip to evaluate; check --videos, --list and --holdout")
    settings = settings or Settings()
    crop_size = settings.crop_size or generator.crop_size
    videos = Videos(Workspace(work), generator, detector, settings.seconds, crop_size)
    judge = Judge(videos, perceptual, embedding)
    partners = partner_of(clips)
    per_clip: dict[str, dict[str, Numbers]] = {row: {} for row in rows.ROWS}
    curves: dict[str, dict] = {row: {} for row in rows.ROWS}
    failures = []
    with tqdm(total=len(clips) * len(rows.ROWS), desc="evaluating", unit="video") as bar:
        for clip in clips:
            for row in rows.ROWS:
                bar.set_postfix_str(f"{clip.name} {row}", refresh=False)
                if row in rows.NEEDS_PARTNER and partners[clip.name] is None:
                    bar.update()
                    continue
                try:
                    numbers, drawn = judge.row(row, clip, partners[clip.name])
                    per_clip[row][clip.name], curves[row][clip.name] = numbers, drawn
                except UserError as error:
                    failures.append({"clip": clip.name, "row": row, "error": str(error)})
                    if say:
                        say(f"{clip.name} in {row}: {error}")
                bar.update()
    if not any(per_clip.values()):
        raise UserError(f"no clip could be measured; the first: {failures[0]['error']}")
    pinned = {
        "version": report.PROTOCOL,
        "clips": [clip.name for clip in clips],
        "partners": {name: p.name if p else None for name, p in partners.items()},
        "seconds": settings.seconds,
        "clock_hz": signals.TICK_RATE,
        "max_lag_ticks": signals.MAX_LAG,
        "crop_size": crop_size,
        "mask": dataclasses.astuple(crop.MASK),
        "lpips_region": dataclasses.astuple(crop.MOUTH_REGION),
        "bootstrap": {
            "resamples": statistics.RESAMPLES, "level": statistics.LEVEL, "seed": settings.seed
        },
        "versions": report.versions(detector.versions),
        **(protocol or {}),
    }  # fmt: skip
    missing = {}
    if perceptual is None:
        missing["lpips"] = NO_LPIPS
    if embedding is None:
        missing["csim"] = NO_CSIM
    if all(closures.read(clip.path) is None for clip in clips):
        missing["closures"] = NO_CLOSURES
    built = report.build(per_clip, pinned, missing, failures, settings.seed, single=len(clips) < 2)
    return Result(built, curves, videos, partners)


def draw(
    result: Result, clips: Sequence[Clip], folder: str | os.PathLike, count: int = 4
) -> list[str]:
    """Writes a contact sheet and a plot of openings for some clips; returns the file names.

    Raises:
      UserError: the folder cannot be written.
    """
    videos, names = result.videos, []
    drawn = [c for c in clips if c.name in result.curves["self"]]
    for clip in evenly(drawn, count):
        truth = videos.truth(clip)
        files = {"truth": clip.path, "generated": videos.generated(clip, clip)}
        if clip.name in result.curves["round_trip"]:
            files["round trip"] = videos.round_trip(clip)
        if clip.name in result.curves["copy_reference"]:
            files["copied"] = videos.copied(clip)
        measured = {label: videos.measure(path) for label, path in files.items()}
        sheet = sheets.contact_sheet(files, truth, measured, 2 * videos.crop_size)
        curves = {"truth": truth.opening()}
        for row in ("self", "silence"):
            if clip.name in result.curves[row]:
                curves[row] = result.curves[row][clip.name]["opening"]
        pictures = [sheet, sheets.plot(curves, f"{clip.name}: own audio")]
        if clip.name in result.curves["cross"]:
            cross = result.curves["cross"][clip.name]
            partner = result.partners[clip.name].name
            shown = {"truth": cross["truth"], "cross": cross["opening"]}
            pictures.append(sheets.plot(shown, f"{clip.name}: driven by {partner}, its truth"))
        names.append(sheets.write(folder, safe(clip.name), pictures).name)
    return names
