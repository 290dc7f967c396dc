"""Speech that arrives in pieces: the same as that of a file once it is all there."""

import numpy as np
import pytest

from talkjax import conventions
from talkjax.media import audio
from talkjax.media.live_speech import LiveSpeech
from talkjax.media.loudness import LiveGains, stream_gains
from tests.media_files import syllables


def test_gains_equal_those_of_a_file():
    powers = np.square(syllables(9.0)).reshape(-1, 160).mean(1)
    gains = stream_gains([powers])
    expected = np.array([next(gains) for _ in powers], np.float32)
    live = LiveGains()
    for start in range(0, len(powers), 37):
        live.push(powers[start : start + 37])
    np.testing.assert_allclose(live.gains(0, 900), expected, rtol=1e-5)
    live.forget(500)
    np.testing.assert_allclose(live.gains(500, 400), expected[500:], rtol=1e-5)
    assert expected.max() > 1.5  # so that there is something to compare


def test_a_gain_needs_no_later_sound():
    """With half of the sound, its level is known already."""
    powers = np.square(syllables(6.0)).reshape(-1, 160).mean(1)
    whole, half = LiveGains(), LiveGains()
    whole.push(powers)
    half.push(powers[:300])
    ratio = half.gains(200, 100) / whole.gains(200, 100)
    assert np.abs(np.log(ratio)).max() < 0.1


def test_breath_before_the_first_words_is_not_lifted():
    """As faint bursts are all that was heard, they could be taken for a quiet speaker."""
    powers = np.square(syllables(1.0, level=0.0005)).reshape(-1, 160).mean(1)
    live = LiveGains()
    live.push(powers)
    assert live.gains(0, 100, complete=True).max() > 100  # it is one, if nothing follows
    assert live.gains(0, 100).max() < 2


@pytest.mark.parametrize("level", [0.003, 0.03, 0.3])
def test_the_gain_follows_the_speaker(level):
    """After some seconds it is that of a file, whatever is expected in the beginning."""
    powers = np.square(syllables(4.0, level=level)).reshape(-1, 160).mean(1)
    live = LiveGains()
    live.push(powers)
    ratio = live.gains(300, 100) / live.gains(300, 100, complete=True)
    np.testing.assert_allclose(ratio, 1)


def test_the_next_utterance_knows_the_level():
    first = LiveSpeech(16000)
    first.push(syllables(5.0, level=0.005))
    first.end()
    hum = (0.002 * np.random.default_rng(1).standard_normal(4800)).astype(np.float32)
    heard = []
    for level in (first.level, ()):  # without syllables, nothing is known of the level
        speech = LiveSpeech(16000, level)
        speech.push(hum)
        heard.append(speech.windows(3, 1).max())
    assert heard[0] - heard[1] > 0.5


@pytest.mark.parametrize("rate", [16000, 48000, 22050])
@pytest.mark.parametrize("size", [160, 1001, 100_000])
def test_windows_equal_those_of_a_file(rate, size):
    import soxr

    wave = syllables(5.0, rate)
    known = wave
    if rate != 16000:
        known = soxr.resample(wave, rate, 16000, quality="HQ")[: -(-len(wave) * 16000 // rate)]
    ticks = audio.tick_count(len(known)) + 1
    expected = conventions.mel_windows(audio.log_mel(known), ticks)
    live = LiveSpeech(rate)
    for start in range(0, len(wave), size):
        live.push(wave[start : start + size])
    assert live.ticks is None
    live.end()
    live.end()  # harmless
    live.push(wave[:0])
    assert live.ticks == ticks and live.samples == len(known)
    np.testing.assert_allclose(live.windows(0, ticks), expected, atol=2e-3)
    np.testing.assert_allclose(live.windows(-3, 9)[3:], expected[:6], atol=2e-3)
    np.testing.assert_allclose(live.windows(-3, 1)[0], conventions.MEL_FLOOR, atol=1e-6)
    live.forget(60)
    np.testing.assert_allclose(live.windows(60, ticks - 60), expected[60:], atol=2e-3)


def test_what_has_not_arrived_is_silent():
    wave = syllables(2.0)
    live = LiveSpeech(16000)
    live.push(wave[:16000])
    windows = live.windows(0, 50)
    assert live.frames == (16000 + audio.LEAD - 512) // 160 + 1
    assert (windows[30:] == conventions.MEL_FLOOR).all() and windows[20].max() > -8
    assert (live.windows(400, 2) == conventions.MEL_FLOOR).all()


def test_memory_stays_small():
    live, wave = LiveSpeech(16000), syllables(1.0)
    for second in range(40):
        live.push(wave)
        live.forget(25 * second)
    assert len(live._powers) < 300 and len(live._gains._units) < 150
