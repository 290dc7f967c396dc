"""What single samples of the landmark part hold."""

import dataclasses
import json

import numpy as np
import pytest

from talkjax.conventions import MEL_FLOOR, mel_windows, mouth_opening
from talkjax.data import loader, records, sound_offsets
from talkjax.data.samples import WindowSampler
from talkjax.errors import UserError
from tests.data.test_loader import LANDMARK, PLAIN, take, tick_of
from tests.data_pipelines.synthetic import make_record, write_shards


def test_references_come_with_the_sound_of_their_time(shards):
    options = dataclasses.replace(
        LANDMARK, **PLAIN, audio_gain=0.0, audio_noise=0.0, reference_silent=0.0,
        reference_wrong=0.0, reference_still=0.0,
    )  # fmt: skip
    sampler = WindowSampler(shards, "train", options)
    sample = sampler(0, np.random.default_rng(0))
    record = sampler.store[int(sampler.clips[0])]
    ticks = tick_of(sample["reference_landmarks"]).round().astype(int)
    expected = mel_windows(record.mel, ticks)
    np.testing.assert_allclose(sample["reference_mel"], np.maximum(expected, MEL_FLOOR), atol=1e-6)
    assert sample["reference_heard"].all()


def test_references_are_sometimes_unheard_wrong_or_one_photograph(shards):
    options = dataclasses.replace(
        LANDMARK, **PLAIN, batch_size=64, reference_silent=0.3, reference_wrong=0.0,
        reference_still=0.2,
    )  # fmt: skip
    batches = take(iter(loader.train_dataset(shards, options, seed=0)), 8)
    still = np.concatenate(
        [np.ptp(b["reference_landmarks"], axis=1).max((1, 2)) == 0 for b in batches]
    )
    heard = np.concatenate([b["reference_heard"] for b in batches])
    assert still.mean() == pytest.approx(0.2, abs=0.06)
    assert (heard.all(1) | ~heard.any(1)).all() and not heard[still].any()
    assert heard[~still].mean() == pytest.approx(0.7, abs=0.08)


def test_reference_images_are_sometimes_one_photograph(shards):
    options = dataclasses.replace(
        LANDMARK, **PLAIN, stage="diffusion", region=(0.0, 0.0, 1.0, 1.0), image_references=3,
        batch_size=64, reference_still=0.3,
    )  # fmt: skip
    batches = take(iter(loader.train_dataset(shards, options, seed=0)), 4)
    points = np.concatenate([b["image_reference_landmarks"] for b in batches])
    images = np.concatenate([b["reference"] for b in batches])
    still = np.ptp(points, axis=1).max((1, 2)) == 0
    assert still.mean() == pytest.approx(0.3, abs=0.09)
    assert (np.ptp(images[still], axis=1) == 0).all()
    assert (np.ptp(images[~still], axis=1) > 0).any((1, 2, 3)).all()


def test_silence_shows_the_mouth_closed_most_tightly(shards):
    options = dataclasses.replace(LANDMARK, **PLAIN, silence=1.0, audio_gain=0.0, audio_noise=0.0)
    sampler = WindowSampler(shards, "train", options)
    sample = sampler(0, np.random.default_rng(0))
    record = sampler.store[int(sampler.clips[0])]
    rest = record.landmarks[mouth_opening(record.landmarks).argmin()]
    np.testing.assert_array_equal(sample["content"], np.broadcast_to(rest[74:], (25, 57, 2)))
    assert sample["mel"].max() < MEL_FLOOR + 3  # a noise of level 0
    assert np.ptp(sample["pose"], axis=0).max() > 0  # the head goes on


def test_the_sound_of_a_person_moves_by_its_offset(tmp_path):
    folder = write_shards(tmp_path, {"train": [make_record("ann_0"), make_record("bob_0")]})
    report = tmp_path / "report.json"
    lag = {"mean": 78.0, "ci95": [70.0, 90.0]}
    uncertain = {"mean": 120.0, "ci95": [20.0, 200.0]}
    report.write_text(
        json.dumps({"people": {"ann": {"best_lag_ms": lag}, "bob": {"best_lag_ms": uncertain}}})
    )
    plain, moved = (
        WindowSampler(folder, "train", dataclasses.replace(LANDMARK, sound_offsets=path)).store
        for path in (None, str(report))
    )
    np.testing.assert_array_equal(moved[0].mel[:-8], plain[0].mel[8:])
    assert (moved[0].mel[-8:] == np.float32(MEL_FLOOR)).all()
    np.testing.assert_array_equal(moved[1].mel, plain[1].mel)
    report.write_text("{}")
    with pytest.raises(UserError, match="not a report of landmarks by person"):
        sound_offsets.read_offsets(report)


def test_people_are_told_apart_by_their_clips_names():
    names = {"train/s4/x.mkv": "train/s4", "test/test_00003_001.mp4": "test_00003",
             "speech_00004_000": "speech_00004", "clip": "clip"}  # fmt: skip
    assert {name: records.person_of(name) for name in names} == names
