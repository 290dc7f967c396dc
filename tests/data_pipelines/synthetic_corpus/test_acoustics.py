import numpy as np

from data_pipelines.synthetic.speech import acoustics

RATE = 22050


def bursts(seed=0):
    """A second of sound with pauses."""
    time = np.arange(RATE) / RATE
    sound = np.random.default_rng(seed).standard_normal(RATE) * (np.sin(2 * np.pi * 3 * time) > 0)
    return (0.1 * sound).astype(np.float32)


def test_a_room_echoes_without_shifting_the_sound():
    dry = bursts()
    for seed in range(5):
        wet = acoustics.add_room(dry, RATE, np.random.default_rng(seed))
        assert wet.shape == dry.shape and wet.dtype == np.float32
        assert np.isclose(wet.std(), dry.std(), rtol=0.02)
        shifts = np.correlate(np.pad(wet, 500), dry, "valid")
        assert shifts.argmax() == 500
        silent = dry == 0
        assert 0.005 * dry.std() < wet[silent].std() < 0.6 * dry.std()
    click = np.zeros(RATE, np.float32)
    click[1000] = 1
    response = acoustics.add_room(click, RATE, np.random.default_rng(0))
    assert not response[:990].any() or np.abs(response[:990]).max() < 1e-6
    assert np.abs(response).argmax() == 1000


def test_noise_has_its_level():
    clean = bursts()
    speech = (clean[clean != 0].astype(np.float64) ** 2).mean()
    for snr in (15.0, 35.0):
        noisy = acoustics.add_noise(clean, RATE, np.random.default_rng(1), snr)
        noise = (noisy.astype(np.float64) - clean) ** 2
        assert abs(10 * np.log10(speech / noise.mean()) - snr) < 1.0


def test_seeds_and_silence():
    clean = bursts()
    for effect in (
        lambda x, seed: acoustics.add_room(x, RATE, np.random.default_rng(seed)),
        lambda x, seed: acoustics.add_noise(x, RATE, np.random.default_rng(seed), 20.0),
    ):
        np.testing.assert_array_equal(effect(clean, 1), effect(clean, 1))
        assert (effect(clean, 1) != effect(clean, 2)).any()
        assert not effect(np.zeros(RATE, np.float32), 1).any()
        assert effect(np.zeros(0, np.float32), 1).shape == (0,)
