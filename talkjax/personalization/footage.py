"""Turns videos of a person into training data: a part to learn from, and one that is held out."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from talkjax import conventions, pipelines
from talkjax.data import records, windows
from talkjax.errors import UserError
from talkjax.metrics import clips, landmarks, signals

SHORTEST = 4.0  # seconds of usable footage
_HELD_OUT_SHARE = 0.2
_HELD_OUT_SECONDS = 20.0  # at most
_MEASURED = 40  # pieces whose lag is measured, at most
_SMALLEST_OFFSET_MS = 20.0  # half a frame; smaller ones are not seen
_WIDEST_INTERVAL_MS = 60.0
_QUIET = 1.5  # nats between the loudest and the softest moments; speech has 5 and more
_STILL = 0.01  # range of the mouth's opening, inter-ocular units; speech has 0.1 and more


@dataclasses.dataclass(frozen=True)
class Footage:
    """Prepared footage of one person.

    Attributes:
      shards: Folder with the splits "train" and "test".
      held_out: Pieces of the split "test", as `data_pipelines.one_person` describes them.
      train_seconds, held_out_seconds: Duration of the splits.
      offset_ms: How much later the sound of the videos is than the picture; the shards are without
        this offset. 0 where it is too small or too uncertain to be removed.
      agreement: Correlation of the mouth's opening with what the checkpoint predicts from the
        sound, at the best lag. Near 0, the voice may be another person's.
      left_out: A line for each part of a video that cannot be used.
    """

    shards: Path
    held_out: list[Any]
    train_seconds: float
    held_out_seconds: float
    offset_ms: float
    agreement: float
    left_out: list[str]

    def describe(self) -> dict[str, Any]:
        """Returns the numbers for a report."""
        return {
            "train_seconds": round(self.train_seconds, 2),
            "held_out_seconds": round(self.held_out_seconds, 2),
            "sound_offset_ms": round(self.offset_ms, 1),
            "agreement": round(self.agreement, 3),
            "left_out": self.left_out,
        }


def prepare(
    videos: Sequence[str | os.PathLike],
    work: Path,
    checkpoint: str | os.PathLike,
    *,
    face: str = "largest",
    keep_offset: bool = False,
    quiet: bool = False,
) -> Footage:
    """Prepares footage.

    Args:
      videos: Files that show the person while it speaks.
      work: Folder for what is made; what an interrupted call made there is used again.
      checkpoint: Checkpoint whose landmark network measures the offset of the sound, and whose crop
        size the pictures have.
      face: The face to follow, see `talkjax.media.tracking.parse_face`.
      keep_offset: Whether the offset between sound and picture is left as it is.
      quiet: Whether to show no progress bar.

    Raises:
      UserError: A file is no video, too little of them can be used, nobody speaks, or the folder
        cannot be written.
    """
    one_person = pipelines.load("one_person")
    predict, config = landmarks.load_predictor(checkpoint)
    size = config["crop_size"]
    pieces, left_out = one_person.extract_pieces(videos, work / "pieces", size, face, quiet)
    usable = sum(piece.seconds for piece in pieces)
    if usable < SHORTEST or len(pieces) < 2:
        why = f" ({'; '.join(left_out[:3])})" if left_out else ""
        raise UserError(
            f"only {usable:.1f} s of the footage can be used{why}; at least {SHORTEST:g} s without "
            "a cut are needed, 30 s are better"
        )
    found = [
        records.with_normalized_pose(records.load_npz(piece.record))
        for piece in clips.take_evenly(pieces, _MEASURED)
    ]
    _check_speech(found)
    lag = _measure_lag(predict, config, found)
    offset = 0.0 if keep_offset else _certain_offset(lag["best_lag_ms"])
    rows = [_without_offset(piece, offset) for piece in pieces]
    count = _held_out_count([piece.seconds for piece in pieces])
    one_person.pack_pieces({"train": rows[:-count], "test": rows[-count:]}, work / "shards", size)
    return Footage(
        work / "shards",
        pieces[-count:],
        sum(piece.seconds for piece in pieces[:-count]),
        sum(piece.seconds for piece in pieces[-count:]),
        offset,
        lag["correlation_at_best_lag"]["mean"],
        left_out,
    )


def _held_out_count(seconds: Sequence[float]) -> int:
    """Returns how many of the last pieces are held out: a fifth of the footage, at most 20 s."""
    wanted = min(_HELD_OUT_SHARE * sum(seconds), _HELD_OUT_SECONDS)
    after = np.cumsum(seconds[::-1])
    return int(min(np.searchsorted(after, wanted - 1e-6) + 1, len(seconds) - 1))


def _check_speech(found: Sequence[records.ClipRecord]) -> None:
    """Raises a `UserError` if the sound is silence or the lips stand still in all of the pieces."""
    loudness = np.concatenate([record.mel.mean(1) for record in found])
    if signals.percentile_range(loudness) < _QUIET:
        raise UserError("the footage has no speech: its sound is silence or a steady noise")
    opening = np.concatenate([conventions.mouth_opening(record.landmarks) for record in found])
    if signals.percentile_range(opening) < _STILL:
        raise UserError("the lips do not move in the footage; give footage of the person speaking")


def _measure_lag(
    predict: landmarks.Predictor, config: Any, found: Sequence[records.ClipRecord]
) -> dict[str, Any]:
    """Measures how much later the sound is than the picture; see `landmarks.describe_lag`."""
    context = config["landmark"]["past"], config["landmark"]["future"]
    curves = [
        landmarks.lagged_correlations(
            landmarks.content_opening(
                record,
                landmarks.predict_halves(
                    predict,
                    record,
                    landmarks.choose_halves(record, config["data"]["references"]),
                    config["data"]["window"],
                    record.mel,
                    context,
                ),
            ),
            conventions.mouth_opening(record.landmarks),
        )
        for record in found
    ]
    return landmarks.describe_lag(np.stack(curves))


def _certain_offset(lag: dict[str, Any]) -> float:
    """Returns the offset to remove in milliseconds, 0 if it is small or uncertain."""
    if lag["ci95"] is None or lag["ci95"][1] - lag["ci95"][0] > _WIDEST_INTERVAL_MS:
        return 0.0
    return float(lag["mean"]) if abs(lag["mean"]) >= _SMALLEST_OFFSET_MS else 0.0


def _without_offset(piece: Any, offset: float) -> tuple[str, Path, int]:
    """Returns id, file and number of ticks of a piece whose sound is moved by the offset."""
    path, ticks = piece.record, round(piece.seconds * conventions.TICKS_PER_SECOND)
    if offset:
        path = path.with_name(f"{path.stem}.{offset:+.0f}ms.npz")
        if not path.exists():
            record = records.load_npz(piece.record)
            later = round(offset * conventions.MELS_PER_SECOND / 1000)
            moved = windows.move_mel(record.mel, -later)
            records.save_npz(path, dataclasses.replace(record, mel=moved))
    return piece.clip_id, path, ticks
