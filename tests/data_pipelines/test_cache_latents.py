import dataclasses
import hashlib
import os
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

import talkjax.data
from configs import demo_64
from data_pipelines import cache_latents, encoder, latent_shards
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


def open_cache(data, split="train", directory=None):
    reader = stored_clips.ShardReader(data, split)
    return latents.LatentCache(directory or latents.default_directory(data), reader)


def shard_files(data, split=""):
    return sorted(latents.default_directory(data).glob(f"{split}*.array_record"))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_latents_are_those_of_the_frames(data, dtype):
    index = run(data, Encoder(), dtype=dtype)
    cache = open_cache(data)
    exact = {"float16": 2e-3, "bfloat16": 1e-2, "float32": 1e-5}[dtype]
    assert cache.shape == (5, 7, 3) and index["latent_shape"] == [5, 7, 3]
    reader = stored_clips.ShardReader(data, "train")
    rows = []
    for position in range(3):
        record = reader.read(position)
        frames = cache.frames(reader.clip(position).usable)
        np.testing.assert_array_equal(frames, np.flatnonzero(record.face_found)[::2])
        crops = np.stack([windows.decode_jpeg(record.frames[f]) for f in frames])
        pixels = REGION.cut(crops).astype(np.float32) / 127.5 - 1
        expected = Encoder()(pixels)
        rows.append(expected)
        whole, masked = cache.read(position, np.arange(len(frames))) * cache.std + cache.mean
        np.testing.assert_allclose(whole, expected, atol=exact)
        # Mask rows 14 to 30 and columns 4 to 28 of the crop: 2 to 18 and 2 to 26 of the region.
        np.testing.assert_allclose(masked[:, 1:4, 1:6], 0, atol=1e-6)
    values = np.concatenate(rows)
    np.testing.assert_allclose(cache.mean, values.mean((0, 1, 2)), atol=1e-3)
    np.testing.assert_allclose(cache.std, values.std((0, 1, 2)), atol=1e-3)
    size = {"float16": 2, "bfloat16": 2, "float32": 4}[dtype]
    assert len(cache._records[0]) == 16 + 2 * 5 * 7 * 3 * size


def test_masked_images_do_not_depend_on_what_is_masked():
    rng = np.random.default_rng(0)
    a = rng.uniform(-1, 1, (1, 80, 112, 3)).astype(np.float32)
    b = a.copy()
    b[:, 8:72, 8:104] = rng.uniform(-1, 1, (1, 64, 96, 3))
    masked = [mask_region(x, REGION, MASK, 128) for x in (a, b)]
    np.testing.assert_array_equal(*masked)
    np.testing.assert_array_equal(masked[0][:, :8], a[:, :8])
    assert (masked[0][:, 8:72, 8:104] == 0).all()


@pytest.mark.parametrize("stop_after", [1, 30])
def test_an_interrupted_run_goes_on_where_it_was(data, stop_after, monkeypatch):
    monkeypatch.setattr(latent_shards, "SHARD_ROWS", 20)
    run(data, Encoder())
    whole = {path.name: path.read_bytes() for path in shard_files(data)}
    shutil.rmtree(latents.default_directory(data))
    first, second = Encoder(stop_after), Encoder()
    with pytest.raises(KeyboardInterrupt):
        run(data, first)
    assert not (latents.default_directory(data) / "latents.json").exists()
    finished = shard_files(data)
    assert len(finished) == {1: 0, 30: 2}[stop_after] < len(whole)
    resumed = run(data, second)
    rows = sum(entry["rows"] for entry in resumed["splits"].values())
    # A shard of 20 to 38 frames is encoded again from its beginning, twice a frame.
    assert first.images + second.images <= 2 * rows + 2 * 38
    assert {path.name: path.read_bytes() for path in shard_files(data)} == whole


