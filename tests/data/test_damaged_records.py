"""Shards with damage in them: what the loader does about it."""

import dataclasses
import json
import logging
import re
import shutil

import numpy as np
import pytest

from talkjax.data import examples, loader, records, storage, stored_clips
from talkjax.errors import UserError
from tests.data_pipelines.synthetic import make_record, write_shards

LANDMARK = loader.LoaderOptions(stage="landmark", batch_size=4)
JOINT = loader.LoaderOptions(stage="joint", batch_size=4, frames=3)
AUTOENCODER = loader.LoaderOptions(stage="autoencoder", batch_size=4)
LISTS = ("clips", "ticks", "frames", "usable")
COUNT = 8
BAD = 3  # the record that is damaged


@pytest.fixture(scope="module")
def clips():
    return [make_record(f"clip{i}", ticks=55 + i) for i in range(COUNT)]


@pytest.fixture
def data(tmp_path, clips, monkeypatch):
    """Shards of `clips`, alike for train and test; their files may be damaged.

    They have many pictures in a record, so that most samples of a clip read the damaged one.
    """
    monkeypatch.setattr(records, "GROUP", 25)
    return write_shards(tmp_path, {"train": clips, "test": clips})


def replace(path, content):
    """Gives `path` other content; threads of a loader before, that have it open, keep the old."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)


def shard_of(data, split="train", part="clips"):
    folder = storage.part_folder(storage.find_dataset(data), part)
    (shard,) = folder.glob(f"*-{split}.array_record*")
    return shard


def flip(data, split="train", which=BAD, part="clips"):
    """Changes a byte in the midst of a clip's record, or of its first group of pictures."""
    shard = shard_of(data, split, part)
    whole = shard.read_bytes()
    for place in np.arange(which, which + 1, 0.2) / COUNT:  # they are about equally long
        content = bytearray(whole)
        content[int(len(content) * place)] ^= 0xFF
        replace(shard, content)
        reader = stored_clips.ShardReader(data, split, (part,))
        try:
            if part == "pictures":
                for group in range(3):
                    reader.read_pictures(which, group)
            else:
                reader.read_part(part, which)
        except UserError as error:
            assert "hash mismatch" in str(error)
            return shard
    raise AssertionError(f"record {which} lies elsewhere")


def batches(data, options, count=12, seed=0, **share):
    iterator = iter(loader.train_dataset(data, options, seed=seed, **share))
    return [next(iterator) for _ in range(count)]


def assert_equal(first, second):
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], strict=True, err_msg=key)


@pytest.mark.parametrize(
    ("options", "part"),
    [(LANDMARK, "clips"), (JOINT, "clips"), (JOINT, "frames"), (JOINT, "pictures")],
    ids=["landmark", "joint", "frames", "pictures"],
)
def test_a_damaged_record_gives_way_to_the_next(data, options, part, caplog):
    whole = batches(data, options)
    shard = flip(data, part=part)
    with caplog.at_level(logging.WARNING):
        left = batches(data, options)
    lines = {record.getMessage() for record in caplog.records}
    assert lines and all(f"of {shard}: " in line and "\n" not in line for line in lines)
    assert all("left out (1 of at most 1)" in line for line in lines)
    if part != "pictures":
        assert len(lines) == 1 and f"record {BAD} of" in caplog.text
    same = [
        np.array_equal(a["pose"][row], b["pose"][row])
        for a, b in zip(whole, left, strict=True)
        for row in range(4)
    ]
    assert 0.6 < np.mean(same) < 1  # others than the damaged one's are what they were


def test_resumption_and_processes_agree_on_what_replaces_it(data):
    flip(data)
    expected = batches(data, JOINT)
    first = iter(loader.train_dataset(data, JOINT, seed=0))
    for _ in range(5):
        next(first)
    state = json.loads(json.dumps(first.get_state()))
    second = iter(loader.train_dataset(data, JOINT, seed=0))
    second.set_state(state)
    assert_equal([next(second) for _ in range(7)], expected[5:])
    halves = dataclasses.replace(JOINT, batch_size=2)
    shares = [batches(data, halves, process_index=index, process_count=2) for index in range(2)]
    together = [
        {key: np.concatenate([a[key], b[key]]) for key in a} for a, b in zip(*shares, strict=True)
    ]
    assert_equal(together, expected)


def test_too_many_are_an_error(data):
    flip(data)
    flip(data, which=BAD - 2)
    with pytest.raises(UserError, match=r"2 of 8 records are damaged, where max_damaged=0.01"):
        batches(data, LANDMARK)
    assert len(batches(data, dataclasses.replace(LANDMARK, max_damaged=0.25))) == 12


