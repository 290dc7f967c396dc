import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talkjax.training import plan, sharding, state
from talkjax.training.rng import stream
from talkjax.training.stage import Stage
from tests.training import toy


class Run:
    """A toy run without a loop: `run.step(batch)` advances it and returns the metrics."""

    def __init__(self, shape=(8, 1), loss_fn=toy.loss_fn, accumulation=1, ema_decay=0.9, **changes):
        c = toy.config(**changes)
        c.mesh.data, c.mesh.fsdp = shape
        c.optimizer.accumulation, c.ema_decay = accumulation, ema_decay
        example = {name: np.zeros((16, n), np.float32) for name, n in toy.SIZES.items()}
        stage = Stage(toy.init, loss_fn, toy.preview, ("denoiser",))
        self.plan = plan.make_plan(c, stage, example, jax.devices()[: shape[0] * shape[1]])
        create = jax.jit(self.plan.create, out_shardings=self.plan.shardings)
        self.state = create(self.plan.init())

    def step(self, batch):
        placed = sharding.place_batch(batch, self.plan.batch_sharding)
        self.state, metrics = self.plan.programs["train"][0](self.state, placed)
        return {name: float(x) for name, x in metrics.items()}


def batches(count, size=16):
    for seed in range(count):
        rng = np.random.default_rng(seed)
        samples = [toy.sample(i, rng) for i in range(size)]
        yield {name: np.stack([s[name] for s in samples]) for name in ("x", "y")}


def bad(batch):
    return {**batch, "y": np.full_like(batch["y"], np.inf)}


def assert_trees_close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


@pytest.mark.parametrize("shape", [(8, 1), (2, 4), (1, 8)])
def test_every_mesh_computes_the_same(shape):
    one, many = Run((1, 1)), Run(shape)
    for batch in batches(4):
        a, b = one.step(batch), many.step(batch)
        assert a == pytest.approx(b, rel=1e-5)
    assert_trees_close(one.state.params, many.state.params, rtol=1e-5, atol=1e-6)
    assert_trees_close(one.state.ema, many.state.ema, rtol=1e-5, atol=1e-6)


def test_it_learns_and_leaves_the_frozen_part_alone():
    run = Run(steps=200)
    frozen = np.array(run.state.params["autoencoder"]["kernel"])
    losses = [run.step(batch)["loss"] for batch in batches(60)]
    assert np.mean(losses[-5:]) < 0.5 * losses[0]
    np.testing.assert_array_equal(run.state.params["autoencoder"]["kernel"], frozen)
    assert int(run.state.step) == 60


def test_microbatches_equal_one_large_batch():
    quiet = jax.tree_util.Partial(toy.loss_fn, noise=0.0)
    whole = Run((2, 4), quiet, batch_size=32)
    parts = Run((2, 4), quiet, accumulation=4, batch_size=32)
    for batch in batches(3, size=32):
        assert parts.step(batch) == pytest.approx(whole.step(batch), rel=1e-5)
    assert_trees_close(whole.state.params, parts.state.params, rtol=1e-5, atol=1e-6)


def test_microbatches_draw_different_noise():
    def loss_fn(params, batch, key):
        noise = jax.random.normal(stream(key, "noise"))
        return jnp.sum(params["denoiser"]["bias"] ** 2), {"noise": noise}

    def first_noise(accumulation):
        run = Run(loss_fn=loss_fn, accumulation=accumulation)
        return run.step(next(batches(1)))["noise"]

    key = stream(jax.random.key(0), "train", 0)
    parts = [
        float(jax.random.normal(stream(jax.random.fold_in(key, i), "noise"))) for i in range(2)
    ]
    assert parts[0] != parts[1]
    assert first_noise(2) == pytest.approx(np.mean(parts))


def test_a_step_that_is_not_finite_changes_only_the_counters():
    run, other = Run(), Run()
    good = list(batches(3))
    run.step(good[0])
    before = jax.tree.map(np.array, run.state)
    metrics = run.step(bad(good[1]))
    assert metrics["skipped"] == metrics["skipped_in_a_row"] == 1
    after = jax.tree.map(np.array, run.state)
    for part in ("params", "opt_state", "ema"):
        jax.tree.map(np.testing.assert_array_equal, getattr(before, part), getattr(after, part))
    assert after.step == 2
    # The schedule did not move either, and a good step ends the row.
    third = run.step(good[2])
    assert (third["skipped"], third["skipped_in_a_row"]) == (1, 0)
    other.step(good[0])
    assert third["learning_rate"] == other.step(good[1])["learning_rate"]


def test_a_finite_loss_with_an_infinite_gradient_is_skipped():
    def loss_fn(params, batch, key):
        zero = params["denoiser"]["bias"] * 0
        return jnp.sum(jnp.sqrt(zero)), {}

    run = Run(loss_fn=loss_fn)
    metrics = run.step(next(batches(1)))
    assert metrics["loss"] == 0
    assert metrics["skipped"] == 1
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(run.state.params))


def test_noise_goes_by_seed_and_step_alone():
    batch = next(batches(1))
    first = [Run().step(batch)["loss"] for _ in range(2)]
    assert first[0] == first[1]
    assert Run(seed=1).step(batch)["loss"] != first[0]
    late = Run()
    late.state = jax.tree_util.tree_map(lambda x: x, late.state)
    moved = jax.device_put(jnp.int32(5), late.plan.shardings.step)
    late.state = state.TrainState(**{**vars(late.state), "step": moved})
    assert late.step(batch)["loss"] != first[0]


def test_streams_differ_by_name_and_step():
    key = jax.random.key(0)
    keys = [stream(key, "a"), stream(key, "b"), stream(key, "a", 0), stream(key, "a", 1)]
    assert len({tuple(map(int, jax.random.key_data(k))) for k in keys}) == 4


def test_the_old_state_is_given_away():
    run = Run()
    old = run.state
    run.step(next(batches(1)))
    assert old.params["denoiser"]["kernel"].is_deleted()


def test_evaluation_uses_the_average_and_the_same_noise_every_time():
    run = Run(ema_decay=0.999)
    evaluate, _ = run.plan.programs["eval"]
    batch = next(batches(1)) | {"weight": np.ones(16, np.float32)}
    placed = sharding.place_batch(batch, run.plan.batch_sharding)
    for training in batches(5):
        run.step(training)
    numbers = evaluate(run.state, placed, np.int32(0))
    assert numbers == evaluate(run.state, placed, np.int32(0))
    assert float(numbers["loss"]) != float(evaluate(run.state, placed, np.int32(1))["loss"])
    key = stream(jax.random.key(0), "eval", 0)
    expected, _ = toy.loss_fn(state.averaged_params(run.state), batch, key)
    assert float(numbers["loss"]) == pytest.approx(float(expected), rel=1e-5)
    assert float(numbers["weight"]) == 16


def test_pictures_are_made_on_every_device_whatever_their_number():
    """A mesh larger than the number of pictures asked for must not cut the batch below itself."""
    planned = Run((8, 1), **{"eval.pictures": 3}).plan
    _, (_, shapes) = planned.programs["preview"]
    assert shapes["x"].shape[0] == 8
    assert "preview" not in Run(**{"eval.pictures": 0}).plan.programs
