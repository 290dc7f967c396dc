import jax.numpy as jnp
import numpy as np
import pytest

from talkjax.diffusion import guidance

OUTPUTS = {
    (False, False): jnp.array([1.0, -2.0]),
    (True, False): jnp.array([0.5, 3.0]),
    (True, True): jnp.array([2.0, 0.25]),
}


@pytest.mark.parametrize(
    ("landmark_scale", "reference_scale", "calls"),
    [
        (1.0, 1.0, [(True, True)]),
        (1, 1, [(True, True)]),
        (0.0, 0.0, [(False, False)]),
        (1.0, 0.0, [(True, False)]),
        (2.5, 2.5, [(False, False), (True, True)]),
        (1.0, 2.0, [(True, False), (True, True)]),
        (3.0, 0.0, [(False, False), (True, False)]),
        (3.0, 1.0, [(False, False), (True, False), (True, True)]),
        (2.0, 1.5, [(False, False), (True, False), (True, True)]),
    ],
)
def test_formula_and_passes(landmark_scale, reference_scale, calls):
    seen = []

    def predict(z, t, keep_landmarks, keep_reference):
        seen.append((keep_landmarks, keep_reference))
        return OUTPUTS[keep_landmarks, keep_reference] + z * t

    denoise = guidance.guide(predict, landmark_scale, reference_scale)
    z, t = jnp.array([0.5, 1.0]), jnp.float32(2)
    none, landmarks, both = OUTPUTS.values()
    expected = none + landmark_scale * (landmarks - none) + reference_scale * (both - landmarks)
    np.testing.assert_allclose(denoise(z, t), expected + z * t, rtol=1e-6)
    assert seen == calls
