"""Whose lips move with the sound is followed."""

import numpy as np
import pytest

from talkjax.errors import UserError
from talkjax.media import audio
from talkjax.media.facemesh import FaceMesh
from talkjax.media.video import VideoReader
from talkjax.sampling import bundled, face_choice, template
from tests.media_files import Sound, make_media
from tests.sampling import fakes

SYLLABLES = [0.2, 0.45, 0.8, 1.0, 1.5, 1.7, 2.1, 2.4, 2.6]


def voice(seconds=3.0, rate=16000, onsets=SYLLABLES):
    time = np.arange(round(seconds * rate)) / rate
    loud = sum(np.exp(-(((time - onset) / 0.05) ** 2)) for onset in onsets)
    noise = np.random.default_rng(0).normal(0, 0.2, len(time))
    return (loud * noise + 0.001 * noise)[None].astype(np.float32)


def opening(time, onsets=SYLLABLES):
    return float(sum(0.1 * np.exp(-(((time - onset) / 0.06) ** 2)) for onset in onsets))


@pytest.mark.parametrize("other", ["still", "chews"])
def test_the_face_that_moves_with_the_sound(tmp_path, other):
    chew = np.arange(0.1, 3, 0.37)
    images = [fakes.picture(0, 192, 80)] * 75
    video = make_media(tmp_path / "t.mkv", images, sound=Sound(voice(), 16000, "pcm_s16le"))

    def script(i, where):
        wide = opening(i / 25, chew) if other == "chews" else 0.003 * (i % 2)
        xs = (16.0, 112.0) if where == "left" else (112.0, 16.0)
        return [fakes.face_at(0, opening(i / 25), x=xs[0]), fakes.face_at(0, wide, x=xs[1])]

    for where, centre in (("left", 48), ("right", 144)):
        mesh = fakes.ScriptedMesh(lambda i, where=where: script(i, where))
        path = face_choice.find_path("speaking", template.VideoTemplate(video), video, mesh, 9.0)
        assert sorted(path) == list(range(75))
        assert all(abs((box[0] + box[2]) / 2 - centre) < 12 for box in path.values())


def test_no_clear_speaker_and_no_sound(tmp_path):
    images = [fakes.picture(0, 192, 80)] * 40
    mute = make_media(tmp_path / "mute.mkv", images)
    mesh = fakes.ScriptedMesh(lambda i: [fakes.face_at(0), fakes.face_at(0, x=112.0)])
    opened = template.VideoTemplate(mute)
    with pytest.raises(UserError, match=r"^face=speaking: .*mute\.mkv has no sound"):
        face_choice.find_path("speaking", opened, mute, mesh, 9.0)
    with pytest.raises(UserError, match="a photograph has no sound"):
        face_choice.find_path("speaking", opened, None, mesh, 9.0)
    spoken = make_media(tmp_path / "s.mkv", images, sound=Sound(voice(1.6), 16000, "pcm_s16le"))
    mesh.calls = 0
    assert face_choice.find_path("speaking", opened, spoken, mesh, 9.0) == {}


def test_two_avatars(tmp_path):
    """The bundled avatar with its own sound, beside its mirror image 0.8 s late."""
    frames = [frame.rgb for frame in VideoReader(bundled.template())]
    late = frames[20:] + frames[:20]
    wave = audio.load_audio(bundled.speech())[None]
    for name, own in (("left", 0), ("right", 1)):
        pairs = [
            (a, b[:, ::-1]) if own == 0 else (b[:, ::-1], a)
            for a, b in zip(frames, late, strict=True)
        ]
        video = make_media(
            tmp_path / f"{name}.mkv", [np.concatenate(pair, 1) for pair in pairs],
            sound=Sound(wave, 16000, "pcm_s16le"),
        )  # fmt: skip
        opened = template.VideoTemplate(video)
        with FaceMesh(max_faces=2) as mesh:
            path = face_choice.find_path("speaking", opened, video, mesh, 9.0)
        middle = frames[0].shape[1]
        sides = {int((box[0] + box[2]) / 2 > middle) for box in path.values() if box is not None}
        assert sides == {own}
