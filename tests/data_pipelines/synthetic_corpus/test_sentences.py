import numpy as np
import pytest

from data_pipelines.synthetic.animation import visemes
from data_pipelines.synthetic.speech import espeak, sentences
from data_pipelines.synthetic.speech.voices import LANGUAGES, Voice


def draw(language, split, count, seed=0):
    rng = np.random.default_rng(seed)
    return [sentences.sample_sentence(rng, language, split) for _ in range(count)]


@pytest.mark.parametrize("language", sentences.LANGUAGES)
def test_thousands_of_sentences_in_disjoint_splits(language):
    train, test = (set(draw(language, split, 1000)) for split in sentences.SPLITS)
    assert len(train) > 900 and len(test) > 850
    assert not train & test
    assert all(sentences.assign_split(s) == "train" for s in train)
    for sentence in train:
        assert sentence.lstrip("¿")[0].isupper() and sentence[-1] in ".?"
        assert "{" not in sentence and "  " not in sentence and 20 < len(sentence) < 130


def test_the_same_seed_gives_the_same_sentences():
    assert draw("de", "train", 20, 7) == draw("de", "train", 20, 7) != draw("de", "train", 20, 8)


@pytest.mark.parametrize("language", ["en", "es", "de", "fr", "it"])
def test_sentences_are_seconds_long_and_rich_in_visible_sounds(language):
    lengths, sounds = [], []
    for sentence in draw(language, "test", 15):
        speech = espeak.speak(sentence, Voice(language, "m3"))
        lengths.append(len(speech.samples) / speech.rate)
        sounds += [visemes.first_sound(p.symbol) for p in speech.phonemes]
    assert min(lengths) > 1.2 and 2 < np.mean(lengths) < 5 and max(lengths) < 7
    assert "" not in sounds  # every symbol has a viseme
    share = {name: np.isin(sounds, list(group)).mean() for name, group in (
        ("bilabial", visemes.BILABIAL), ("labiodental", visemes.LABIODENTAL),
        ("rounded", "uoʊɔyøœw"), ("open", "aɑæɐʌɒ"),
    )}  # fmt: skip
    assert share["bilabial"] > 0.08 and share["labiodental"] > 0.01
    assert share["rounded"] > 0.05 and share["open"] > 0.05


def test_every_voice_has_its_sentences():
    for language in LANGUAGES:
        assert draw(language, "train", 1)
    with pytest.raises(ValueError, match="'xx'"):
        draw("xx", "train", 1)
    with pytest.raises(ValueError, match="split"):
        draw("en", "dev", 1)
