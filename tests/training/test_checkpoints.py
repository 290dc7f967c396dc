import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talkjax import runs, weights
from talkjax.configuration import keep_earlier_behaviour, with_defaults
from talkjax.errors import UserError
from talkjax.export import export
from talkjax.training import checkpoints
from tests.training import toy
from tests.training.saved import assert_equal, make_state, save_run


def test_round_trip_with_the_iterator(tmp_path):
    made, abstract = make_state(seed=1)
    iterator = iter(toy.make_data(toy.config())("train"))
    for _ in range(3):
        next(iterator)
    with checkpoints.open_manager(tmp_path) as manager:
        checkpoints.save(manager, 3, made, iterator)
        expected = [next(iterator) for _ in range(2)]
        manager.wait_until_finished()
        fresh = iter(toy.make_data(toy.config())("train"))
        restored = checkpoints.restore(manager, 3, abstract, fresh)
    assert_equal(made, restored)
    assert_equal(expected, [next(fresh) for _ in range(2)])


def test_a_donated_state_is_saved_as_it_was(tmp_path):
    made, abstract = make_state(fill=1)
    iterator = iter(toy.make_data(toy.config())("train"))
    change = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    with checkpoints.open_manager(tmp_path, keep_latest=5) as manager:
        for step in range(1, 5):
            checkpoints.save(manager, step, made, iterator)
            made = change(made)
        manager.wait_until_finished()
        for step in range(1, 5):
            restored = checkpoints.restore(manager, step, abstract, iterator)
            assert all(np.all(np.asarray(x) == step) for x in jax.tree.leaves(restored))


@pytest.mark.parametrize("shape", [(1, 8), (8, 1), (1, 2), (1, 1)])
def test_restoring_on_another_mesh(tmp_path, shape):
    made, _ = make_state((2, 4), seed=2)
    _, abstract = make_state(shape)
    iterator = iter(toy.make_data(toy.config())("train"))
    with checkpoints.open_manager(tmp_path) as manager:
        checkpoints.save(manager, 1, made, iterator)
        manager.wait_until_finished()
        restored = checkpoints.restore(manager, 1, abstract, iterator)
    assert_equal(made, restored)
    jax.tree.map(lambda x, a: x.sharding.is_equivalent_to(a.sharding, x.ndim), restored, abstract)
    kernel = restored.params["denoiser"]["kernel"]
    assert len(kernel.sharding.device_set) == shape[0] * shape[1]


def test_the_newest_and_the_best_are_kept(tmp_path):
    losses = {1: 3.0, 2: 1.0, 3: 2.0, 4: 4.0, 5: 5.0}
    save_run(tmp_path, range(1, 7), losses=losses)
    with checkpoints.open_manager(tmp_path, losses=losses) as manager:
        assert sorted(manager.all_steps()) == [2, 5, 6]  # 6 has no evaluation


def test_what_a_killed_deletion_left_is_removed(tmp_path):
    save_run(tmp_path, range(1, 4))
    directory = tmp_path / "checkpoints"
    assert sorted(os.listdir(directory)) == ["2", "3"]
    shutil.copytree(directory / "3", directory / "1")
    shutil.rmtree(directory / "1" / "state")
    checkpoints.open_manager(tmp_path).close()
    assert sorted(os.listdir(directory)) == ["2", "3"]


