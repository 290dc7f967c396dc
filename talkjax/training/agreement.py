"""Measures how much of the gradient that reaches the landmark network end to end is signal.

A gradient can be large and carry no information, if its direction is that of the noise and the
timesteps that happened to be drawn. Signal is what independent batches have in common.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from talkjax.training import stages
from talkjax.training.rng import stream
from talkjax.training.stage import Batch, Params


def agreement(gradients: np.ndarray) -> dict[str, float]:
    """Measures what (N, P) gradients of N independent batches have in common.

    Returns:
      "norm": mean norm of a gradient; "norm_of_mean": norm of their mean (`norm` over the square
      root of N for pure noise); "cosine_of_halves": cosine between the means of the even and the
      odd batches (1 without noise, about 0 for pure noise).
    """
    halves = gradients[::2].mean(0), gradients[1::2].mean(0)
    return {
        "norm": float(np.linalg.norm(gradients, axis=1).mean()),
        "norm_of_mean": float(np.linalg.norm(gradients.mean(0))),
        "cosine_of_halves": cosine(*halves),
    }


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the cosine of the angle between two vectors, 0 if one of them is zero."""
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / lengths) if lengths > 0 else 0.0


def landmark_gradients(
    config: Mapping[str, Any], params: Params, batches: Iterable[Batch], seed: int = 0
) -> dict[str, Any]:
    """Compares the gradients of the two losses of stage `joint` in the landmark network.

    Args:
      config: Configuration of a joint run.
      params: Parameters of that run.
      batches: Independent training batches.
      seed: Seed of timesteps, noise and dropout.

    Returns:
      {"diffusion" and "landmark": see `agreement`, "cosine": cosine between the two means,
      "batches": N}.
    """
    parts = {"diffusion": (0.0, True), "landmark": (config["joint"]["landmark_weight"], False)}
    functions = {name: _gradient(config, *part) for name, part in parts.items()}
    found: dict[str, list[np.ndarray]] = {name: [] for name in parts}
    for number, batch in enumerate(batches):
        key = stream(jax.random.key(seed), "agreement", number)
        for name, gradient in functions.items():
            leaves = jax.tree.leaves(gradient(params["landmark"], params, batch, key))
            found[name].append(np.concatenate([np.ravel(x) for x in jax.device_get(leaves)]))
    stacked = {name: np.stack(rows) for name, rows in found.items()}
    report: dict[str, Any] = {name: agreement(rows) for name, rows in stacked.items()}
    report["cosine"] = cosine(*(rows.mean(0) for rows in stacked.values()))
    return report | {"batches": len(stacked["diffusion"])}


def _gradient(
    config: Mapping[str, Any], landmark_weight: float, end_to_end: bool
) -> Callable[..., Params]:
    """Returns (landmark, params, batch, key) -> gradient of one part of the joint loss."""
    changed = json.loads(json.dumps(dict(config)))
    changed["joint"] |= {"landmark_weight": landmark_weight, "end_to_end": end_to_end}
    stage = stages.make_stage(changed)

    def loss(landmark: Params, params: Params, batch: Batch, key: jax.Array) -> jax.Array:
        value, _ = stage.loss_fn({**params, "landmark": landmark}, batch, key)
        return jnp.asarray(value, jnp.float32)

    return jax.jit(jax.grad(loss))
