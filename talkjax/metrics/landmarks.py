"""The landmark network alone, over whole held-out clips of prepared data.

References are chosen, windows laid and blended by the functions that sampling uses, so the numbers
say what its lips will do before any picture is made.
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

# (T, 16, 80) log-mel windows, (T, 74, 2) poses, (R, 131, 2) references to (T, 57, 2) content.
Predict = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

METRICS = {
    "opening_correlation": "Pearson correlation of the mouth's opening with the truth's",
    "l1": "mean |dx|, |dy| of the 57 lip and jaw points, inter-ocular units",
    "l1_static": "the same of the references' mean content, which does not move",
    "articulation": "range (95th - 5th percentile) of the opening over the truth's",
    "jitter": "mean |second difference| of the lips over the truth's",
    "wrong_audio_correlation": "opening_correlation with the audio of the clip half of the split "
    "away: what pose and habit alone give",
    "silence_leak": "range of the opening on silence over the true range",
}


def load_predict(directory: str | os.PathLike) -> tuple[Predict, dict[str, Any]]:
    """The landmark network of an export or of a run's newest checkpoint, of whatever stage has it.

    Returns:
      The network and its config.

    Raises:
      UserError: it is neither, has no landmark network, or is damaged.
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


def reference_landmarks(record: Any, count: int) -> np.ndarray:
    """What sampling would take as references, were the clip its template: (count, 131, 2) float32.

    Args:
      record: a `talkjax.data.records.ClipRecord`.
      count: R.

    Raises:
      UserError: no frame of the clip has a measured face.
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
    predict: Predict, record: Any, references: np.ndarray, window: int, mel: np.ndarray
) -> np.ndarray:
    """Content of every tick of a clip: (T, 57, 2).

    Args:
      predict: the network.
      record: a `talkjax.data.records.ClipRecord`; its pose is used.
      references: (R, 131, 2).
      window: ticks of a window.
      mel: (M, 80) speech; silence where it is too short.
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


def opening(record: Any, content: np.ndarray) -> np.ndarray:
    """(T,) mouth opening of a clip's own pose with (T, 57, 2) content."""
    pose = record.landmarks[:, : conventions.NUM_POSE]
    return conventions.mouth_opening(np.concatenate([pose, content], 1))


def clip_numbers(content: np.ndarray, references: np.ndarray, record: Any) -> dict[str, float]:
    """The metrics of one clip with its own audio.

    Args:
      content: (T, 57, 2) predicted.
      references: (R, 131, 2).
      record: a `talkjax.data.records.ClipRecord`.
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
        "articulation": signals.articulation(moved, true_opening),
        "jitter": signals.jitter(whole, truth),
    }


def evaluate_landmarks(
    predict: Predict,
    records: Iterable[Any],
    *,
    window: int,
    references: int,
    seed: int = 0,
) -> dict[str, Any]:
    """Runs the network over whole clips.

    Args:
      predict: the network.
      records: `talkjax.data.records.ClipRecord`s, frames not needed.
      window: ticks of a window, as in training.
      references: their number, as in training.
      seed: of the bootstrap.

    Returns:
      {"metrics": {name: {"mean", "ci95", "n"}}, "per_clip": {clip: {name: number}}}.

    Raises:
      UserError: no clip.
    """
    records, per_clip = list(records), {}
    silence = np.full((1, NUM_MELS), MEL_FLOOR, np.float32)
    for place, record in enumerate(records):
        chosen = reference_landmarks(record, references)
        numbers = clip_numbers(
            predict_clip(predict, record, chosen, window, record.mel), chosen, record
        )
        truth = conventions.mouth_opening(record.landmarks)
        still = predict_clip(predict, record, chosen, window, silence)
        numbers["silence_leak"] = signals.articulation(opening(record, still), truth)
        numbers["wrong_audio_correlation"] = np.nan
        if len(records) > 1:
            other = records[(place + len(records) // 2) % len(records)]
            wrong = predict_clip(predict, record, chosen, window, other.mel)
            numbers["wrong_audio_correlation"] = signals.correlation(opening(record, wrong), truth)
        per_clip[record.clip_id] = {k: v if np.isfinite(v) else None for k, v in numbers.items()}
    if not per_clip:
        raise UserError("no clip to evaluate; check --data and --split")
    metrics = {
        name: statistics.bootstrap([n[name] for n in per_clip.values()], seed=seed)
        for name in METRICS
    }
    return {"metrics": metrics, "per_clip": per_clip}


def table(result: dict[str, Any]) -> str:
    """One line a metric."""
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
