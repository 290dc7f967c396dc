import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from talkjax.models import unet
from talkjax.models.talkformer import TalkFormerConfig
from tests.parameters import random_for

REGION = (0.375, 0.0625, 1.0, 0.9375)


def tiny(**talk):
    config = TalkFormerConfig(REGION, heads=2, landmarks=131, landmark_features=8, **talk)
    return unet.UNetConfig(4, (16, 32), config, blocks=1, groups=8)


def arguments(batch=2, h=4, w=6, c=4, seed=0):
    keys = jax.random.split(jax.random.key(seed), 5)
    return {
        "noisy": jax.random.normal(keys[0], (batch, h, w, c)),
        "timestep": jnp.array([10.0, 900.0])[:batch],
        "masked": jax.random.normal(keys[1], (batch, h, w, c)),
        "mask": jnp.ones((h, w)),
        "landmarks": jax.random.uniform(keys[2], (batch, 131, 2)),
        "reference_latents": jax.random.normal(keys[3], (batch, 1, h, w, c)),
        "reference_landmarks": jax.random.uniform(keys[4], (batch, 1, 131, 2)),
        "keep_landmarks": jnp.ones((batch,), bool),
        "keep_reference": jnp.ones((batch,), bool),
    }


def one_level(config=None, dtype=jnp.float32, **changes):
    """Returns a model with every kind of block of a level, which compiles in half the time."""
    return unet.UNet(dataclasses.replace(config or tiny(), channels=(16,), **changes), dtype)


@functools.partial(jax.jit, static_argnums=0)
def forward(model, params, inputs):
    return model.apply(params, **inputs)


@pytest.fixture(scope="module")
def model_and_params():
    model = unet.UNet(tiny())
    return model, random_for(model.init, **arguments())


def initial(model, layer):
    """What a layer's parameters are at first; those of the others are not computed."""
    made = jax.jit(lambda key: model.init(key, **arguments())["params"][layer])
    return made(jax.random.key(0))


def test_fresh_network_predicts_zero_and_shapes_hold():
    model = one_level()
    params = random_for(model.init, **arguments())
    params["params"]["conv_out"] = initial(model, "conv_out")
    out = forward(model, params, arguments())
    assert out.shape == (2, 4, 6, 4) and out.dtype == jnp.float32
    np.testing.assert_array_equal(out, 0)


@pytest.mark.parametrize(
    "name", ["landmarks", "reference_latents", "reference_landmarks", "masked"]
)
def test_every_condition_matters(model_and_params, name):
    model, params = model_and_params
    inputs = arguments()
    before = forward(model, params, inputs)
    after = forward(model, params, {**inputs, name: inputs[name] + 0.1})
    assert float(jnp.abs(after - before).max()) > 1e-4


@pytest.mark.parametrize(
    ("flag", "names"),
    [("keep_landmarks", ("landmarks",)), ("keep_reference", ("reference_latents",))],
)
def test_dropped_conditions_leave_no_trace(model_and_params, flag, names):
    model, params = model_and_params
    inputs = {**arguments(), flag: jnp.zeros((2,), bool)}
    moved = {**inputs, **{name: inputs[name] + 0.3 for name in names}}
    np.testing.assert_array_equal(forward(model, params, inputs), forward(model, params, moved))


def test_the_shape_of_the_lips_changes_nothing_at_first_and_then_counts():
    plain, shown = one_level(), one_level(lip_shape=True)
    params = random_for(plain.init, **arguments())
    added = initial(shown, "lip_shape_in")
    both = {"params": {**params["params"], "lip_shape_in": added}}
    inputs = arguments()
    before = forward(plain, params, inputs)
    np.testing.assert_array_equal(forward(shown, both, inputs), before)
    both["params"]["lip_shape_in"] = jax.tree.map(lambda x: x + 0.1, added)
    assert float(jnp.abs(forward(shown, both, inputs) - before).max()) > 1e-3
    dropped = {**inputs, "keep_landmarks": jnp.zeros((2,), bool)}
    np.testing.assert_array_equal(forward(shown, both, dropped), forward(plain, params, dropped))


def test_loss_reaches_the_landmarks():
    model, inputs = one_level(), arguments()
    params = random_for(model.init, **inputs)

    def loss(landmarks):
        return jnp.square(model.apply(params, **{**inputs, "landmarks": landmarks})).mean()

    gradient = jax.jit(jax.grad(loss))(inputs["landmarks"])
    assert np.isfinite(gradient).all() and float(jnp.abs(gradient).max()) > 0


@pytest.mark.parametrize("off", ["motion_align", "reference_align"])
def test_ablations_switch_their_condition_off(off):
    model = one_level(tiny(**{off: False}))
    inputs = arguments()
    params = random_for(model.init, **inputs)
    name = "landmarks" if off == "motion_align" else "reference_latents"
    inputs["keep_landmarks"] = jnp.zeros((2,), bool)  # the correspondence, too, uses landmarks
    moved = {**inputs, name: inputs[name] + 0.3}
    np.testing.assert_array_equal(forward(model, params, inputs), forward(model, params, moved))


def test_contexts_once_equal_contexts_in_the_call(model_and_params):
    """A sampler's split, with one reference for all frames, is the training forward pass."""
    model, params = model_and_params
    inputs = arguments()
    for name in ("reference_latents", "reference_landmarks"):
        inputs[name] = jnp.repeat(inputs[name][:1], 2, axis=0)
    whole = forward(model, params, inputs)
    part = jax.jit(model.apply, static_argnames=("method", "size"))
    reference = part(
        params,
        inputs["reference_latents"][:1],
        inputs["reference_landmarks"][:1],
        method="reference_context",
    )
    motion = part(
        params,
        inputs["landmarks"],
        inputs["reference_landmarks"][:, 0],
        inputs["keep_landmarks"],
        size=(4, 6),
        method="motion_context",
    )
    rest = {name: inputs[name] for name in ("masked", "mask", "keep_landmarks", "keep_reference")}
    conditions = unet.Conditions(motion=motion, reference=reference, **rest)
    split = part(params, inputs["noisy"], inputs["timestep"], conditions, method="denoise")
    np.testing.assert_allclose(whole, split, atol=2e-5)


