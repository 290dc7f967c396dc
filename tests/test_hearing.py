"""A landmark network that hears through a frozen speech encoder, from training to sampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talkjax import configuration, export, networks, runs, weights
from talkjax.compile_ahead import programs
from talkjax.errors import UserError
from talkjax.metrics import landmarks
from talkjax.models import whisper
from talkjax.models.landmark_completion import References
from talkjax.sampling import Sampler, checkpoint, regions
from talkjax.training import input, loop, stages
from tests import whisper_files
from tests.parameters import random_for
from tests.sampling import fakes

TOY = whisper.WhisperConfig(width=64, layers=1, heads=1)
WINDOW, REFERENCES = 10, 3


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A file of Whisper's layout, whose size has the name `toy`."""
    path = tmp_path_factory.mktemp("whisper") / "model.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(whisper.SIZES, "toy", TOY)
        yield str(whisper_files.save(path, whisper_files.random_tensors(TOY)))


def hearing_config(published="", stage="landmark", **changes):
    c = configuration.small_config()
    c.stage, c.denoiser.channels, c.denoiser.blocks = stage, (16,), 1
    c.landmark.update({"features": 16, "layers": 1, "heads": 2, "past": 2, "future": 2})
    c.landmark.update({"audio": "whisper", "whisper": "toy", "whisper_weights": published})
    c.data.window, c.data.references = WINDOW, REFERENCES
    c.steps, c.batch_size, c.eval.every, c.optimizer.warmup_steps = 2, 8, 0, 0
    c.update_from_flattened_dict(changes)
    return c


