"""Evaluates the landmark network alone, on whole held-out clips of prepared data.

References are chosen and windows are placed and blended by the functions that sampling uses, so the
numbers predict the lips of sampled videos before any image is made.

Each half of a clip is predicted with references from the other half, and with their sound, at least
half a second away: as in sampling, they show the same person in the same crop, but not the answer.
"""

import functools
import os
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from talkjax import conventions, weights
from talkjax.conventions import MEL_FLOOR, MELS_PER_SECOND, NUM_MELS, TICKS_PER_SECOND
from talkjax.data import audio_augmentation
from talkjax.data.records import person_of
from talkjax.errors import UserError
from talkjax.metrics import signals, statistics
from talkjax.models.landmark_completion import References
from talkjax.sampling import completion, reference
from talkjax.sampling.faces import Candidate

# Maps (past + T + future, 16, 80) log-mel windows, (T, 74, 2) poses and references to (T, 57, 2)
# lips and jaw.
Predictor = Callable[[np.ndarray, np.ndarray, References], np.ndarray]

METRICS = {
    "opening_correlation": "Pearson correlation of the mouth opening with the truth's",
    "l1": "mean absolute error of the 57 lip and jaw points, inter-ocular units",
    "l1_static": "the same for the mean of the references, which does not move",
    "articulation": "range (95th - 5th percentile) of the opening over the truth's",
    "jitter": "mean |second difference| of the lips over the truth's",
    "wrong_audio_correlation": "opening_correlation with the audio of the clip half of the split "
    "away: what the pose alone gives",
    "silence_leak": "range of the opening on silent audio over the true range",
    "noise_leak": "range of the opening on the steady noise of a room over the true range",
}
MAX_LAG = 10  # ticks
_SILENCE = np.full((1, NUM_MELS), MEL_FLOOR, np.float32)
_APART = 12  # ticks from a half to the references of the other half
_ROOM_NOISE = 6.0  # nats above `MEL_FLOOR`, the loudest; speech has about 13


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
    parts = runs.landmark_parts(config)
    nets, shapes = checkpoint.build_networks({**config, "dtype": "float32"}, directory)
    found, expected = (
        {name: tuple(leaf.shape) for name, leaf in traverse_util.flatten_dict(t, sep="/").items()}
        for t in ({name: tree.get(name, {}) for name in parts} for tree in (params, shapes))
    )
    weights.check_tensors(found, expected, directory)
    own = jax.device_put({name: params[name] for name in parts})
    complete = jax.jit(lambda *arrays: regions.complete_content(own, nets, *arrays))

    def predict(mel: np.ndarray, pose: np.ndarray, references: References) -> np.ndarray:
        return np.asarray(complete(jnp.asarray(mel, jnp.float32), pose, references))

    return predict, config


def choose_references(record: Any, count: int, first: int, last: int) -> References:
    """Chooses references from a part of a clip as sampling would if the part were the template.

    Args:
      record: A `talkjax.data.records.ClipRecord`.
      count: Number of references, R.
      first, last: First tick of the part and the one after its last. If no face was measured there,
        the whole clip is used, without sound.

    Returns:
      References without a batch axis.

    Raises:
      UserError: No frame of the clip has a measured face.
    """
    found = np.flatnonzero(record.face_found)
    if not len(found):
        raise UserError(f"clip {record.clip_id!r} has no frame with a face; leave it out")
    ticks = record.frame_ticks[found]
    inside = found[(ticks >= first) & (ticks < last)]
    chosen = inside if len(inside) else found
    times = record.timestamps[chosen].astype(np.float64)
    chosen, times = (x[times <= times[0] + reference.FIRST_PASS_S] for x in (chosen, times))
    candidates = [
        Candidate(int(i), float(t), None, record.frame_landmarks[i])
        for i, t in zip(chosen, times, strict=True)
    ]
    if not len(inside):
        return reference.choose_landmarks(candidates, count)
    lo, hi = (round(float(t) * MELS_PER_SECOND) for t in (times[0], times[-1]))
    windows = conventions.mel_windows(record.mel, times * TICKS_PER_SECOND)
    sound = windows, record.mel[lo : hi + 1].mean(1)
    return reference.choose_landmarks(candidates, count, sound)


def choose_halves(record: Any, count: int) -> tuple[References, References]:
    """Chooses references for the first half of a clip, from its second half, and vice versa."""
    ticks = record.num_ticks
    middle = ticks // 2
    return (
        choose_references(record, count, min(middle + _APART, ticks - 1), ticks),
        choose_references(record, count, 0, max(middle - _APART, 1)),
    )


