from dataclasses import replace

import numpy as np
import pytest

from data_pipelines.synthetic.animation import visemes
from data_pipelines.synthetic.animation.visemes import CHANNELS, ArticulationStyle
from data_pipelines.synthetic.speech import espeak
from data_pipelines.synthetic.speech.phonemes import Phoneme, is_plosive
from data_pipelines.synthetic.speech.sentences import sample_sentence
from data_pipelines.synthetic.speech.voices import Voice

JAW, PART, PRESS, ROUND, SPREAD, TUCK, TONGUE = range(len(CHANNELS))


def say(*symbols, length=0.1, lead=0.3):
    """Phonemes of one length, with silence before and after."""
    out = []
    for i, symbol in enumerate(symbols):
        start = lead + i * length
        hold = 0.6 * length if is_plosive(symbol) else 0.0
        out.append(Phoneme(symbol, start, start + length, hold))
    return tuple(out), lead + len(symbols) * length + 0.5


def at(curves, time):
    return curves[round(time * 100)]


def middle(*symbols, which=1, length=0.12, **kwargs):
    phonemes, duration = say(*symbols, length=length)
    p = phonemes[which]
    return at(visemes.compute_curves(phonemes, duration, **kwargs), (p.start + p.end) / 2)


@pytest.mark.parametrize("language,variant", [("en-us", "m3"), ("es", "f1"), ("de", "f4")])
@pytest.mark.parametrize("rate", [130, 210])
def test_lips_shut_at_every_bilabial_and_bite_at_every_labiodental(language, variant, rate):
    rng = np.random.default_rng(rate)
    for _ in range(4):
        text = "A" + sample_sentence(rng, language, "train")  # starts with something audible
        speech = espeak.speak(text, Voice(language, variant, rate))
        duration = len(speech.samples) / speech.rate
        style = visemes.sample_style(rng)
        curves = visemes.compute_curves(speech.phonemes, duration, style=style)
        assert curves.shape == (int(np.ceil(duration * 100 - 1e-6)) + 1, 7)
        assert curves.dtype == np.float32 and curves.min() >= 0 and curves.max() <= 1
        times = np.arange(len(curves)) / 100
        closures = visemes.find_closures(speech.phonemes)
        names = [visemes.first_sound(p.symbol) for p in speech.phonemes]
        assert len(closures) == sum(n in visemes.BILABIAL for n in names)
        for start, end in closures:
            assert end - start >= 0.0399
            inside = curves[(times >= start) & (times <= end)]
            assert (inside[:, PART] == 0).all() and (inside[:, PRESS] >= 0.95 * style.press).all()
        frames = np.arange(0, duration, 0.04)
        assert all(((frames >= a) & (frames <= b)).any() for a, b in closures)
        for phoneme, name in zip(speech.phonemes, names, strict=True):
            if name in visemes.LABIODENTAL:
                span = (times >= phoneme.start - 0.01) & (times <= phoneme.end + 0.01)
                assert curves[span, TUCK].max() >= 0.8


def test_closure_is_seen_before_the_hold_is_heard():
    phonemes, duration = say("a", "p", "a", length=0.12)
    ((start, end),) = visemes.find_closures(phonemes)
    assert start == pytest.approx(0.42 - 0.03) and end == pytest.approx(0.42 - 0.03 + 0.072)
    part = visemes.compute_curves(phonemes, duration)[:, PART]
    assert part[33] > 0.75 and part[58] > 0.75  # open in both vowels


def test_even_the_shortest_vowel_between_closures_opens_the_lips():
    phonemes, duration = say("a", "m", "ə", "b", "a", length=0.06)
    curves = visemes.compute_curves(phonemes, duration)
    (_, first), (second, _) = visemes.find_closures(phonemes)
    assert second > first and at(curves, (first + second) / 2)[PART] > 0.2


def test_classes():
    names = {
        s: visemes.classify(s) for s in ("p", "f", "w", "tʃ", "ˈuː", "ˈaɪ", "iː", "s", "k", "")
    }
    assert list(names.values()) == [
        "bilabial", "labiodental", "rounded", "rounded", "rounded", "open", "close", "sibilant",
        "other", "other",
    ]  # fmt: skip


@pytest.mark.parametrize("symbol,lead", [("t", 0.04), ("p", 0.03), ("i", 0.0), ("a", -0.02)])
def test_the_mouth_leads_consonants_and_follows_open_vowels(symbol, lead, monkeypatch):
    """Measured on people. A phoneme moved by hand shows what its lead does."""
    phonemes, duration = say("i", symbol, "i", length=0.1)
    shown = visemes.compute_curves(phonemes, duration)
    monkeypatch.setattr(visemes, "_LEADS", dict.fromkeys(visemes._LEADS, 0.0))
    p = phonemes[1]
    moved = phonemes[0], replace(p, start=p.start - lead, end=p.end - lead), phonemes[2]
    np.testing.assert_allclose(shown, visemes.compute_curves(moved, duration), atol=1e-6)


