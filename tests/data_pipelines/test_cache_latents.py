import dataclasses
import hashlib
import re

import jax
import numpy as np
import pytest

import talkjax.data
from configs import demo_64
from data_pipelines import cache_latents, encoder
from talkjax import conventions, networks, runs, weights
from talkjax.conventions import MOUTH_REGION, Box, mask_region
from talkjax.data import latents, loader, stored_clips, windows
from talkjax.errors import UserError
from tests.data_pipelines.synthetic import make_record, write_shards

REGION = Box(0.375, 0.0625, 1.0, 0.9375)  # of 32 px crops: rows 12 to 32, columns 2 to 30
MASK = Box(0.4375, 0.125, 0.9375, 0.875)
BOXES = {"region": REGION, "mask": MASK}


class Encoder:
    """4 x 4 averages of each colour; may stop after some calls, as a killed process does."""

    def __init__(self, stop_after=None):
        self.calls, self.stop_after, self.images = 0, stop_after, 0

    def __call__(self, images):
        assert images.dtype == np.float32 and images.shape[1:] == (20, 28, 3)
        if self.calls == self.stop_after:
            raise KeyboardInterrupt
        self.calls += 1
        self.images += (np.abs(images).max((1, 2, 3)) > 0).sum()
        batch = images.shape[0]
        return images.reshape(batch, 5, 4, 7, 4, 3).mean((2, 4))


@pytest.fixture
def data(tmp_path):
    train = [make_record(f"c{i}", ticks=60) for i in range(3)]
    train[1].face_found[::4] = False
    return write_shards(tmp_path, {"train": train, "test": [make_record("t", ticks=70)]})


def run(data, encoder, splits=("train", "test"), **changes):
    settings = {**BOXES, "stride": 2, "batch": 4} | changes
    return cache_latents.cache_latents(data, encoder, "fake", splits, **settings)


def test_latents_are_those_of_the_frames(data):
    index = run(data, Encoder())
    cache = latents.LatentCache(latents.default_directory(data), "train")
    assert cache.shape == (5, 7, 3) and index["latent_shape"] == [5, 7, 3]
    reader = stored_clips.ShardReader(data, "train")
    rows = []
    for position in range(3):
        record = reader.read(position)
        frames = cache.frames(position, record.clip_id)
        np.testing.assert_array_equal(frames, np.flatnonzero(record.face_found)[::2])
        crops = np.stack([windows.decode_jpeg(record.frames[f]) for f in frames])
        pixels = REGION.cut(crops).astype(np.float32) / 127.5 - 1
        expected = Encoder()(pixels)
        rows.append(expected)
        which = np.arange(len(frames))
        got = cache.target(position, which) * cache.std + cache.mean
        np.testing.assert_allclose(got, expected, atol=2e-3)
        masked = cache.masked(position, which) * cache.std + cache.mean
        # Mask rows 14 to 30 and columns 4 to 28 of the crop: 2 to 18 and 2 to 26 of the region.
        np.testing.assert_allclose(masked[:, 1:4, 1:6], 0, atol=1e-6)
    values = np.concatenate(rows)
    np.testing.assert_allclose(cache.mean, values.mean((0, 1, 2)), atol=1e-3)
    np.testing.assert_allclose(cache.std, values.std((0, 1, 2)), atol=1e-3)


def test_masked_images_do_not_depend_on_what_is_masked():
    rng = np.random.default_rng(0)
    a = rng.uniform(-1, 1, (1, 80, 112, 3)).astype(np.float32)
    b = a.copy()
    b[:, 8:72, 8:104] = rng.uniform(-1, 1, (1, 64, 96, 3))
    masked = [mask_region(x, REGION, MASK, 128) for x in (a, b)]
    np.testing.assert_array_equal(*masked)
    np.testing.assert_array_equal(masked[0][:, :8], a[:, :8])
    assert (masked[0][:, 8:72, 8:104] == 0).all()


