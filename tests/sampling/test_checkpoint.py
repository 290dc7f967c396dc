"""Loading exports and training runs, and errors for what is neither."""

import json
import shutil

import jax
import numpy as np
import pytest

from talkjax import runs, weights
from talkjax.configuration import default_config
from talkjax.errors import UserError
from talkjax.sampling.checkpoint import load
from tests.sampling import fakes


@pytest.fixture
def copy(checkpoint, tmp_path):
    return shutil.copytree(checkpoint, tmp_path / "copy")


def change(directory, edit):
    path = directory / "config.json"
    config = json.loads(path.read_text())
    edit(config)
    path.write_text(json.dumps(config))


def fails(directory, pattern):
    with pytest.raises(UserError, match=pattern) as caught:
        load(directory)
    assert "\n" not in str(caught.value)


def test_loads(checkpoint):
    params, config, nets = load(checkpoint)
    assert set(params) == {"autoencoder", "denoiser", "landmark"}
    assert config["crop_size"] == nets.crop_size == 32


def test_bfloat16_becomes_float32_on_a_cpu(copy):
    change(copy, lambda c: c.update(dtype="bfloat16"))
    assert load(copy)[2].denoiser.dtype == np.float32
    with jax.numpy_dtype_promotion("standard"):  # as outside of tests; jax.nn needs it
        assert load(copy, dtype="bfloat16")[2].denoiser.dtype != np.float32


def test_missing_directory(tmp_path):
    fails(tmp_path / "none", "holds neither")
    fails(tmp_path, "holds neither checkpoints/ nor model.safetensors")


def test_training_run(tmp_path, monkeypatch):
    config = fakes.tiny_config()
    params = fakes.random_params(config)
    (tmp_path / "checkpoints").mkdir()
    fails(tmp_path, "no checkpoint yet")
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(runs, "load_run", lambda path: (params, list(params), 700))
    loaded, loaded_config, nets = load(tmp_path)
    assert loaded_config["networks"]["denoiser"] == {"stage": "joint", "steps": 700}
    assert nets.crop_size == 32 and loaded["denoiser"] is params["denoiser"]


def test_a_stage_without_all_networks(tmp_path):
    config = fakes.tiny_config(stage="diffusion")
    params = fakes.random_params(config)
    del params["landmark"]
    weights.save_params(tmp_path, params, config)
    fails(tmp_path, r"\(stage diffusion\) lacks the networks landmark; .*--landmark=RUN")


def test_missing_fields_have_defaults(copy):
    whole = load(copy)[1]
    change(copy, lambda c: (c["data"].pop("window"), c["denoiser"].pop("remat")))
    config = load(copy)[1]
    assert config["data"]["window"] == default_config().data.window
    assert config["denoiser"]["remat"] == default_config().denoiser.remat
    assert config["denoiser"]["channels"] == whole["denoiser"]["channels"]


def test_weights_of_another_config(copy):
    change(copy, lambda c: c["denoiser"].update(channels=[32]))
    fails(copy, "does not fit the model: .*denoiser/")


@pytest.mark.parametrize(
    "edit",
    [
        lambda c: c.pop("denoiser"),
        lambda c: c["data"].update(window=0),
        lambda c: c["data"].update(references="many"),
        lambda c: c.update(crop_size=-3),
        lambda c: c.update(crop_size=10**9),
        lambda c: c.update(region="left"),
        lambda c: c["denoiser"].update(groups=5),
        lambda c: c["denoiser"]["talkformer"].update(unknown=1),
        lambda c: c["autoencoder"].update(kind="other"),
        lambda c: c["autoencoder"].update(latent_mean=[0.0, 1.0, 2.0]),
        lambda c: c["diffusion"].update(steps=0),
        lambda c: c["landmark"].update(heads=0),
        lambda c: c.update(mask=[0.1]),
    ],
)
def test_config_that_makes_no_sense(copy, edit):
    change(copy, edit)
    fails(copy, "not a config that talkjax can use|does not fit")


def test_damaged_files(copy):
    (copy / "config.json").write_text("{")
    fails(copy, "cannot be read as JSON")
    path = copy / "model.safetensors"
    change_back = fakes.tiny_config()
    (copy / "config.json").write_text(json.dumps(change_back))
    path.write_bytes(path.read_bytes()[:1000])
    fails(copy, "truncated")
