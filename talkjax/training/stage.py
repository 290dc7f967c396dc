"""What the training loop needs from a training stage; `talkjax.training.stages` builds them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

# Nested dicts of arrays. The top-level names say which network a parameter belongs to:
# "autoencoder", "landmark", "denoiser", so that a stage can start from another stage's subtrees.
Params = dict[str, Any]
Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Stage:
    """One training stage: pure functions of arrays, the config already bound.

    Attributes:
      init: (key, batch) -> params, float32. Called under `jit` with zeros in place of the batch,
        one example long.
      loss_fn: (params, batch, key) -> (loss, metrics). Differentiated with respect to the
        trainable part of `params`. `loss` and every metric are float32 scalars, means over the
        batch (so that microbatches can be averaged). The key is the step's own;
        `talkjax.training.rng.stream(key, name)` derives independent ones.
      preview: (params, batch, key) -> {name: (N, H, W, 3) images}, float in [-1, 1] or uint8, in
        the order of the columns, the truth first; or None for no pictures. Runs under `jit`.
      eval_fn: as `loss_fn`, for the test split (no dropout); None: `loss_fn` itself.
      pretrained: published weights that replace what `init` gave: {network: params}, numpy.
      trainable: path prefixes ("denoiser", "landmark/head") of what is trained. The rest is frozen:
        no gradient, no optimiser state, no moving average. ("",) is everything.
      watch: row of `metrics.jsonl` that was just measured -> a warning in one line, or None.
    """

    init: Callable[[jax.Array, Batch], Params]
    loss_fn: Callable[[Params, Batch, jax.Array], tuple[jax.Array, Metrics]]
    preview: Callable[[Params, Batch, jax.Array], dict[str, jax.Array]] | None = None
    trainable: tuple[str, ...] = ("",)
    eval_fn: Callable[[Params, Batch, jax.Array], tuple[jax.Array, Metrics]] | None = None
    watch: Callable[[dict[str, float]], str | None] | None = None
    pretrained: Params = dataclasses.field(default_factory=dict)
