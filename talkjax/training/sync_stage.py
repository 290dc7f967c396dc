"""Stage `sync`: an expert that recognises whether lips and sound belong together.

It is trained by multi-way matching (Chung et al., *Perfect match*, ICASSP 2019): find a lip
window's own sound among the sounds around it, and a sound's lips among the lips around it. The
softmax is over the distances that `talkjax.metrics.sync` measures. Windows of one run are each
other's negatives. In addition, the shape of the lips must be readable from both embeddings
(`shape_loss`), which starts the learning. Matching can stay at chance forever without an error;
`find_problem` reports that and why.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from talkjax.models import sync_expert
from talkjax.training import losses, sync_augment
from talkjax.training.rng import stream
from talkjax.training.stage import Batch, Metrics, Params, Stage

_START_SCALE = 10.0  # of the squared distances, 0 to 4, in the softmax
_MAX_SCALE = 100.0
_LEFT = 0.95  # of chance: below it the loss has left
_STILL = 1e-3  # deviations within a run, below which nothing moves
_COLLAPSED = 5e-3  # of embeddings of length 1, within a run
_FLAT = 1e-6  # norm of a gradient that has vanished


def make_sync_stage(config: Mapping[str, Any]) -> Stage:
    """The stage of `config.sync`.

    Raises:
      ValueError: the config does not fit together.
    """
    model = sync_expert.from_config(config)
    size, augment = tuple(config["sync"]["image"]), dict(config["sync"]["augment"])
    lags, margin = config["sync"]["lags"], config["data"]["sound_margin"]
    shape_weight = config["sync"]["shape_weight"]
    windows = config["data"]["window"] - sync_expert.FRAMES + 1
    if windows < 1 or lags < 1 or windows + margin < 2:
        raise ValueError("stage sync needs data.window of at least 6 ticks and sync.lags of 1")

    def init(key: jax.Array, batch: Batch) -> Params:
        lips = sync_expert.network_images(batch["lips"], size)
        params = model.init(key, lips, audio_inputs(batch["mel"]))["params"]
        heads = jnp.zeros((2, config["sync"]["embedding"], batch["shape"].shape[-1]))
        scale = jnp.full((), math.log(_START_SCALE))
        return {"sync": {**params, "log_scale": scale, "heads": heads}}

    def terms(params: Params, batch: Batch, lips: jax.Array) -> tuple[jax.Array, Metrics]:
        params = dict(params["sync"])
        heads = params.pop("heads")
        scale = jnp.minimum(jnp.exp(params.pop("log_scale")), _MAX_SCALE)
        inputs = audio_inputs(batch["mel"])
        embedded = model.apply({"params": params}, lips, inputs)
        matching, metrics = matching_loss(*embedded, scale, lags)
        matching = losses.mean(matching, batch)
        metrics = {name: losses.mean(values, batch) for name, values in metrics.items()}
        weight = batch.get("weight", jnp.ones(len(lips)))
        lips_shape, audio_shape = (
            shape_loss(e, head, batch["shape"], weight)
            for e, head in zip(embedded, heads, strict=True)
        )
        return matching + shape_weight * (lips_shape + audio_shape) / 2, {
            **metrics,
            "matching": matching,
            "lips_shape": lips_shape,
            "audio_shape": audio_shape,
            "scale": scale,
            "lips_change": network_change(lips),
            "audio_change": network_change(inputs),
        }

    def loss_fn(params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        lips = sync_augment.distort(stream(key, "distort"), batch["lips"], size, augment)
        loss, metrics = terms(params, batch, lips)
        plain = sync_expert.network_images(batch["lips"], size)  # noise must not count as motion
        return loss, {**metrics, "lips_change": network_change(plain)}

    def eval_fn(params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        del key  # nothing is random
        return terms(params, batch, sync_expert.network_images(batch["lips"], size))

    find_problem = make_find_problem(*chance(windows, margin, lags), config["sync"]["patience"])
    return Stage(init, loss_fn, None, ("sync",), eval_fn, find_problem)


def audio_inputs(mel: jax.Array) -> jax.Array:
    """Log-mel spans (B, F, 80) as the windows (B, N, 13, 20, 1) that the network hears."""
    return sync_expert.audio_windows(sync_expert.cepstra(mel))


def network_change(values: jax.Array) -> jax.Array:
    """Mean standard deviation of (B, L, ...) inputs along their second axis, a scalar."""
    return values.std(1).mean()


def candidates(windows: int, margin: int, lags: int) -> np.ndarray:
    """Which sounds a lip window is compared with: (W, W + 2 * margin) bool, those within `lags`."""
    sounds = np.arange(windows + 2 * margin)[None] - margin
    return np.abs(sounds - np.arange(windows)[:, None]) <= lags


def matching_loss(
    lips: jax.Array, audio: jax.Array, scale: jax.Array, lags: int
) -> tuple[jax.Array, Metrics]:
    """Cross-entropy of every lip window's own sound among its neighbours, and the other way round.

    Args:
      lips: (B, W, D).
      audio: (B, W + 2 m, D), m sounds before those of the lip windows and m behind.
      scale: of the negative squared distances.
      lags: ticks either way of what is compared.

    Returns:
      (B,) loss in nats, and metrics, (B,) each: accuracy (nearest sound at most one tick off), the
      mean distance to the own and to all sounds, and the spread of embeddings within a run.
    """
    windows = lips.shape[1]
    margin = (audio.shape[1] - windows) // 2
    own = np.arange(windows) + margin
    wanted = jnp.asarray(candidates(windows, margin, lags))[None]
    distances = sync_expert.distances(lips, audio)
    logits = jnp.where(wanted, -scale * jnp.square(distances), -jnp.inf)
    of_sounds = jax.nn.log_softmax(logits, -1)[:, np.arange(windows), own]
    of_lips = jax.nn.log_softmax(logits[:, :, own], 1)[:, np.arange(windows), np.arange(windows)]
    nearest = jnp.where(wanted, distances, jnp.inf).argmin(-1)
    near = jnp.abs(nearest - own[None]) <= 1
    return -(of_sounds.mean(1) + of_lips.mean(1)) / 2, {
        "accuracy": near.astype(jnp.float32).mean(1),
        "distance": distances[:, np.arange(windows), own].mean(1),
        "distance_all": distances.mean((1, 2)),
        "lips_spread": spread(lips),
        "audio_spread": spread(audio),
    }


def shape_loss(
    embedded: jax.Array, head: jax.Array, shapes: jax.Array, weight: jax.Array
) -> jax.Array:
    """How badly a linear map reads the lips' shape off embeddings: 1 if not at all, 0 if exactly.

    Matching alone has a long way to its first clue, and both networks must find it at once; a shape
    to be read off each teaches them alone.

    Args:
      embedded: (B, W + 2 m, D).
      head: (D, S).
      shapes: (B, W, S), see `talkjax.data.sync_samples.lip_shapes`.
    """
    margin = (embedded.shape[1] - shapes.shape[1]) // 2
    read = embedded[:, margin : margin + shapes.shape[1]] @ head
    # Within the run: what a face is like by itself must not matter.
    read, shapes = (x - x.mean(1, keepdims=True) for x in (read, shapes))
    weight = weight[:, None, None]
    total = jnp.maximum((weight * jnp.square(shapes)).sum(), 1e-3)
    return (weight * jnp.square(read - shapes)).sum() / total


def chance(windows: int, margin: int, lags: int) -> tuple[float, float]:
    """Loss and accuracy of a network that knows nothing."""
    wanted = candidates(windows, margin, lags)
    square = wanted[:, margin : margin + windows]
    loss = (np.log(wanted.sum(1)).mean() + np.log(square.sum(0)).mean()) / 2
    near = candidates(windows, margin, 1)
    return float(loss), float((near.sum(1) / wanted.sum(1)).mean())


def spread(embeddings: jax.Array) -> jax.Array:
    """Root mean squared distance of each run's embeddings (B, N, D) from their mean, (B,)."""
    centred = embeddings - embeddings.mean(1, keepdims=True)
    return jnp.sqrt(jnp.square(centred).sum(-1).mean(1))


