"""Evaluates the landmark network alone, on whole held-out clips of prepared data.

References are chosen and windows are placed and blended by the functions that sampling uses, so the
numbers predict the lips of sampled videos before any image is made.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from talkjax import conventions, weights
from talkjax.conventions import MEL_FLOOR, NUM_MELS, TICKS_PER_SECOND
from talkjax.errors import UserError
from talkjax.media import audio
from talkjax.metrics import signals, statistics
from talkjax.sampling import completion, reference
from talkjax.sampling.faces import Candidate

# Maps (T, 16, 80) log-mel windows, (T, 74, 2) poses and (R, 131, 2) references to (T, 57, 2) lips
# and jaw.
Predictor = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

METRICS = {
    "opening_correlation": "Pearson correlation of the mouth opening with the truth's",
    "l1": "mean absolute error of the 57 lip and jaw points, inter-ocular units",
    "l1_static": "the same for the mean of the references, which does not move",
    "articulation": "range (95th - 5th percentile) of the opening over the truth's",
    "jitter": "mean |second difference| of the lips over the truth's",
    "wrong_audio_correlation": "opening_correlation with the audio of the clip half of the split "
    "away: what the pose alone gives",
    "silence_leak": "range of the opening on silent audio over the true range",
}


def load_predictor(directory: str | os.PathLike) -> tuple[Predictor, dict[str, Any]]:
    """Loads the landmark network of an export or of a training run's newest checkpoint.

    Returns:
      The network as a function, and its config.

    Raises:
      UserError: The directory is neither, has no landmark network, or is damaged.
    """
    from talkjax import runs
    from talkjax.sampling import checkpoint, regions

    params, config, _ = runs.load_weights(directory)
    if "landmark" not in params:
        raise UserError(
            f"{directory} has no landmark network; give a run of stage landmark or joint"
        )
    nets, shapes = checkpoint.build_networks({**config, "dtype": "float32"}, directory)
    found, expected = (
        {name: tuple(leaf.shape) for name, leaf in traverse_util.flatten_dict(t, sep="/").items()}
        for t in (params["landmark"], shapes["landmark"])
    )
    weights.check_tensors(found, expected, directory)
    own = jax.device_put({"landmark": params["landmark"]})
    complete = jax.jit(lambda *arrays: regions.complete_content(own, nets, *arrays))

    def predict(mel: np.ndarray, pose: np.ndarray, references: np.ndarray) -> np.ndarray:
        return np.asarray(complete(*(jnp.asarray(x, jnp.float32) for x in (mel, pose, references))))

    return predict, config


def choose_references(record: Any, count: int) -> np.ndarray:
    """Chooses the references that sampling would take if the clip were its template.

    Args:
      record: A `talkjax.data.records.ClipRecord`.
      count: Number of references, R.

    Returns:
      (R, 131, 2) float32 landmarks.

    Raises:
      UserError: No frame of the clip has a measured face.
    """
    found = np.flatnonzero(record.face_found)
    if not len(found):
        raise UserError(f"clip {record.clip_id!r} has no frame with a face; leave it out")
    times = record.timestamps
    candidates = [
        Candidate(int(i), float(times[i]), None, record.frame_landmarks[i])
        for i in found
        if times[i] <= times[found[0]] + reference.FIRST_PASS_S
    ]
    return reference.choose_landmarks(candidates, count)


def predict_clip(
    predict: Predictor, record: Any, references: np.ndarray, window: int, mel: np.ndarray
) -> np.ndarray:
    """Predicts the lips and jaw at every tick of a clip: (T, 57, 2).

    Args:
      predict: The network.
      record: A `talkjax.data.records.ClipRecord`, whose pose is used.
      references: (R, 131, 2) landmarks.
      window: Ticks per window.
      mel: (M, 80) log-mel of the speech; where it is too short, silence follows.
    """
    ticks = record.num_ticks
    times = np.arange(ticks) / TICKS_PER_SECOND
    pose = record.landmarks[:, : conventions.NUM_POSE]

    def windows(first: int, count: int) -> np.ndarray:
        return audio.mel_windows(mel, np.arange(first, first + count))

    track = completion.ContentTrack(
        lambda heard, poses: predict(heard, poses, references),
        windows,
        completion.PoseTrack(iter(zip(times, pose, strict=True)), pose[0]),
        ticks,
        window,
    )
    return np.stack([track.at(time) for time in times])


def content_opening(record: Any, content: np.ndarray) -> np.ndarray:
    """Returns the mouth opening of a clip's own pose with (T, 57, 2) content: (T,)."""
    pose = record.landmarks[:, : conventions.NUM_POSE]
    return conventions.mouth_opening(np.concatenate([pose, content], 1))


