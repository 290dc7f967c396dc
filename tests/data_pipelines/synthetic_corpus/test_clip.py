"""Real clips, small ones: speech, avatar, video, truth."""

import dataclasses
import hashlib

import numpy as np
import pytest

from data_pipelines.synthetic import clip as clips
from data_pipelines.synthetic import sidecar
from data_pipelines.synthetic.plan import CorpusSettings, plan_corpus
from talkjax import conventions
from talkjax.media import audio
from talkjax.media.video import VideoReader, probe

SETTINGS = CorpusSettings(size=128, fps=25.0, seconds=1.5)


def first(**changes):
    return dataclasses.replace(
        plan_corpus(1, 1, 5, 0, SETTINGS)[0], snr_db=None, room=False, **changes
    )


@pytest.fixture(scope="module")
def person():
    return clips.make_person(first().identity_key)


@pytest.fixture(scope="module")
def made(tmp_path_factory, person):
    out = tmp_path_factory.mktemp("corpus")
    (out / "train").mkdir()
    planned = first(pause="start", pause_seconds=1.0)
    stages = []
    outcome = clips.make_clip(planned, SETTINGS, out, person, stages.append)
    assert set(stages) == {"paint", "speech", "render", "encode"}
    return out / "train" / f"{planned.clip_id}.mp4", outcome, planned


def test_it_is_an_ordinary_video_with_sound(made):
    path, outcome, planned = made
    info = probe(path)
    assert (info.width, info.height, float(info.fps)) == (128, 128, 25.0)
    times = [frame.time for frame in VideoReader(path)]
    np.testing.assert_allclose(times, np.arange(outcome["frames"]) / 25, atol=1e-3)
    assert outcome["frames"] >= 0.7 * 25 * SETTINGS.seconds
    assert len(audio.load_audio(path)) / 16000 == pytest.approx(outcome["seconds"], abs=0.05)
    assert outcome["clip_id"] == planned.clip_id == path.stem
    names = sorted(p.name for p in path.parent.iterdir())
    assert names == [f"{path.stem}.{suffix}" for suffix in ("json", "mp4", "npz")]


def test_the_truth_fits_the_video(made):
    path, outcome, planned = made
    truth = sidecar.load_truth(path)
    frames = outcome["frames"]
    assert truth.landmarks.shape == (frames, 478, 3) and truth.landmarks.dtype == np.float32
    assert truth.poses.shape == (frames, len(sidecar.POSE_CHANNELS))
    assert abs(len(truth.curves) - 100 * outcome["seconds"]) <= 2 and truth.curves.shape[1] == 7
    assert np.isfinite(truth.landmarks).all()
    inside = (truth.landmarks[..., :2] > 0) & (truth.landmarks[..., :2] < 128)
    assert inside.mean() > 0.99
    info = truth.info
    assert info["plan"] == planned.to_json() and info["settings"] == dataclasses.asdict(SETTINGS)
    assert set(info["spoken"]) <= set(planned.sentences) and info["spoken"]
    starts = [start for _, start, _ in info["phonemes"]]
    assert starts == sorted(starts) and 1.0 <= starts[0] < starts[-1] < outcome["seconds"]
    for key in ("look", "shape", "light", "camera", "props", "capture"):
        assert info[key]
    assert ((truth.bilabial >= 1.0) & (truth.bilabial <= outcome["seconds"])).all()
    assert sidecar.is_finished(path, planned.to_json(), dataclasses.asdict(SETTINGS))


def test_a_pause_is_silent_and_the_mouth_rests(made):
    path, _, _ = made
    sound = audio.load_audio(path)
    assert np.abs(sound[: int(0.9 * 16000)]).max() < 2e-3 < 0.1 < np.abs(sound[16000:]).max()
    truth = sidecar.load_truth(path)
    opening = conventions.mouth_opening(conventions.select(truth.landmarks)[..., :2])
    assert np.ptp(opening[:20]) < 0.25 * np.ptp(opening)


