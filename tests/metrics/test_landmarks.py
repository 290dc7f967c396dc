"""The landmark network alone, on models whose answers are known."""

import numpy as np
import pytest

from talkjax import conventions
from talkjax.data.records import ClipRecord
from talkjax.errors import UserError
from talkjax.metrics import landmarks


def record(name: str, seed: int, ticks: int = 80) -> ClipRecord:
    """A clip whose mel says how far the mouth is open."""
    rng = np.random.default_rng(seed)
    opening = np.interp(np.arange(ticks) / 4, np.arange(ticks // 4 + 2), rng.random(ticks // 4 + 2))
    points = np.repeat(np.random.default_rng(9).uniform(0.3, 0.7, (1, 131, 2)), ticks, 0)
    points[:, conventions.positions(conventions.LEFT_EYE)] = (0.35, 0.2)
    points[:, conventions.positions(conventions.RIGHT_EYE)] = (0.65, 0.2)
    upper, lower = conventions.positions((13, 14))
    points[:, upper] = (0.5, 0.6)
    points[:, lower, 0], points[:, lower, 1] = 0.5, 0.6 + 0.1 * opening
    mel = np.repeat(opening, 4)[:, None] * np.ones((1, 80))
    return ClipRecord(
        clip_id=name,
        timestamps=(np.arange(ticks) / 25).astype(np.float32),
        frame_landmarks=points.astype(np.float32),
        transforms=np.tile(np.eye(2, 3, dtype=np.float32), (ticks, 1, 1)),
        face_found=np.ones(ticks, bool),
        landmarks=points.astype(np.float32),
        mel=mel.astype(np.float32),
        source_fps=25.0,
    )


def listening(mel, pose, references):
    """Opens the mouth as the mel at each tick says."""
    content = np.repeat(references.landmarks[:1, conventions.NUM_POSE :], len(mel), 0)
    upper, lower = conventions.positions((13, 14), conventions.CONTENT)
    content[:, lower, 1] = content[:, upper, 1] + 0.1 * mel[:, 8, 0]
    return content


def deaf(mel, pose, references):
    return np.repeat(references.landmarks[:, conventions.NUM_POSE :].mean(0)[None], len(mel), 0)


def evaluate(predict, clips=None):
    clips = [record("a", 1), record("b", 2), record("c", 3, 60)] if clips is None else clips
    return landmarks.evaluate_landmarks(predict, clips, window=25, references=4)


def test_one_that_listens_is_right_everywhere():
    metrics = evaluate(listening)["metrics"]
    assert metrics["opening_correlation"]["mean"] == pytest.approx(1, abs=1e-4)
    assert metrics["l1"]["mean"] == pytest.approx(0, abs=1e-4)
    assert metrics["articulation"]["mean"] == pytest.approx(1, abs=1e-3)
    assert metrics["jitter"]["mean"] == pytest.approx(1, abs=0.01)
    assert abs(metrics["wrong_audio_correlation"]["mean"]) < 0.7
    assert metrics["silence_leak"]["mean"] == pytest.approx(0, abs=1e-4)


def test_one_that_is_deaf_is_as_good_as_a_still_face():
    result = evaluate(deaf)
    metrics = result["metrics"]
    for leak in ("silence_leak", "noise_leak"):
        assert metrics[leak]["mean"] == pytest.approx(0, abs=1e-4)
    assert metrics["l1"]["mean"] == pytest.approx(metrics["l1_static"]["mean"], rel=1e-4)
    assert set(result["per_clip"]) == {"a", "b", "c"} and metrics["l1"]["n"] == 3
    assert "opening_correlation" in landmarks.format_table(result)


def test_l1_is_in_interocular_units():
    def shifted(mel, pose, references):
        return listening(mel, pose, references) + 0.03  # a tenth of 0.3, in x and in y

    assert evaluate(shifted)["metrics"]["l1"]["mean"] == pytest.approx(0.1, rel=1e-3)


def late(mel, pose, references):
    """Opens the mouth 80 ms after the sound."""
    return listening(np.roll(mel, 2, axis=0), pose, references)


def test_lag_is_found_in_milliseconds_by_person():
    clips = [
        record(f"{who}/{i}", seed) for who, i, seed in (("ann", 0, 1), ("ann", 1, 2), ("bob", 0, 3))
    ]
    result = landmarks.evaluate_landmarks(late, clips, window=25, references=4)
    assert result["lag"]["best_lag_ms"]["mean"] == pytest.approx(80, abs=15)
    assert result["lag"]["correlation_at_best_lag"]["mean"] > 0.9
    assert result["lag"]["opening_correlation"]["mean"] < 0.9
    assert result["people"]["ann"]["clips"] == 2 and result["people"]["bob"]["clips"] == 1
    low, high = result["people"]["ann"]["best_lag_ms"]["ci95"]
    assert low - 1e-6 <= result["people"]["ann"]["best_lag_ms"]["mean"] <= high + 1e-6
    assert result["people"]["bob"]["best_lag_ms"]["ci95"] is None
    assert "ann " in landmarks.format_table(result)


def test_early_lips_have_a_negative_lag():
    truth = np.sin(np.arange(80.0) ** 1.2)
    curves = np.stack([landmarks.lagged_correlations(np.roll(truth, -3), truth)])
    assert landmarks.find_best_lag(curves)[0] == pytest.approx(-120, abs=15)


def test_a_still_face_does_not_correlate():
    clip = record("a", 1)
    known = landmarks.choose_references(clip, 4, 0, clip.num_ticks)
    content = landmarks.predict_halves(deaf, clip, (known, known), 25, clip.mel)
    assert landmarks.clip_metrics(content, (known, known), clip)["opening_correlation"] == 0


def test_each_half_gets_references_with_sound_from_the_other(monkeypatch):
    monkeypatch.setattr(landmarks.reference, "speaks", lambda candidates, loudness: True)
    clip = record("a", 1, 100)
    chosen = landmarks.choose_halves(clip, 4)
    for references, first, last in zip(chosen, (62, 0), (100, 38), strict=True):
        assert references.heard.all()
        for face, sound in zip(references.landmarks, references.mel, strict=True):
            same = [i for i, f in enumerate(clip.frame_landmarks) if np.array_equal(f, face)]
            tick = next(i for i in same if first <= i < last)
            expected = conventions.mel_windows(clip.mel, np.array([tick]))[0]
            np.testing.assert_array_equal(sound, expected)
    content = landmarks.predict_halves(deaf, clip, chosen, 25, clip.mel)
    assert (np.ptp(content[:50], axis=0) < 1e-6).all()
    assert (np.ptp(content[50:], axis=0) < 1e-6).all()


def test_without_a_face_in_the_other_half_nothing_is_heard(monkeypatch):
    monkeypatch.setattr(landmarks.reference, "speaks", lambda candidates, loudness: True)
    clip = record("a", 1, 100)
    clip.face_found[40:] = False
    first, second = landmarks.choose_halves(clip, 4)
    assert not first.heard.any() and second.heard.all()


def test_the_network_hears_its_context():
    seen = []

    def noting(mel, pose, references):
        seen.append(mel[:, 8, 0])
        return listening(mel[3 : 3 + len(pose)], pose, references)

    clip = record("a", 1)
    known = landmarks.choose_references(clip, 4, 0, clip.num_ticks)
    content = landmarks.predict_clip(noting, clip, known, 25, clip.mel, (3, 5))
    assert {len(heard) for heard in seen} == {33}
    assert (seen[0][:3] == np.float32(conventions.MEL_FLOOR)).all()  # before the clip
    plain = landmarks.predict_clip(listening, clip, known, 25, clip.mel)
    np.testing.assert_array_equal(content, plain)


def test_windows_of_one_length_cover_every_tick():
    seen = []

    def noting(mel, pose, references):
        assert mel.shape == (25, 16, 80) and pose.shape == (25, 74, 2)
        assert references.landmarks.shape == (4, 131, 2)
        seen.append(len(mel))
        return listening(mel, pose, references)

    clip = record("short", 1, 20)
    content = landmarks.predict_clip(
        noting, clip, landmarks.choose_references(clip, 4, 0, clip.num_ticks), 25, clip.mel
    )
    assert content.shape == (20, 57, 2) and np.isfinite(content).all() and len(seen) == 1


def test_references_come_from_measured_faces_only():
    clip = record("a", 1)
    clip.face_found[:] = False
    clip.face_found[7:9] = True
    chosen = landmarks.choose_references(clip, 4, 0, 80).landmarks
    assert all(any(np.array_equal(c, clip.frame_landmarks[i]) for i in (7, 8)) for c in chosen)
    clip.face_found[:] = False
    with pytest.raises(UserError, match="no frame with a face"):
        landmarks.choose_references(clip, 4, 0, clip.num_ticks)
    with pytest.raises(UserError, match="no clip"):
        evaluate(listening, [])
