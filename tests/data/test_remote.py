import copy
import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from etils.epath import backend, gpath

import talkjax.data
from data_pipelines import cache_latents, convert_shards
from talkjax.conventions import MASK, MOUTH_REGION
from talkjax.data import latents, loader, remote, storage, stored_clips
from talkjax.errors import UserError
from tests.data_pipelines.old_shards import write_old_shards
from tests.data_pipelines.synthetic import make_record, write_shards


class Bucket(type(backend.os_backend)):
    """A bucket that is a folder; counts what is opened."""

    def __init__(self, folder):
        self.folder, self.opened, self.truncate = folder, [], False

    def local(self, path):
        return os.fspath(path).replace("gs://", f"{self.folder}/", 1)

    def open(self, path, mode):
        self.opened.append(os.path.basename(path))
        if self.truncate:
            Path(self.local(path)).write_bytes(b"short")
        return super().open(self.local(path), mode)

    def exists(self, path):
        return super().exists(self.local(path))

    def isdir(self, path):
        return super().isdir(self.local(path))

    def listdir(self, path):
        return super().listdir(self.local(path))

    def stat(self, path):
        return super().stat(self.local(path))

    def makedirs(self, path, exist_ok=False, mode=None):
        super().makedirs(self.local(path), exist_ok=exist_ok)

    def remove(self, path):
        super().remove(self.local(path))

    def replace(self, src, dst):
        super().replace(self.local(src), self.local(dst))


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    made = Bucket(tmp_path / "bucket")
    monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, "gs", made)
    monkeypatch.setenv(remote.CACHE_VARIABLE, str(tmp_path / "cache"))
    return made


@pytest.fixture
def data(tmp_path, bucket):
    """The same shards and latents here and at gs://mine/shards."""
    train = [make_record(f"c{i}", ticks=60) for i in range(3)]
    local = write_shards(tmp_path, {"train": train, "test": [make_record("t", ticks=70)]})
    cache_latents.cache_latents(
        local, lambda images: images[:, ::4, ::4], "fake", ("train", "test"),
        region=MOUTH_REGION, mask=MASK, batch=4,
    )  # fmt: skip
    shutil.copytree(local, bucket.folder / "mine" / "shards")
    return local


def first_batch(data_dir, latents_dir=None):
    options = loader.LoaderOptions(stage="joint", batch_size=4, latents=latents_dir)
    return next(iter(loader.train_dataset(data_dir, options, seed=0)))


def latent_shard(data):
    (path,) = latents.default_directory(data).glob("train*.array_record")
    return path


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for key in first:
        np.testing.assert_array_equal(first[key], second[key], strict=True)


def test_shards_and_latents_in_a_bucket_give_the_same_batches(data, bucket):
    assert_equal(first_batch("gs://mine/shards"), first_batch(data))
    assert_equal(
        first_batch("gs://mine/shards", "gs://mine/shards/latents"),
        first_batch(data, str(latents.default_directory(data))),
    )
    fetched = [name for name in bucket.opened if not name.endswith(".json")]
    shards = sum("array_record" in name for name in fetched)
    assert (shards, len(fetched)) == (4, 4)  # one for each part and one of latents, once each
    assert storage.list_splits("gs://mine/shards") == {"train": 3, "test": 1}
    described = talkjax.data.describe("gs://mine/shards", "gs://mine/shards/latents")
    assert described == talkjax.data.describe(data, latents.default_directory(data))
    reader = stored_clips.ShardReader("gs://mine/shards", "train")
    again = copy.deepcopy(reader)  # by the same methods as pickling for a worker process
    assert again.read(1).clip_id == reader.read(1).clip_id


def test_a_copy_that_differs_is_fetched_again(data, bucket):
    path = epath.Path("gs://mine/shards/latents") / latent_shard(data).name
    (copy,) = remote.local_copies([path])
    assert copy.read_bytes() == (latents.default_directory(data) / path.name).read_bytes()
    bucket.opened.clear()
    assert remote.local_copies([path]) == [copy] and not bucket.opened
    copy.write_bytes(b"cut off")
    assert remote.local_copies([path]) == [copy] and bucket.opened == [path.name]
    original = Path(bucket.local(path))
    os.utime(original, (1, 1))  # changed in the bucket
    remote.local_copies([path])
    assert bucket.opened == [path.name] * 2
    assert copy.read_bytes() == original.read_bytes()
    assert [p.name for p in copy.parent.iterdir()] == [path.name]


