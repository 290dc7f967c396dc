import sys

import numpy as np
import pytest

from data_pipelines.synthetic.animation import visemes
from data_pipelines.synthetic.speech import espeak
from data_pipelines.synthetic.speech.voices import LANGUAGES, Voice
from talkjax.errors import UserError

TEXT = "Bob might push five big umbrellas, but papa put a cup of tea on the map."
VOICE = Voice("en-us", "m3")


def rms(speech, start, end):
    part = speech.samples[round(start * speech.rate) : round(end * speech.rate)]
    return float(np.sqrt((part.astype(np.float64) ** 2).mean()))


def test_phonemes_are_those_of_the_text_and_in_order():
    speech = espeak.speak(TEXT, VOICE)
    assert speech.samples.dtype == np.float32 and np.abs(speech.samples).max() <= 1
    assert 3 < len(speech.samples) / speech.rate < 6
    symbols = "".join(p.symbol for p in speech.phonemes).translate({ord(c): "" for c in "ˈˌː"})
    assert symbols.startswith("bɑbm") and symbols.endswith("mæp")
    for phoneme in speech.phonemes:
        assert phoneme.symbol
        assert 0 <= phoneme.hold <= phoneme.end - phoneme.start + 1e-9
    for one, other in zip(speech.phonemes, speech.phonemes[1:], strict=False):
        assert one.start < one.end <= other.start + 1e-9
    assert speech.phonemes[-1].end <= len(speech.samples) / speech.rate + 1e-9


@pytest.mark.parametrize("rate", [130, 210])
def test_times_are_those_of_the_sound(rate):
    speech = espeak.speak(TEXT, Voice("en-us", "m3", rate))
    vowels = [rms(speech, p.start, p.end) for p in speech.phonemes if p.symbol[0] == "ˈ"]
    # A voiceless plosive's hold is all but silent, a vowel is not.
    holds = [
        rms(speech, p.start, p.start + p.hold)
        for p in speech.phonemes
        if visemes.first_sound(p.symbol) in "ptk" and p.hold > 0.02
    ]
    assert len(holds) >= 8
    assert np.median(holds) < 0.15 * np.median(vowels)
    assert min(vowels) > max(holds)


def test_what_was_said_before_does_not_matter():
    first = espeak.speak("My boat.", Voice("en-us", "f1"))
    espeak.speak("Der Bäcker.", Voice("de", "m5", 200, 20, 70))
    again = espeak.speak("My boat.", Voice("en-us", "f1"))
    np.testing.assert_array_equal(first.samples, again.samples)
    assert first.phonemes == again.phonemes


def test_voices_sound_different():
    def duration(**kwargs):
        return len(espeak.speak(TEXT, Voice("en-us", **kwargs)).samples)

    assert duration(variant="m3", rate=210) < 0.75 * duration(variant="m3", rate=130)

    def pitch(voice):
        speech = espeak.speak("Mama", voice)
        part = speech.samples[1500:3548]
        correlation = np.correlate(part, part, "full")[len(part) :]
        return speech.rate / (50 + correlation[50:320].argmax())

    assert pitch(Voice("en-us", "f3")) > 1.5 * pitch(Voice("en-us", "m3"))
    assert pitch(Voice("en-us", "m3", pitch=80)) > 1.2 * pitch(Voice("en-us", "m3", pitch=20))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_can_be_spoken(language):
    assert len(espeak.speak("Mama, papa.", Voice(language, "f2")).phonemes) == 8


def test_errors(monkeypatch):
    with pytest.raises(ValueError, match="no voice"):
        espeak.speak("Bob", Voice("xx", "m1"))
    with pytest.raises(ValueError, match="no variant"):
        espeak.speak("Bob", Voice("de", "nobody"))
    with pytest.raises(ValueError, match="cannot say"):
        espeak.speak("", VOICE)
    assert espeak.speak("Bob", VOICE).phonemes  # as if nothing had happened
    espeak._paths.cache_clear()
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(UserError, match="--extra speech"):
        espeak.speak("Bob", VOICE)
