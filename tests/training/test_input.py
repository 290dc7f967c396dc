import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import demo_64, demo_128
from data_pipelines import cache_latents, encoder
from talkjax import networks, runs, weights
from talkjax.conventions import MASK, MOUTH_REGION, to_float
from talkjax.data import latents, loader, storage, stored_clips
from talkjax.errors import UserError
from talkjax.training import input
from tests.data_pipelines.synthetic import make_record, write_shards
from tests.parameters import random_for


def config(shards, stage="diffusion", **changes):
    c = demo_64.get_config(stage)
    c.crop_size, c.autoencoder.size, c.batch_size = 32, "tiny", 8
    c.denoiser.channels = (16,)
    c.data.dir = str(shards)
    c.update_from_flattened_dict(changes)
    return c


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    """An export of a small light autoencoder: (folder, params)."""
    c = config("", "autoencoder")
    model = networks.make_autoencoder(c.autoencoder)
    params = random_for(model.init, jax.ShapeDtypeStruct((1, 20, 28, 3), np.float32))["params"]
    folder = tmp_path_factory.mktemp("autoencoder")
    weights.save_params(folder, {"autoencoder": params}, runs.plain_config(c))
    return str(folder), params


@pytest.fixture(scope="module")
def cached(shards, autoencoder, tmp_path_factory):
    """Latents of the shards, encoded by that autoencoder."""
    out = tmp_path_factory.mktemp("latents")
    loaded = encoder.load_encoder(autoencoder[0])
    cache_latents.cache_latents(
        shards, loaded.encode, loaded.identity, ["train", "test"], out,
        region=MOUTH_REGION, mask=MASK, stride=2,
    )  # fmt: skip
    return str(out)


def refused(check, *words):
    with pytest.raises(UserError) as caught:
        check()
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_data_that_agree_pass(shards, cached):
    for stage in ("autoencoder", "landmark", "diffusion"):
        input.check_data(config(shards, stage))
    input.check_data(config(shards, **{"data.latents": cached}))


def test_crops_of_another_size_are_refused(shards):
    """Training on them would go wrong silently, or end in a traceback."""
    wrong = config(shards, crop_size=64)
    refused(lambda: input.check_data(wrong), "crops of 32 px", "crop_size=64", "--crop_size=64")
    input.check_data(config(shards, "landmark", crop_size=64))  # no pictures are used


def test_processes_must_read_the_same_data(shards, tmp_path, monkeypatch):
    """Copies may lie anywhere; another number of clips would give other samples."""
    names = [f"train{i:02d}" for i in range(2)]
    other = write_shards(tmp_path, {"train": [make_record(name, ticks=40) for name in names]})
    seen = []

    def gather(row):  # as if the row before came from process 0
        seen.append(row)
        return np.stack([seen[0], row])

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(input.multihost_utils, "process_allgather", gather)
    for folder in (shards, shutil.copytree(shards, tmp_path / "copy")):
        input.check_data(config(folder, "landmark"))
    wrong = config(other, "landmark")
    refused(lambda: input.check_data(wrong), "process 1 has 2 clips and", "process 0 has 15 and")


def test_processes_must_read_the_same_latents(shards, cached, tmp_path, monkeypatch):
    seen = []

    def gather(row):
        seen.append(row)
        return np.stack([seen[0], row])

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(input.multihost_utils, "process_allgather", gather)
    other = Path(shutil.copytree(cached, tmp_path / "copy"))
    input.check_data(config(shards, **{"data.latents": cached}))
    input.check_data(config(shards, **{"data.latents": str(other)}))
    index = latents.read_index(other)
    index["splits"]["train"]["rows"] -= 1
    (other / latents.INDEX).write_text(json.dumps(index))
    wrong = config(shards, **{"data.latents": str(other)})
    total = sum(entry["rows"] for entry in latents.read_index(cached)["splits"].values())
    words = f"latents of {total - 1} frames, process 0 has 15 and {total}"
    refused(lambda: input.check_data(wrong), words)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("crop_size", 64, ("crop_size 32", "64")),
        ("region", (0.0, 0.0, 1.0, 1.0), ("region", "(0.0, 0.0, 1.0, 1.0)")),
        ("mask", (0.5, 0.25, 0.9375, 0.75), ("mask", "0.4375", "(0.5, 0.25, 0.9375, 0.75)")),
        ("autoencoder.kind", "taesd", ("latent shape", "cache them again")),
    ],
)
def test_latents_of_other_settings_are_refused(shards, cached, field, value, words):
    c = config(shards, **{"data.latents": cached, field: value})
    if field == "autoencoder.kind":
        c.crop_size, c.region = 32, (0.25, 0.0, 1.0, 1.0)
        index = latents.read_index(cached) | {"region": [0.25, 0.0, 1.0, 1.0]}
        c.data.latents = cached + "_taesd"
        Path(c.data.latents).mkdir(exist_ok=True)
        (Path(c.data.latents) / "latents.json").write_text(json.dumps(index))
    refused(lambda: input.check_data(c), *words)


