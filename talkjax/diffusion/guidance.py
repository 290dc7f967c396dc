"""Classifier-free guidance with one scale for the landmarks and one for the reference.

Let p(l, r) be the output of the network given landmarks l and reference r, with 0 for a dropped
condition. Then

    guided = p(0, 0) + s_l * (p(l, 0) - p(0, 0)) + s_r * (p(l, r) - p(l, 0))
           = (1 - s_l) * p(0, 0) + (s_l - s_r) * p(l, 0) + s_r * p(l, r)

after Ho and Salimans (arXiv 2207.12598) for one condition and Brooks et al. (arXiv 2211.09800)
for two. The second line shows which passes are needed: those whose factor is not 0. Scales of
(1, 1) cost one pass, which is the plain conditional one; equal scales, s_l = 1 and s_r = 0 cost
two. The paper (arXiv 2408.05416) publishes no guidance scales.
"""

from collections.abc import Callable

import jax

# (z, t, keep_landmarks, keep_reference) -> output of the network
Predict = Callable[[jax.Array, jax.Array, bool, bool], jax.Array]


def passes(landmark_scale: float, reference_scale: float) -> list[tuple[bool, bool, float]]:
    """Returns the passes that guidance takes, each (keep_landmarks, keep_reference, factor)."""
    candidates = [
        (False, False, 1.0 - landmark_scale),
        (True, False, landmark_scale - reference_scale),
        (True, True, float(reference_scale)),
    ]
    return [candidate for candidate in candidates if candidate[2] != 0.0]


def guide(
    predict: Predict, landmark_scale: float = 1.0, reference_scale: float = 1.0
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Makes a guided `denoise(z, t)` for the samplers.

    Passes run one after another, so memory is that of one pass; frames fill the batch axis already.

    Args:
      predict: The network with its conditions bound. Its last two arguments are Python bools, so
        that it can choose among conditions computed before the loop over steps.
      landmark_scale: s_l, a Python float, because it decides what is traced.
      reference_scale: s_r, a Python float.
    """
    terms = passes(landmark_scale, reference_scale)

    def denoise(z: jax.Array, t: jax.Array) -> jax.Array:
        outputs = [factor * predict(z, t, keep_l, keep_r) for keep_l, keep_r, factor in terms]
        return sum(outputs[1:], start=outputs[0])

    return denoise
