"""Evaluates videos: generate or take them, decode the files, find the faces, measure.

Nothing is measured on anything but decoded video files, and everything slow is kept in the work
folder: an interrupted evaluation goes on where it was, and a new metric costs no generation.
`talkjax/metrics/protocol.py` says precisely what each row and number is.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from talkjax.conventions import MASK, MOUTH_REGION, TICKS_PER_SECOND
from talkjax.errors import UserError
from talkjax.metrics import closures, protocol, report, sheets, signals, statistics
from talkjax.metrics.judge import Instruments, Judge, Judged
from talkjax.metrics.measure import Detector
from talkjax.metrics.videos import Clip, Generator, GivenVideos, Videos
from talkjax.metrics.workspace import Workspace, safe

GIVEN_CROP_SIZE = 256
NO_WEIGHTS = {
    "lpips": "no weights given; add --lpips=FILE",
    "lpips_crop": "no weights given; add --lpips=FILE",
    "fid": "no feature network given; add --fid=FILE",
    "fid_crop": "no feature network given; add --fid=FILE",
    "csim": "no face embedding given; add --face_embedding=FILE",
    "lse_c": "no sync expert given; add --sync_expert=FILE",
    "lse_d": "no sync expert given; add --sync_expert=FILE",
    "av_offset_ms": "no sync expert given; add --sync_expert=FILE",
}
NO_CLOSURES = "no phoneme times beside the videos; only the synthetic corpus has them"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What an evaluation depends on besides the clips and the model.

    Attributes:
      seconds: longer clips are cut there.
      crop_size: px at which pictures are compared; 0 for the model's own.
      seed: of the bootstrap.
      rows: which; () for all that there are.
      more: into the report's settings (weights, checkpoint, steps, ...).
    """

    seconds: float = 20.0
    crop_size: int = 0
    seed: int = 0
    rows: tuple[str, ...] = ()
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Result:
    """A report, and what it and pictures are drawn from.

    Attributes:
      report: see `talkjax.metrics.report`.
      judged: {row: {clip: Judged}}.
      videos: the files.
      partners: {clip name: the clip whose audio drives it in row "cross_driven", or None}.
    """

    report: dict[str, Any]
    judged: dict[str, dict[str, Judged]]
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
    instruments: Instruments | None = None,
    say: Callable[[str], None] | None = None,
) -> Result:
    """Measures a model's videos of clips in all rows.

    Args:
      clips: test clips.
      generator: the model.
      detector: face finder.
      work: folder of the files that are made.
      settings: see `Settings`.
      instruments: what else is measured with.
      say: takes a line for people whenever a clip fails.

    Raises:
      UserError: no clip, or none that could be measured in any row.
    """
    settings = settings or Settings()
    size = settings.crop_size or generator.crop_size
    videos = Videos(Workspace(work), generator, detector, settings.seconds, size)
    return _evaluate(clips, videos, settings, instruments or Instruments(), say)


def evaluate_given(
    files: Mapping[str, Path],
    clips: Sequence[Clip],
    detector: Detector,
    work: str | os.PathLike,
    settings: Settings | None = None,
    instruments: Instruments | None = None,
    say: Callable[[str], None] | None = None,
) -> Result:
    """Measures videos that some other system made; arguments as of `evaluate`.

    Args:
      files: {clip name: the video of that person speaking that clip's audio}.
      clips: the originals.
      detector: face finder.
      work: folder of the files that are made.
      settings: see `Settings`.
      instruments: what else is measured with.
      say: takes a line for people whenever a clip fails.
    """
    settings = settings or Settings()
    size = settings.crop_size or GIVEN_CROP_SIZE
    videos = GivenVideos(files, Workspace(work), detector, settings.seconds, size)
    return _evaluate(clips, videos, settings, instruments or Instruments(), say)


def _evaluate(
    clips: Sequence[Clip],
    videos: Videos,
    settings: Settings,
    instruments: Instruments,
    say: Callable[[str], None] | None,
) -> Result:
    if not clips:
        raise UserError("no clip to evaluate; check --videos, --list and --holdout")
    partners = partner_of(clips)
    rows = _chosen_rows(settings.rows, videos.rows)
    missing = _missing(clips, instruments, rows, videos.rows)
    judge = Judge(videos, instruments)
    judged: dict[str, dict[str, Judged]] = {row: {} for row in rows if row not in missing}
    failures = []
    with tqdm(total=len(clips) * len(judged), desc="evaluating", unit="video") as bar:
        for clip in clips:
            for row, done in judged.items():
                bar.set_postfix_str(f"{clip.name} {row}", refresh=False)
                try:
                    done[clip.name] = judge.row(row, clip, partners[clip.name])
                except UserError as error:
                    failures.append({"clip": clip.name, "row": row, "error": str(error)})
                    if say:
                        say(f"{clip.name} in {row}: {error}")
                bar.update()
    if not any(judged.values()):
        raise UserError(f"no clip could be measured; the first: {failures[0]['error']}")
    pinned = {
        "clips": [clip.name for clip in clips],
        "partners": {name: p.name if p else None for name, p in partners.items()},
        "seconds": settings.seconds,
        "clock_hz": TICKS_PER_SECOND,
        "max_lag_ticks": signals.MAX_LAG,
        "crop_size": videos.crop_size,
        "mask": tuple(MASK),
        "mouth_region": tuple(MOUTH_REGION),
        "stride": protocol.STRIDE,
        "bootstrap": {
            "resamples": statistics.RESAMPLES, "level": statistics.LEVEL, "seed": settings.seed
        },
        "versions": report.versions(videos.detector.versions),
        **settings.more,
    }  # fmt: skip
    built = report.build(judged, rows, missing, failures, pinned, settings.seed)
    return Result(built, judged, videos, partners)