def test_a_damaged_checkpoint_is_named(tmp_path):
    save_run(tmp_path, [1, 2])
    for part in (tmp_path / "checkpoints/2/state").rglob("*"):
        if part.is_file() and part.parent.name == "d":
            part.write_bytes(part.read_bytes()[:20])
    _, abstract = make_state()
    iterator = iter(toy.make_data(toy.config())("train"))
    with checkpoints.open_manager(tmp_path) as manager, pytest.raises(UserError) as error:
        checkpoints.restore(manager, 2, abstract, iterator)
    assert "checkpoints/2 cannot be restored" in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="cannot be restored"):
        runs.load_run(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints/2")
    assert runs.load_run(tmp_path)[2] == 1


def test_data_state_of_another_number_of_processes(tmp_path):
    save_run(tmp_path, [3])
    _, abstract = make_state()
    data = tmp_path / "checkpoints/3/data"
    (data / "process_0-of-1.json").rename(data / "process_0-of-4.json")
    iterator = iter(toy.make_data(toy.config())("train"))
    with checkpoints.open_manager(tmp_path) as manager:
        checkpoints.restore(manager, 3, abstract, iterator)
    expected = iter(toy.make_data(toy.config())("train"))
    next(expected)  # `save_run` took one batch
    assert_equal(next(iterator), next(expected))


# ---- configs ------------------------------------------------------------------------------------


def test_another_config_is_refused_by_the_names_of_its_fields(tmp_path):
    runs.write_config(tmp_path, toy.config())
    checkpoints.check_config(tmp_path, toy.config())
    other = toy.config(**{"optimizer.learning_rate": 0.5, "batch_size": 8})
    with pytest.raises(UserError) as error:
        checkpoints.check_config(tmp_path, other)
    assert "batch_size was 16, is 8" in str(error.value)
    assert "optimizer.learning_rate was 0.02, is 0.5" in str(error.value)
    assert "seed" not in str(error.value)


def test_fields_of_the_surroundings_may_change(tmp_path):
    runs.write_config(tmp_path, toy.config())
    changes = {"mesh.fsdp": 4, "log.every": 7, "eval.every": 0, "data.dir": "/elsewhere"}
    checkpoints.check_config(tmp_path, toy.config(**changes))


def test_only_an_endless_schedule_may_be_prolonged(tmp_path):
    runs.write_config(tmp_path / "a", toy.config())
    with pytest.raises(UserError, match="steps was 12, is 24"):
        checkpoints.check_config(tmp_path / "a", toy.config(steps=24))
    constant = {"optimizer.schedule": "constant"}
    runs.write_config(tmp_path / "b", toy.config(**constant))
    checkpoints.check_config(tmp_path / "b", toy.config(steps=24, **constant))


def test_a_config_that_is_none(tmp_path):
    with pytest.raises(UserError, match=r"config\.json does not exist"):
        runs.read_config(tmp_path)
    for text in ("{", "[]"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(UserError):
            runs.read_config(tmp_path)


# ---- weights out and in -------------------------------------------------------------------------


def test_export_writes_the_average(tmp_path):
    made = save_run(tmp_path / "run", [1, 4])
    export(tmp_path / "out", run=tmp_path / "run")
    params, config = weights.load_params(tmp_path / "out")
    assert np.all(params["denoiser"]["kernel"] == 4)
    assert_equal(params["autoencoder"], made.params["autoencoder"])
    assert config["networks"] == {
        "denoiser": {"stage": "diffusion", "steps": 4},
        "autoencoder": {"stage": "diffusion", "frozen": True},
    }
    assert config["batch_size"] == 16
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == config


def test_export_in_half_the_size(tmp_path):
    made = save_run(tmp_path / "run", [1])
    for dtype in ("float32", "float16"):
        export(tmp_path / dtype, run=tmp_path / "run", dtype=dtype)
    sizes = [(tmp_path / d / "model.safetensors").stat().st_size for d in ("float32", "float16")]
    assert sizes[1] < sizes[0]
    params, config, trained = runs.load_weights(tmp_path / "float16")
    assert trained == ["denoiser"] and config["networks"]["denoiser"]["steps"] == 1
    for part in made.params:
        for leaf in jax.tree.leaves(params[part]):
            assert leaf.dtype == np.float32
    rounded = jax.tree.map(
        lambda x: np.asarray(x).astype(np.float16).astype(np.float32), made.params["autoencoder"]
    )
    assert_equal(params["autoencoder"], rounded)


def test_an_export_names_no_files_of_the_machine():
    config = {
        "data": {"dir": "/data/shards", "latents": "/data/latents", "window": 25},
        "autoencoder": {"kind": "taesd", "weights": ["/w/encoder", "/w/decoder"]},
        "init_from": {"landmark": "/runs/landmark"},
    }
    plain = runs.without_paths(config)
    assert plain["data"] == {"dir": "", "latents": "", "sound_offsets": "", "window": 25}
    assert plain["autoencoder"] == {"kind": "taesd", "weights": ["", ""]}
    assert plain["init_from"] == {"landmark": ""}
    assert config["data"]["dir"] == "/data/shards" and runs.without_paths({"seed": 0}) == {
        "seed": 0
    }


def test_nothing_to_export(tmp_path):
    with pytest.raises(UserError, match="holds neither"):
        export(tmp_path / "out", run=tmp_path)
    runs.write_config(tmp_path, toy.config())
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="no checkpoint yet"):
        export(tmp_path / "out", run=tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("denoiser", "skip_after_attention", False),
        ("denoiser", "groups", 1),
        ("diffusion", "residual_scale", 0.5),
    ],
)
def test_a_denoiser_whose_parameters_mean_something_else_is_refused(tmp_path, part, field, value):
    """Such parameters have the same names and shapes, so nothing else would notice."""
    save_run(tmp_path)
    config = runs.read_config(tmp_path)
    mine = with_defaults(config)
    assert checkpoints.load_sources({"diffusion": str(tmp_path)}, mine)
    runs.write_config(tmp_path, {**config, part: {**mine[part], field: value}})
    with pytest.raises(UserError, match=rf"{part}\.{field}={value}, and .*set --config"):
        checkpoints.load_sources({"diffusion": str(tmp_path)}, mine)