@pytest.mark.parametrize("stop_after", [1, 9, 17, 30])
def test_an_interrupted_run_goes_on_where_it_was(data, stop_after):
    first, second = Encoder(stop_after), Encoder()
    with pytest.raises(KeyboardInterrupt):
        run(data, first)
    resumed = run(data, second)
    rows = sum(n for clips in resumed["splits"].values() for _, n in clips)
    # All but at most one chunk (4 batches of 4, twice) of the first run's work counts.
    assert first.images + second.images <= 2 * rows + 2 * 16
    directory = latents.default_directory(data)
    whole = {p.name: np.load(p) for p in directory.glob("*.npy")}
    for path in directory.glob("*"):
        path.unlink()
    run(data, Encoder())
    assert len(whole) == 6
    for name, value in whole.items():
        np.testing.assert_array_equal(value, np.load(directory / name))
    assert not [p for p in directory.iterdir() if p.name.startswith(".")]


def test_nothing_is_encoded_twice(data):
    run(data, Encoder())
    again = Encoder()
    assert run(data, again)["encoded"] == 0 and again.calls == 0
    assert run(data, Encoder(), splits=("train",), stride=3)["encoded"] > 0


def test_the_loader_draws_cached_frames_only(data):
    run(data, Encoder())
    options = loader.LoaderOptions(
        stage="joint", batch_size=4, frames=3, latents=str(latents.default_directory(data))
    )
    batch = next(iter(loader.train_dataset(data, options, seed=0)))
    assert batch["target_latent"].shape == batch["masked_latent"].shape == (4, 3, 5, 7, 3)
    assert batch["reference_latent"].shape == (4, 1, 5, 7, 3)
    assert batch["target_latent"].dtype == np.float32 and "target" not in batch
    assert abs(batch["target_latent"].mean()) < 1 and 0.3 < batch["target_latent"].std() < 3
    pixels = dataclasses.replace(options, latents=None)
    for a in loader.eval_dataset(data, options):
        assert np.isfinite(a["target_latent"]).all()
    b = next(iter(loader.train_dataset(data, pixels, seed=0)))
    assert b["target"].shape == (4, 3, 20, 28, 3)


def test_latents_belong_to_their_frames(data):
    """The synthetic frames carry their number in colour above the region; use landmarks instead."""
    run(data, Encoder(), stride=1)
    options = loader.LoaderOptions(
        stage="diffusion", batch_size=8, latents=str(latents.default_directory(data))
    )
    reader = stored_clips.ShardReader(data, "train")
    cache = latents.LatentCache(options.latents, "train")
    batch = next(iter(loader.train_dataset(data, options, seed=0)))
    found = 0
    for b in range(8):
        for position in range(3):
            record = reader.read(position)
            content = record.frame_landmarks[:, 74:]
            same = (content == batch["frame_landmarks"][b, 0, 74:]).all((1, 2))
            for frame in np.flatnonzero(same):
                row = np.searchsorted(cache.frames(position, record.clip_id), frame)
                expected = cache.target(position, np.array([row]))[0]
                np.testing.assert_array_equal(batch["target_latent"][b, 0], expected)
                found += 1
    assert found == 8


def test_mistakes(data, tmp_path):
    directory = latents.default_directory(data)
    options = loader.LoaderOptions(stage="diffusion", latents=str(directory))
    with pytest.raises(UserError, match="holds no cached latents"):
        loader.train_dataset(data, options, seed=0)
    with pytest.raises(UserError, match="splits lacks train"):
        run(data, Encoder(), splits=("test",))
    run(data, Encoder(), splits=("train",))
    with pytest.raises(UserError, match="no latents of split 'test'"):
        loader.eval_dataset(data, options)
    wrong = dataclasses.replace(options, region=(0.0, 0.0, 1.0, 1.0))
    with pytest.raises(UserError, match="show region"):
        loader.train_dataset(data, wrong, seed=0)
    other = write_shards(tmp_path / "other", {"train": [make_record("x"), make_record("y")]})
    with pytest.raises(UserError, match="were made from other shards"):
        next(iter(loader.train_dataset(other, options, seed=0)))
    with pytest.raises(UserError, match=re.escape("latents that are not finite")):
        run(data, lambda x: np.full((len(x), 5, 7, 3), np.nan), splits=("train",), stride=4)