def make_find_problem(
    chance_loss: float, chance_accuracy: float, patience: int
) -> Callable[[dict[str, float]], str | None]:
    """Tells from a logged row, after `patience` steps, that the loss is at chance, and why."""

    def find_problem(row: dict[str, float]) -> str | None:
        # A loss that is NaN is reported elsewhere.
        if row["step"] < patience or not row["matching"] > _LEFT * chance_loss:
            return None
        reason = _reason(row, chance_accuracy)
        return f"matching {row['matching']:.3f} is at chance ({chance_loss:.3f}): {reason}"

    return find_problem


def _reason(row: Mapping[str, float], chance_accuracy: float) -> str:
    if row["learning_rate"] <= 0:
        return "the learning rate is 0; raise --config.optimizer.learning_rate"
    for name, what in (("lips", "pictures"), ("audio", "sounds")):
        if row[f"{name}_change"] < _STILL:
            return f"the {what} of a run are all alike ({name}_change); look at the data"
    dead = [name for name in ("lips", "audio") if row[f"{name}_spread"] < _COLLAPSED]
    if dead:
        return (
            f"the embeddings of {' and '.join(dead)} have collapsed to a point (*_spread); lower "
            "--config.optimizer.learning_rate or start again with another --config.seed"
        )
    if row["grad_norm"] < _FLAT:
        return "the gradient has vanished (grad_norm); start again with another --config.seed"
    near = f"{row['accuracy']:.2f} of windows are placed to a tick, by chance {chance_accuracy:.2f}"
    if row["accuracy"] > 2 * chance_accuracy:
        return f"yet {near}: it is learning; give it more steps"
    return (
        f"inputs, embeddings and gradient are alive ({near}), so sound and pictures of the data "
        "may be out of sync or too few, or the run needs more steps; check a clip by eye"
    )
