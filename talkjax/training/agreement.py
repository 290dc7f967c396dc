"""Measures how much of the gradient that reaches the landmark network end to end is signal.

A gradient can be large and carry no information, if its direction is that of the noise and the
timesteps that happened to be drawn. Signal is what independent batches have in common.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

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
    config: Mapping[str, Any],
    params: Params,
    batches: Iterable[Batch],
    seed: int = 0,
    paths: Sequence[Mapping[str, Any]] = ({},),
) -> dict[str, Any]:
    """Compares the gradients of the losses of stage `joint` in the landmark network.

    Args:
      config: Configuration of a joint run.
      params: Parameters of that run.
      batches: Independent training batches.
      seed: Seed of timesteps, noise and dropout.
      paths: Changes of the flat fields of the configuration, one dict for each variant of the loss
        of pictures.

    Returns:
      {"pictures": a list with, for each of `paths`, `agreement` and "cosine", that between its mean
      and the mean of the landmark loss; "landmark": see `agreement`; "batches": N}.
    """
    weight = config["joint"]["landmark_weight"]
    functions = [_gradient(config, {"joint.landmark_weight": weight, "joint.end_to_end": False})]
    functions += [_gradient(config, {"joint.landmark_weight": 0.0, **path}) for path in paths]
    found: list[list[np.ndarray]] = [[] for _ in functions]
    for number, batch in enumerate(batches):
        key = stream(jax.random.key(seed), "agreement", number)
        for rows, gradient in zip(found, functions, strict=True):
            leaves = jax.tree.leaves(gradient(params["landmark"], params, batch, key))
            rows.append(np.concatenate([np.ravel(x) for x in jax.device_get(leaves)]))
    landmark, *pictures = (np.stack(rows) for rows in found)
    return {
        "pictures": [
            agreement(rows) | {"cosine": cosine(rows.mean(0), landmark.mean(0))}
            for rows in pictures
        ],
        "landmark": agreement(landmark),
        "batches": len(landmark),
    }


def _gradient(config: Mapping[str, Any], changes: Mapping[str, Any]) -> Callable[..., Params]:
    """Returns (landmark, params, batch, key) -> gradient of the joint loss, after changes."""
    changed = ConfigDict(json.loads(json.dumps(dict(config))))
    changed.update_from_flattened_dict(dict(changes))
    stage = stages.make_stage(changed)

    def loss(landmark: Params, params: Params, batch: Batch, key: jax.Array) -> jax.Array:
        value, _ = stage.loss_fn({**params, "landmark": landmark}, batch, key)
        return jnp.asarray(value, jnp.float32)

    return jax.jit(jax.grad(loss))
