import dataclasses

import numpy as np
import pytest

from talkjax.conventions import MEL_FLOOR
from talkjax.data import loader, sync_samples
from tests.data_pipelines.synthetic import make_record, write_shards

SYNC = loader.LoaderOptions(
    stage="sync", batch_size=4, window=12, region=(0, 0, 1, 1), audio_masks=0
)


def numbered(clip_id="clip", **changes):
    """A record whose mel frames hold their number."""
    record = make_record(clip_id)
    mel = np.repeat(np.arange(len(record.mel), dtype=np.float32)[:, None], 80, 1)
    return dataclasses.replace(record, mel=mel, **changes)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    clips = {"train": [make_record("a"), make_record("b", fps=30.0)], "test": [numbered("c")]}
    return write_shards(tmp_path_factory.mktemp("sync"), clips)


def picture_number(lips):
    return lips[..., :3, :, :].mean((-3, -2, -1)).round()


def test_batches(shards):
    for margin in (0, 3):
        options = dataclasses.replace(SYNC, sound_margin=margin)
        batch = next(iter(loader.train_dataset(shards, options, seed=0)))
        assert {k: (v.shape, v.dtype.name) for k, v in batch.items()} == {
            "lips": ((4, 12, 32, 32, 3), "uint8"),
            "mel": ((4, 4 * (7 + 2 * margin) + 20, 80), "float32"),
            "shape": ((4, 8, 80), "float32"),
        }
        assert all(np.isfinite(v).all() for v in batch.values())


def test_pictures_and_sound_are_of_the_same_time(shards):
    for margin in (0, 2):
        options = dataclasses.replace(SYNC, sound_margin=margin)
        for batch in loader.eval_dataset(shards, options):
            for lips, mel, start in zip(batch["lips"], batch["mel"], batch["start"], strict=True):
                np.testing.assert_allclose(picture_number(lips), start + np.arange(12), atol=2)
                # The 20 frames of the first window lie about its third picture.
                first = 4 * margin
                if start > margin:
                    np.testing.assert_allclose(mel[first, 0], 4 * (start + 2) - 10)
                    np.testing.assert_allclose(mel[first + 19, 0], 4 * (start + 2) + 9)
    assert mel[-1, 0] < 0 or start + 12 + margin < 75  # silence beyond the clip


def test_the_nearest_picture_stands_for_a_tick():
    ticks = np.array([0.0, 0.9, 1.7, 4.2])
    found, off = sync_samples.nearest_frames(ticks, np.arange(6))
    assert found.tolist() == [0, 1, 2, 3, 3, 3]
    np.testing.assert_allclose(off, [0, 0.1, 0.3, 1.2, 0.2, 0.8], atol=1e-9)
    assert sync_samples.nearest_frames(ticks[:1], np.arange(2))[0].tolist() == [0, 0]


def test_runs_have_speech_and_a_face():
    record = make_record("x", ticks=100)
    record.mel[:] = MEL_FLOOR
    usable = np.arange(100)
    # Silent throughout: nothing to prefer, and nothing to fail at.
    assert len(sync_samples.speaking_starts(record, usable, 12)) == 89
    record.mel[200:] = -3.0
    starts = sync_samples.speaking_starts(record, usable, 12)
    assert starts.min() == 50 - 6 and starts.max() == 88
    without = np.delete(usable, [60, 61])  # a gap that no neighbour bridges
    starts = sync_samples.speaking_starts(record, without, 12)
    assert not np.isin(np.arange(50, 60), starts).any() and 70 in starts and 45 in starts
    assert not len(sync_samples.speaking_starts(record, usable[:0], 12))


def test_lip_shapes_are_of_the_middle_picture_and_know_no_face():
    record = make_record("x")
    shapes = sync_samples.lip_shapes(record, 5, 12)
    assert shapes.shape == (8, 80) and shapes.dtype == np.float32
    moved = dataclasses.replace(record, landmarks=record.landmarks + np.float32(0.1))
    np.testing.assert_allclose(sync_samples.lip_shapes(moved, 5, 12), shapes, atol=1e-3)
    np.testing.assert_allclose(sync_samples.lip_shapes(record, 6, 12)[:-1], shapes[1:], atol=1e-6)
    still = dataclasses.replace(record, landmarks=np.zeros_like(record.landmarks))
    assert not sync_samples.lip_shapes(still, 0, 12).any()
    middle = record.landmarks[7, -40:] - record.landmarks[:, -40:].mean(0)
    assert np.corrcoef(middle.ravel(), shapes[0])[0, 1] > 0.999


def test_silent_clips_do_not_crash(tmp_path):
    silent = make_record("silent")
    silent.mel[:] = MEL_FLOOR
    data = write_shards(tmp_path, {"train": [silent]})
    batch = next(iter(loader.train_dataset(data, SYNC, seed=0)))
    assert np.isfinite(batch["mel"]).all()
