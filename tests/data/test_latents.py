"""Latents on disk: which are refused, what damage does, and that runs resume and divide."""

import dataclasses
import json
import logging
import re

import numpy as np
import pytest

from data_pipelines import cache_latents
from talkjax.conventions import MASK, MOUTH_REGION
from talkjax.data import latents, loader, stored_clips
from talkjax.errors import UserError
from tests.data_pipelines.synthetic import make_record, write_shards

COUNT = 6
BAD = 2  # the clip that is damaged


def encode(images):
    return images[:, ::4, ::4] * 1.5


@pytest.fixture
def data(tmp_path):
    """Shards of a split `train` with latents beside them."""
    clips = [make_record(f"clip{i}", ticks=60) for i in range(COUNT)]
    made = write_shards(tmp_path, {"train": clips})
    cache(made)
    return made


def cache(data, **changes):
    settings = {"region": MOUTH_REGION, "mask": MASK, "batch": 8} | changes
    return cache_latents.cache_latents(data, encode, "fake", ("train",), **settings)


def options(data, batch_size=6):
    directory = str(latents.default_directory(data))
    return loader.LoaderOptions(
        stage="diffusion", batch_size=batch_size, frames=3, latents=directory, max_damaged=0.2
    )


def batches(data, count=8, batch_size=6, **share):
    iterator = iter(loader.train_dataset(data, options(data, batch_size), 5, **share))
    return [next(iterator) for _ in range(count)]


def assert_equal(first, second):
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], strict=True, err_msg=key)


def shard(data):
    (path,) = latents.default_directory(data).glob("train*.array_record")
    return path


def replace(path, content):
    """Gives `path` other content; threads of a loader before, that have it open, keep the old."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)


def change_index(data, change):
    path = latents.default_directory(data) / latents.INDEX
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))


@pytest.mark.parametrize("processes", [2, 3])
def test_a_step_has_the_same_samples_for_any_number_of_processes(data, processes):
    together = [
        batches(data, batch_size=6 // processes, process_index=p, process_count=processes)
        for p in range(processes)
    ]
    joined = [
        {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        for parts in zip(*together, strict=True)
    ]
    assert_equal(joined, batches(data))


def test_a_restored_iterator_goes_on_bit_identically(data):
    expected = batches(data)
    first = iter(loader.train_dataset(data, options(data), 5))
    for _ in range(3):
        next(first)
    state = json.loads(json.dumps(first.get_state()))
    second = iter(loader.train_dataset(data, options(data), 5))
    second.set_state(state)
    assert_equal([next(second) for _ in range(5)], expected[3:])


def test_a_damaged_record_gives_way_to_the_next_clip(data, caplog):
    whole = batches(data)
    content = bytearray(shard(data).read_bytes())
    content[int(len(content) * (BAD + 0.5) / COUNT)] ^= 0xFF
    replace(shard(data), content)
    with caplog.at_level(logging.WARNING):
        left = batches(data, 20)
    assert re.search(rf"record \d+ of {shard(data)}: .*left out \(1 of at most 1\)", caplog.text)
    same = [
        np.array_equal(a["target_latent"][row], b["target_latent"][row])
        for a, b in zip(whole, left, strict=False)
        for row in range(6)
    ]
    assert np.mean(same) > 0.6
    assert_equal(batches(data, 20), left)


def test_a_damaged_picture_has_no_latents(tmp_path, caplog):
    clips = [make_record(f"clip{i}", ticks=60) for i in range(COUNT)]
    frames = tuple(frame[:100] for frame in clips[BAD].frames)
    clips[BAD] = dataclasses.replace(clips[BAD], frames=frames)
    data = write_shards(tmp_path, {"train": clips})
    done = cache(data)
    assert done["damaged"] == 60 and done["encoded"] == 60 * (COUNT - 1)
    assert np.isfinite(done["mean"]).all() and min(done["std"]) > 0.1
    with caplog.at_level(logging.WARNING):
        assert all(np.isfinite(batch["target_latent"]).all() for batch in batches(data))
    assert "its picture was damaged when the latents were made; left out (1 of" in caplog.text


def test_a_shard_that_is_cut_off_or_missing_is_named_and_made_again(data):
    whole = shard(data).read_bytes()
    replace(shard(data), whole[: len(whole) // 2])
    words = f"the shard {shard(data)} cannot be read .*; run the same data_pipelines.cache_latents"
    with pytest.raises(UserError, match=words):
        batches(data)
    assert cache(data)["encoded"] == 60 * COUNT and shard(data).read_bytes() == whole
    path = shard(data)
    path.unlink()
    with pytest.raises(UserError, match=f"the latents' shard {path} is missing; run the same"):
        batches(data)
    cache(data)
    batches(data, 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("encoder", "other"),
        ("region", [0.0, 0.0625, 1.0, 0.9375]),
        ("stride", 2),
        ("crop_size", 64),
    ],
)
def test_latents_of_other_settings_are_refused(data, name, value):
    change_index(data, lambda index: index.update({name: value}))
    with pytest.raises(UserError, match="were made from other shards than") as caught:
        batches(data)
    assert "\n" not in str(caught.value)


def test_shards_of_other_latents_are_refused(data):
    """Even under the name of the right ones, as after a careless copy."""
    path, index = shard(data), latents.read_index(latents.default_directory(data))
    cache(data, mask=(0.5, 0.25, 0.9375, 0.75))
    shard(data).rename(path)
    (latents.default_directory(data) / latents.INDEX).write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"records are damaged.*it belongs to other latents"):
        batches(data)


def test_indices_of_other_versions_are_refused(data):
    def version_1(index):
        del index["version"], index["dtype"]

    change_index(data, lambda index: index.update(version=3))
    with pytest.raises(UserError, match="has version 3, not 2; update talkjax"):
        batches(data)
    change_index(data, version_1)
    with pytest.raises(UserError, match="has latents of version 1, not 2; make new ones") as caught:
        batches(data)
    directory = latents.default_directory(data)
    assert str(caught.value).endswith(
        "`python -m data_pipelines.cache_latents --data=SHARDS --encoder=ENCODER "
        f"--out={directory} --region=0.375,0.0625,1,0.9375 --mask=0.4375,0.125,0.9375,0.875 "
        "--stride=1`"
    )
    (directory / "train.target.npy").write_bytes(b"latents of version 1")
    assert cache(data)["encoded"] == 0  # the shards are those of today
    assert not (directory / "train.target.npy").exists()
    batches(data, 1)
    change_index(data, lambda index: index.pop("mean"))
    with pytest.raises(UserError, match=r"latents\.json lacks mean; run data_pipelines"):
        batches(data)


def test_nothing_of_the_latents_is_read_before_the_first_sample(data, monkeypatch):
    def refuse(*unused):
        raise AssertionError("a record was read")

    monkeypatch.setattr(latents.LatentCache, "_decode", refuse)
    monkeypatch.setattr(stored_clips.ShardReader, "_read", refuse)
    loader.train_dataset(data, options(data), 5)
    loader.eval_dataset(data, options(data), "train")
