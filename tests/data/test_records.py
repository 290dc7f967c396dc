import dataclasses
import os
import re
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_pipelines import builder, shards
from talkjax.data import loader, records, storage, stored_clips, windows
from talkjax.errors import UserError
from tests.data_pipelines.synthetic import make_record, write_shards


def assert_same(a, b):
    for key in records.ARRAY_KEYS:
        np.testing.assert_array_equal(getattr(a, key), getattr(b, key), strict=True, err_msg=key)
    assert (a.clip_id, a.source_fps, a.frames) == (b.clip_id, b.source_fps, b.frames)


def assert_stored(found, original):
    """Shards hold the steady pose, and everything else as it was."""
    assert_same(found, records.with_normalized_pose(original))


def test_npz_round_trip(tmp_path):
    record = make_record("ü/clip.mkv#1")
    records.save_npz(tmp_path / "a.npz", record)
    assert_same(records.load_npz(tmp_path / "a.npz"), record)
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_shards_give_back_what_went_in(tmp_path):
    originals = [make_record(f"c{i}", ticks=30 + i) for i in range(3)]
    data = write_shards(tmp_path, {"train": originals})
    reader = stored_clips.ShardReader(data, "train")
    for i, original in enumerate(originals):
        assert_stored(reader.read(i), original)
        assert reader.read(i, with_frames=False).frames is None
    assert reader.ticks.tolist() == reader.frames.tolist() == [30, 31, 32]
    assert reader.clip_ids == [record.clip_id for record in originals] and reader.crop_size == 32
    clip = reader.clip(1)
    assert clip.pictures([26, 3, 26]) == [originals[1].frames[i] for i in (26, 3, 26)]
    assert clip.mel.tobytes() == originals[1].mel.tobytes()


def test_the_index_tells_which_frames_can_be_used(tmp_path):
    odd = make_record("odd", ticks=40, fps=30.0)
    odd.face_found[3:9] = False
    late = make_record("late", ticks=40, fps=12.5)
    late = dataclasses.replace(late, timestamps=late.timestamps - np.float32(0.1))
    reader = stored_clips.ShardReader(write_shards(tmp_path, {"train": [odd, late]}), "train")
    index = reader.frame_index()
    for position, original in enumerate((odd, late)):
        clip, (ticks, usable) = reader.clip(position), index.of(position)
        np.testing.assert_array_equal(usable, clip.usable)
        assert usable.sum() == reader.usable[position] < len(usable) == original.num_frames
        # Windows hold the same frames by the index's rounded times as by the exact ones.
        for start in range(25):
            for margin in (0, 3):
                by_index = windows.split_frames(ticks, start, 15, margin)
                exactly = windows.split_frames(clip.frame_ticks, start, 15, margin)
                for a, b in zip(by_index, exactly, strict=True):
                    np.testing.assert_array_equal(a, b)


def test_parts_that_are_not_asked_for_are_not_opened(tmp_path):
    data = write_shards(tmp_path, {"train": [make_record(ticks=30)]})
    for part in ("frames", "pictures"):
        shutil.rmtree(storage.find_dataset(data) / part)
    batch = next(iter(loader.train_dataset(data, loader.LoaderOptions(batch_size=2), seed=0)))
    assert batch["mel"].shape[0] == 2
    with pytest.raises(UserError, match=r"pictures/dataset_info.json does not exist"):
        stored_clips.ShardReader(data, "train", ("pictures",))


def test_any_amount_of_data_becomes_shards_in_order(tmp_path, monkeypatch):
    """TFDS's own writer needs TensorFlow for more than it keeps in memory: it must not be used."""
    from tensorflow_datasets.core import shuffle

    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 0)
    monkeypatch.setattr(shards, "SHARD_BYTES", 600_000)
    originals = [make_record(f"c{i}", ticks=30 + i) for i in range(12)]
    data = write_shards(tmp_path, {"train": originals, "test": originals[:1]})
    reader = stored_clips.ShardReader(data, "train")
    for part in records.PARTS:
        assert 2 < len(reader.paths(part)) < 12
        assert len(stored_clips.ShardReader(data, "test").paths(part)) == 1
    for i, original in enumerate(originals):
        assert_stored(reader.read(i), original)
    assert storage.list_splits(data) == {"train": 12, "test": 1}
    theirs = builder.TalkjaxClips(data_dir=str(data)).as_data_source(split="train")
    assert [theirs[i]["clip_id"].decode() for i in range(12)] == [r.clip_id for r in originals]


@pytest.mark.parametrize("group", [1, 25])
def test_the_index_tells_how_many_pictures_a_record_has(tmp_path, monkeypatch, group):
    original = make_record(ticks=60)
    monkeypatch.setattr(records, "GROUP", group)
    data = write_shards(tmp_path, {"train": [original]})
    monkeypatch.undo()
    reader = stored_clips.ShardReader(data, "train")
    assert reader.group == group
    assert reader.read(0).frames == original.frames
    wanted = [3, 59, 24, 25, 3]
    assert reader.clip(0).pictures(wanted) == [original.frames[frame] for frame in wanted]
    index = storage.find_dataset(data) / "index.json"
    index.write_text(index.read_text().replace(f'"group": {group}', '"group": 0'))
    with pytest.raises(UserError, match="has groups of 0 pictures; prepare the data again"):
        stored_clips.ShardReader(data, "train")


def test_our_parser_agrees_with_tfds(tmp_path):
    original = make_record(ticks=30)
    data = write_shards(tmp_path, {"train": [original]})
    ours = stored_clips.ShardReader(data, "train").read(0)
    folder, theirs = storage.find_dataset(data), {}
    for part in records.PARTS:
        where = storage.part_folder(folder, part)
        source = tfds.builder_from_directory(where).as_data_source(split="train")
        assert len(source) == (30 // records.GROUP if part == "pictures" else 1)
        theirs[part] = source[0]
        assert theirs[part]["clip_id"].decode() == ours.clip_id
    for key in records.ARRAY_KEYS:
        part = "clips" if key in ("landmarks", "mel") else "frames"
        np.testing.assert_array_equal(getattr(ours, key), theirs[part][key])
    assert list(ours.frames[: records.GROUP]) == list(theirs["pictures"]["frames"])
    measured = original.frame_landmarks[:, :74]
    np.testing.assert_array_equal(theirs["frames"]["measured_pose"], measured)


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
        records.decode_part("clips", raw, "clip", 30)
    with pytest.raises(UserError, match="damaged"):
        records.decode_pictures(raw, "clip", 25)


def test_missing_data_and_split(tmp_path, shards):
    with pytest.raises(UserError, match=re.escape(f"{tmp_path} holds no prepared data")):
        stored_clips.ShardReader(tmp_path, "train")
    with pytest.raises(UserError, match="no split 'validation'; it has test, train"):
        stored_clips.ShardReader(shards, "validation")


def opened(paths):
    """Those of the paths that this process has open."""
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return {os.path.realpath(link) for link in links} & set(map(str, paths))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="there is no /proc")
def test_readers_close_their_files(tmp_path):
    data = write_shards(tmp_path, {"train": [make_record("a"), make_record("b")]})
    with stored_clips.ShardReader(data, "train") as reader:
        record = reader.read(0)
        paths = [path for part in records.PARTS for path in reader.paths(part)]
        assert len(opened(paths)) == 3
    assert not opened(paths)
    assert_same(reader.read(0), record)  # it opens them again
    reader.close()
