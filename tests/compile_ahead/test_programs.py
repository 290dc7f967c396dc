import jax
import pytest
from ml_collections import FrozenConfigDict

from configs import base_256, demo_64, demo_128, sync
from talkjax import configuration
from talkjax.compile_ahead import programs, report, slices
from talkjax.data import loader
from talkjax.errors import UserError
from talkjax.training import input as training_input
from tests.data_pipelines.synthetic import make_record, write_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    clips = {"train": [make_record("a", ticks=90), make_record("b", ticks=90)]}
    return write_shards(tmp_path_factory.mktemp("shards"), clips)


@pytest.mark.parametrize("stage", ["autoencoder", "landmark", "diffusion", "joint", "sync"])
def test_batch_shapes_are_the_loaders(shards, stage):
    config = sync.get_config() if stage == "sync" else demo_128.get_config(stage)
    config.crop_size = 32  # of the synthetic records
    config.data.latents = ""
    options = training_input.loader_options(config, 1)
    batch = next(iter(loader.train_dataset(shards, options, seed=0)))
    wanted = {name: (x.shape, x.dtype) for name, x in programs.batch_shapes(config).items()}
    assert {name: (x.shape, x.dtype) for name, x in batch.items()} == wanted


def test_cached_latents_take_the_place_of_pixels():
    config = base_256.get_config()
    pixels = programs.batch_shapes(config)
    config.data.latents = "anywhere"
    shapes = programs.batch_shapes(config)
    assert shapes["target_latent"].shape == (1, 4, 32, 32, 4)
    assert pixels["target"].shape == (1, 4, 256, 256, 3) and "target" not in shapes


def test_changed_leaves_the_config_alone():
    config = base_256.get_config()
    other = programs.updated(config, {"mesh.fsdp": 7, "batch_size": 3})
    assert (other.mesh.fsdp, other.batch_size) == (7, 3)
    assert (config.mesh.fsdp, config.batch_size) == (1, 256)
    again = programs.updated(other, {"mesh.fsdp": 5})
    assert (other.mesh.fsdp, again.mesh.fsdp) == (7, 5)


def test_sampling_steps_are_those_of_checkpoints():
    assert configuration.default_config().sampling.steps == programs.SAMPLING_STEPS


def tiny(stage="diffusion", **changes):
    config = demo_64.get_config(stage)
    config.denoiser.channels, config.denoiser.groups = (16,), 8
    config.landmark.update({"features": 16, "layers": 1, "heads": 2, "dropout": 0.0})
    config.mesh.fsdp_min_size = 256
    config.data.latents = "anywhere"
    config.batch_size = 16
    config.update_from_flattened_dict(changes)
    return FrozenConfigDict(config)


def test_train_step_costs():
    where = slices.parse_slice("v5e-8")
    config = tiny("landmark", **{"mesh.fsdp": 4, "optimizer.accumulation": 2})
    program = programs.training_program(config, jax.devices())
    found = report.compile_program(program, where, 8)
    assert found.fits and found.samples == 16
    # The same work whether the compiler counts it per chip or we do for one sample.
    assert found.flops == pytest.approx(found.model_flops, rel=0.03)
    assert found.arguments > 0 and found.temporaries > 0 and found.traffic > 0
    assert found.sent["all-gather"][1] > 0 and found.sent["all-reduce"][1] > 0


@pytest.mark.slow
def test_recomputation_is_not_the_models():
    plain = programs.training_program(tiny(), jax.devices())
    again = programs.training_program(tiny(**{"denoiser.remat": "full"}), jax.devices())
    assert again.model_flops == plain.model_flops
    costs = [p.lowered.cost_analysis()["flops"] for p in (plain, again)]
    assert costs[1] > 1.15 * costs[0]


def test_a_samplers_loop_counts_every_evaluation():
    where = slices.parse_slice("v5e-8")
    program = programs.sample_program(tiny(), jax.devices(), 12)
    found = report.compile_program(program, where, 8)
    assert found.samples == 16 and found.fits
    assert found.flops == pytest.approx(found.model_flops, rel=0.03)  # an evaluation: a ninth


@pytest.mark.parametrize("name", ["eval", "preview"])
def test_evaluation_programs(name):
    config = tiny("landmark", **{"mesh.fsdp": 4, "eval.pictures": 3})
    program = programs.PROGRAMS[name](config, jax.devices())
    found = report.compile_program(program, slices.parse_slice("v5e-8"), 8)
    assert found.fits and found.samples == {"eval": 16, "preview": 8}[name]
    assert 0 < found.model_flops < programs.training_program(config, jax.devices()).model_flops


def test_a_program_that_a_run_does_not_have():
    with pytest.raises(UserError, match="has no preview program"):
        programs.training_program(
            tiny("landmark", **{"eval.pictures": 0}), jax.devices(), "preview"
        )
