"""DDIM sampling, deterministic or stochastic, in one `lax.scan`.

Song et al., arXiv 2010.02502.
"""

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
    """Returns the timesteps to visit, in falling order, as diffusers' `DDIMScheduler` does.

    Args:
      train_steps: Length of the schedule.
      steps: Number of timesteps to visit.
      spacing: "leading" visits 0, k, 2k, ... in reverse, plus `offset`; it never visits the
        noisiest steps. "trailing" visits T - 1 first and is better with few steps (Lin et al.,
        arXiv 2305.08891).
      offset: Offset of the "leading" timesteps; Stable Diffusion uses 1.

    Returns:
      (steps,) int32.

    Raises:
      ValueError: `steps` is out of range, or the spacing is unknown.
    """
    if not 1 <= steps <= train_steps:
        raise ValueError(f"steps={steps} is out of range; use 1..{train_steps}")
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
    """Takes one step from signal power `alpha` to `alpha_next`.

    Args:
      z: State, of any shape.
      output: Output of the network at z.
      alpha: () float32 signal power of z.
      alpha_next: () float32 signal power of the result.
      noise: Standard normal noise of z's rank, broadcastable to z; None if eta is 0.
      eta: 0 for a deterministic step, 1 for one as random as DDPM's.
      prediction: Prediction type of the output.
      clip: Largest |x0|; the noise is recomputed to match. None disables clipping.
    """
    signal, sigma = jnp.sqrt(alpha), jnp.sqrt(1.0 - alpha)
    x0, eps = to_x0_and_eps(prediction, output, z, signal, sigma)
    if clip is not None:
        x0 = jnp.clip(x0, -clip, clip)
        eps = (z - signal * x0) / sigma
    if noise is None:
        return jnp.sqrt(alpha_next) * x0 + jnp.sqrt(1.0 - alpha_next) * eps
    variance = eta**2 * (1.0 - alpha_next) / (1.0 - alpha) * (1.0 - alpha / alpha_next)
    # Rounding may make the difference slightly negative when eta is 1.
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
    """Samples x0, of z's shape and type, from noise z at the first timestep.

    Each step leads to the next timestep of the list. (diffusers subtracts T // steps instead, which
    differs only for "trailing" spacing and a T / steps that is not an integer.)

    Args:
      schedule: Noise schedule.
      denoise: (z, t) -> output of the network, of z's shape; t is a () int32 array. It is traced
        once.
      z: Standard normal noise, for example (B, h, w, c).
      steps: Number of evaluations of the network.
      key: Random key for the noise of the steps; required if eta > 0.
      eta: A Python float between 0 (deterministic) and 1 (as random as DDPM).
      prediction: Prediction type of the network.
      spacing: Spacing of the timesteps; see `ddim_timesteps`.
      offset: Offset of the timesteps; see `ddim_timesteps`.
      final_alpha: Signal power after the last step. None means 1, which gives x0 itself;
        Stable Diffusion's scheduler uses `alphas_cumprod[0]`.
      clip: See `ddim_step`.
      noise_shape: Shape of the noise of each step, if it is shared along axes, such as (1, h, w, c)
        for all frames of a clip. None means z's shape.

    Raises:
      ValueError: The timesteps are invalid (see `ddim_timesteps`), or eta > 0 without a key.
    """
    if eta > 0.0 and key is None:
        raise ValueError("eta > 0 requires a key")
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