@pytest.mark.parametrize(
    ("options", "part"),
    [(LANDMARK, "clips"), (JOINT, "pictures"), (AUTOENCODER, "frames")],
    ids=["landmark", "joint", "autoencoder"],
)
def test_evaluation_leaves_it_out(data, caplog, options, part):
    whole = list(loader.eval_dataset(data, options))
    assert {int(p) for batch in whole for p in batch["clip"]} == set(range(COUNT))
    flip(data, "test", part=part)
    left = list(loader.eval_dataset(data, options))
    assert len(left) == len(whole)  # all processes have as many batches as before
    for before, after in zip(whole, left, strict=True):
        for row in range(4):
            damaged = before["clip"][row] == BAD and part != "pictures"
            if after["clip"][row] != before["clip"][row] or damaged:
                assert before["clip"][row] == BAD != after["clip"][row]
                assert after["weight"][row] == 0
            else:
                assert after["weight"][row] == before["weight"][row]
                np.testing.assert_array_equal(
                    before["frame_landmarks" if options is AUTOENCODER else "pose"][row],
                    after["frame_landmarks" if options is AUTOENCODER else "pose"][row],
                )
    assert f"of {shard_of(data, 'test', part)}: " in caplog.text


@pytest.mark.parametrize(
    ("field", "words"),
    [("landmarks", "'clip3': landmarks holds NaN or Inf"), ("mel", "'clip3': mel holds NaN")],
)
def test_numbers_that_are_none_are_damage_with_a_name(tmp_path, clips, caplog, field, words):
    value = getattr(clips[BAD], field).copy()
    value[20] = np.nan
    bad = dataclasses.replace(clips[BAD], **{field: value})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "check_record", lambda record: record)
        data = write_shards(tmp_path, {"train": [*clips[:BAD], bad, *clips[BAD + 1 :]]})
    for batch in batches(data, LANDMARK):
        assert all(np.isfinite(x).all() for x in batch.values())
    assert words in caplog.text


def test_a_picture_that_cannot_be_decoded_is_damage_too(tmp_path, clips, caplog):
    frames = tuple(frame[:100] for frame in clips[BAD].frames)
    bad = dataclasses.replace(clips[BAD], frames=frames)
    data = write_shards(tmp_path, {"train": [*clips[:BAD], bad, *clips[BAD + 1 :]]})
    expected = batches(data, JOINT)
    assert "'clip3': frame" in caplog.text and "left out (1 of at most 1)" in caplog.text
    assert_equal(batches(data, JOINT), expected)


def test_a_message_that_does_not_parse_is_damage(data, monkeypatch, caplog):
    parse = examples.parse_example

    def failing(raw, keys):
        return parse(raw[: len(raw) // 2] if b"clip3" in bytes(raw) else raw, keys)

    monkeypatch.setattr(examples, "parse_example", failing)
    assert len(batches(data, LANDMARK)) == 12
    assert f"record {BAD} of" in caplog.text and "is damaged" in caplog.text


@pytest.mark.parametrize("part", records.PARTS)
def test_a_shard_that_was_cut_off_is_an_error_that_names_it(data, part):
    shard = shard_of(data, part=part)
    content = shard.read_bytes()
    replace(shard, content[: len(content) // 2])
    with pytest.raises(UserError, match=f"the shard {shard} cannot be read"):
        loader.train_dataset(data, JOINT, seed=0)


def test_a_group_of_pictures_that_is_missing_is_an_error(data, tmp_path, clips):
    """The shard and its own metadata agree; the index knows better."""
    fewer = write_shards(tmp_path / "fewer", {"train": clips[:-1], "test": clips})
    folders = [storage.part_folder(storage.find_dataset(d), "pictures") for d in (fewer, data)]
    for path in folders[0].iterdir():
        shutil.copy(path, folders[1] / path.name)
    message = r"pictures has 21 records of split 'train' where index.json says 24"
    with pytest.raises(UserError, match=message):
        loader.train_dataset(data, JOINT, seed=0)
    loader.train_dataset(data, LANDMARK, seed=0)  # it reads none


def test_a_group_of_another_clip_is_damage(data, tmp_path, clips, caplog):
    order = [*clips[:BAD], clips[BAD + 1], clips[BAD], *clips[BAD + 2 :]]
    other = write_shards(tmp_path / "other", {"train": order, "test": clips})
    shutil.copy(shard_of(other, part="pictures"), shard_of(data, part="pictures"))
    with pytest.raises(UserError, match="2 of 8 records are damaged"):
        batches(data, JOINT)
    assert re.search("it belongs to clip 'clip[34]' where the index says 'clip[43]'", caplog.text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda index: index | {"version": 3},
            "index.json has records of version 3, not 2; update",
        ),
        (lambda index: index | {"group": 0}, "index.json has groups of 0 pictures"),
        (lambda index: index | {"ticks": {"train": [1]}}, "its lists do not agree"),
        (lambda index: {k: index[k] for k in index if k != "usable"}, "lacks usable; prepare"),
        (
            lambda index: index | {k: {"train": index[k]["train"][1:]} for k in LISTS},
            "says 7; prep",
        ),
    ],
)
def test_an_index_that_does_not_fit_is_an_error(data, change, message):
    path = storage.find_dataset(data) / storage.INDEX
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(UserError, match=message):
        loader.train_dataset(data, LANDMARK, seed=0)


@pytest.mark.parametrize("content", [None, b"", b"short", "half"])
def test_the_frames_index_is_needed_for_a_plan(data, content):
    path = storage.find_dataset(data) / "test.frames.npz"
    whole = path.read_bytes()
    path.unlink()
    if content is not None:
        path.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    with pytest.raises(UserError, match=r"test.frames.npz cannot be read .*; prepare the data"):
        loader.eval_dataset(data, JOINT)
    loader.eval_dataset(data, LANDMARK)
