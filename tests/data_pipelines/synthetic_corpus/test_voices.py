import numpy as np
import pytest

from data_pipelines.synthetic.speech import espeak, voices


def test_splits_share_no_voice():
    assert not set(voices.VARIANTS["train"]) & set(voices.VARIANTS["test"])
    heard = {}
    for split in voices.VARIANTS:
        rng = np.random.default_rng(0)
        heard[split] = {voices.sample_voice(rng, split) for _ in range(400)}
        assert {v.language for v in heard[split]} == set(voices.LANGUAGES)
        assert {v.variant for v in heard[split]} == set(voices.VARIANTS[split])
        assert all(130 <= v.rate <= 210 and 20 <= v.pitch <= 80 for v in heard[split])
    pairs = [{(v.language, v.variant) for v in heard[s]} for s in voices.VARIANTS]
    assert not pairs[0] & pairs[1] and len(pairs[0]) > 100


def test_the_same_seed_gives_the_same_voice():
    draws = [voices.sample_voice(np.random.default_rng(5), "test") for _ in range(2)]
    assert draws[0] == draws[1]


def test_every_variant_exists():
    for variant in (*voices.VARIANTS["train"], *voices.VARIANTS["test"]):
        assert espeak.speak("Papa", voices.Voice("es", variant)).samples.std() > 0.01


def test_unknown_split():
    with pytest.raises(ValueError, match="split"):
        voices.sample_voice(np.random.default_rng(0), "validation")


def test_drawn_voices_differ_and_repeat():
    rng = np.random.default_rng(0)
    drawn = [voices.sample_random_voice(rng) for _ in range(200)]
    assert len({v.timbre for v in drawn}) == 200
    assert {v.language for v in drawn} == set(voices.LANGUAGES)
    assert {v.variant for v in drawn} == {voices.RANDOM_VARIANT}
    assert not {voices.RANDOM_VARIANT} & {*voices.VARIANTS["train"], *voices.VARIANTS["test"]}
    pitches = [int(v.timbre[0].split()[1]) for v in drawn]
    assert min(pitches) < 80 and max(pitches) > 150
    assert voices.sample_random_voice(np.random.default_rng(0)) == drawn[0]


def test_a_drawn_voice_is_heard():
    low = voices.Voice("en", voices.RANDOM_VARIANT, timbre=("pitch 60 80",))
    high = voices.Voice("en", voices.RANDOM_VARIANT, timbre=("pitch 180 240",))
    heard = [espeak.speak("A long road", voice) for voice in (low, high, low)]
    first, other, again = heard
    np.testing.assert_array_equal(first.samples, again.samples)
    assert [p.symbol for p in first.phonemes] == [p.symbol for p in other.phonemes]

    def pitch(speech):
        sound = speech.samples[len(speech.samples) // 4 : len(speech.samples) // 2]
        spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 1 << 16)) ** 2
        loops = np.fft.irfft(spectrum)[: speech.rate // 50]
        shortest = speech.rate // 400
        return speech.rate / (shortest + loops[shortest:].argmax())

    assert pitch(other) > 1.7 * pitch(first)
