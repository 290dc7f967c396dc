"""The network in PyTorch that speeds are compared with is the same network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from talkjax.errors import UserError
from talkjax.models import unet
from talkjax.models.talkformer import TalkFormerConfig

torch = pytest.importorskip("torch", reason="comes with `uv run --with torch --with diffusers`")
pytest.importorskip("diffusers", reason="comes with `uv run --with torch --with diffusers`")

from benchmarks import torch_denoiser, train_step  # noqa: E402

CONFIG = unet.UNetConfig(
    latent_channels=4,
    channels=(8, 16),
    talkformer=TalkFormerConfig((0.375, 0.0625, 1.0, 0.9375), heads=2, landmark_features=8),
    blocks=1,
    attention=(False, True),
    groups=4,
)
FRAMES, SIZE = 2, (4, 6)


def inputs():
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.standard_normal(shape, np.float32)

    rows, frames = 3, 3 * FRAMES
    return {
        "noisy": normal(frames, *SIZE, 4),
        "timestep": rng.integers(0, 1000, frames).astype(np.int32),
        "masked": normal(frames, *SIZE, 4),
        "mask": (rng.random(SIZE) > 0.5).astype(np.float32),
        "landmarks": rng.random((frames, 131, 2), np.float32),
        "reference_latent": normal(rows, *SIZE, 4),
        "reference_landmarks": rng.random((rows, 131, 2), np.float32),
        "keep_landmarks": np.array([True, False, True]),
        "keep_reference": np.array([True, True, False]),
    }


@pytest.fixture(scope="module")
def jax_side():
    """Parameters, output and gradients of a loss, by path."""
    model, given = unet.UNet(CONFIG), inputs()
    for name in ("reference_landmarks", "keep_landmarks", "keep_reference"):
        given[name] = np.repeat(given[name], FRAMES, axis=0)
    given["reference_landmarks"] = given["reference_landmarks"][:, None]
    latents = np.repeat(given.pop("reference_latent"), FRAMES, axis=0)
    given["reference_latents"] = latents[:, None]
    params = jax.jit(model.init)(jax.random.key(0), **given)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    params = jax.tree.unflatten(tree, moved)

    @jax.jit
    def run(params):
        def loss(params):
            out = model.apply(params, **given)
            return jnp.square(out).mean(), out

        return jax.grad(loss, has_aux=True)(params)

    gradients, out = run(params)

    def flat(tree):
        return traverse_util.flatten_dict(jax.device_get(tree["params"]), sep="/")

    return flat(params), np.asarray(out), flat(gradients)


def torch_inputs():
    given = {name: torch.tensor(x) for name, x in inputs().items()}
    for name in ("noisy", "masked", "reference_latent"):
        given[name] = given[name].permute(0, 3, 1, 2)
    return given


def test_outputs_and_gradients_are_those_of_flax(jax_side):
    params, expected, gradients = jax_side
    model = torch_denoiser.Denoiser(CONFIG)
    torch_denoiser.load(model, params)
    out = model(**torch_inputs())
    out.square().mean().backward()
    np.testing.assert_allclose(out.detach().permute(0, 2, 3, 1), expected, rtol=0, atol=1e-4)
    named = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    found = torch_denoiser.named_like_flax(named)
    whole = np.sqrt(sum(np.square(x).sum() for x in gradients.values()))
    for name, gradient in gradients.items():
        other = found.get(name, np.zeros_like(gradient))
        error = np.linalg.norm(other - gradient)
        assert error < 1e-4 * max(np.linalg.norm(gradient), 1e-3 * whole), name


def test_weights_come_back_as_they_went(jax_side):
    params = jax_side[0]
    model = torch_denoiser.Denoiser(CONFIG)
    torch_denoiser.load(model, params)
    back = torch_denoiser.named_like_flax(model.named_parameters())
    assert back.keys() == params.keys()
    for name, value in params.items():
        np.testing.assert_array_equal(back[name], value)


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_other_parameters_are_refused(jax_side, change):
    params, name = dict(jax_side[0]), "conv_out/bias"
    if change == "missing":
        del params[name]
    elif change == "extra":
        params["conv_out/scale"] = params[name]
    else:
        params[name] = params[name][:-1]
    with pytest.raises(UserError, match="conv_out"):
        torch_denoiser.load(torch_denoiser.Denoiser(CONFIG), params)


def small_config():
    from configs import demo_128

    config = demo_128.get_config("diffusion")
    config.batch_size = 2
    config.optimizer.warmup_steps = 0
    config.denoiser.channels = (16, 32)
    config.denoiser.blocks = 1
    config.denoiser.groups = 4
    return config


@pytest.mark.slow
@pytest.mark.parametrize(
    ("field", "value", "differs"),
    [
        (None, None, None),
        ("loss.mouth_weight", 3.0, "loss"),
        ("optimizer.clip_norm", 1e-3, "gradients"),
        ("optimizer.weight_decay", 0.3, "update"),
        ("ema_decay", 0.0, "average"),
    ],
)
def test_a_whole_step_agrees_or_is_refused(field, value, differs):
    config = small_config()
    nets = train_step.networks.make_networks(config)
    ours = train_step.JaxStep(config, train_step.make_batch(config, nets))
    other = small_config()
    if field:
        other.update_from_flattened_dict({field: value})
    theirs = train_step.TorchStep(
        other,
        nets,
        ours.weights(),
        np.full(1, ours.schedule(0)),
        "cpu",
        channels_last=True,
        compiled=False,
    )
    if not field:
        found = train_step.check_agreement(config, nets, ours, theirs)
        assert 0 < found["gradient"] < train_step.GRADIENT_TOLERANCE
        return
    with pytest.raises(UserError, match=f"not the same: {differs}"):
        train_step.check_agreement(config, nets, ours, theirs)


def test_turns_alternate_and_ratios_are_taken_turn_by_turn():
    order = []
    runners = {name: lambda name=name: order.append(name) for name in "ab"}
    seconds = train_step.take_turns(runners, 3)
    assert "".join(order) == "baabba" and seconds["a"].shape == (3, 2)
    one, other = np.array([[2.0, 1], [30, 1], [4, 1]]), np.array([[1.0, 2], [10, 2], [1, 2]])
    assert train_step.ratio(one, other) == {"clock": [2.5, 3.0, 3.5], "processor": [0.5] * 3}