def test_a_killed_run_leaves_nothing_half_written(data, tmp_path):
    """SIGKILL amid a shard; what is left behind goes when the work is complete."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal\n"
        "from data_pipelines import latent_shards\n"
        "from tests.data_pipelines import test_cache_latents as tests\n"
        "class Killed(tests.Encoder):\n"
        "    def __call__(self, images):\n"
        "        if self.calls == 30:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return super().__call__(images)\n"
        "latent_shards.SHARD_ROWS = 20\n"
        f"tests.run({str(data)!r}, Killed())\n"
    )
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, script], env=environment, stderr=subprocess.DEVNULL)
    assert done.returncode == -9
    left = list(latents.default_directory(data).iterdir())
    half = [path for path in left if path.name.startswith(".")]
    assert len(half) == 1 and len(shard_files(data)) == 2 and len(left) == 5  # with their facts
    with pytest.raises(UserError, match="holds no cached latents"):
        open_cache(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latent_shards, "SHARD_ROWS", 20)
        encoder = Encoder()
        run(data, encoder)
    assert encoder.images < sum(rows_of(data)) * 2 and not half[0].exists()
    open_cache(data)


def test_a_full_disk_is_one_line(data, tmp_path):
    """The limit of a file's size stands in for it."""
    script = tmp_path / "script.py"
    script.write_text(
        "import resource, signal, sys\n"
        "from talkjax.errors import UserError\n"
        "from tests.data_pipelines import test_cache_latents as tests\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try:\n"
        f"    tests.run({str(data)!r}, tests.Encoder())\n"
        "except UserError as error:\n"
        "    sys.exit(str(error))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
    assert "cannot be written (write() failed: File too large" in done.stderr.splitlines()[-1]
    assert done.returncode == 1 and not list(latents.default_directory(data).iterdir())


def rows_of(data):
    index = latents.read_index(latents.default_directory(data))
    return [entry["rows"] for entry in index["splits"].values()]


def test_nothing_is_encoded_twice(data):
    run(data, Encoder())
    again = Encoder()
    assert run(data, again)["encoded"] == 0 and again.calls == 0
    assert run(data, Encoder(), splits=("train",), stride=3)["encoded"] > 0
    assert len(shard_files(data, "train")) == 1  # those of stride 2 are gone


def test_parts_of_the_work_are_the_same_as_all_of_it(data, monkeypatch):
    monkeypatch.setattr(latent_shards, "SHARD_ROWS", 20)
    whole = run(data, Encoder())
    expected = {path.name: path.read_bytes() for path in shard_files(data)}
    shutil.rmtree(latents.default_directory(data))
    done = [run(data, Encoder(), shard=(index, 3)) for index in (2, 0, 1)]
    assert [part["missing"] > 0 for part in done] == [True, True, False]
    assert sum(part["encoded"] for part in done) == whole["encoded"]
    assert {path.name: path.read_bytes() for path in shard_files(data)} == expected
    assert {k: v for k, v in done[-1].items() if k != "encoded"} == {
        k: v for k, v in whole.items() if k != "encoded"
    }


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
    reader, cache = stored_clips.ShardReader(data, "train"), open_cache(data)
    batch = next(iter(loader.train_dataset(data, options, seed=0)))
    found = 0
    for b in range(8):
        for position in range(3):
            clip = reader.clip(position)
            content = clip.frame_landmarks[:, 74:]
            same = (content == batch["frame_landmarks"][b, 0, 74:]).all((1, 2))
            for frame in np.flatnonzero(same):
                row = np.searchsorted(cache.frames(clip.usable), frame)
                whole, masked = cache.read(position, [row])
                np.testing.assert_array_equal(batch["target_latent"][b, 0], whole[0])
                np.testing.assert_array_equal(batch["masked_latent"][b, 0], masked[0])
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
        loader.train_dataset(other, options, seed=0)
    with pytest.raises(UserError, match=re.escape("latents that are not finite")):
        run(data, lambda x: np.full((len(x), 5, 7, 3), np.nan), splits=("train",), stride=4)


def test_published_encoder(repository):
    file = repository / "tests" / "golden" / "taesd_encoder.safetensors"
    loaded = encoder.load_encoder(file)
    out = loaded.encode(np.zeros((2, 16, 24, 3), np.float32))
    assert out.shape[:3] == (2, 2, 3) and len(loaded.identity) == 64
    assert encoder.load_encoder(file).identity == loaded.identity
    assert (loaded.region, loaded.mask) == (conventions.FULL, conventions.MASK)


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


@pytest.mark.parametrize("shard", ["1", "2/2", "-1/2", "a/b", "0/0", "1/"])
def test_parts_are_checked(shard):
    with pytest.raises(UserError, match=r"argument --shard: .* is not I/N"):
        cache_latents.main([f"--shard={shard}", "--data=x", "--encoder=y"])


def test_the_command(data, repository, capsys):
    file = repository / "tests" / "golden" / "taesd_encoder.safetensors"
    flags = ["--stride=20", "--splits=train", "--region=0.25,0,1,1"]
    cache_latents.main([f"--data={data}", f"--encoder={file}", *flags])
    assert "train 9 frames (9 newly encoded)" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"unrecognized arguments: --config\.crop_size=32"):
        cache_latents.main([f"--data={data}", f"--encoder={file}", "--config.crop_size=32"])
    described = talkjax.data.describe(data, latents.default_directory(data))
    assert described["crop_size"] == 32 and described["clips"] == {"train": 3, "test": 1}
    assert described["latents"] | {"mean": None, "std": None} == {
        "region": (0.25, 0.0, 1.0, 1.0), "mask": tuple(conventions.MASK), "crop_size": 32,
        "stride": 20, "dtype": "float16", "encoder": encoder.load_encoder(file).identity,
        "latent_shape": described["latents"]["latent_shape"], "mean": None, "std": None,
    }  # fmt: skip


def test_the_command_takes_region_and_mask_of_a_configuration(data, repository, capsys):
    file = repository / "tests" / "golden" / "taesd_encoder.safetensors"
    flags = [f"--data={data}", f"--encoder={file}", "--stride=20", "--dtype=bfloat16"]
    config = ["--config=configs/demo_64.py", "--config.mask=(0.5,0.25,0.9375,0.75)"]
    with pytest.raises(UserError, match=r"has crops of 32 px, --config=\S+ has crop_size=64"):
        cache_latents.main([*flags, *config])
    flags += [*config, "--config.crop_size=32"]
    with pytest.raises(UserError, match="encoder does not take images of 20 x 28 px"):
        cache_latents.main(flags)
    flags.append("--config.region=(0.25,0.0,1.0,1.0)")
    cache_latents.main([*flags, "--shard=0/2"])
    assert "1 shards in" in capsys.readouterr().out
    cache_latents.main([*flags, "--shard=1/2"])
    index = latents.read_index(latents.default_directory(data))
    assert index["region"] == [0.25, 0.0, 1.0, 1.0] and index["mask"] == [0.5, 0.25, 0.9375, 0.75]
    assert index["dtype"] == "bfloat16"
