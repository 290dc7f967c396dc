import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from talkjax.errors import UserError
from talkjax.training import state
from tests.training import toy
from tests.training.saved import make_state


def optimizer_of(c, steps=100):
    schedule = state.make_schedule(c.optimizer, steps)
    return schedule, state.make_optimizer(c.optimizer, schedule)


def toy_params():
    return toy.init(jax.random.key(0), {"x": jnp.zeros((1, toy.FEATURES))})


def test_split_and_merge_are_inverse():
    params = toy_params()
    for prefixes in ([""], ["denoiser"], ["denoiser/kernel"], ["denoiser", "autoencoder/kernel"]):
        train, frozen = state.split(params, prefixes)
        both = state.merge(train, frozen)
        assert jax.tree.structure(both) == jax.tree.structure(params)
        assert len(jax.tree.leaves(train)) + len(jax.tree.leaves(frozen)) == 3
    assert set(state.split(params, ["denoiser/kernel"])[0]["denoiser"]) == {"kernel"}


def test_prefixes_are_whole_names():
    with pytest.raises(UserError, match="'denois' matches no parameter"):
        state.split(toy_params(), ["denois"])


def test_cosine_schedule():
    c = toy.config(**{"optimizer.learning_rate": 1.0, "optimizer.warmup_steps": 10})
    schedule, _ = optimizer_of(c)
    values = [float(schedule(jnp.int32(i))) for i in range(101)]
    assert values[0] == pytest.approx(0.1)  # the first step moves
    assert values[9] == pytest.approx(1.0) == max(values)
    assert values[100] == pytest.approx(c.optimizer.final_fraction)
    assert values[10:] == sorted(values[10:], reverse=True)


@pytest.mark.parametrize("warmup", [0, 1, 10])
def test_constant_schedule(warmup):
    c = toy.config(**{"optimizer.schedule": "constant", "optimizer.warmup_steps": warmup})
    schedule, _ = optimizer_of(c)
    values = [float(schedule(jnp.int32(i))) for i in range(20)]
    assert values[max(warmup - 1, 0) :] == pytest.approx(
        [c.optimizer.learning_rate] * len(values[max(warmup - 1, 0) :])
    )
    assert values[0] == pytest.approx(c.optimizer.learning_rate / max(warmup, 1))


def test_wrong_schedules_are_refused():
    with pytest.raises(UserError, match="linear"):
        optimizer_of(toy.config(**{"optimizer.schedule": "linear"}))
    with pytest.raises(UserError, match="warmup_steps=100"):
        optimizer_of(toy.config(**{"optimizer.warmup_steps": 100}))


def test_vectors_do_not_decay():
    c = toy.config(**{"optimizer.weight_decay": 0.5})
    _, optimizer = optimizer_of(c)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    assert np.all(updates["kernel"] < 0)
    assert not np.any(updates["bias"])


def test_the_average_warms_up():
    ema, values = jnp.zeros(()), [3.0, -1.0, 5.0, 2.0]
    expected = 0.0
    for step, value in enumerate(values):
        ema = state.update_ema(ema, jnp.float32(value), jnp.int32(step), 0.25)
        decay = min(0.25, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
        assert float(ema) == pytest.approx(expected, rel=1e-6)
    slow = state.update_ema(jnp.zeros(()), jnp.ones(()), jnp.int32(10**6), 0.999)
    assert float(slow) == pytest.approx(0.001, rel=1e-3)


def test_frozen_parameters_have_no_optimiser_state_and_no_average():
    _, optimizer = optimizer_of(toy.config())
    made = state.create_state(toy_params(), optimizer, ["denoiser"])
    assert set(made.ema) == {"denoiser"}
    assert set(made.opt_state[1][0].mu) == {"denoiser"}
    assert set(state.averaged_params(made)) == {"denoiser", "autoencoder"}


def test_optimizer_and_average_are_sharded_like_their_parameters():
    _, abstract = make_state((2, 4))
    where = jax.tree.map(lambda x: x.sharding, abstract)
    split = PartitionSpec("fsdp")
    adam = where.opt_state[1][0]
    for tree in (where.params, where.ema, adam.mu, adam.nu):
        assert tree["denoiser"]["kernel"].spec == split
        assert tree["denoiser"]["bias"].spec == PartitionSpec()
    assert adam.count.spec == where.step.spec == PartitionSpec()


def test_initial_values_do_not_depend_on_the_mesh():
    made = [make_state(shape, seed=3)[0].params for shape in ((1, 8), (1, 1))]
    assert made[0]["denoiser"]["kernel"].sharding.spec == PartitionSpec("fsdp")
    jax.tree.map(np.testing.assert_array_equal, *made)