def test_several_references_are_looked_at_together(model_and_params):
    """The same image twice says what it says once; another image says something else."""
    model, params = model_and_params
    inputs = arguments()
    names = "reference_latents", "reference_landmarks"
    once = forward(model, params, inputs)
    twice = {**inputs, **{name: jnp.repeat(inputs[name], 2, axis=1) for name in names}}
    np.testing.assert_allclose(forward(model, params, twice), once, atol=2e-5)
    other = {**twice, names[0]: twice[names[0]].at[:, 1].add(0.5)}
    assert float(jnp.abs(forward(model, params, other) - once).max()) > 1e-4


def test_a_moved_reference_is_found_where_it_moved_to(model_and_params):
    """Cells of the second reference are located by their places in the first."""
    model, params = model_and_params
    inputs = arguments()
    latents = jnp.repeat(inputs["reference_latents"], 2, axis=1)
    points = jnp.concatenate([inputs["reference_landmarks"]] * 2, axis=1).at[:, 1].add(0.25)
    found = jax.jit(model.apply, static_argnames="method")(
        params, latents, points, method="reference_context"
    )["down_0"]
    first, second = jnp.split(found.points, 2, axis=1)
    np.testing.assert_allclose(second - first, -0.25, atol=1e-5)


@pytest.mark.parametrize("after", [False, True])
def test_the_finest_skip_may_carry_what_talkformer_aligned(model_and_params, after):
    """With all other ways to the output cut, only that skip can bring it the reference."""
    params = traverse_util.flatten_dict(model_and_params[1], sep="/")
    cut = re.compile(r"/talk_(middle|up_.|down_1)/.*/out/|/talk_.*/null|/downsample_0/")
    params = {k: jnp.zeros_like(v) if cut.search(k) else v for k, v in params.items()}
    params = traverse_util.unflatten_dict(params, sep="/")
    model = unet.UNet(dataclasses.replace(tiny(), skip_after_attention=after))
    inputs = arguments()
    moved = {**inputs, "reference_latents": inputs["reference_latents"] + 0.3}
    difference = forward(model, params, moved) - forward(model, params, inputs)
    assert (float(jnp.abs(difference).max()) > 1e-4) == after


def dots(jaxpr):
    """All matrix products of a traced function, those of inner functions included."""
    for eqn in jaxpr.eqns:
        if eqn.primitive is jax.lax.dot_general_p:
            yield eqn
        for inner in jax.tree.leaves(eqn.params, is_leaf=lambda p: hasattr(p, "eqns")):
            inner = getattr(inner, "jaxpr", inner)  # a closed jaxpr holds an open one
            if hasattr(inner, "eqns"):
                yield from dots(inner)


def test_coordinates_come_from_products_of_full_precision():
    """At the default precision, TPUs round the factors of a float32 product to bfloat16."""
    model = unet.UNet(tiny(), dtype=jnp.bfloat16)
    shapes = jax.eval_shape(model.init, jax.random.key(0), **arguments())
    jaxpr = jax.make_jaxpr(lambda p: model.apply(p, **arguments()))(shapes)
    found = [eqn for eqn in dots(jaxpr.jaxpr) if eqn.outvars[0].aval.shape[-1] == 2]
    # Per level, the correspondences of the target and of the reference; per block (five), mean
    # positions of the target's landmarks and of the reference's.
    assert len(found) == 2 * 2 + 2 * 5
    highest = (jax.lax.Precision.HIGHEST,) * 2
    assert all(eqn.params["precision"] == highest for eqn in found)


@pytest.mark.parametrize("change", [{"dtype": jnp.bfloat16}, {"positional": "dot"}])
def test_variants_run(change):
    config = tiny(positional=change.get("positional", "kernel"))
    model = one_level(config, change.get("dtype", jnp.float32))
    out = forward(model, random_for(model.init, **arguments()), arguments())
    assert out.dtype == jnp.float32 and np.isfinite(out).all()


def loss(model, params, inputs):
    return jnp.square(model.apply(params, **inputs)).sum()


def gradient(model):
    params = random_for(model.init, **arguments())
    return jax.jit(jax.grad(functools.partial(loss, model)))(params, arguments())


def kept(model):
    """Counts the numbers that are stored for the backward pass, parameters left out."""
    inputs = arguments(h=16, w=16)
    params = jax.eval_shape(model.init, jax.random.key(0), **inputs)
    whole = functools.partial(loss, model, inputs=inputs)
    residuals = jax.eval_shape(lambda p: jax.vjp(whole, p)[1], params)
    total = sum(leaf.size for leaf in jax.tree.leaves(residuals))
    return total - sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.fixture(scope="module")
def plain():
    return gradient(one_level()), kept(one_level())


@pytest.mark.parametrize(("remat", "share"), [("products", 0.4), ("full", 0.31)])
def test_remat_keeps_less_and_changes_no_gradient(plain, remat, share):
    wanted = jax.tree.leaves(plain[0])
    got = jax.tree.leaves(gradient(one_level(remat=remat)))
    largest = max(float(jnp.abs(leaf).max()) for leaf in wanted)
    for a, b in zip(wanted, got, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6 * largest)
    assert kept(one_level(remat=remat)) < share * plain[1]
