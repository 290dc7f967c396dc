"""Log-mel windows that are read on demand equal those of the whole track."""

import numpy as np
import pytest

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
    whole = audio.mel_windows(audio.log_mel(wave), count)
    for first in (0, 0, 12, 24, 90, 170):
        got = stream.windows(first, 25)
        np.testing.assert_array_equal(got, whole[first : first + 25])
    assert len(stream._mel) < 1000
    with pytest.raises(ValueError, match="earlier"):
        stream.windows(0, 25)
