from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talkjax.diffusion import schedules


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parents[1] / "golden" / "ddim.npz") as data:
        return dict(data)


@pytest.fixture(params=sorted(schedules.SCHEDULES))
def named(request):
    return request.param, schedules.make_schedule(request.param)


def test_matches_diffusers(named, golden):
    name, schedule = named
    x0, noise, t = golden["x0"], golden["noise"], golden["t"].astype(np.int32)
    np.testing.assert_allclose(
        schedule.alphas_cumprod, golden[f"{name}/alphas_cumprod"], rtol=1e-3, atol=1e-6
    )
    np.testing.assert_allclose(
        schedules.add_noise(schedule, x0, noise, t), golden[f"{name}/noised"], atol=1e-4
    )
    np.testing.assert_allclose(
        schedules.training_target(schedule, "v", x0, noise, t),
        golden[f"{name}/velocity"],
        atol=1e-4,
    )
    np.testing.assert_allclose(schedules.snr(schedule, t), golden[f"{name}/snr"], rtol=1e-4)
    assert schedules.training_target(schedule, "eps", x0, noise, t) is noise


def test_falls_within_bounds(named):
    alphas = np.asarray(named[1].alphas_cumprod)
    assert named[1].steps == 1000 and alphas.dtype == np.float32
    assert (np.diff(alphas) < 0).all() and 0 < alphas[-1] < 0.01 and 0.99 < alphas[0] < 1


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_conversions_invert_the_forward_process(named, prediction):
    _, schedule = named
    keys = jax.random.split(jax.random.key(0))
    # (B, F, h, w, c) with one t a frame
    x0, noise = (jax.random.normal(key, (2, 3, 4, 4, 2)) for key in keys)
    t = jnp.array([[0, 100, 500], [600, 700, 800]])
    z = schedules.add_noise(schedule, x0, noise, t)
    output = schedules.training_target(schedule, prediction, x0, noise, t)
    found = schedules.predict_x0(schedule, prediction, output, z, t)
    np.testing.assert_allclose(found, x0, atol=2e-4)
    factors = schedules.signal_and_noise(schedule, t, z.ndim)
    found, noise_found = schedules.to_x0_and_eps(prediction, output, z, *factors)
    np.testing.assert_allclose(found, x0, atol=2e-4)
    np.testing.assert_allclose(noise_found, noise, atol=2e-4)


def test_min_snr_weights(named):
    _, schedule = named
    t = jnp.arange(schedule.steps)
    ratio = np.asarray(schedules.snr(schedule, t))
    eps = np.asarray(schedules.min_snr_weights(schedule, "eps", t))
    v = np.asarray(schedules.min_snr_weights(schedule, "v", t))
    np.testing.assert_allclose(eps, np.minimum(5 / ratio, 1), rtol=1e-5)
    # 1 at pure noise, where the published weights for v vanish.
    np.testing.assert_allclose(v, np.minimum(5 / (ratio + 1), 1), rtol=1e-5)
    assert v[-1] == 1


def test_is_a_pytree():
    schedule = schedules.cosine(10)
    assert jax.jit(lambda s: s)(schedule).steps == 10
    t = jnp.array([3, 9])
    np.testing.assert_array_equal(jax.jit(schedules.snr)(schedule, t), schedules.snr(schedule, t))


def test_refusals():
    with pytest.raises(ValueError, match="unknown noise schedule"):
        schedules.make_schedule("quadratic")
    with pytest.raises(ValueError, match="at least 1 step"):
        schedules.make_schedule("cosine", 0)
    with pytest.raises(ValueError, match="'eps' or 'v'"):
        schedules.min_snr_weights(schedules.cosine(10), "x0", jnp.array(1))
