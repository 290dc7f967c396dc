import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import sync
from talkjax.models import sync_expert
from talkjax.training import loop, metrics, stages, sync_augment, sync_stage
from tests.training import toy

WINDOWS, SIZE = 4, (51, 51)


def tiny_config(**changes):
    c = sync.get_config()
    c.sync.width, c.sync.embedding = 0.125, 16
    c.sync.image = SIZE
    c.sync.patience = 5
    c.data.window = WINDOWS + 4
    c.update_from_flattened_dict(changes)
    return c


def toy_batch(rng, batch=8, margin=0, size=28):
    """Lips that are as bright as their sound is loud."""
    ticks = WINDOWS + 4
    loudness = rng.uniform(0, 1, (batch, ticks + 2 * margin + 2))
    shown = loudness[:, margin + 1 : margin + 1 + ticks]
    lips = np.full((batch, ticks, size, size, 3), 60.0)
    lips[:, :, 8:20, 8:20] += (150 * shown)[:, :, None, None, None]
    # Tick t of the run is heard from mel frame 4 t + 2 of the span on.
    mel = np.repeat(loudness, 4, axis=1)[:, 2:, None] * 8 - 10 + np.zeros(80)
    count = 4 * (WINDOWS + 2 * margin - 1) + 20
    shape = shown[:, 2:-2, None] * np.ones(6)
    return {
        "lips": lips.astype(np.uint8),
        "mel": mel[:, :count].astype(np.float32),
        "shape": shape.astype(np.float32),
    }


@pytest.fixture(scope="module")
def stage():
    return stages.make_stage(tiny_config())


@pytest.fixture(scope="module")
def fresh(stage):
    """Untrained parameters."""
    return jax.jit(stage.init)(jax.random.key(0), toy_batch(np.random.default_rng(0)))


@pytest.fixture(scope="module")
def run(stage, fresh):
    """(make, steps, rate) -> the rows that a run would log; compiled once for all tests."""
    optimizer = optax.inject_hyperparams(optax.adam)(1e-3)

    @jax.jit
    def step(params, state, batch, key):
        (loss, metrics), grads = jax.value_and_grad(stage.loss_fn, has_aux=True)(params, batch, key)
        updates, state = optimizer.update(grads, state)
        metrics = {**metrics, "loss": loss, "grad_norm": optax.global_norm(grads)}
        return optax.apply_updates(params, updates), state, metrics

    def run(make, steps, rate=3e-3):
        with jax.numpy_dtype_promotion("standard"):  # optax mixes them
            params, state, rows = fresh, optimizer.init(fresh), []
            state.hyperparams["learning_rate"] = jnp.float32(rate)
            for number in range(1, steps + 1):
                batch = make(np.random.default_rng(number))
                params, state, metrics = step(params, state, batch, jax.random.key(number))
                rows.append({name: float(x) for name, x in metrics.items()})
                rows[-1] |= {"step": number, "learning_rate": rate}
        return rows

    return run


def test_the_loss_falls_where_lips_are_as_the_sound(run, stage):
    rows = run(toy_batch, 60)
    chance, _ = sync_stage.chance(WINDOWS, 0, 15)
    assert rows[0]["matching"] > 0.9 * chance
    assert np.mean([row["matching"] for row in rows[-5:]]) < 0.7 * chance
    assert rows[-1]["distance"] < rows[-1]["distance_all"]
    assert stage.find_problem(rows[-1]) is None


@pytest.mark.parametrize(
    ("plant", "rate", "reason"),
    [
        ("constant lips", 3e-3, "the pictures of a run are all alike"),
        ("constant sound", 3e-3, "the sounds of a run are all alike"),
        ("shuffled", 1e-4, "out of sync or too few"),
        ("nothing", 0.0, "the learning rate is 0"),
    ],
)
def test_a_loss_at_chance_is_explained(run, stage, plant, rate, reason):
    def make(rng):
        batch = toy_batch(rng)
        if plant == "constant lips":
            batch["lips"][:] = batch["lips"][:, :1]
        elif plant == "constant sound":
            batch["mel"][:] = -5
        elif plant == "shuffled":
            batch["mel"] = toy_batch(rng)["mel"]
        return batch

    warnings = [stage.find_problem(row) for row in run(make, 12, rate)]
    assert not any(warnings[:4])
    assert sum(w is not None and "at chance" in w and reason in w for w in warnings[4:]) >= 6


def test_the_loop_says_and_writes_what_the_watch_does(tmp_path, capsys):
    def find_problem(row):
        return f"at {row['loss']:.3f}" if row["step"] % 4 == 0 else None

    c = toy.config(**{"eval.every": 0})
    stage = dataclasses.replace(toy.stage(), find_problem=find_problem)
    loop.train(c, tmp_path, stage, toy.make_data(c))
    rows = metrics.read(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows if "warning" in row] == [4, 8, 12]
    assert rows[-1]["warning"] == f"at {rows[-1]['loss']:.3f}"
    assert f"warning: step 12: {rows[-1]['warning']}" in capsys.readouterr().err.splitlines()