def test_published_encoder(repository):
    file = repository / "tests" / "golden" / "taesd_encoder.safetensors"
    loaded = encoder.load_encoder(file)
    out = loaded.encode(np.zeros((2, 16, 24, 3), np.float32))
    assert out.shape[:3] == (2, 2, 3) and len(loaded.identity) == 64
    assert encoder.load_encoder(file).identity == loaded.identity
    assert (loaded.region, loaded.mask) == (MOUTH_REGION, conventions.MASK)


def test_encoder_id_depends_on_the_encoder_alone():
    rng = np.random.default_rng(0)
    tree = {
        "quant_conv": {"kernel": rng.normal(size=(2, 2)).astype(np.float32)},
        "encoder": {"b": {"bias": np.ones(3, np.float32)}, "a": {"kernel": np.eye(2)}},
        "decoder": {"kernel": np.eye(3)},
    }
    tree["encoder"]["a"]["kernel"] = tree["encoder"]["a"]["kernel"].astype(np.float32)
    kept = {name: part for name, part in tree.items() if name != "decoder"}
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(kept):
        digest.update(leaf.tobytes())
    assert latents.encoder_id(tree) == digest.hexdigest()  # as in existing latents.json
    assert latents.encoder_id(jax.device_put(kept)) == digest.hexdigest()
    tree["encoder"]["b"]["bias"] = np.zeros(3, np.float32)
    assert latents.encoder_id(tree) != digest.hexdigest()


def test_encoder_of_a_trained_run(tmp_path):
    """Stage `autoencoder` exports whole configs: the network is built from them."""
    config = demo_64.get_config("autoencoder")
    config.autoencoder.size = "tiny"
    config.region = (0.25, 0.0, 1.0, 1.0)
    model = networks.make_networks(config).autoencoder
    images = np.random.default_rng(0).uniform(-1, 1, (2, 16, 24, 3)).astype(np.float32)
    params = model.init(jax.random.key(0), images)["params"]
    weights.save_params(tmp_path / "run", {"autoencoder": params}, runs.plain_config(config))
    loaded = encoder.load_encoder(tmp_path / "run")
    mean, _ = model.apply({"params": params}, images, method="encode")
    np.testing.assert_allclose(loaded.encode(images), mean, atol=1e-5)
    assert (loaded.region, loaded.mask) == (config.region, config.mask)
    assert loaded.region != MOUTH_REGION
    assert loaded.identity == latents.encoder_id(params)


@pytest.mark.parametrize("box", ["0,0,1", "0,0,2,1", "0.5,0,0.5,1", "a,a,a,a"])
def test_boxes_are_checked(box):
    with pytest.raises(UserError, match="argument --region"):
        cache_latents.main([f"--region={box}", "--data=x", "--encoder=y"])


def test_latents_are_written_to_local_folders():
    with pytest.raises(UserError, match="out=gs://bucket/latents is in a bucket"):
        cache_latents.check_local("gs://bucket/latents")


def test_the_command(data, repository, capsys):
    file = repository / "tests" / "golden" / "taesd_encoder.safetensors"
    flags = ["--stride=20", "--splits=train", "--region=0.25,0,1,1"]
    cache_latents.main([f"--data={data}", f"--encoder={file}", *flags])
    assert "train 9 frames (9 newly encoded)" in capsys.readouterr().out
    described = talkjax.data.describe(data, latents.default_directory(data))
    assert described["crop_size"] == 32 and described["clips"] == {"train": 3, "test": 1}
    assert described["latents"] | {"mean": None, "std": None} == {
        "region": (0.25, 0.0, 1.0, 1.0), "mask": tuple(conventions.MASK), "crop_size": 32,
        "stride": 20, "encoder": encoder.load_encoder(file).identity,
        "latent_shape": described["latents"]["latent_shape"], "mean": None, "std": None,
    }  # fmt: skip
