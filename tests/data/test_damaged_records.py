"""Shards with damage in them: what the loader does about it."""

import dataclasses
import json
import logging

import numpy as np
import pytest

from talkjax.data import examples, loader, records, samples
from talkjax.errors import UserError
from tests.data_pipelines.synthetic import make_record, write_shards

LANDMARK = loader.LoaderOptions(stage="landmark", batch_size=4)
JOINT = loader.LoaderOptions(stage="joint", batch_size=4, frames=3)
COUNT = 8
BAD = 3  # the record that is damaged


@pytest.fixture(scope="module")
def clips():
    return [make_record(f"clip{i}", ticks=55 + i) for i in range(COUNT)]


@pytest.fixture
def data(tmp_path, clips):
    """Shards of `clips`, alike for train and test; their files may be damaged."""
    made = write_shards(tmp_path, {"train": clips, "test": clips})
    ticks = [clip.num_ticks for clip in clips]
    index = records.find_dataset(made) / "index.json"
    index.write_text(json.dumps({"ticks": {"train": ticks, "test": ticks}}))
    return made


def replace(path, content):
    """Gives `path` other content; threads of a loader before, that have it open, keep the old."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)


def flip(data, split="train", which=BAD):
    """Changes a byte in the midst of a record."""
    (shard,) = records.find_dataset(data).glob(f"*-{split}.array_record*")
    whole = shard.read_bytes()
    for place in np.arange(which, which + 1, 0.2) / COUNT:  # they are about equally long
        content = bytearray(whole)
        content[int(len(content) * place)] ^= 0xFF
        replace(shard, content)
        try:
            records.ShardReader(data, split).read(which)
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


@pytest.mark.parametrize("limit", [4 << 30, 0], ids=["in memory", "from disk"])
@pytest.mark.parametrize("options", [LANDMARK, JOINT], ids=["landmark", "joint"])
def test_a_damaged_record_gives_way_to_the_next(data, options, limit, caplog):
    options = dataclasses.replace(options, memory_limit=limit)
    whole = batches(data, options)
    shard = flip(data)
    with caplog.at_level(logging.WARNING):
        left = batches(data, options)
    (line,) = {record.getMessage() for record in caplog.records}
    assert f"record {BAD} of {shard}: " in line and "left out (1 of at most 1)" in line
    assert "\n" not in line
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
    for limit in (4 << 30, 0):
        options = dataclasses.replace(LANDMARK, memory_limit=limit)
        with pytest.raises(UserError, match=r"2 of 8 records are damaged, where max_damaged=0.01"):
            batches(data, options)
        assert len(batches(data, dataclasses.replace(options, max_damaged=0.25))) == 12


def test_evaluation_leaves_it_out(data, caplog):
    def positions(options):
        return {int(p) for batch in loader.eval_dataset(data, options) for p in batch["clip"]}

    assert positions(LANDMARK) == set(range(COUNT))
    flip(data, "test")
    for options in (LANDMARK, JOINT, dataclasses.replace(LANDMARK, memory_limit=0)):
        assert positions(options) == set(range(COUNT)) - {BAD}
    assert f"record {BAD} of" in caplog.text


def test_lengths_are_counted_without_an_index(data, caplog):
    (records.find_dataset(data) / "index.json").unlink()
    flip(data)
    for limit in (4 << 30, 0):
        caplog.clear()
        sampler = samples.WindowSampler(
            data, "train", dataclasses.replace(LANDMARK, memory_limit=limit)
        )
        assert BAD not in sampler.clips and len(sampler.clips) == COUNT - 1
        assert f"record {BAD} of" in caplog.text


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


def test_a_shard_that_was_cut_off_is_an_error_that_names_it(data):
    (shard,) = records.find_dataset(data).glob("*-train.array_record*")
    content = shard.read_bytes()
    replace(shard, content[: len(content) // 2])
    with pytest.raises(UserError, match=f"the shard {shard} cannot be read"):
        loader.train_dataset(data, LANDMARK, seed=0)