def test_what_else_the_watch_knows():
    find_problem = sync_stage.make_find_problem(3.0, 0.1, 100)
    row = {"step": 100, "matching": 2.95, "learning_rate": 1e-3, "grad_norm": 1.0, "accuracy": 0.1}
    row |= {"lips_change": 0.1, "audio_change": 0.5, "lips_spread": 0.3, "audio_spread": 0.3}
    assert "alive" in find_problem(row)
    assert find_problem(row | {"step": 99}) is None
    assert find_problem(row | {"matching": 2.8}) is None
    assert find_problem(row | {"matching": float("nan")}) is None
    assert "of lips have collapsed" in find_problem(row | {"lips_spread": 1e-4})
    assert "of audio have collapsed" in find_problem(row | {"audio_spread": 1e-4})
    both = find_problem(row | {"lips_spread": 1e-4, "audio_spread": 1e-4})
    assert "of lips and audio have collapsed" in both
    assert "gradient has vanished" in find_problem(row | {"grad_norm": 1e-9})
    assert "is learning" in find_problem(row | {"accuracy": 0.4})
    assert all("\n" not in str(find_problem(row | {"step": step})) for step in (100, 200))


def test_chance_is_that_of_the_candidates():
    loss, accuracy = sync_stage.chance(8, 15, 15)
    np.testing.assert_allclose(loss, (np.log(31) + np.log(8)) / 2)
    np.testing.assert_allclose(accuracy, 3 / 31)
    even = jnp.zeros((2, 8, 4)), jnp.ones((2, 38, 4))
    found, _ = sync_stage.matching_loss(*even, jnp.float32(3.0), 15)
    np.testing.assert_allclose(found, loss, rtol=1e-5)
    wanted = sync_stage.candidates(8, 2, 3)
    assert wanted.shape == (8, 12) and wanted.sum(1).tolist() == [6, 7, 7, 7, 7, 7, 7, 6]
    assert wanted[np.arange(8), np.arange(8) + 2].all()


def test_evaluation_is_not_distorted(stage, fresh):
    batch, evaluate = toy_batch(np.random.default_rng(0)), jax.jit(stage.eval_fn)
    first, numbers = evaluate(fresh, batch, jax.random.key(0))
    assert first == evaluate(fresh, batch, jax.random.key(1))[0] and np.isfinite(first)
    assert all(np.isfinite(x) and jnp.shape(x) == () for x in numbers.values())


def test_margins_only_add_sounds():
    stage = stages.make_stage(tiny_config(**{"data.sound_margin": 3}))
    batch = toy_batch(np.random.default_rng(0), margin=3)
    key = jax.random.key(0)
    params = jax.eval_shape(stage.init, key, batch)
    loss, _ = jax.eval_shape(stage.loss_fn, params, batch, key)
    assert loss.shape == () and loss.dtype == jnp.float32


def test_distortions_are_common_to_a_run_and_keep_motion():
    amounts = sync.get_config().sync.augment.to_dict()
    batch = toy_batch(np.random.default_rng(0))
    plain = sync_expert.network_images(jnp.asarray(batch["lips"]), SIZE)
    none = dict.fromkeys(amounts, 0.0)
    distort = jax.jit(lambda key, a: sync_augment.distort(key, batch["lips"], SIZE, a))
    still = distort(jax.random.key(0), {**amounts, "noise": 0.0})
    assert still.shape == plain.shape and np.isfinite(still).all()
    # Brightness of the middle follows the picture's own, whatever the colours.
    for a, b in zip(still, plain, strict=True):
        middle = (slice(None), slice(21, 30), slice(21, 30))
        curves = np.corrcoef(a[middle].mean((1, 2, 3)), b[middle].mean((1, 2, 3)))
        assert curves[0, 1] > 0.98
    assert float(jnp.abs(distort(jax.random.key(1), amounts) - still).mean()) > 0.02
    # Without amounts mirroring and saturation remain; these pictures know neither side nor colour.
    np.testing.assert_allclose(distort(jax.random.key(0), none), plain, atol=0.02)


def test_a_resampled_picture_is_the_picture():
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.uniform(0, 255, (1, 1, 20, 28, 3)).astype(np.float32))
    same = sync_expert.network_images(images, (20, 28))
    flat = np.asarray(images) / 127.5 - 1
    assert np.corrcoef(np.asarray(same).ravel(), flat.ravel())[0, 1] > 0.96
    even = sync_expert.network_images(jnp.full((1, 1, 20, 28, 3), 51.0), (15, 21))
    np.testing.assert_allclose(even, -0.6, atol=1e-5)


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match=r"data\.window"):
        stages.make_stage(tiny_config(**{"data.window": 5}))
    with pytest.raises(ValueError, match="unknown norm"):
        sync_expert.SyncExpert(0.125, 8, "batch").init(
            jax.random.key(0), None, jnp.zeros((1, 1, 13, 20, 1))
        )