def test_latents_with_another_number_of_channels_are_refused(shards, cached):
    """Their statistics, which the configuration takes, do not even make networks."""
    statistics = {"autoencoder.latent_mean": (0.0,) * 5, "autoencoder.latent_std": (1.0,) * 5}
    c = config(shards, **{"data.latents": cached}, **statistics)
    refused(lambda: input.check_data(c), "do not fit", "have 5 channels", "cache them again")


def test_latents_of_another_encoder_are_refused(shards, cached, autoencoder):
    c = config(shards, **{"data.latents": cached})
    params = {"autoencoder": autoencoder[1]}
    input.check_encoder(c, params)
    other = jax.tree.map(lambda x: x + 1e-3, params)
    refused(lambda: input.check_encoder(c, other), "come from the encoder")
    input.check_encoder(config(shards), other)  # pixels are encoded by the run itself


# ---- statistics of latents ----------------------------------------------------------------------


def statistics(c, workdir):
    found = input.with_latent_statistics(c, workdir).autoencoder
    return tuple(found.latent_mean), tuple(found.latent_std)


def test_statistics_that_are_given_or_resumed(shards, tmp_path):
    given = {"autoencoder.latent_mean": (0.5,), "autoencoder.latent_std": (2.0,)}
    assert statistics(config(shards, **given), tmp_path / "new") == ((0.5,), (2.0,))
    runs.write_config(tmp_path / "run", config(shards, **given))
    assert statistics(config(shards), tmp_path / "run") == ((0.5,), (2.0,))


def test_statistics_of_cached_latents(shards, cached, tmp_path):
    index = latents.read_index(cached)
    found = statistics(config(shards, **{"data.latents": cached}), tmp_path)
    assert found == (tuple(index["mean"]), tuple(index["std"]))


def test_statistics_are_measured_on_the_first_images(shards, autoencoder, tmp_path):
    """No default that is silently wrong: Stable Diffusion's 5.49 is nobody else's."""
    folder, params = autoencoder
    c = config(shards, **{"init_from.autoencoder": folder})
    mean, std = map(np.array, statistics(c, tmp_path))
    model = networks.make_autoencoder(c.autoencoder)
    reader = stored_clips.ShardReader(shards, "train")
    images = [
        MOUTH_REGION.cut(loader.windows.decode_jpeg(frame))
        for i in range(len(reader))
        for frame in reader.read(i).frames[::5]
    ]
    encoded = model.apply({"params": params}, to_float(np.stack(images)), method="encode")
    z = np.asarray(encoded[0] if isinstance(encoded, tuple) else encoded)
    np.testing.assert_allclose(std, z.std((0, 1, 2)), rtol=0.2)
    np.testing.assert_allclose(mean, z.mean((0, 1, 2)), atol=0.3 * std.max())


def test_statistics_of_the_denoisers_run(shards, autoencoder, tmp_path):
    c = config(shards, **{"autoencoder.latent_mean": (0.1,), "autoencoder.latent_std": (3.0,)})
    networks_ = {"autoencoder": autoencoder[1], "denoiser": {"x": np.zeros(1, np.float32)}}
    weights.save_params(tmp_path / "run", networks_, runs.plain_config(c))
    started = config(shards, **{"init_from.diffusion": str(tmp_path / "run")})
    assert statistics(started, tmp_path / "new") == ((0.1,), (3.0,))


def test_statistics_beside_published_weights(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(input, "load_initial_networks", lambda config: {"autoencoder": {}})
    (tmp_path / "config.json").write_text('{"scaling_factor": 0.5, "shift_factor": 0.25}')
    c = config(shards)
    c.autoencoder.kind, c.autoencoder.weights = "kl", (str(tmp_path / "vae.safetensors"), "")
    assert statistics(c, tmp_path / "new") == ((0.25,), (2.0,))


def test_a_denoiser_needs_an_autoencoder(shards, tmp_path):
    refused(lambda: statistics(config(shards), tmp_path), "--config.init_from.autoencoder=RUN")
    assert statistics(config(shards, "landmark"), tmp_path) == ((), ())  # not needed


# ---- datasets -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("splits", "elsewhere", "expected"),
    [
        (["train", "test"], "", ("A", "test")),
        (["train", "validation", "test"], "", ("A", "validation")),
        (["validation"], "B", ("B", "validation")),
    ],
)
def test_held_out_data_are_the_validation_split_or_else_the_test_split(
    monkeypatch, splits, elsewhere, expected
):
    asked = []
    monkeypatch.setattr(storage, "find_dataset", lambda folder: folder)
    monkeypatch.setattr(storage, "list_splits", lambda folder: dict.fromkeys(splits, 9))
    monkeypatch.setattr(loader, "train_dataset", lambda folder, *_, **k: asked.append(folder))
    monkeypatch.setattr(
        loader, "eval_dataset", lambda folder, options, split, **k: asked.append((folder, split))
    )
    c = demo_128.get_config("landmark")
    c.data.dir, c.eval.dir = "A", elsewhere
    make = input.make_datasets(c)
    make("train")
    make("validation")
    assert asked == ["A", expected]
