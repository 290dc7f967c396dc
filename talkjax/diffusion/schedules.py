"""Noise schedules of the forward process, and conversions between prediction types.

The forward process is z_t = sqrt(a_t) x0 + sqrt(1 - a_t) eps with a_t = `alphas_cumprod[t]`
(Ho et al., arXiv 2006.11239). A network predicts `eps`, or
`v` = sqrt(a_t) eps - sqrt(1 - a_t) x0 (Salimans and Ho, arXiv 2202.00512).

In this module t is an integer array whose shape is a prefix of the shape of the data: (B,) for data
(B, h, w, c), (B, F) for (B, F, h, w, c), and () for any.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

Prediction = Literal["eps", "v"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Schedule:
    """A discrete noise schedule.

    Attributes:
      alphas_cumprod: (T,) float32 share of signal power that is left at step t; it decreases.
    """

    alphas_cumprod: jax.Array

    @property
    def steps(self) -> int:
        """Length T of the schedule."""
        return self.alphas_cumprod.shape[0]


def _from_betas(betas: np.ndarray) -> Schedule:
    # The product is taken in float64: in float32 it would lose digits near t = T.
    return Schedule(jnp.asarray(np.cumprod(1.0 - betas).astype(np.float32)))


def linear(steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
    """Makes the schedule of DDPM, whose betas are linear in t."""
    return _from_betas(np.linspace(beta_start, beta_end, steps))


def scaled_linear(
    steps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012
) -> Schedule:
    """Makes the schedule of latent diffusion, the square roots of whose betas are linear in t."""
    return _from_betas(np.linspace(beta_start**0.5, beta_end**0.5, steps) ** 2)


def cosine(steps: int = 1000, offset: float = 0.008, max_beta: float = 0.999) -> Schedule:
    """Makes the cosine schedule of Nichol and Dhariwal (arXiv 2102.09672).

    It is called `squaredcos_cap_v2` in diffusers.
    """
    t = np.arange(steps + 1) / steps
    alpha_bar = np.cos((t + offset) / (1.0 + offset) * np.pi / 2.0) ** 2
    return _from_betas(np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], max_beta))


SCHEDULES = {"linear": linear, "scaled_linear": scaled_linear, "cosine": cosine}


def make_schedule(name: str, steps: int = 1000, **options: float) -> Schedule:
    """Makes the schedule of a name ("linear", "scaled_linear", "cosine").

    Raises:
      ValueError: The name is unknown, or there is less than one step.
    """
    if name not in SCHEDULES:
        raise ValueError(f"unknown noise schedule {name!r}; use one of {sorted(SCHEDULES)}")
    if steps < 1:
        raise ValueError(f"a noise schedule requires at least 1 step, not {steps}")
    return SCHEDULES[name](steps, **options)


def signal_and_noise(schedule: Schedule, t: jax.Array, ndim: int) -> tuple[jax.Array, jax.Array]:
    """Returns sqrt(a_t) and sqrt(1 - a_t), shaped to multiply data of `ndim` axes."""
    alpha = schedule.alphas_cumprod[t]
    alpha = alpha.reshape(alpha.shape + (1,) * (ndim - alpha.ndim))
    return jnp.sqrt(alpha), jnp.sqrt(1.0 - alpha)


def add_noise(schedule: Schedule, x0: jax.Array, noise: jax.Array, t: jax.Array) -> jax.Array:
    """Noises x0: returns z_t, of the same shape as x0 and the noise."""
    signal, sigma = signal_and_noise(schedule, t, x0.ndim)
    return signal * x0 + sigma * noise


def snr(schedule: Schedule, t: jax.Array) -> jax.Array:
    """Computes the signal-to-noise ratio a_t / (1 - a_t), of t's shape."""
    alpha = schedule.alphas_cumprod[t]
    return alpha / (1.0 - alpha)


# ---- prediction types ---------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class PredictionType:
    """The meaning of a network's output at z, where z = signal * x0 + sigma * noise.

    Attributes:
      target: (x0, noise, signal, sigma) -> the output that is right.
      x0: (output, z, signal, sigma) -> the clean data that an output stands for.
      noise: (output, z, signal, sigma) -> the noise that an output stands for.
      min_snr_weight: (snr, gamma) -> the loss weight; see `min_snr_weights`.
    """

    target: Callable[..., jax.Array]
    x0: Callable[..., jax.Array]
    noise: Callable[..., jax.Array]
    min_snr_weight: Callable[[jax.Array, float], jax.Array]


PREDICTION_TYPES = {
    "eps": PredictionType(
        target=lambda x0, noise, signal, sigma: noise,
        x0=lambda output, z, signal, sigma: (z - sigma * output) / signal,
        noise=lambda output, z, signal, sigma: output,
        min_snr_weight=lambda snr, gamma: jnp.minimum(snr, gamma) / snr,
    ),
    "v": PredictionType(
        target=lambda x0, noise, signal, sigma: signal * noise - sigma * x0,
        x0=lambda output, z, signal, sigma: signal * z - sigma * output,
        noise=lambda output, z, signal, sigma: signal * output + sigma * z,
        min_snr_weight=lambda snr, gamma: jnp.minimum(snr + 1.0, gamma) / (snr + 1.0),
    ),
}


def prediction_type(name: str) -> PredictionType:
    """Returns the prediction type of a name ("eps", "v").

    Raises:
      ValueError: The name is unknown.
    """
    if name not in PREDICTION_TYPES:
        raise ValueError(f"prediction must be 'eps' or 'v', not {name!r}")
    return PREDICTION_TYPES[name]


def training_target(
    schedule: Schedule, prediction: Prediction, x0: jax.Array, noise: jax.Array, t: jax.Array
) -> jax.Array:
    """Returns what the network should output at z_t."""
    return prediction_type(prediction).target(x0, noise, *signal_and_noise(schedule, t, x0.ndim))


def to_x0_and_eps(
    prediction: Prediction, output: jax.Array, z: jax.Array, signal: jax.Array, sigma: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Converts a network's output at z to the clean data and the noise that it stands for.

    Args:
      prediction: Prediction type of the output.
      output: Output of the network.
      z: Noisy data, of the same shape.
      signal: Factor of the clean data in z; see `signal_and_noise`.
      sigma: Factor of the noise in z.
    """
    kind = prediction_type(prediction)
    return kind.x0(output, z, signal, sigma), kind.noise(output, z, signal, sigma)


def predict_x0(
    schedule: Schedule, prediction: Prediction, output: jax.Array, z: jax.Array, t: jax.Array
) -> jax.Array:
    """Estimates x0 in one step from a network's output at z_t."""
    return prediction_type(prediction).x0(output, z, *signal_and_noise(schedule, t, z.ndim))


def min_snr_weights(
    schedule: Schedule, prediction: Prediction, t: jax.Array, gamma: float = 5.0
) -> jax.Array:
    """Computes loss weights after Hang et al. (arXiv 2303.09556), of t's shape.

    For eps these are theirs, min(snr, gamma) / snr. For v theirs are min(snr, gamma) / (snr + 1),
    which vanish at pure noise, where a sampler of few steps decides on the shape of the mouth.
    Here they are min(snr + 1, gamma) / (snr + 1): 1 at pure noise, and smaller only where little
    noise is left.
    """
    return prediction_type(prediction).min_snr_weight(snr(schedule, t), gamma)
