import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talkjax.models.landmark_completion import LandmarkCompletion, LandmarkConfig, References

CONFIG = LandmarkConfig(features=32, layers=1, heads=2, dropout=0.2, past=2, future=1)


@functools.partial(jax.jit, static_argnums=0, static_argnames="train")
def forward(model, params, *inputs, **options):
    return model.apply(params, *inputs, **options)


def arguments(seed=0):
    keys = jax.random.split(jax.random.key(seed), 4)
    return (
        jax.random.normal(keys[0], (2, 9, 16, 80)),
        jax.random.uniform(keys[1], (2, 6, 74, 2)),
        References(
            jax.random.uniform(keys[2], (2, 3, 131, 2)),
            jax.random.normal(keys[3], (2, 3, 16, 80)),
            np.tile([True, True, False], (2, 1)),
        ),
    )


@pytest.fixture(scope="module")
def fitted():
    model = LandmarkCompletion(CONFIG)
    return model, jax.jit(model.init)(jax.random.key(0), *arguments())


def test_starts_near_the_references_mean(fitted):
    model, params = fitted
    out = forward(model, params, *arguments())
    assert out.shape == (2, 6, 57, 2) and out.dtype == jnp.float32
    mean = arguments()[2].landmarks.mean(1, keepdims=True)[:, :, 74:]
    assert float(jnp.abs(out - mean).mean()) < 0.01


def changed(which, place):
    """The arguments with one item of a leaf changed: mel, pose, reference landmarks and sound."""
    leaves, tree = jax.tree.flatten(arguments())
    leaves[which] = leaves[which].at[:, place].add(1.0)
    return jax.tree.unflatten(tree, leaves)


def difference(model, params, other):
    """(6,) largest difference of the ticks' landmarks."""
    out = forward(model, params, *arguments()) - forward(model, params, *other)
    return np.abs(np.asarray(out)).max((0, 2, 3))


@pytest.mark.parametrize(
    ("which", "place"), [(0, 0), (0, 3), (0, 8), (1, 0), (2, 0), (2, 2), (3, 0)]
)
def test_every_input_matters(fitted, which, place):
    """So do the sound before and after the window, and that of the references."""
    assert difference(*fitted, changed(which, place)).max() > 1e-6


def test_unheard_sound_of_a_reference_does_not_matter(fitted):
    assert difference(*fitted, changed(3, 2)).max() == 0


def test_references_have_no_order(fitted):
    mel, pose, references = arguments()
    turned = References(*(x[:, ::-1] for x in references))
    np.testing.assert_allclose(difference(*fitted, (mel, pose, turned)), 0, atol=1e-5)


@pytest.mark.parametrize("ahead", [0, 1])
def test_streaming_looks_no_further_than_it_may(ahead):
    model = LandmarkCompletion(
        LandmarkConfig(
            features=32, layers=3, heads=2, dropout=0.0, past=2, future=2, look_ahead=ahead
        )
    )
    mel, pose, references = arguments()
    mel = jnp.concatenate([mel, mel[:, :1]], 1)  # 2 + 6 + 2 ticks
    params = jax.jit(model.init)(jax.random.key(0), mel, pose, references)
    before = forward(model, params, mel, pose, references)
    for tick in range(-2, 8):  # of the window
        after = forward(model, params, mel.at[:, tick + 2].add(1.0), pose, references)
        reached = np.abs(np.asarray(after - before)).max((0, 2, 3)) > 0
        np.testing.assert_array_equal(reached, np.arange(6) + ahead >= tick)
        if 0 <= tick < 6:
            after = forward(model, params, mel, pose.at[:, tick].add(0.1), references)
            reached = np.abs(np.asarray(after - before)).max((0, 2, 3)) > 0
            np.testing.assert_array_equal(reached, np.arange(6) + ahead >= tick)


def test_sound_and_poses_must_fit():
    mel, pose, references = arguments()
    with pytest.raises(ValueError, match="8 mel windows do not fit 6 poses with past=2"):
        LandmarkCompletion(CONFIG).init(jax.random.key(0), mel[:, 1:], pose, references)
    with pytest.raises(ValueError, match="look_ahead=-2"):
        LandmarkConfig(look_ahead=-2)


def test_a_network_without_reference_sound_is_that_of_earlier_runs():
    config = LandmarkConfig(features=32, layers=1, heads=2, past=0, future=0, reference_sound=False)
    mel, pose, references = arguments()
    params = jax.eval_shape(
        LandmarkCompletion(config).init, jax.random.key(0), mel[:, :6], pose, references
    )["params"]
    assert params["order"].shape == (8, 32) and "unheard" not in params


def test_dropout_is_only_for_training(fitted):
    model, params = fitted
    plain = [forward(model, params, *arguments()) for _ in range(2)]
    np.testing.assert_array_equal(*plain)
    noisy = forward(model, params, *arguments(), train=True, rngs={"dropout": jax.random.key(1)})
    assert not np.array_equal(noisy, plain[0])


def test_bfloat16_returns_float32(fitted):
    _, params = fitted
    out = forward(LandmarkCompletion(CONFIG, dtype=jnp.bfloat16), params, *arguments())
    assert out.dtype == jnp.float32 and np.isfinite(out).all()


def test_offsets_come_from_a_product_of_full_precision(fitted):
    model, params = fitted
    jaxpr = jax.make_jaxpr(lambda p: model.apply(p, *arguments()))(params)
    products = [eqn for eqn in jaxpr.eqns if eqn.primitive is jax.lax.dot_general_p]
    assert products[-1].outvars[0].aval.shape[-1] == 2 * 57
    assert products[-1].params["precision"] == (jax.lax.Precision.HIGHEST,) * 2
