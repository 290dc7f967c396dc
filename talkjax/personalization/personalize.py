"""From footage of a person to a checkpoint for this person, and a report of what it gained."""

import contextlib
import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from talkjax import export, files
from talkjax.data import storage
from talkjax.errors import UserError
from talkjax.media.container import check_local_file
from talkjax.metrics import packages, workspace
from talkjax.personalization import comparison, footage, landmarks
from talkjax.sampling import compile_cache, pretrained

REPORT = "report.json"
_WORK = ".work"
_CORRELATION_LOSS = 0.05  # more than chance on a few seconds
_FOLLOWS = 0.25  # correlation below which a warning asks whose voice it is


def personalize(
    video: str | os.PathLike | Sequence[str | os.PathLike],
    out: str | os.PathLike,
    *,
    checkpoint: str | os.PathLike | None = None,
    minutes: float = 5.0,
    face: str = "largest",
    keep_offset: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Adapts a checkpoint to the person of some footage.

    A fifth of the footage is held out, and the networks of `checkpoint` stay where they are better
    on it. Called again after an interruption, it goes on where it stopped.

    Args:
      video: One video or several, in which the person speaks: 10 s are useful, a minute is good.
      out: Folder for the checkpoint, `report.json` and `before_after.png`.
      checkpoint: See `Sampler.from_pretrained`; it is only read.
      minutes: Longest duration of the training. Finding the face takes about as long as the footage
        lasts, and the comparison half a minute besides.
      face: The face to follow: "largest", or a number from 0, left to right.
      keep_offset: Whether lips keep the offset from the sound that the footage has, where it is
        measured with certainty. Otherwise it is removed.
      quiet: Whether to print nothing.

    Returns:
      The contents of `report.json`: {"footage", "landmarks": {"before", "after"}, "videos":
      {"before", "after"}, "adapted", "seconds"}.

    Raises:
      UserError: The footage or the checkpoint cannot be used, or `out` cannot be written.
    """
    begun = time.monotonic()
    say = (lambda _: None) if quiet else print
    videos = [video] if isinstance(video, str | os.PathLike) else list(video)
    if not videos:
        raise UserError("no footage is given; name a video")
    for path in videos:
        check_local_file(path)
    packages.require(*packages.EVAL_MODULES)
    base = Path(pretrained.find_checkpoint(checkpoint))
    out = _claim(out, base)
    work = out / _WORK
    try:
        work.mkdir(exist_ok=True)
        found = footage.prepare(videos, work, base, face=face, keep_offset=keep_offset, quiet=quiet)
        say(_describe_footage(found))
        compile_cache.enable()
        identity = _identity(base, found.shards)
        run = work / f"landmark_{identity}"
        with open(work / "training.log", "a") as log, contextlib.redirect_stdout(log):
            adapted = landmarks.adapt(base, found.shards, run, 60 * minutes)
        before_after = {"before": base} | ({"after": adapted} if adapted else {})
        measured = comparison.compare_landmarks(before_after, found.shards)
        better = bool(adapted) and is_better(measured["after"], measured["before"])
        export.export(out, landmark=adapted if better else base, diffusion=base)
        shown = {"before": base} | ({"after": out} if better else {})
        piece = max(found.held_out, key=lambda piece: piece.seconds)
        videos_measured = comparison.compare_videos(shown, piece, found.offset_ms, out)
        report = {
            "footage": found.describe(),
            "landmarks": measured,
            "videos": videos_measured,
            "adapted": ["landmark"] if better else [],
            "seconds": round(time.monotonic() - begun, 1),
        }
        files.write_json(out / REPORT, report)
    except OSError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{out} cannot be written ({error.strerror or error}); make room there or choose "
            "another folder (finished work is kept)"
        ) from error
    say(_describe_result(report, out))
    return report


def is_better(after: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Returns whether landmarks are nearer to the truth, and follow the sound as well as before."""
    if after["l1"] is None or after["l1"] >= before["l1"]:  # None: it is not a number
        return False
    follows = [x["opening_correlation"] or 0.0 for x in (after, before)]
    return follows[0] > follows[1] - _CORRELATION_LOSS


def _claim(out: str | os.PathLike, base: Path) -> Path:
    """Creates the folder of the result, which must not be that of the base or of something else."""
    if files.is_remote(out):
        raise UserError(f"{out} is in a bucket; write to a local folder and copy it")
    out = Path(out)
    if out.exists() and base.exists() and os.path.samefile(out, base):
        raise UserError(f"{out} is the checkpoint to start from; choose another folder")
    if out.is_dir() and any(out.iterdir()) and not (out / _WORK).is_dir():
        raise UserError(f"{out} is not empty; choose another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out} cannot be created ({error.strerror})") from error
    return out


def _identity(base: Path, shards: Path) -> str:
    """Returns what tells a training run from one of other footage or another checkpoint."""
    parts = workspace.hash_checkpoint(base), storage.read_index(shards)["fingerprint"]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _describe_footage(found: footage.Footage) -> str:
    lines = [
        f"footage: {found.train_seconds:.0f} s to learn from, {found.held_out_seconds:.0f} s held "
        "out"
    ]
    if found.offset_ms:
        later = "later" if found.offset_ms > 0 else "earlier"
        lines.append(f"sound: {abs(found.offset_ms):.0f} ms {later} than the picture, corrected")
    if found.agreement < _FOLLOWS:
        lines.append(
            f"warning: the lips hardly follow the sound (correlation {found.agreement:.2f}); is it "
            "this person's voice, without music?"
        )
    lines += [f"left out: {line}" for line in found.left_out]
    return "\n".join(lines)


def _describe_result(report: dict[str, Any], out: Path) -> str:
    lines = [f"{'held-out footage':32s} {'before':>8s} {'after':>8s}"]
    for title, part, metric in (
        ("error of the lips' landmarks", "landmarks", "l1"),
        ("their correlation with the truth", "landmarks", "opening_correlation"),
        ("lip distance in the video", "videos", "lmd"),
    ):
        values = (report[part].get(when, {}).get(metric) for when in ("before", "after"))
        cells = ("" if value is None else f"{value:.4f}" for value in values)
        lines.append(f"{title:32s} " + " ".join(f"{cell:>8s}" for cell in cells))
    if not report["adapted"]:
        lines.append("the networks stay as they were: adapted, they are not better on this footage")
    lines.append(f"wrote {out}, {out / REPORT} and {out / comparison.SHEET}")
    return "\n".join(lines)