def test_lips_are_shut_at_bilabials(person, tmp_path):
    (tmp_path / "train").mkdir()
    planned = first(sentences=("Bob may map a happy baby.",) * 2)
    outcome = clips.make_clip(planned, SETTINGS, tmp_path, person)
    truth = sidecar.load_truth(tmp_path / "train" / f"{planned.clip_id}.mp4")
    assert len(truth.bilabial) >= 5 or planned.voice.language[:2] != "en"
    opening = conventions.mouth_opening(conventions.select(truth.landmarks)[..., :2])
    at = np.arange(outcome["frames"]) / 25
    for middle in truth.bilabial.mean(1):
        near = opening[np.abs(at - middle) <= 0.06]
        assert near.min() < 0.1 * opening.max()


def test_the_same_plan_gives_the_same_files(made, person, tmp_path):
    path, _, planned = made
    (tmp_path / "train").mkdir()
    clips.make_clip(planned, SETTINGS, tmp_path)  # a person painted anew
    for name in (path.name, *(p.name for p in sidecar.sidecar_paths(path))):
        one, other = path.parent / name, tmp_path / "train" / name
        if name.endswith(".mp4"):
            one, other = (
                hashlib.sha256(b"".join(f.rgb.tobytes() for f in VideoReader(p))).digest()
                for p in (one, other)
            )
            assert one == other
        else:
            assert one.read_bytes() == other.read_bytes(), name


def test_a_clip_that_cannot_be_finished_leaves_no_file(made, person, tmp_path, monkeypatch):
    (tmp_path / "train").mkdir()
    render = clips.Avatar.render

    def fail_at_a_blink(avatar, pose):
        if pose.blink > 0.5:
            raise RuntimeError("broken")
        return render(avatar, pose)

    monkeypatch.setattr(clips.Avatar, "render", fail_at_a_blink)
    with pytest.raises(RuntimeError, match="broken"):
        clips.make_clip(made[2], SETTINGS, tmp_path, person)
    assert not list((tmp_path / "train").iterdir())


def test_a_middle_pause_lies_between_sentences():
    planned = first(pause="middle", pause_seconds=1.5)
    samples, rate, phonemes, spoken = clips.speak_sentences(planned, SETTINGS)
    assert len(spoken) >= 2
    loud = np.abs(samples) > 0.01 * np.abs(samples).max()
    gaps = np.diff(np.flatnonzero(loud)) / rate
    assert gaps.max() >= 1.5
    assert (len(samples) / rate * 25) % 1 == pytest.approx(0, abs=0.01)
    assert max(p.end for p in phonemes) <= len(samples) / rate


def test_other_rates_and_lengths():
    settings = CorpusSettings(size=128, fps=30.0, seconds=5.0)
    planned = plan_corpus(1, 1, 5, 0, settings)[0]
    shown = clips.make_performance(planned, settings)
    assert len(shown.poses) >= 0.7 * 5 * 30
    assert len(shown.samples) == round(len(shown.poses) / 30 * shown.rate)
    assert len(shown.spoken) >= 1


def test_loudness_follows_the_sound():
    rate = 8000
    samples = np.zeros(2 * rate, np.float32)
    samples[rate:] = 0.5
    value = clips.compute_loudness(samples, rate, np.arange(50) / 25)
    assert value[:23].max() == 0 and value[27:].min() == pytest.approx(1)
    assert clips.compute_loudness(np.zeros(rate, np.float32), rate, np.arange(25) / 25).max() == 0


def test_settings_belong_to_clips_and_leave_the_performance_alone():
    one, other = plan_corpus(1, 2, 5, 0, SETTINGS)
    drawn = clips.sample_setting(one, SETTINGS)
    again = clips.sample_setting(one, SETTINGS)
    for name in ("light", "camera", "props", "turns", "capture"):
        assert getattr(drawn, name) == getattr(again, name)
    np.testing.assert_array_equal(drawn.background, again.background)
    assert clips.sample_setting(other, SETTINGS).capture.seed != drawn.capture.seed
    # Speech without pictures takes its poses before this step, which moves the head alone.
    poses = (clips.scene.Pose(yaw=0.1, visemes=(0.5,) * 7, blink=0.3),) * 30
    turned = dataclasses.replace(drawn, turns=clips.Turns(yaw=(0.5, 0.1, 2.0, 0.0)))
    for before, after in zip(poses, clips.stage_poses(poses, turned, SETTINGS), strict=True):
        assert after.yaw > before.yaw
        assert (after.visemes, after.blink, after.x) == (before.visemes, before.blink, before.x)
