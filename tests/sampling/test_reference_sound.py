"""References of the landmark network come with the template's sound, where its lips speak it."""

import dataclasses

import cv2
import numpy as np
import pytest

from talkjax import conventions
from talkjax.media import audio
from talkjax.sampling import reference
from tests.media_files import Sound, make_media, tone
from tests.sampling import fakes


@pytest.fixture
def template(tmp_path):
    pictures = [fakes.picture(i) for i in range(50)]
    return make_media(tmp_path / "t.mp4", pictures, sound=Sound(tone(2.0, 16000, 1), 16000))


@pytest.mark.parametrize("speaking", [True, False])
@pytest.mark.parametrize("wanted", [True, False])
def test_sound_is_used_if_it_is_the_persons(
    sampler, options, tmp_path, template, monkeypatch, speaking, wanted
):
    seen = []
    complete = sampler.complete_content

    def spy(mel, pose, references):
        seen.append(references)
        return complete(mel, pose, references)

    monkeypatch.setattr(sampler, "complete_content", spy)
    monkeypatch.setattr(reference, "speaks", lambda candidates, loudness: speaking)
    summary = sampler.generate(
        video=template, audio=fakes.make_speech(tmp_path / "s.wav", 1.0), out=tmp_path / "o.mp4",
        options=dataclasses.replace(options, reference_sound=wanted),
        detector=fakes.ScriptedMesh(),
    )  # fmt: skip
    heard = speaking and wanted
    assert summary.reference_sound is heard and all(r.heard.all() == heard for r in seen)
    if heard:
        mel = audio.log_mel(audio.load_audio(template))
        known = conventions.mel_windows(mel, np.arange(50))
        for window in seen[0].mel:
            assert min(np.abs(window - other).max() for other in known) < 1e-4


def test_a_photograph_has_no_sound(sampler, options, tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "speaks", lambda candidates, loudness: True)
    path = tmp_path / "p.png"
    cv2.imwrite(str(path), fakes.picture(0)[..., ::-1])
    summary = sampler.generate(
        image=path, out=tmp_path / "o.mp4", options=options,
        audio=fakes.make_speech(tmp_path / "s.wav", 1.0), detector=fakes.ScriptedMesh(),
    )  # fmt: skip
    assert not summary.reference_sound


def test_lips_that_follow_the_sound_speak():
    rng = np.random.default_rng(0)
    times = np.arange(75) / 25
    syllables = np.interp(np.arange(0, 3, 0.01), np.arange(0, 3.2, 0.15), rng.random(22))
    loudness = -8 + 5 * syllables

    def candidates(opening):
        points = np.tile(rng.uniform(0.3, 0.7, (131, 2)), (75, 1, 1))
        points[:, conventions.LEFT_EYE_SLICE], points[:, conventions.RIGHT_EYE_SLICE] = 0.3, 0.6
        upper, lower = conventions.positions((13, 14))
        points[:, upper] = (0.5, 0.6)
        points[:, lower] = np.stack([np.full(75, 0.5), 0.6 + 0.1 * opening], -1)
        return [
            reference.Candidate(i, float(t), None, p)
            for i, (t, p) in enumerate(zip(times, points, strict=True))
        ]

    follows = np.interp(times, np.arange(0, 3, 0.01), syllables)
    assert reference.speaks(candidates(follows), loudness)
    assert not reference.speaks(candidates(np.full(75, 0.3)), loudness)  # the mouth stands still
    assert not reference.speaks(candidates(follows)[:10], loudness)  # too short to tell
