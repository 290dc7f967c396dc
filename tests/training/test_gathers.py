"""Parameters are gathered in the type that they are computed in."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from talkjax import networks
from talkjax.training import plan, sharding, stages
from talkjax.training.rng import stream
from talkjax.training.stage import Stage
from tests.parameters import random_for
from tests.training import toy
from tests.training.test_stages import batch, tiny_config

GATHER = re.compile(r"= (\w+\[[\d,]*\])\S* all-gather(?:-start)?\(")
SIZE = 64
BATCH = 8  # fewer rows on a device than a kernel has


def init(key, batch):
    names = ("conv_in", "middle", "conv_out")
    kernels = {n: {"kernel": jax.random.normal(stream(key, n), (SIZE, SIZE)) / 8} for n in names}
    return {"denoiser": kernels, "autoencoder": {"kernel": jnp.eye(SIZE)}}


def loss_fn(params, batch, key, dtype):
    """Layers that compute in `dtype`, the second of them twice, and one in float32."""
    del key
    layers = params["denoiser"]
    x = batch["x"].astype(dtype)
    for layer in (params["autoencoder"], layers["conv_in"], layers["middle"], layers["middle"]):
        x = jnp.tanh(x @ layer["kernel"].astype(dtype))
    y = x.astype(jnp.float32) @ layers["conv_out"]["kernel"].astype(jnp.float32)
    return jnp.mean(jnp.square(y - batch["y"])), {}


def make_plan(dtype, shape):
    c = toy.config(batch_size=BATCH)
    c.mesh.data, c.mesh.fsdp = shape
    example = {name: np.zeros((BATCH, SIZE), np.float32) for name in ("x", "y")}
    stage = Stage(
        init,
        lambda *arguments: loss_fn(*arguments, jnp.dtype(dtype)),
        trainable=("denoiser",),
        compute_type=lambda path: networks.compute_type(dtype, path),
    )
    return plan.make_plan(c, stage, example, jax.devices()[: shape[0] * shape[1]])


@pytest.fixture
def gathered(tmp_path):
    """Returns the types of all gathers of a program, as the partitioner leaves them.

    The CPU has no collectives of bfloat16, so that its final program converts around them.
    """
    jax.config.update("jax_enable_compilation_cache", False)  # what is cached leaves no dump
    compilation_cache.reset_cache()

    def types(planned, program="train"):
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        planned.lower(program).compile(
            {"xla_dump_to": str(folder), "xla_dump_hlo_pass_re": "spmd.*partition.*"}
        )
        dumped = sorted(folder.glob("*.after_*partition*.txt"))
        return sorted(GATHER.findall(dumped[-1].read_text()))

    yield types
    jax.config.update("jax_enable_compilation_cache", True)
    compilation_cache.reset_cache()


def steps(planned, count=3):
    """The state and the metrics after some steps."""
    rng = np.random.default_rng(0)
    state = jax.jit(planned.create, out_shardings=planned.shardings)(planned.init())
    for _ in range(count):
        batch = {name: rng.normal(size=(BATCH, SIZE)).astype(np.float32) for name in ("x", "y")}
        placed = sharding.place_batch(batch, planned.batch_sharding)
        state, metrics = planned.programs["train"][0](state, placed)
    return jax.device_get((dataclasses.asdict(state), metrics))


def ungathered(monkeypatch):
    monkeypatch.setattr(sharding, "gather", lambda params, *_: params)


@pytest.mark.parametrize("program", ["train", "eval"])
def test_parameters_alone_are_gathered_in_the_type_of_their_layer(gathered, program, monkeypatch):
    expected = ["bf16[64,64]"] * 3 + ["f32[64,64]"]
    assert gathered(make_plan("bfloat16", (2, 4)), program) == expected
    # The compiler's own choice: activations, which are smaller here.
    ungathered(monkeypatch)
    assert gathered(make_plan("bfloat16", (2, 4)), program) != expected


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_on_one_device_nothing_changes(dtype, monkeypatch):
    new = make_plan(dtype, (1, 1))
    text, result = new.lower("train").as_text(), steps(new)
    ungathered(monkeypatch)
    old = make_plan(dtype, (1, 1))
    assert text == old.lower("train").as_text()
    jax.tree.map(np.testing.assert_array_equal, result, steps(old))


def test_on_many_devices_the_result_is_that_of_one():
    """Rounding differs: devices sum in another order."""
    one, many = steps(make_plan("float32", (1, 1))), steps(make_plan("float32", (2, 4)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), one, many)


def test_what_is_converted_early_is_converted_by_its_layer_anyway():
    """Rounding those parameters first changes nothing, to the last bit; rounding others does."""
    stage = stages.make_stage(tiny_config("joint", dtype="bfloat16"))
    data, key = batch(), jax.random.key(0)
    params = random_for(stage.init, data)

    def rounded(chosen):
        def leaf(path, x):
            early = stage.compute_type(sharding.path_name(path)) == jnp.bfloat16
            return x.astype(jnp.bfloat16).astype(np.float32) if early == chosen else x

        return jax.tree_util.tree_map_with_path(leaf, params)

    # Without the option, the compiler leaves out a conversion to bfloat16 and back.
    exact = {"xla_allow_excess_precision": False, "xla_backend_optimization_level": 0}
    loss = jax.jit(stage.loss_fn).lower(params, data, key).compile(exact)
    expected = jax.device_get(loss(params, data, key))
    assert jax.device_get(loss(rounded(True), data, key)) == expected
    assert jax.device_get(loss(rounded(False), data, key)) != expected


def test_other_networks_compute_in_float32():
    types = {
        "denoiser/conv_in/kernel": "bfloat16",
        "landmark/position": "bfloat16",
        "denoiser/conv_out/kernel": "float32",
        "landmark/norm/scale": "float32",
        "discriminator/conv_2/kernel": "float32",
    }
    assert {path: networks.compute_type("bfloat16", path) for path in types} == types
    assert networks.compute_type("float32", "denoiser/conv_in/kernel") == "float32"
