"""Classifier-free guidance with one scale for the landmarks and one for the reference.

With p(l, r) the network's output given landmarks l and reference r, and 0 for a dropped one:

    guided = p(0, 0) + s_l * (p(l, 0) - p(0, 0)) + s_r * (p(l, r) - p(l, 0))
           = (1 - s_l) * p(0, 0) + (s_l - s_r) * p(l, 0) + s_r * p(l, r)

after Ho and Salimans (arXiv 2207.12598) for one condition and Brooks et al. (arXiv 2211.09800)
for two. The second line tells which passes are needed: those whose factor is not 0. So scales
(1, 1) cost one pass, the plain conditional one; equal scales, s_l = 1 or s_r = 0 cost two.
The paper (arXiv 2408.05416) publishes no guidance scales.
"""

from collections.abc import Callable

import jax

# (z, t, keep_landmarks, keep_reference) -> the network's output
Predict = Callable[[jax.Array, jax.Array, bool, bool], jax.Array]


def passes(landmark_scale: float, reference_scale: float) -> list[tuple[bool, bool, float]]:
    """The network passes that guidance takes: (keep_landmarks, keep_reference, factor) each."""
    candidates = [
        (False, False, 1.0 - landmark_scale),
        (True, False, landmark_scale - reference_scale),
        (True, True, float(reference_scale)),
    ]
    return [candidate for candidate in candidates if candidate[2] != 0.0]


def combine(
    uncond: jax.Array,
    landmarks_only: jax.Array,
    both: jax.Array,
    landmark_scale: float,
    reference_scale: float,
) -> jax.Array:
    """The formula of this module on three outputs of one shape."""
    return (
        uncond
        + landmark_scale * (landmarks_only - uncond)
        + reference_scale * (both - landmarks_only)
    )


def guide(
    predict: Predict, landmark_scale: float = 1.0, reference_scale: float = 1.0
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """A guided `denoise(z, t)` for the samplers.

    Args:
      predict: the network with its conditions bound. The last two arguments are Python bools, so
        that it can pick conditions computed ahead of the step loop. Passes run one after another:
        memory stays that of one, and frames fill the batch axis already.
      landmark_scale, reference_scale: s_l and s_r, Python floats (they decide what is traced).
    """
    terms = passes(landmark_scale, reference_scale)

    def denoise(z: jax.Array, t: jax.Array) -> jax.Array:
        outputs = [factor * predict(z, t, keep_l, keep_r) for keep_l, keep_r, factor in terms]
        return sum(outputs[1:], start=outputs[0])

    return denoise
