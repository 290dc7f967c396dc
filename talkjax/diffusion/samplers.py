"""Deterministic and stochastic DDIM sampling (Song et al., arXiv 2010.02502) in one `lax.scan`."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from talkjax.diffusion.schedules import Prediction, Schedule, to_x0_and_eps

Spacing = Literal["leading", "trailing"]


def ddim_timesteps(
    train_steps: int, steps: int, spacing: Spacing = "trailing", offset: int = 0
) -> np.ndarray:
    """The timesteps to visit, falling: (steps,) int32, as diffusers' `DDIMScheduler` has them.

    Args:
      train_steps: length of the schedule.
      steps: how many to visit.
      spacing: "leading": 0, k, 2k, ... reversed, plus `offset` (Stable Diffusion: offset 1);
        it never visits the noisiest steps. "trailing": T-1 first; better with few steps
        (Lin et al., arXiv 2305.08891).
      offset: of the "leading" steps.

    Raises:
      ValueError: steps outside 1..train_steps, or an unknown spacing.
    """
    if not 1 <= steps <= train_steps:
        raise ValueError(f"steps must be 1..{train_steps}, got {steps}")
    if spacing == "leading":
        t = np.arange(steps)[::-1] * (train_steps // steps) + offset
        t = np.minimum(t, train_steps - 1)
    elif spacing == "trailing":
        t = np.round(train_steps - np.arange(steps) * (train_steps / steps)) - 1
    else:
        raise ValueError(f"spacing must be 'leading' or 'trailing', not {spacing!r}")
    return t.astype(np.int32)


def ddim_step(
    z: jax.Array,
    output: jax.Array,
    alpha: jax.Array,
    alpha_next: jax.Array,
    noise: jax.Array | None = None,
    eta: float = 0.0,
    prediction: Prediction = "eps",
    clip: float | None = None,
) -> jax.Array:
    """One step from signal power `alpha` to `alpha_next` (both () float32).

    Args:
      z: the state, any shape.
      output: the network's output at z.
      noise: standard normal, broadcastable to z in the same rank; None where eta is 0.
      eta: 0 deterministic, 1 as random as DDPM.
      prediction: what `output` is.
      clip: limit of |x0|, with eps recomputed to match; None for none.
    """
    signal, sigma = jnp.sqrt(alpha), jnp.sqrt(1.0 - alpha)
    x0, eps = to_x0_and_eps(prediction, output, z, signal, sigma)
    if clip is not None:
        x0 = jnp.clip(x0, -clip, clip)
        eps = (z - signal * x0) / sigma
    if noise is None:
        return jnp.sqrt(alpha_next) * x0 + jnp.sqrt(1.0 - alpha_next) * eps
    variance = eta**2 * (1.0 - alpha_next) / (1.0 - alpha) * (1.0 - alpha / alpha_next)
    # Rounding may carry the difference a hair below zero when eta is 1.
    rest = jnp.sqrt(jnp.maximum(1.0 - alpha_next - variance, 0.0))
    return jnp.sqrt(alpha_next) * x0 + rest * eps + jnp.sqrt(variance) * noise


def ddim(
    schedule: Schedule,
    denoise: Callable[[jax.Array, jax.Array], jax.Array],
    z: jax.Array,
    *,
    steps: int,
    key: jax.Array | None = None,
    eta: float = 0.0,
    prediction: Prediction = "eps",
    spacing: Spacing = "trailing",
    offset: int = 0,
    final_alpha: float | None = None,
    clip: float | None = None,
    noise_shape: tuple[int, ...] | None = None,
) -> jax.Array:
    """Samples: from noise z at the first timestep to an estimate of x0, of z's shape and type.

    Each step leads to the *next timestep of the list*. (diffusers subtracts T // steps instead,
    which is the same unless T / steps is no integer and the spacing "trailing".)

    Args:
      schedule: the noise schedule.
      denoise: (z, t) -> the network's output of z's shape; t is a () int32 array. Traced once.
      z: standard normal, e.g. (B, h, w, c).
      steps: how many network evaluations.
      key: for the noise of the steps; needed where eta > 0.
      eta: a Python float, 0 deterministic .. 1 as random as DDPM.
      prediction: what `denoise` returns.
      spacing, offset: as `ddim_timesteps`.
      final_alpha: signal power after the last step; None means 1, that is x0 itself
        (Stable Diffusion's scheduler has `alphas_cumprod[0]`).
      clip: as `ddim_step`.
      noise_shape: shape of each step's noise if it is to be shared along axes, e.g. (1, h, w, c)
        for all frames of a clip; None draws z's shape.

    Raises:
      ValueError: as `ddim_timesteps`; eta > 0 without a key.
    """
    if eta > 0.0 and key is None:
        raise ValueError("eta > 0 needs a key")
    timesteps = ddim_timesteps(schedule.steps, steps, spacing, offset)
    alphas = schedule.alphas_cumprod[timesteps]
    last = jnp.full((1,), 1.0 if final_alpha is None else final_alpha, alphas.dtype)
    alphas_next = jnp.concatenate([alphas[1:], last])

    def step(z: jax.Array, inputs: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        i, t, alpha, alpha_next = inputs
        output = denoise(z, t).astype(z.dtype)
        noise = None
        if eta > 0.0:
            noise = jax.random.normal(jax.random.fold_in(key, i), noise_shape or z.shape, z.dtype)
        return ddim_step(z, output, alpha, alpha_next, noise, eta, prediction, clip), None

    inputs = (jnp.arange(steps, dtype=jnp.int32), jnp.asarray(timesteps), alphas, alphas_next)
    return jax.lax.scan(step, z, inputs)[0]
