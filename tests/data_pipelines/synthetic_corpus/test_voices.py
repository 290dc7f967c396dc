import numpy as np
import pytest

from data_pipelines.synthetic import espeak, voices


def test_splits_share_no_voice():
    assert not set(voices.VARIANTS["train"]) & set(voices.VARIANTS["test"])
    heard = {}
    for split in voices.SPLITS:
        rng = np.random.default_rng(0)
        heard[split] = {voices.sample_voice(rng, split) for _ in range(400)}
        assert {v.language for v in heard[split]} == set(voices.LANGUAGES)
        assert {v.variant for v in heard[split]} == set(voices.VARIANTS[split])
        assert all(130 <= v.rate <= 210 and 20 <= v.pitch <= 80 for v in heard[split])
    pairs = [{(v.language, v.variant) for v in heard[s]} for s in voices.SPLITS]
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
