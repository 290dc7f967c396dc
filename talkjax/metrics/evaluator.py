"""Evaluates videos: generates or takes them, decodes the files, finds the faces and measures them.

Only decoded video files are measured. Everything slow is kept in the work folder, so an interrupted
evaluation continues where it stopped, and a new metric needs no new videos.
`talkjax/metrics/protocol.py` defines every row and number.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from talkjax.conventions import MASK, MOUTH_REGION, TICKS_PER_SECOND
from talkjax.errors import UserError
from talkjax.metrics import closures, packages, plots, protocol, report, sheets, signals, statistics
from talkjax.metrics.clip_evaluator import ClipEvaluator, ClipScores, MetricModels
from talkjax.metrics.measure import VersionedDetector
from talkjax.metrics.videos import EvaluationClip, EvaluationVideos, Generator, GivenVideos
from talkjax.metrics.workspace import Workspace, safe_name

GIVEN_CROP_SIZE = 256
# Field of `MetricModels` -> (metrics that need it, why they are missing without it).
NEEDED_MODELS = {
    "perceptual": (("lpips", "lpips_crop"), "no weights given; add --lpips=FILE"),
    "features": (("fid", "fid_crop"), "no feature network given; add --fid=FILE"),
    "embedding": (("csim",), "no face embedding given; add --face_embedding=FILE"),
    "sync_expert": (
        ("lse_c", "lse_d", "av_offset_ms"), "no sync expert given; add --sync_expert=FILE"
    ),
}  # fmt: skip
NO_CLOSURES = "no phoneme times beside the videos; only the synthetic corpus has them"


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """What an evaluation depends on besides the clips and the model.

    Attributes:
      seconds: Length to which longer clips are cut.
      crop_size: Size in pixels at which images are compared; 0 takes the model's own.
      seed: Seed of the bootstrap.
      rows: Rows to evaluate; () evaluates all.
      more: Further entries of the report's settings (weights, checkpoint, steps, ...).
    """

    seconds: float = 20.0
    crop_size: int = 0
    seed: int = 0
    rows: tuple[str, ...] = ()
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class EvaluationResult:
    """A report and the data that tables and sheets are made from.

    Attributes:
      report: See `talkjax.metrics.report`.
      scores: {row: {clip name: ClipScores}}.
      videos: The files that were measured.
      partners: {clip name: the clip whose audio drives it in the row `cross_driven`, or None}.
    """

    report: dict[str, Any]
    scores: dict[str, dict[str, ClipScores]]
    videos: EvaluationVideos
    partners: dict[str, EvaluationClip | None]


def assign_partners(clips: Sequence[EvaluationClip]) -> dict[str, EvaluationClip | None]:
    """Pairs every clip with the one that is half of the list away.

    Neighbours by name often say nearly the same, or are cut from one recording: driving one by
    the other would not distinguish lip sync from luck.
    """
    if len(clips) < 2:
        return {clip.name: None for clip in clips}
    half = len(clips) // 2
    return {clip.name: clips[(i + half) % len(clips)] for i, clip in enumerate(clips)}


def evaluate_model(
    clips: Sequence[EvaluationClip],
    generator: Generator,
    detector: VersionedDetector,
    work: str | os.PathLike,
    settings: EvaluationSettings | None = None,
    models: MetricModels | None = None,
) -> EvaluationResult:
    """Evaluates a model on clips, in all rows.

    Args:
      clips: Clips to evaluate on.
      generator: The model.
      detector: Face detector.
      work: Folder for the files that are made.
      settings: See `EvaluationSettings`.
      models: Networks of further metrics.

    Raises:
      UserError: There is no clip, or none that can be measured in any row.
    """
    settings = settings or EvaluationSettings()
    size = settings.crop_size or generator.crop_size
    videos = EvaluationVideos(Workspace(work), generator, detector, settings.seconds, size)
    return _evaluate(clips, videos, settings, models or MetricModels())


def evaluate_videos(
    files: Mapping[str, Path],
    clips: Sequence[EvaluationClip],
    detector: VersionedDetector,
    work: str | os.PathLike,
    settings: EvaluationSettings | None = None,
    models: MetricModels | None = None,
) -> EvaluationResult:
    """Evaluates videos that another system made.

    Args:
      files: {clip name: the video of that person speaking that clip's audio}.
      clips: The originals.
      detector: Face detector.
      work: Folder for the files that are made.
      settings: See `EvaluationSettings`.
      models: Networks of further metrics.

    Raises:
      UserError: There is no clip, or none that can be measured in any row.
    """
    settings = settings or EvaluationSettings()
    size = settings.crop_size or GIVEN_CROP_SIZE
    videos = GivenVideos(files, Workspace(work), detector, settings.seconds, size)
    return _evaluate(clips, videos, settings, models or MetricModels())


def _evaluate(
    clips: Sequence[EvaluationClip],
    videos: EvaluationVideos,
    settings: EvaluationSettings,
    models: MetricModels,
) -> EvaluationResult:
    if not clips:
        raise UserError("no clip to evaluate; check --videos, --list and --holdout")
    partners = assign_partners(clips)
    rows = _choose_rows(settings.rows, videos.rows)
    missing = _find_missing(clips, models, rows, videos.rows)
    evaluator = ClipEvaluator(videos, models)
    scores: dict[str, dict[str, ClipScores]] = {row: {} for row in rows if row not in missing}
    failures = []
    with tqdm(total=len(clips) * len(scores), desc="evaluating", unit="video") as bar:
        for clip in clips:
            for row, done in scores.items():
                bar.set_postfix_str(f"{clip.name} {row}", refresh=False)
                try:
                    done[clip.name] = evaluator.evaluate(row, clip, partners[clip.name])
                except UserError as error:
                    failures.append({"clip": clip.name, "row": row, "error": str(error)})
                bar.update()
    if not any(scores.values()):
        raise UserError(f"no clip could be measured; the first failed: {failures[0]['error']}")
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
        "versions": packages.reported_versions(videos.detector.versions),
        **settings.more,
    }  # fmt: skip
    made = report.make_report(scores, rows, missing, failures, pinned, settings.seed)
    return EvaluationResult(made, scores, videos, partners)


def _choose_rows(requested: Sequence[str], available: Mapping[str, str]) -> dict[str, str]:
    unknown = [row for row in requested if row not in available]
    if unknown:
        raise UserError(f"unknown row {unknown[0]!r}; --rows takes {', '.join(available)}")
    return {row: text for row, text in available.items() if not requested or row in requested}


def _find_missing(
    clips: Sequence[EvaluationClip],
    models: MetricModels,
    rows: Mapping[str, str],
    available: Mapping[str, str],
) -> dict[str, str]:
    """Returns {metric or row: why it is not measured}."""
    missing = {}
    for field, (names, reason) in NEEDED_MODELS.items():
        if getattr(models, field) is None:
            missing |= dict.fromkeys(names, reason)
    if all(closures.read_closures(clip.path) is None for clip in clips):
        missing["closures"] = NO_CLOSURES
    if len(clips) < 2:
        unpaired = [row for row in protocol.NEEDS_PARTNER if row in rows]
        missing |= dict.fromkeys(unpaired, "needs a second clip")
    for row in protocol.ROWS:
        if row not in rows:
            missing[row] = "not requested" if row in available else "needs a model to run"
    return missing


def rank_clips(result: EvaluationResult, row: str = "model") -> dict[str, str]:
    """Finds the best, median and worst clip by lip landmark distance.

    Returns:
      {"best", "median", "worst": clip name}; fewer entries if there are fewer clips.
    """
    distances = {
        name: one.numbers["lmd"]
        for name, one in result.scores.get(row, {}).items()
        if one.numbers.get("lmd") is not None
    }
    ranked = sorted(distances, key=distances.get)
    if not ranked:
        return {}
    chosen = {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}
    names = list(chosen.values())
    return {k: name for i, (k, name) in enumerate(chosen.items()) if name not in names[:i]}


def write_sheets(
    result: EvaluationResult, clips: Sequence[EvaluationClip], folder: str | os.PathLike
) -> list[str]:
    """Writes contact sheets and plots of the best, median and worst clip.

    Returns:
      The names of the files.

    Raises:
      UserError: The folder cannot be written, or matplotlib is missing.
    """
    names = []
    by_name = {clip.name: clip for clip in clips}
    for rank, name in rank_clips(result).items():
        images = _draw_sheet(result, by_name[name], rank)
        names.append(sheets.write_sheet(folder, f"{rank}-{safe_name(name)}", images).name)
    return names


def _draw_sheet(result: EvaluationResult, clip: EvaluationClip, rank: str) -> list[np.ndarray]:
    videos, scores = result.videos, result.scores
    truth = videos.measure_original(clip)
    files = {"truth": clip.path}
    for label, row in (("model", "model"), ("autoenc.", "autoencoder"), ("copied", "copy_mouth")):
        if clip.name in scores.get(row, {}):
            files[label] = videos.prepare(row, clip, clip).path
    measured = {label: videos.measure(path) for label, path in files.items()}
    size = max(128, min(2 * videos.crop_size, 256))
    images = [sheets.draw_contact_sheet(files, truth, measured, size)]
    curves = {"truth": truth.opening()}
    for row in ("model", "silence"):
        if clip.name in scores.get(row, {}):
            curves[row] = scores[row][clip.name].curves["opening"]
    distance = scores["model"][clip.name].numbers["lmd"]
    title = f"{clip.name} ({rank}, LMD {distance:.4f}): mouth opening with its own audio"
    images.append(plots.plot_openings(curves, title, images[0].shape[1]))
    if clip.name in scores.get("cross_driven", {}):
        cross = scores["cross_driven"][clip.name].curves
        title = f"{clip.name}: mouth opening driven by {result.partners[clip.name].name}"
        curves = {"truth": cross["truth"], "model": cross["opening"]}
        images.append(plots.plot_openings(curves, title, images[0].shape[1]))
    return images