def predict_halves(
    predict: Predictor,
    record: Any,
    references: tuple[References, References],
    window: int,
    mel: np.ndarray,
    context: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """Predicts each half of a clip with its own references: (T, 57, 2); see `predict_clip`."""
    middle = record.num_ticks // 2
    first, second = (
        predict_clip(predict, record, chosen, window, mel, context) for chosen in references
    )
    return np.concatenate([first[:middle], second[middle:]])


def predict_clip(
    predict: Predictor,
    record: Any,
    references: References,
    window: int,
    mel: np.ndarray,
    context: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """Predicts the lips and jaw at every tick of a clip: (T, 57, 2).

    Args:
      predict: The network.
      record: A `talkjax.data.records.ClipRecord`, whose pose is used.
      references: References without a batch axis.
      window: Ticks per window.
      mel: (M, 80) log-mel of the speech; where it is too short, silence follows.
      context: Ticks of sound that the network hears before and after a window.
    """
    ticks = record.num_ticks
    times = np.arange(ticks) / TICKS_PER_SECOND
    pose = record.landmarks[:, : conventions.NUM_POSE]

    def windows(first: int, count: int) -> np.ndarray:
        return conventions.mel_windows(mel, np.arange(first, first + count))

    track = completion.ContentTrack(
        lambda heard, poses: predict(heard, poses, references),
        windows,
        completion.PoseTrack(iter(zip(times, pose, strict=True)), pose[0]),
        ticks,
        window,
        context=context,
    )
    return np.stack([track.at(time) for time in times])


def content_opening(record: Any, content: np.ndarray) -> np.ndarray:
    """Returns the mouth opening of a clip's own pose with (T, 57, 2) content: (T,)."""
    pose = record.landmarks[:, : conventions.NUM_POSE]
    return conventions.mouth_opening(np.concatenate([pose, content], 1))


def clip_metrics(
    content: np.ndarray, references: tuple[References, References], record: Any
) -> dict[str, float]:
    """Computes the metrics of one clip with its own audio.

    Args:
      content: (T, 57, 2) predicted lips and jaw.
      references: Those of the two halves, without a batch axis.
      record: A `talkjax.data.records.ClipRecord`.
    """
    truth = record.landmarks.astype(np.float64)
    true_content = truth[:, conventions.NUM_POSE :]
    unit = conventions.interocular(truth).mean()
    whole = np.concatenate([truth[:, : conventions.NUM_POSE], content], 1)
    moved, true_opening = conventions.mouth_opening(whole), conventions.mouth_opening(truth)
    middle = record.num_ticks // 2
    means = [r.landmarks[:, conventions.NUM_POSE :].mean(0) for r in references]
    static = np.stack([means[int(tick >= middle)] for tick in range(record.num_ticks)])
    return {
        "opening_correlation": signals.correlation(moved, true_opening),
        "l1": float(np.abs(content - true_content).mean() / unit),
        "l1_static": float(np.abs(static - true_content).mean() / unit),
        "articulation": signals.articulation_ratio(moved, true_opening),
        "jitter": signals.jitter_ratio(whole, truth),
    }


def lagged_correlations(opening: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Correlates two (T,) openings at the lags -10 to 10 ticks: (21,), NaN if they are too short.

    At a positive lag, `opening` is taken from later: it is late if that fits better.
    """
    lags = range(-MAX_LAG, MAX_LAG + 1)
    return np.array([signals.correlation(opening[max(k, 0) :], truth[max(-k, 0) :]) for k in lags])


def find_best_lag(curves: np.ndarray) -> tuple[float, float]:
    """Finds the lag at which the mean of (n, 21) lagged correlations is greatest.

    Returns:
      The lag in milliseconds, between ticks by a parabola, and the mean correlation there.
    """
    mean = np.nanmean(curves, axis=0)
    best = int(mean.argmax())
    offset, value = 0.0, float(mean[best])
    if 0 < best < len(mean) - 1:
        before, here, after = mean[best - 1 : best + 2]
        bend = before - 2 * here + after
        offset = 0.5 * (before - after) / bend if bend < 0 else 0.0
        value = float(here - 0.25 * (before - after) * offset)
    return 1000 / TICKS_PER_SECOND * (best - MAX_LAG + offset), value


def describe_lag(curves: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """Describes the lag of some clips, with 95% bootstrap intervals over clips.

    Returns:
      {"clips", "opening_correlation", "best_lag_ms", "correlation_at_best_lag"}; all but the first
      are {"mean", "ci95"}, whose interval is None for a single clip.
    """
    curves = curves[np.isfinite(curves[:, MAX_LAG])]
    names = ("opening_correlation", "best_lag_ms", "correlation_at_best_lag")
    if not len(curves):
        return {"clips": 0} | {name: {"mean": None, "ci95": None} for name in names}

    def measure(rows: np.ndarray) -> tuple[float, float, float]:
        return (float(rows[:, MAX_LAG].mean()), *find_best_lag(rows))

    rng, drawn = np.random.default_rng(seed), None
    if len(curves) > 1:
        drawn = [measure(curves[rng.integers(len(curves), size=len(curves))]) for _ in range(500)]
    out: dict[str, Any] = {"clips": len(curves)}
    for i, (name, value) in enumerate(zip(names, measure(curves), strict=True)):
        interval = None
        if drawn is not None:
            interval = np.percentile([d[i] for d in drawn], (2.5, 97.5)).tolist()
        out[name] = {"mean": value, "ci95": interval}
    return out


def evaluate_landmarks(
    predict: Predictor,
    records: Iterable[Any],
    *,
    window: int,
    references: int,
    context: tuple[int, int] = (0, 0),
    seed: int = 0,
    observe: Callable[[str, dict[str, np.ndarray]], None] | None = None,
) -> dict[str, Any]:
    """Evaluates the network on whole clips.

    Args:
      predict: The network.
      records: `talkjax.data.records.ClipRecord`s; their frames are not needed.
      window: Ticks per window, as in training.
      references: Number of references, as in training.
      context: Ticks of sound that the network hears before and after a window.
      seed: Seed of the bootstrap and of the noise.
      observe: Called with each clip's id and its (T,) openings "truth", "prediction" and "silence".

    Returns:
      {"metrics": {name: {"mean", "ci95", "n"}}, "lag": see `describe_lag`, "people": {person: the
      same}, "with_reference_sound": number of clips whose references are heard, "per_clip": {clip:
      {name: number or None}}}.

    Raises:
      UserError: There is no clip.
    """
    records, per_clip = list(records), {}
    if not records:
        raise UserError("no clip to evaluate; check --data and --split")
    curves, heard = [], 0
    for place, record in enumerate(records):
        chosen = choose_halves(record, references)
        heard += any(r.heard.any() for r in chosen)
        predict_with = functools.partial(
            predict_halves, predict, record, chosen, window, context=context
        )
        other = records[(place + len(records) // 2) % len(records)]
        noise = audio_augmentation.random_silence(
            np.random.default_rng([seed, place]), len(record.mel), _ROOM_NOISE
        )
        content = predict_with(record.mel)
        truth = conventions.mouth_opening(record.landmarks)
        opening = content_opening(record, content)
        curves.append(lagged_correlations(opening, truth))
        numbers = clip_metrics(content, chosen, record)
        openings = {"truth": truth, "prediction": opening}
        for name, mel in (("silence", _SILENCE), ("noise", noise)):
            # The references of one half, because their change would count as motion.
            still = predict_clip(predict, record, chosen[0], window, mel, context)
            openings[name] = content_opening(record, still)
            numbers[f"{name}_leak"] = signals.articulation_ratio(openings[name], truth)
        if observe:
            observe(record.clip_id, openings)
        numbers["wrong_audio_correlation"] = np.nan
        if other is not record:
            moved = content_opening(record, predict_with(other.mel))
            numbers["wrong_audio_correlation"] = signals.correlation(moved, truth)
        per_clip[record.clip_id] = {k: v if np.isfinite(v) else None for k, v in numbers.items()}
    metrics = {
        name: statistics.bootstrap_mean([n[name] for n in per_clip.values()], seed=seed)
        for name in METRICS
    }
    people = np.array([person_of(record.clip_id) for record in records])
    stacked = np.stack(curves)
    return {
        "metrics": metrics,
        "lag": describe_lag(stacked, seed),
        "people": {p: describe_lag(stacked[people == p], seed) for p in sorted(set(people))},
        "with_reference_sound": heard,
        "per_clip": per_clip,
    }


def format_table(result: dict[str, Any]) -> str:
    """Formats a result as text: one metric per line, then the lag, and a line per person."""
    lines = []
    for name, entry in result["metrics"].items():
        if entry["mean"] is None:
            lines.append(f"{name:24s} n/a")
            continue
        line = f"{name:24s} {entry['mean']:.5f}"
        if entry["ci95"] is not None:
            line += "  [{:.5f}, {:.5f}]".format(*entry["ci95"])
        lines.append(f"{line}  {METRICS[name]}")
    lines.append("")
    lines.append(
        f"{'person':24s} clips  correlation           best lag in ms (+ is late)  correlation there"
    )
    for name, entry in [("all", result["lag"]), *result["people"].items()]:
        lines.append(f"{name[-24:]:24s} {entry['clips']:5d}  " + _format_lag(entry))
    return "\n".join(
        [
            f"{len(result['per_clip'])} clips (mean, 95% bootstrap interval), "
            f"{result['with_reference_sound']} with the references' sound",
            *lines,
        ]
    )


def _format_lag(entry: dict[str, Any]) -> str:
    cells = []
    for name, digits, width in (
        ("opening_correlation", 2, 20),
        ("best_lag_ms", 0, 26),
        ("correlation_at_best_lag", 2, 0),
    ):
        value = entry[name]
        if value["mean"] is None:
            cells.append("n/a".ljust(width))
            continue
        text = f"{value['mean']:.{digits}f}"
        if value["ci95"] is not None:
            low, high = value["ci95"]
            text += f" [{low:.{digits}f}, {high:.{digits}f}]"
        cells.append(text.ljust(width))
    return "  ".join(cells).rstrip()
