"""Noise schedules of the forward process, and conversions between what a network may predict.

The forward process is z_t = sqrt(a_t) x0 + sqrt(1 - a_t) eps with a_t = `alphas_cumprod[t]`
(Ho et al., arXiv 2006.11239). A network predicts `eps`, or
`v` = sqrt(a_t) eps - sqrt(1 - a_t) x0 (Salimans and Ho, arXiv 2202.00512).

Everywhere below, t is an integer array whose shape is a prefix of the data's: (B,) for data
(B, h, w, c), (B, F) for (B, F, h, w, c), () for any.
"""

import dataclasses
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
      alphas_cumprod: (T,) float32, share of signal power left after step t, falling.
    """

    alphas_cumprod: jax.Array

    @property
    def steps(self) -> int:
        """Length T of the schedule."""
        return self.alphas_cumprod.shape[0]


def _from_betas(betas: np.ndarray) -> Schedule:
    # float64 up to here: 1000 products in float32 lose digits where they matter, near t = T.
    return Schedule(jnp.asarray(np.cumprod(1.0 - betas).astype(np.float32)))


def linear(steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
    """Betas linear in t (DDPM)."""
    return _from_betas(np.linspace(beta_start, beta_end, steps))


def scaled_linear(
    steps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012
) -> Schedule:
    """Square roots of the betas linear in t (latent diffusion; the defaults are its)."""
    return _from_betas(np.linspace(beta_start**0.5, beta_end**0.5, steps) ** 2)


def cosine(steps: int = 1000, offset: float = 0.008, max_beta: float = 0.999) -> Schedule:
    """Cosine of Nichol and Dhariwal (arXiv 2102.09672); diffusers' `squaredcos_cap_v2`."""
    t = np.arange(steps + 1) / steps
    alpha_bar = np.cos((t + offset) / (1.0 + offset) * np.pi / 2.0) ** 2
    return _from_betas(np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], max_beta))


SCHEDULES = {"linear": linear, "scaled_linear": scaled_linear, "cosine": cosine}


def make_schedule(name: str, steps: int = 1000, **options: float) -> Schedule:
    """The schedule of that name ("linear", "scaled_linear", "cosine").

    Raises:
      ValueError: unknown name, or fewer than one step.
    """
    if name not in SCHEDULES or steps < 1:
        raise ValueError(f"no schedule {name!r} of {steps} steps; names: {sorted(SCHEDULES)}")
    return SCHEDULES[name](steps, **options)


def signal_and_noise(schedule: Schedule, t: jax.Array, ndim: int) -> tuple[jax.Array, jax.Array]:
    """sqrt(a_t) and sqrt(1 - a_t), shaped to multiply data of `ndim` axes."""
    alpha = schedule.alphas_cumprod[t]
    alpha = alpha.reshape(alpha.shape + (1,) * (ndim - alpha.ndim))
    return jnp.sqrt(alpha), jnp.sqrt(1.0 - alpha)


def add_noise(schedule: Schedule, x0: jax.Array, noise: jax.Array, t: jax.Array) -> jax.Array:
    """Forward noising: z_t of the same shape as x0 and noise."""
    signal, sigma = signal_and_noise(schedule, t, x0.ndim)
    return signal * x0 + sigma * noise


def training_target(
    schedule: Schedule, prediction: Prediction, x0: jax.Array, noise: jax.Array, t: jax.Array
) -> jax.Array:
    """What the network should output at z_t: the noise, or v."""
    _check(prediction)
    if prediction == "eps":
        return noise
    signal, sigma = signal_and_noise(schedule, t, x0.ndim)
    return signal * noise - sigma * x0


def to_x0_and_eps(
    prediction: Prediction, output: jax.Array, z: jax.Array, signal: jax.Array, sigma: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The clean data and the noise that a network's output at z_t stands for.

    Args:
      prediction: what `output` is.
      output, z: of one shape.
      signal, sigma: as from `signal_and_noise`.
    """
    _check(prediction)
    if prediction == "eps":
        return (z - sigma * output) / signal, output
    return signal * z - sigma * output, signal * output + sigma * z


def predict_x0(
    schedule: Schedule, prediction: Prediction, output: jax.Array, z: jax.Array, t: jax.Array
) -> jax.Array:
    """The one-step estimate of x0 from a network's output at z_t."""
    signal, sigma = signal_and_noise(schedule, t, z.ndim)
    return to_x0_and_eps(prediction, output, z, signal, sigma)[0]


def predict_eps(
    schedule: Schedule, prediction: Prediction, output: jax.Array, z: jax.Array, t: jax.Array
) -> jax.Array:
    """The noise that a network's output at z_t stands for."""
    signal, sigma = signal_and_noise(schedule, t, z.ndim)
    return to_x0_and_eps(prediction, output, z, signal, sigma)[1]


def snr(schedule: Schedule, t: jax.Array) -> jax.Array:
    """Signal-to-noise ratio a_t / (1 - a_t), of t's shape."""
    alpha = schedule.alphas_cumprod[t]
    return alpha / (1.0 - alpha)


def min_snr_weights(
    schedule: Schedule, prediction: Prediction, t: jax.Array, gamma: float = 5.0
) -> jax.Array:
    """Loss weights of Hang et al. (arXiv 2303.09556), of t's shape.

    The squared error in x0 is weighted min(snr, gamma); in the units of the prediction that is
    min(snr, gamma) / snr for eps and min(snr, gamma) / (snr + 1) for v.
    """
    _check(prediction)
    ratio = snr(schedule, t)
    return jnp.minimum(ratio, gamma) / (ratio if prediction == "eps" else ratio + 1.0)


def _check(prediction: str) -> None:
    if prediction not in ("eps", "v"):
        raise ValueError(f"prediction must be 'eps' or 'v', not {prediction!r}")