def test_an_incomplete_download_leaves_nothing(data, bucket):
    bucket.truncate = True
    path = f"gs://mine/shards/latents/{latent_shard(data).name}"
    with pytest.raises(UserError, match=r"array_record arrived with 5 of \d+ bytes"):
        remote.local_copies([path])
    assert not list(remote._place(epath.Path(path)).parent.iterdir())


def test_local_paths_are_used_as_they_are(data):
    paths = [latent_shard(data)]
    assert remote.local_copies(paths) == paths


def test_latents_are_written_to_a_bucket(data, bucket):
    out = "gs://mine/new/latents"
    for index in range(2):
        cache_latents.cache_latents(
            "gs://mine/shards", lambda images: images[:, ::4, ::4], "fake", ("train", "test"), out,
            region=MOUTH_REGION, mask=MASK, batch=4, shard=(index, 2),
        )  # fmt: skip
    assert_equal(
        first_batch("gs://mine/shards", out),
        first_batch(data, str(latents.default_directory(data))),
    )
    left = sorted(path.name for path in Path(bucket.local(out)).iterdir())
    assert left == sorted(path.name for path in latents.default_directory(data).iterdir())


def test_a_bucket_that_cannot_be_listed_or_lacks_a_shard(data, bucket, monkeypatch):
    Path(bucket.local("gs://mine/shards/latents"), latent_shard(data).name).unlink()
    with pytest.raises(UserError, match=r"latents/train-\S+ cannot be read \(FileNot"):
        first_batch("gs://mine/shards", "gs://mine/shards/latents")
    monkeypatch.setattr(bucket, "listdir", lambda path: (_ for _ in ()).throw(OSError("no rights")))
    with pytest.raises(UserError, match=r"gs://mine/\S+ cannot be read \(OSError: no rights"):
        first_batch("gs://mine/shards", "gs://mine/shards/latents")


def test_mistakes_are_one_line(data, bucket, monkeypatch):
    with pytest.raises(UserError, match="gs://mine/nothing holds no prepared data"):
        storage.find_dataset("gs://mine/nothing")
    with pytest.raises(UserError, match="gs://mine/shards holds no cached latents"):
        latents.read_index("gs://mine/shards")
    monkeypatch.setattr(bucket, "exists", lambda path: (_ for _ in ()).throw(ImportError("gcsfs")))
    with pytest.raises(UserError, match=r"cannot be read \(ImportError: gcsfs\); check"):
        storage.find_dataset("gs://mine/shards")


def test_a_stage_fetches_what_it_reads(data, bucket):
    options = loader.LoaderOptions(stage="landmark", batch_size=2)
    here = next(iter(loader.eval_dataset(data, options)))
    there = next(iter(loader.eval_dataset("gs://mine/shards", options)))
    assert_equal(there, here)
    assert sum("array_record" in name for name in bucket.opened) == 1
    joint = dataclasses.replace(options, stage="joint")
    there = next(iter(loader.eval_dataset("gs://mine/shards", joint)))
    assert_equal(there, next(iter(loader.eval_dataset(data, joint))))


def test_descriptions_come_from_the_index(data):
    path = storage.find_dataset(data) / "index.json"
    assert talkjax.data.describe(data) == {
        "crop_size": 32, "clips": {"train": 3, "test": 1}, "latents": None,
    }  # fmt: skip
    path.write_text(json.dumps(json.loads(path.read_text()) | {"crop_size": 0}))
    assert talkjax.data.describe(data)["crop_size"] is None  # speech without pictures


def test_shards_of_version_1_in_a_bucket_are_converted(bucket, tmp_path):
    clips = [make_record(f"c{i}", ticks=60) for i in range(3)]
    write_old_shards(bucket.folder / "mine", {"train": clips})
    (bucket.folder / "mine" / "summary.json").write_text("{}")
    with pytest.raises(UserError, match=r"gs://mine/video_folder/1.0.0 has records of version 1"):
        storage.find_dataset("gs://mine")
    assert convert_shards.convert("gs://mine", tmp_path / "new") == {"train": 3}
    options = loader.LoaderOptions(stage="joint", batch_size=4)
    batch = next(iter(loader.train_dataset(tmp_path / "new", options, seed=0)))
    assert batch["target"].any() and (tmp_path / "new" / "summary.json").is_file()
    with pytest.raises(UserError, match="gs://mine/new is in a bucket"):
        convert_shards.convert("gs://mine", "gs://mine/new")