def _chosen_rows(asked: Sequence[str], there: Mapping[str, str]) -> dict[str, str]:
    unknown = [row for row in asked if row not in there]
    if unknown:
        raise UserError(f"no row {unknown[0]!r} here; --rows takes {', '.join(there)}")
    return {row: text for row, text in there.items() if not asked or row in asked}


def _missing(
    clips: Sequence[Clip],
    instruments: Instruments,
    rows: Mapping[str, str],
    there: Mapping[str, str],
) -> dict[str, str]:
    """{metric or row: why it is not measured}."""
    absent = set()
    if instruments.perceptual is None:
        absent |= {"lpips", "lpips_crop"}
    if instruments.features is None:
        absent |= {"fid", "fid_crop"}
    if instruments.embedding is None:
        absent |= {"csim"}
    if instruments.expert is None:
        absent |= {"lse_c", "lse_d", "av_offset_ms"}
    missing = {name: why for name, why in NO_WEIGHTS.items() if name in absent}
    if all(closures.read(clip.path) is None for clip in clips):
        missing["closures"] = NO_CLOSURES
    if len(clips) < 2:
        needy = [row for row in protocol.NEEDS_PARTNER if row in rows]
        missing |= dict.fromkeys(needy, "needs a second clip")
    for row in protocol.ROWS:
        if row not in rows:
            missing[row] = "not asked for" if row in there else "needs a model to run"
    return missing


def best_median_worst(result: Result, row: str = "model") -> dict[str, str]:
    """{"best", "median", "worst": clip name} by the distance of the lips, fewer with few clips."""
    scored = {
        name: one.numbers["lmd"]
        for name, one in result.judged.get(row, {}).items()
        if one.numbers.get("lmd") is not None
    }
    ranked = sorted(scored, key=scored.get)
    if not ranked:
        return {}
    places = {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}
    seen: set[str] = set()
    return {k: name for k, name in places.items() if not (name in seen or seen.add(name))}


def draw(result: Result, clips: Sequence[Clip], folder: str | os.PathLike) -> list[str]:
    """Writes contact sheets and plots of the best, median and worst clip; returns file names.

    Raises:
      UserError: the folder cannot be written.
    """
    names = []
    by_name = {clip.name: clip for clip in clips}
    for rank, name in best_median_worst(result).items():
        pictures = _sheet(result, by_name[name], rank)
        names.append(sheets.write(folder, f"{rank}-{safe(name)}", pictures).name)
    return names


def _sheet(result: Result, clip: Clip, rank: str) -> list[np.ndarray]:
    videos, judged = result.videos, result.judged
    truth = videos.truth(clip)
    compare = functools.partial(videos.compare, clip=clip, partner=clip)
    files = {"truth": clip.path}
    for label, row in (("model", "model"), ("autoenc.", "autoencoder"), ("copied", "copy_mouth")):
        if clip.name in judged.get(row, {}):
            files[label] = compare(row).path
    measured = {label: videos.measure(path) for label, path in files.items()}
    size = max(128, min(2 * videos.crop_size, 256))
    pictures = [sheets.contact_sheet(files, truth, measured, size)]
    curves = {"truth": truth.opening()}
    for row in ("model", "silence"):
        if clip.name in judged.get(row, {}):
            curves[row] = judged[row][clip.name].curves["opening"]
    distance = judged["model"][clip.name].numbers["lmd"]
    pictures.append(sheets.plot(curves, f"{clip.name} ({rank}, LMD {distance:.4f}): own audio"))
    if clip.name in judged.get("cross_driven", {}):
        cross = judged["cross_driven"][clip.name].curves
        title = f"{clip.name}: driven by {result.partners[clip.name].name}, its truth"
        pictures.append(sheets.plot({"truth": cross["truth"], "model": cross["opening"]}, title))
    return pictures