def start_from(fresh, **sources):
    return checkpoints.insert(fresh, checkpoints.load_sources(sources), "the source")


@pytest.mark.parametrize("exported", [False, True])
def test_a_run_starts_from_a_run_or_an_export(tmp_path, exported):
    source = tmp_path / "run"
    old = save_run(source, [7], seed=5)
    if exported:
        export(tmp_path / "out", run=source)
        source = tmp_path / "out"
    fresh = make_state((1, 8), seed=6)[0].params
    fresh["landmark"] = {"kernel": jnp.ones(3)}
    started = start_from(fresh, landmark="", diffusion=str(source))
    assert np.all(np.asarray(started["denoiser"]["kernel"]) == 7)
    assert_equal(started["autoencoder"], old.params["autoencoder"])
    assert_equal(started["landmark"], fresh["landmark"])
    for new, was in zip(jax.tree.leaves(started), jax.tree.leaves(fresh), strict=True):
        assert new.sharding == was.sharding


def test_what_an_option_adds_to_a_network_keeps_its_own_beginning(tmp_path):
    save_run(tmp_path, [7])
    fresh = make_state()[0].params
    added = jnp.zeros((3, 2))
    fresh["denoiser"] = {**fresh["denoiser"], "lip_shape_in": {"kernel": added}}
    started = start_from(fresh, diffusion=str(tmp_path))
    assert started["denoiser"]["lip_shape_in"]["kernel"] is added
    assert np.all(np.asarray(started["denoiser"]["kernel"]) == 7)
    fresh["denoiser"] = {**fresh["denoiser"], "another": {"kernel": added}}
    with pytest.raises(UserError, match="denoiser/another/kernel"):
        start_from(fresh, diffusion=str(tmp_path))


def test_the_more_specific_field_gives_a_network(tmp_path):
    """Both sources have an autoencoder; `init_from.autoencoder` wins over `init_from.diffusion`."""
    save_run(tmp_path / "both", [1], seed=1)
    other = {"autoencoder": {"kernel": np.full((toy.OUTPUTS, toy.OUTPUTS), 9.0, np.float32)}}
    weights.save_params(tmp_path / "trained", other, {"stage": "autoencoder"})
    sources = {"autoencoder": str(tmp_path / "trained"), "diffusion": str(tmp_path / "both")}
    for order in (sources, dict(reversed(sources.items()))):
        started = start_from(make_state()[0].params, **order)
        assert np.all(np.asarray(started["autoencoder"]["kernel"]) == 9)
        assert np.all(np.asarray(started["denoiser"]["kernel"]) == 1)


def test_sources_that_do_not_fit(tmp_path):
    save_run(tmp_path / "a", [1])
    fresh, a = make_state()[0].params, str(tmp_path / "a")
    words = r"init_from\.landmark=.*/a has no network 'landmark' \(it has autoencoder, denoiser\)"
    with pytest.raises(UserError, match=words):
        start_from(fresh, landmark=a)
    with pytest.raises(UserError, match="holds neither"):
        start_from(fresh, landmark=str(tmp_path))
    smaller = {"denoiser": {**fresh["denoiser"], "kernel": jnp.ones((2, 2))}}
    with pytest.raises(UserError, match="denoiser/kernel"):
        start_from(smaller, diffusion=a)


def test_a_run_of_an_earlier_version_resumes(tmp_path):
    """Its config lacks fields that were added since; they have their defaults."""
    config = toy.config().to_dict()
    del config["denoiser"], config["max_skipped_in_a_row"]
    runs.write_config(tmp_path, config)
    new = toy.config()
    assert new.denoiser.skip_after_attention  # the default has changed what is computed
    keep_earlier_behaviour(new, runs.read_config(tmp_path))
    assert not new.denoiser.skip_after_attention
    checkpoints.check_config(tmp_path, new)
    new.denoiser.blocks = 3
    with pytest.raises(UserError, match=r"denoiser\.blocks was 2, is 3"):
        checkpoints.check_config(tmp_path, new)


def test_a_workdir_that_cannot_be_written_is_one_line(tmp_path):
    from tests.training.test_loop import train

    (tmp_path / "file").write_text("")
    for workdir in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match=r"file.*; make it writable or choose another workdir"):
            train(workdir)
