"""Log-mel windows that are read on demand equal those of the whole track."""

import numpy as np
import pytest

from talkjax.conventions import MEL_FLOOR, mel_windows
from talkjax.media import audio
from talkjax.sampling import speech
from tests.media_files import Sound, make_media, tone


@pytest.mark.parametrize(
    ("suffix", "rate", "channels"), [(".wav", 16000, 1), (".mp3", 44100, 2), (".m4a", 48000, 1)]
)
def test_windows_are_those_of_the_whole_track(tmp_path, suffix, rate, channels):
    path = make_media(tmp_path / f"a{suffix}", sound=Sound(tone(7.3, rate, channels), rate))
    wave = audio.load_audio(path)
    stream = speech.MelStream(path)
    assert stream.ticks == audio.tick_count(len(wave)) + 1
    assert abs(stream.seconds - len(wave) / 16000) < 1 / 16000
    count = stream.ticks + 20
    whole = mel_windows(audio.log_mel(wave), count)
    for first in (0, 0, 12, 24, 90, 170):
        got = stream.windows(first, 25)
        np.testing.assert_array_equal(got, whole[first : first + 25])
    assert len(stream._mel) < 1000
    with pytest.raises(ValueError, match="earlier"):
        stream.windows(0, 25)


def test_windows_begin_before_the_track(tmp_path):
    path = make_media(tmp_path / "a.wav", sound=Sound(tone(2.0, 16000, 1), 16000))
    got = speech.MelStream(path).windows(-5, 12)
    expected = mel_windows(audio.log_mel(audio.load_audio(path)), np.arange(-5, 7))
    np.testing.assert_array_equal(got, expected)
    assert (got[:3] == np.float32(MEL_FLOOR)).all()


def test_a_templates_sound_is_read_around_its_faces(tmp_path):
    path = make_media(tmp_path / "a.wav", sound=Sound(tone(9.0, 16000, 1), 16000))
    mel = audio.log_mel(audio.load_audio(path))
    sound = speech.TemplateSound(path)
    for first in (0.0, 0.5, 5.0):  # scenes in order
        times = first + np.arange(40) / 30
        windows, loudness = sound.read(times)
        np.testing.assert_allclose(windows, mel_windows(mel, times * 25), atol=1e-5)
        frames = np.round(times[[0, -1]] * 100).astype(int)
        np.testing.assert_allclose(loudness, mel[frames[0] : frames[1] + 1].mean(1), atol=1e-5)
    assert len(sound._mel) < 500
    assert sound.read(np.arange(10) / 25) is None  # earlier than what is kept
    assert sound.read(np.arange(8.5, 12.0, 0.04)) is None  # beyond the end


def test_a_template_may_be_silent(tmp_path):
    assert speech.TemplateSound(None).read(np.arange(10) / 25) is None
    video = make_media(tmp_path / "v.mp4", [np.zeros((32, 32, 3), np.uint8)] * 5)
    assert speech.TemplateSound(video).read(np.arange(10) / 25) is None
