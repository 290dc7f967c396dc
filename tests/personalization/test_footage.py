"""Footage of a person: what is held out, the offset of the sound, what cannot be used."""

import dataclasses

import numpy as np
import pytest

from talkjax import pipelines
from talkjax.data import storage, stored_clips
from talkjax.errors import UserError
from talkjax.metrics import landmarks
from talkjax.personalization import footage
from tests.personalization import footage_files
from tests.sampling import fakes


@pytest.fixture
def prepare(monkeypatch, tmp_path):
    config = fakes.tiny_config(**{"data.window": 25, "landmark.past": 0, "landmark.future": 0})

    def prepare(keep_offset=False, **options):
        made = footage_files.make_pipeline(**options)
        monkeypatch.setattr(pipelines, "load", lambda name: made)
        monkeypatch.setattr(
            landmarks, "load_predictor", lambda _: (footage_files.listening, config)
        )
        return footage.prepare(["v.mp4"], tmp_path, "base", keep_offset=keep_offset, quiet=True)

    return prepare


def mels(shards, split):
    reader = stored_clips.ShardReader(shards, split)
    return [reader.read(i, with_frames=False).mel for i in range(len(reader))]


def test_the_end_is_held_out(prepare):
    found = prepare(count=10)
    assert storage.list_splits(found.shards) == {"train": 8, "test": 2}
    assert [piece.clip_id for piece in found.held_out] == ["person/000#8", "person/000#9"]
    assert (found.train_seconds, found.held_out_seconds) == (32, 8)
    assert found.agreement > 0.9


@pytest.mark.parametrize(
    ("seconds", "count"), [([4] * 2, 1), ([4] * 5, 1), ([4] * 6, 2), ([4] * 300, 5), ([30, 1], 1)]
)
def test_how_much_is_held_out(seconds, count):
    assert footage._held_out_count(seconds) == count


@pytest.mark.parametrize("delay", [12, -8])  # 120 ms later, 80 ms earlier
def test_an_offset_of_the_sound_is_removed(prepare, delay):
    found = prepare(delay=delay)
    assert found.offset_ms == pytest.approx(10 * delay, abs=8)
    right = mels(prepare(delay=0).shards, "train")
    moved = mels(found.shards, "train")
    inside = slice(20, -20)
    for a, b in zip(moved, right, strict=True):
        assert np.abs(a[inside] - b[inside]).mean() < 0.2


def test_a_small_offset_stays_and_so_does_one_that_is_wanted(prepare):
    assert prepare(delay=1).offset_ms == 0
    assert prepare(delay=12, keep_offset=True).offset_ms == 0


def test_a_voice_that_the_lips_do_not_follow_is_told(prepare, monkeypatch):
    real = footage_files.make_record

    def dubbed(name, seed, **options):
        other = real(name, seed + 100)
        return dataclasses.replace(real(name, seed, **options), mel=other.mel)

    monkeypatch.setattr(footage_files, "make_record", dubbed)
    assert prepare().agreement < 0.25


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 1}, r"only 4.0 s of the footage can be used; at least 4 s"),
        ({"count": 0, "left_out": ["v.mp4 from 0 s: no_face"]}, r"0.0 s .*\(v.mp4 .*: no_face\)"),
        ({"loud": 0.5}, "the footage has no speech"),
        ({"moving": 0.001}, "the lips do not move"),
    ],
)
def test_footage_that_cannot_be_used(prepare, options, message):
    with pytest.raises(UserError, match=message):
        prepare(**options)
