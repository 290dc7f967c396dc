import dataclasses
import re

import numpy as np
import pytest

from data_pipelines import builder, shards
from talkjax.data import records
from talkjax.errors import UserError
from tests.data_pipelines.synthetic import make_record, write_shards


def assert_same(a, b):
    for key in records.ARRAY_KEYS:
        np.testing.assert_array_equal(getattr(a, key), getattr(b, key), strict=True)
    assert (a.clip_id, a.source_fps, a.frames) == (b.clip_id, b.source_fps, b.frames)


def test_npz_round_trip(tmp_path):
    record = make_record("ü/clip.mkv#1")
    records.save_npz(tmp_path / "a.npz", record)
    assert_same(records.load_npz(tmp_path / "a.npz"), record)
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_shards_give_back_what_went_in(tmp_path):
    originals = [make_record(f"c{i}", ticks=30 + i) for i in range(3)]
    data = write_shards(tmp_path, {"train": originals})
    reader = records.ShardReader(data, "train")
    for i, original in enumerate(originals):
        assert_same(reader.read(i), original)
        assert reader.read(i, with_frames=False).frames is None
    np.testing.assert_array_equal(reader.lengths(), [30, 31, 32])


def test_any_amount_of_data_becomes_shards_in_order(tmp_path, monkeypatch):
    """TFDS's own writer needs TensorFlow for more than it keeps in memory: it must not be used."""
    from tensorflow_datasets.core import shuffle

    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 0)
    monkeypatch.setattr(shards, "SHARD_BYTES", 600_000)
    originals = [make_record(f"c{i}", ticks=30 + i) for i in range(12)]
    data = write_shards(tmp_path, {"train": originals, "test": originals[:1]})
    reader = records.ShardReader(data, "train")
    assert 2 < len(reader.paths) < 12 and len(records.ShardReader(data, "test").paths) == 1
    for i, original in enumerate(originals):
        assert_same(reader.read(i), original)
    assert records.list_splits(data) == {"train": 12, "test": 1}
    theirs = builder.TalkjaxClips(data_dir=str(data)).as_data_source(split="train")
    assert [theirs[i]["clip_id"].decode() for i in range(12)] == [r.clip_id for r in originals]


def test_our_parser_agrees_with_tfds(tmp_path):
    data = write_shards(tmp_path, {"train": [make_record(ticks=30)]})
    theirs = builder.TalkjaxClips(data_dir=str(data)).as_data_source(split="train")[0]
    ours = records.ShardReader(data, "train").read(0)
    for key in records.ARRAY_KEYS:
        np.testing.assert_array_equal(getattr(ours, key), theirs[key])
    assert list(ours.frames) == list(theirs["frames"])
    assert ours.clip_id == theirs["clip_id"].decode()


@pytest.mark.parametrize("key", ["landmarks", "mel", "frame_landmarks", "timestamps"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_none_name_the_clip(key, bad):
    record = make_record("broken one")
    value = getattr(record, key).copy()
    value.flat[7] = bad
    with pytest.raises(UserError, match=f"'broken one': {key} holds NaN or Inf"):
        records.check_record(dataclasses.replace(record, **{key: value}))


def test_mel_that_does_not_cover_the_ticks_is_refused():
    record = make_record(ticks=30)
    with pytest.raises(UserError, match="119 mel frames do not cover 30 ticks"):
        records.check_record(dataclasses.replace(record, mel=record.mel[:119]))


@pytest.mark.parametrize("raw", [b"", b"\x0a\xff\xff\xff\xff\x0f", b"\x08\x01", b"\x0a\x05ab"])
def test_damaged_entries_are_user_errors(raw):
    with pytest.raises(UserError, match="damaged"):
        records.decode_record(raw, with_frames=True)


def test_missing_data_and_split(tmp_path, shards):
    with pytest.raises(UserError, match=re.escape(f"{tmp_path} holds no prepared data")):
        records.ShardReader(tmp_path, "train")
    with pytest.raises(UserError, match="no split 'validation'; it has test, train"):
        records.ShardReader(shards, "validation")


def test_a_damaged_shard_file_is_a_user_error(tmp_path):
    data = write_shards(tmp_path, {"train": [make_record(ticks=30)]})
    (shard,) = records.find_dataset(data).glob("*array_record*")
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(UserError, match="prepare the data again"):
        records.ShardReader(data, "train").read(0)