def clip_metrics(content: np.ndarray, references: np.ndarray, record: Any) -> dict[str, float]:
    """Computes the metrics of one clip with its own audio.

    Args:
      content: (T, 57, 2) predicted lips and jaw.
      references: (R, 131, 2) landmarks.
      record: A `talkjax.data.records.ClipRecord`.
    """
    truth = record.landmarks.astype(np.float64)
    true_content = truth[:, conventions.NUM_POSE :]
    unit = conventions.interocular(truth).mean()
    whole = np.concatenate([truth[:, : conventions.NUM_POSE], content], 1)
    moved, true_opening = conventions.mouth_opening(whole), conventions.mouth_opening(truth)
    static = references[:, conventions.NUM_POSE :].mean(0)[None]
    return {
        "opening_correlation": signals.correlation(moved, true_opening),
        "l1": float(np.abs(content - true_content).mean() / unit),
        "l1_static": float(np.abs(static - true_content).mean() / unit),
        "articulation": signals.articulation_ratio(moved, true_opening),
        "jitter": signals.jitter_ratio(whole, truth),
    }


def evaluate_landmarks(
    predict: Predictor,
    records: Iterable[Any],
    *,
    window: int,
    references: int,
    seed: int = 0,
) -> dict[str, Any]:
    """Evaluates the network on whole clips.

    Args:
      predict: The network.
      records: `talkjax.data.records.ClipRecord`s; their frames are not needed.
      window: Ticks per window, as in training.
      references: Number of references, as in training.
      seed: Seed of the bootstrap.

    Returns:
      {"metrics": {name: {"mean", "ci95", "n"}}, "per_clip": {clip: {name: number or None}}}.

    Raises:
      UserError: There is no clip.
    """
    records, per_clip = list(records), {}
    silence = np.full((1, NUM_MELS), MEL_FLOOR, np.float32)
    for place, record in enumerate(records):
        chosen = choose_references(record, references)
        numbers = clip_metrics(
            predict_clip(predict, record, chosen, window, record.mel), chosen, record
        )
        truth = conventions.mouth_opening(record.landmarks)
        still = predict_clip(predict, record, chosen, window, silence)
        numbers["silence_leak"] = signals.articulation_ratio(content_opening(record, still), truth)
        numbers["wrong_audio_correlation"] = np.nan
        if len(records) > 1:
            other = records[(place + len(records) // 2) % len(records)]
            wrong = predict_clip(predict, record, chosen, window, other.mel)
            numbers["wrong_audio_correlation"] = signals.correlation(
                content_opening(record, wrong), truth
            )
        per_clip[record.clip_id] = {k: v if np.isfinite(v) else None for k, v in numbers.items()}
    if not per_clip:
        raise UserError("no clip to evaluate; check --data and --split")
    metrics = {
        name: statistics.bootstrap_mean([n[name] for n in per_clip.values()], seed=seed)
        for name in METRICS
    }
    return {"metrics": metrics, "per_clip": per_clip}


def format_table(result: dict[str, Any]) -> str:
    """Formats a result as text, one metric per line."""
    lines = []
    for name, entry in result["metrics"].items():
        if entry["mean"] is None:
            lines.append(f"{name:24s} n/a")
            continue
        line = f"{name:24s} {entry['mean']:.5f}"
        if entry["ci95"] is not None:
            line += "  [{:.5f}, {:.5f}]".format(*entry["ci95"])
        lines.append(f"{line}  {METRICS[name]}")
    return "\n".join([f"{len(result['per_clip'])} clips (mean, 95% bootstrap interval)", *lines])
