"""What the training loop needs of a training stage; `talkjax.training.stages` makes them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

# Nested dicts of arrays. The top-level names say which network a parameter belongs to:
# "autoencoder", "landmark", "speech", "denoiser", so that a stage can start from another stage's
# subtrees.
Params = dict[str, Any]
Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Stage:
    """One training stage: pure functions of arrays, with the configuration already bound.

    Attributes:
      init: (key, batch) -> params, float32. Called under `jit` with a batch of one sample of zeros.
      loss_fn: (params, batch, key) -> (loss, metrics), differentiated with respect to the
        trainable part of `params`. Loss and metrics are float32 scalars, means over the batch, so
        that microbatches can be averaged (`losses.mean`, which respects the weights of held-out
        batches). The key belongs to the step; `talkjax.training.rng.stream(key, name)` derives
        independent keys.
      preview: (params, batch, key) -> {name: (N, H, W, 3) images} for all samples of the batch,
        float in [-1, 1] or uint8, the columns of a picture grid, "truth" first; None for a stage
        without pictures. Runs under `jit`.
      trainable: Path prefixes ("denoiser", "landmark/head") of the trained parameters. The rest is
        frozen: no gradient, no optimizer state, no moving average. ("",) trains everything.
      eval_fn: Like `loss_fn`, for held-out data (no dropout); None uses `loss_fn` itself.
      find_problem: (row of `metrics.jsonl`) -> a warning of one line, or None.
      compute_type: (path of a parameter) -> the type that its layer converts it to. None if
        everything is computed in the type of the parameters, float32.
    """

    init: Callable[[jax.Array, Batch], Params]
    loss_fn: Callable[[Params, Batch, jax.Array], tuple[jax.Array, Metrics]]
    preview: Callable[[Params, Batch, jax.Array], dict[str, jax.Array]] | None = None
    trainable: tuple[str, ...] = ("",)
    eval_fn: Callable[[Params, Batch, jax.Array], tuple[jax.Array, Metrics]] | None = None
    find_problem: Callable[[dict[str, float]], str | None] | None = None
    compute_type: Callable[[str], Any] | None = None