def test_sounds_have_their_shapes():
    wide, narrow, rounded = middle("t", "ˈa", "t"), middle("t", "i", "t"), middle("t", "u", "t")
    assert wide[JAW] > 0.7 > 0.35 > narrow[JAW]
    assert narrow[SPREAD] > 0.5 > 0.25 > wide[SPREAD]
    assert rounded[ROUND] > 0.7 > 0.2 > narrow[ROUND]
    hiss, hush = middle("a", "s", "a"), middle("a", "ʃ", "a")
    assert hiss[JAW] < 0.35 and hiss[PART] > 0.8 and hiss[SPREAD] > 0.3
    assert hush[ROUND] > 0.5
    assert middle("a", "n", "a")[TONGUE] > 0.6
    # What is said behind the lips leaves them to the neighbours.
    assert middle("u", "h", "u")[ROUND] > 0.7 and middle("i", "h", "i")[ROUND] < 0.1
    assert middle("a", "k", "a")[JAW] > middle("a", "t", "a")[JAW] + 0.1


def test_rounding_is_anticipated():
    phonemes, duration = say("t", "t", "u", length=0.08)
    curves = visemes.compute_curves(phonemes, duration)
    unrounded = visemes.compute_curves(say("t", "t", "i", length=0.08)[0], duration)
    assert at(curves, phonemes[2].start - 0.08)[ROUND] > 0.25
    assert at(unrounded, phonemes[2].start - 0.08)[ROUND] < 0.1


def test_a_diphthong_moves():
    phonemes, duration = say("ˈaɪ", length=0.2)
    curves = visemes.compute_curves(phonemes, duration)
    assert at(curves, 0.35)[JAW] > at(curves, 0.47)[JAW] + 0.15
    assert at(curves, 0.47)[SPREAD] > at(curves, 0.35)[SPREAD] + 0.15


def test_pauses_rest_with_lips_closed():
    phonemes, _ = say("a", "a")
    later = tuple(Phoneme(p.symbol, p.start + 1, p.end + 1, p.hold) for p in phonemes)
    curves = visemes.compute_curves((*phonemes, *later), 2.5)
    for time in (0.1, 0.8, 1.1, 2.0):
        assert at(curves, time)[PART] < 0.05 and at(curves, time)[JAW] < 0.05
        assert at(curves, time)[PRESS] < 0.05  # relaxed
    bridged = visemes.compute_curves((*phonemes, Phoneme("a", 0.58, 0.7)), 1.0)
    assert at(bridged, 0.54)[PART] > 0.8  # no time for it


def test_unknown_symbols_and_no_symbols_are_harmless():
    curves = visemes.compute_curves((Phoneme("ʘ", 0.2, 0.4),), 0.6)
    assert np.isfinite(curves).all() and 0.1 < at(curves, 0.3)[JAW] < 0.5
    assert not visemes.compute_curves((), 0.5)[:, :SPREAD].any()
    assert visemes.find_closures(()).shape == (0, 2)


def test_movement_is_smooth_enough_for_video():
    speech = espeak.speak("Mama, papa, fabulous vowels.", Voice("en-us", "m3", 190))
    curves = visemes.compute_curves(speech.phonemes, len(speech.samples) / speech.rate)
    assert np.abs(np.diff(curves[:, JAW])).max() < 0.35
    assert np.abs(np.diff(curves[:, ROUND])).max() < 0.35


def test_style_leaves_closures_alone():
    phonemes, duration = say("a", "p", "u", "f", "a")
    plain = visemes.compute_curves(phonemes, duration)
    strong = visemes.compute_curves(
        phonemes, duration, style=ArticulationStyle(1.12, 1.08, 1.1, 1.15)
    )
    np.testing.assert_array_equal(plain[:, PRESS] >= 0.95, strong[:, PRESS] >= 0.95)
    assert strong[:, JAW].max() >= plain[:, JAW].max()
    assert np.corrcoef(plain[:, JAW], strong[:, JAW])[0, 1] > 0.98
    soft = visemes.compute_curves(phonemes, duration, style=ArticulationStyle(press=0.5))
    assert soft[:, PRESS].max() == 0.5 and (soft[:, PART] == plain[:, PART]).all()
    quick, slow = (
        visemes.compute_curves(phonemes, duration, style=ArticulationStyle(speed=speed))
        for speed in (1.3, 0.75)
    )
    assert np.abs(np.diff(quick[:, JAW])).max() > 1.1 * np.abs(np.diff(slow[:, JAW])).max()


def test_styles_differ_as_people_do():
    rng = np.random.default_rng(3)
    styles = [visemes.sample_style(rng) for _ in range(200)]
    opening = np.array([s.strength * s.openness for s in styles])
    # 0.14 to 0.32 interocular distances, of which 0.19 is the median.
    assert 0.55 < opening.min() < 0.75 and 1.35 < opening.max() < 1.75
    assert np.median([s.rounding * s.strength for s in styles]) < 0.8
    assert all(0.4 <= s.press <= 1 and 0.75 <= s.speed <= 1.3 for s in styles)