@pytest.fixture(scope="module")
def run(published, shards, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    c = hearing_config(published, **{"data.dir": str(shards)})
    loop.train(
        c, workdir, stages.make_stage(c), input.make_datasets(c),
        lambda: input.load_initial_networks(c),
    )  # fmt: skip
    return workdir


def sound_and_faces(seed=0):
    rng = np.random.default_rng(seed)
    mel = rng.uniform(-8, 2, (WINDOW + 4, 16, 80)).astype(np.float32)
    pose = rng.uniform(0.2, 0.8, (WINDOW, 74, 2)).astype(np.float32)
    faces = rng.uniform(0.2, 0.8, (REFERENCES, 131, 2)).astype(np.float32)
    return mel, pose, References.single(faces, mel[:REFERENCES])


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_the_encoder_is_not_trained(run, published):
    params, config, trained = runs.load_weights(run)
    assert set(params) == {"landmark", "speech"} and trained == ["landmark"]
    assert_equal(params["speech"], weights.whisper_params(published)[1])
    assert config["networks"]["speech"] == {"stage": "landmark", "frozen": True}
    nets = networks.make_networks(config)
    batch = [jnp.asarray(x)[None] for x in sound_and_faces()[:2]]
    faces = References(*(jnp.asarray(x)[None] for x in sound_and_faces()[2]))

    def loss(params):
        return jnp.square(nets.complete(params, *batch, faces)).sum()

    sizes = {
        name: sum(float(jnp.abs(x).sum()) for x in jax.tree.leaves(tree))
        for name, tree in jax.jit(jax.grad(loss))(params).items()
    }
    assert sizes["landmark"] > 0 and sizes["speech"] == 0


def test_an_export_hears(run, published, tmp_path):
    export.export(tmp_path / "out", run=run)
    params, config, _ = runs.load_weights(tmp_path / "out")
    assert config["landmark"]["whisper_weights"] == ""
    assert str(published) not in (tmp_path / "out" / "config.json").read_text()
    assert_equal(params["speech"], runs.load_weights(run)[0]["speech"])

    predict, _ = landmarks.load_predictor(tmp_path / "out")
    mel, pose, faces = sound_and_faces()
    found = predict(mel, pose, faces)
    assert found.shape == (WINDOW, 57, 2) and np.isfinite(found).all()
    assert np.abs(found - predict(mel - 3, pose, faces)).max() > 1e-5
    other = faces._replace(mel=faces.mel - 3)
    assert np.abs(found - predict(mel, pose, other)).max() > 1e-6
    nets = networks.make_networks({**config, "dtype": "float32"})
    direct = regions.complete_content(params, nets, mel, pose, faces)
    np.testing.assert_allclose(found, direct, atol=1e-5)


def test_a_combined_export_is_sampled_from(run, tmp_path):
    images = fakes.save_checkpoint(tmp_path / "images")  # its own landmark network hears log-mel
    export.export(tmp_path / "out", landmark=run, diffusion=images)
    params, config, nets = checkpoint.load(tmp_path / "out")
    assert set(params) == {"autoencoder", "denoiser", "landmark", "speech"}
    assert config["networks"]["speech"] == {"stage": "landmark", "frozen": True}
    sampler = Sampler(params, config, nets, jax.devices()[:1])
    expected = landmarks.load_predictor(run)[0](*sound_and_faces())
    np.testing.assert_allclose(sampler.complete_content(*sound_and_faces()), expected, atol=1e-5)

    del params["speech"]
    weights.save_params(tmp_path / "out", params, config)
    refused(lambda: checkpoint.load(tmp_path / "out"), "lacks the networks speech")
    refused(lambda: landmarks.load_predictor(tmp_path / "out"), "missing speech/")


def test_a_run_starts_from_another_runs_encoder(run, published):
    c = hearing_config(**{"init_from.landmark": str(run)})
    found = input.load_initial_networks(c)
    assert_equal(found["speech"], weights.whisper_params(published)[1])
    assert set(found) == {"landmark", "speech"}


def test_stage_joint(published):
    c = hearing_config(published, "joint")
    c = programs.updated(c, {"autoencoder.latent_mean": (0.0,), "autoencoder.latent_std": (1.0,)})
    stage, batch = stages.make_stage(c), programs.batch_shapes(c)
    params = random_for(stage.init, batch)
    assert set(params) == {"autoencoder", "denoiser", "landmark", "speech"}
    assert stage.trainable == ("denoiser", "landmark")
    loss, metrics = jax.eval_shape(stage.loss_fn, params, batch, jax.random.key(0))
    assert loss.shape == () and {"diffusion", "landmark_l1"} < set(metrics)
    shapes = jax.tree.map(jnp.shape, regions.expected_params(networks.make_networks(c)))
    assert shapes == jax.tree.map(jnp.shape, params)


# ---- what is wrong ------------------------------------------------------------------------------


def refused(function, match, kind=UserError):
    with pytest.raises(kind, match=match) as error:
        function()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("stage", ["landmark", "joint"])
def test_no_weights(published, stage):
    config = hearing_config(stage=stage)
    refused(lambda: input.load_initial_networks(config), "no speech encoder; set --config.land")
    config.landmark.whisper_weights = "none.safetensors"
    refused(lambda: input.load_initial_networks(config), "weights not found: none.safetensors")
    config.stage = "autoencoder"  # which hears nothing
    assert input.load_initial_networks(config) == {}


def test_weights_of_another_size(published, tmp_path):
    config = hearing_config(published, **{"landmark.whisper": "tiny"})
    refused(
        lambda: input.load_initial_networks(config),
        r"is not of the size landmark.whisper=tiny; set --config.landmark.whisper=toy",
    )
    small = whisper_files.save(tmp_path / "w.safetensors", whisper_files.random_tensors())
    config = hearing_config(str(small))
    refused(lambda: input.load_initial_networks(config), "=toy; use published weights")


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("audio", "wave", "landmark.audio='wave'; use one of mel, whisper"),
        ("look_ahead", 3, "needs landmark.look_ahead=-1"),
        ("whisper", "large-v3", "hears 128 bins; use a size of 80 bins"),
        ("whisper", "huge", "unknown Whisper size 'huge'"),
    ],
)
def test_fields_that_do_not_fit(field, value, match):
    config = hearing_config(**{f"landmark.{field}": value})
    refused(lambda: networks.make_networks(config), match, ValueError)
