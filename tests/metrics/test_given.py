"""Videos that some other system made, evaluated without a model."""

import dataclasses

import numpy as np
import pytest

from talkjax.errors import UserError
from talkjax.metrics import baselines, evaluator, measure, protocol, sync
from talkjax.metrics.clip_evaluator import MetricModels, crops_at_ticks
from talkjax.metrics.videos import EvaluationClip
from tests.metrics.synthetic import LoudGenerator, PatchDetector, make_clip


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return [
        EvaluationClip(f"{n}.mkv", make_clip(folder / f"{n}.mkv", seed, ticks))
        for n, seed, ticks in (("a", 1, 50), ("b", 2, 62), ("c", 3, 50))
    ]


def given(clips, files, folder, **settings):
    return evaluator.evaluate_videos(
        files,
        clips,
        PatchDetector(),
        folder / "work",
        evaluator.EvaluationSettings(crop_size=64, **settings),
    )


def value(result, row, metric):
    return result.report["rows"][row][metric]["mean"]


@pytest.fixture(scope="module")
def late_files(clips, tmp_path_factory):
    """A perfect system's videos, two frames late."""
    folder, generator = tmp_path_factory.mktemp("given"), LoudGenerator(late=2)
    files = {clip.name: folder / f"{clip.path.stem}.mp4" for clip in clips}
    for clip in clips:
        generator.generate(video=clip.path, audio=clip.path, out=files[clip.name])
    return files


def test_given_videos_need_no_model(clips, late_files, tmp_path):
    result = given(clips, late_files, tmp_path)
    rows = result.report["rows"]
    assert list(rows) == ["model", "ground_truth", "copy_mouth", "copy_template", "wrong_audio"]
    for row in protocol.NEEDS_MODEL:
        assert result.report["missing"][row] == "needs a model to run"
    assert value(result, "model", "opening_lag_ms") == 80
    assert value(result, "model", "articulation") == pytest.approx(1, abs=0.15)
    assert abs(value(result, "wrong_audio", "opening_correlation")) < 0.7
    assert "psnr" not in rows["wrong_audio"] or rows["wrong_audio"]["psnr"]["n"] == 0


def test_given_videos_may_be_of_another_size(clips, late_files, tmp_path):
    """Other systems write other sizes: crops are then cut by each file's own face."""
    small = {}
    for clip in clips[:2]:
        small[clip.name] = tmp_path / clip.name
        pictures = (
            (f.time, np.pad(f.rgb, [(16, 0), (16, 0), (0, 0)], "edge"))
            for f in measure.read_frames(clip.path)
        )
        with baselines.VideoWriter.like(
            small[clip.name],
            dataclasses.replace(baselines.probe(clip.path), width=176, height=176),
        ) as writer:
            for time, rgb in pictures:
                writer.write(rgb, time)

    class Shifted(PatchDetector):
        def detect(self, rgb):
            if rgb.shape[0] == 160:
                return super().detect(rgb)
            return super().detect(rgb[16:, 16:]) + np.array([16, 16, 0], np.float32)

    made = evaluator.evaluate_videos(
        small, clips[:2], Shifted(), tmp_path / "w", evaluator.EvaluationSettings(crop_size=64)
    )
    assert value(made, "model", "psnr") > 33


def test_the_sound_that_viewers_hear_is_judged(clips, late_files, tmp_path):
    """A given video's own sound; without one the original's; without any the rest is measured."""

    class Expert:
        crop_size, sha256 = 64, "0"

        def embed_video(self, crops):
            return np.zeros((max(len(crops) - 4, 0), 2), np.float32)

        def embed_audio(self, wave):
            heard.append(len(wave))
            return np.zeros((20, 2), np.float32)

        def score(self, lips, speech, visible):
            return sync.SyncScores(1.0, 2.0, 40.0, np.zeros(31))

    def lse(files, originals):
        report = evaluator.evaluate_videos(
            files, originals, PatchDetector(), tmp_path / "w",
            evaluator.EvaluationSettings(crop_size=64, rows=("model",)),
            MetricModels(sync_expert=Expert()),
        ).report  # fmt: skip
        assert not report["failures"] and report["rows"]["model"]["psnr"]["n"] == 1
        return report["rows"]["model"]["av_offset_ms"]

    heard, clip = [], clips[0]
    silent, speaking = tmp_path / "silent.mkv", tmp_path / "speaking.mkv"
    for path, sound in ((silent, None), (speaking, clips[1].path)):
        with baselines.VideoWriter.like(path, baselines.probe(clip.path), audio=sound) as writer:
            for frame in measure.read_frames(clip.path):
                writer.write(frame.rgb, frame.time)
    assert lse({clip.name: speaking}, [clip])["mean"] == 40
    assert lse({clip.name: silent}, [clip])["n"] == 1
    assert heard == [62 * 640, 50 * 640]  # the other clip's sound, then this one's
    mute = EvaluationClip("silent.mkv", silent)
    assert lse({mute.name: silent}, [mute]) == {"mean": None, "ci95": None, "n": 0}


def test_only_the_rows_that_are_asked_for(clips, late_files, tmp_path):
    result = given(clips, late_files, tmp_path, rows=("model",))
    assert list(result.report["rows"]) == ["model"]
    assert result.report["missing"]["ground_truth"] == "not requested"
    with pytest.raises(UserError, match="unknown row 'none'"):
        given(clips, late_files, tmp_path, rows=("none",))
    with pytest.raises(UserError, match="unknown row 'silence'"):
        given(clips, late_files, tmp_path, rows=("silence",))


def test_crops_at_ticks_follow_the_clock_of_the_file(tmp_path):
    path = make_clip(tmp_path / "a.mkv", 1, 20)
    measured = measure.measure_video(path, PatchDetector())
    crops, seen = crops_at_ticks(path, measured, 64)
    assert crops.shape == (20, 64, 64, 3) and seen.all()
    # One second later on the clock, nothing is to be seen for a second.
    late = dataclasses.replace(measured, times=measured.times + 1.0)
    shifted, seen = crops_at_ticks(path, late, 64)
    assert not seen[:24].any() and seen[25:].all() and len(seen) == 45
    np.testing.assert_array_equal(shifted[25:], crops)
