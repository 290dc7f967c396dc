from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talkjax.diffusion import samplers, schedules


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parents[1] / "golden" / "ddim.npz") as data:
        return dict(data)


def test_timesteps_match_diffusers(golden):
    names = [name for name in golden if name.startswith("timesteps/")]
    assert len(names) == 6
    for name in names:
        _, spacing, offset, steps = name.split("/")
        found = samplers.ddim_timesteps(1000, int(steps), spacing, int(offset))
        np.testing.assert_array_equal(found, golden[name], err_msg=name)
        assert found.dtype == np.int32


@pytest.mark.parametrize("name", sorted(schedules.SCHEDULES))
@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_steps_match_diffusers(golden, name, prediction):
    alphas = schedules.make_schedule(name).alphas_cumprod
    for t, alpha_next in ((750, alphas[700]), (0, jnp.float32(1))):
        for eta in (0, 1):
            found = samplers.ddim_step(
                golden["z"], golden["output"], alphas[t], alpha_next,
                golden["noise"] if eta else None, float(eta), prediction,
            )  # fmt: skip
            expected = golden[f"{name}/{prediction}/eta{eta}/t{t}"]
            np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)
    signal, sigma = jnp.sqrt(alphas[0]), jnp.sqrt(1 - alphas[0])
    x0, _ = schedules.to_x0_and_eps(prediction, golden["output"], golden["z"], signal, sigma)
    np.testing.assert_allclose(x0, golden[f"{name}/{prediction}/x0"], atol=1e-4)


def test_clipped_step_matches_diffusers(golden):
    alphas = schedules.linear().alphas_cumprod
    found = samplers.ddim_step(golden["z"], golden["output"], alphas[500], alphas[450], clip=0.7)
    np.testing.assert_allclose(found, golden["clipped"], atol=1e-4)


@pytest.mark.parametrize("name", sorted(schedules.SCHEDULES))
@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_trajectories_match_diffusers(golden, name, prediction):
    found = samplers.ddim(
        schedules.make_schedule(name),
        lambda z, t: 0.3 * z + t.astype(jnp.float32) / 1000,
        golden["z"],
        steps=10,
        prediction=prediction,
    )
    expected = golden[f"{name}/{prediction}/trajectory"]
    # eps at the noisiest cosine step is divided by sqrt(alpha) = 5e-5: compare to scale.
    np.testing.assert_allclose(found, expected, atol=1e-4 * max(1, np.abs(expected).max()))


def gaussian(schedule, prediction, mean=0.5, std=0.2):
    """The exact denoiser of data N(mean, std^2)."""

    def denoise(z, t):
        signal, sigma = schedules.signal_and_noise(schedule, t, z.ndim)
        gain = signal * std**2 / (signal**2 * std**2 + sigma**2)
        x0 = mean + gain * (z - signal * mean)
        eps = (z - signal * x0) / sigma
        return eps if prediction == "eps" else signal * eps - sigma * x0

    return denoise


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("name", sorted(schedules.SCHEDULES))
def test_known_gaussian(name, prediction, eta):
    schedule = schedules.make_schedule(name)
    z = jax.random.normal(jax.random.key(0), (64, 8, 8, 2))
    # All steps: with noise, DDIM's spread converges slowly (8% too small at 250 steps).
    found = samplers.ddim(
        schedule, gaussian(schedule, prediction), z, steps=1000, key=jax.random.key(1),
        eta=eta, prediction=prediction,
    )  # fmt: skip
    np.testing.assert_allclose([found.mean(), found.std()], [0.5, 0.2], atol=0.01)
    assert found.dtype == z.dtype and found.shape == z.shape


def test_few_leading_steps_with_stable_diffusions_settings():
    schedule = schedules.scaled_linear()
    z = jax.random.normal(jax.random.key(0), (64, 8, 8, 2))
    found = samplers.ddim(
        schedule, gaussian(schedule, "eps"), z, steps=50, spacing="leading", offset=1,
        final_alpha=float(schedule.alphas_cumprod[0]),
    )  # fmt: skip
    np.testing.assert_allclose([found.mean(), found.std()], [0.5, 0.2], atol=0.03)


@pytest.mark.parametrize("eta", [0.0, 0.7])
@pytest.mark.parametrize("noise_shape", [None, (1, 4, 4, 2)])
def test_scan_is_the_loop(eta, noise_shape):
    schedule = schedules.cosine()
    key = jax.random.key(3)
    z = start = jax.random.normal(jax.random.key(2), (3, 4, 4, 2))
    denoise = gaussian(schedule, "v")
    timesteps = samplers.ddim_timesteps(1000, 7)
    alphas = [schedule.alphas_cumprod[t] for t in timesteps] + [jnp.float32(1)]
    for i, t in enumerate(timesteps):
        noise = None
        if eta:
            noise = jax.random.normal(jax.random.fold_in(key, i), noise_shape or z.shape)
        output = denoise(z, jnp.asarray(t))
        z = samplers.ddim_step(z, output, alphas[i], alphas[i + 1], noise, eta, "v")
    options = dict(steps=7, key=key, eta=eta, prediction="v", noise_shape=noise_shape)

    @jax.jit
    def sample(schedule, start):
        return samplers.ddim(schedule, denoise, start, **options)

    np.testing.assert_allclose(sample(schedule, start), z, atol=1e-5)


def test_denoiser_is_traced_once():
    calls = []

    def denoise(z, t):
        assert t.shape == () and t.dtype == jnp.int32
        calls.append(t)
        return z.astype(jnp.bfloat16)  # half-precision networks are welcome

    samplers.ddim(schedules.cosine(), denoise, jnp.ones((1, 2, 2, 1)), steps=20)
    assert len(calls) == 1


def test_refusals():
    for steps in (0, 1001):
        with pytest.raises(ValueError, match=r"1\.\.1000"):
            samplers.ddim_timesteps(1000, steps)
    with pytest.raises(ValueError, match="spacing"):
        samplers.ddim_timesteps(1000, 10, "linspace")
    with pytest.raises(ValueError, match="key"):
        samplers.ddim(schedules.cosine(), lambda z, t: z, jnp.ones((1, 1)), steps=2, eta=1.0)
