"""Kokoro without its model: a session that answers with recorded durations.

TALKJAX_KOKORO names a folder with kokoro-v1.0.onnx and voices-v1.0.bin for the test with the model.
"""

import os
import pathlib
import types

import numpy as np
import pytest

from data_pipelines.synthetic.animation import visemes
from data_pipelines.synthetic.speech import kokoro, kokoro_symbols, speaking
from data_pipelines.synthetic.speech.kokoro import KokoroVoice
from data_pipelines.synthetic.speech.kokoro_symbols import Unit
from talkjax.errors import UserError

NAMES = ("af_one", "bm_two", "ef_three", "af_kore")


@pytest.fixture
def files(tmp_path):
    """A model file that `start` replaces, and voices whose values tell their names and rows."""
    model, voices = tmp_path / "kokoro-v1.0.onnx", tmp_path / "voices-v1.0.bin"
    model.write_bytes(b"model")
    rows = np.arange(510, dtype=np.float32)[:, None, None] + np.zeros((1, 1, 256), np.float32)
    with voices.open("wb") as file:
        np.savez(file, **{name: rows + 1000 * i for i, name in enumerate(NAMES)})
    return model, voices


class Session:
    """Says each symbol for three frames, and counts how often it was asked."""

    def __init__(self, inputs=("tokens", "style", "speed"), metadata=None):
        kinds = {"tokens": "tensor(int64)", "input_ids": "tensor(int64)"}
        self._inputs = [
            types.SimpleNamespace(name=n, type=kinds.get(n, "tensor(float)")) for n in inputs
        ]
        self._metadata, self.asked = metadata or {}, []

    def get_inputs(self):
        return self._inputs

    def get_modelmeta(self):
        return types.SimpleNamespace(custom_metadata_map=self._metadata)

    def run(self, outputs, inputs):
        self.asked.append(inputs)
        durations = np.full(inputs["tokens"].shape, 3.0, np.float32)
        durations[0, 0] = 10
        sound = np.sin(np.arange(int(durations.sum()) * 600) * 0.1).astype(np.float32) / 2
        return [sound, durations]


def start(monkeypatch, session):
    monkeypatch.setattr(kokoro, "_start", lambda *args: session)
    return session


def read(text, language="en-us"):
    return "".join(unit.characters for unit in kokoro_symbols.transcribe(text, language))


def test_text_becomes_what_kokoro_was_trained_on():
    text = "Well, the boy's church (in town) is closed; go to bottle number 5!"
    assert read(text) == ("wˈɛl, ðə bˈYz ʧˈɜɹʧ (ɪn tˈWn) ɪz klˈOzd; ɡˌO tə bˈɑTᵊl nˈʌmbəɹ fˈIv!")
    assert read("Go, hurt bear.", "en-gb") == "ɡˈQ, hˈɜːt bˈɛː."
    assert read("Mucho, pizza.", "es").startswith("mˈuʧo, ")
    units = kokoro_symbols.transcribe("Boy.", "en-us")
    assert units == [Unit("b", "b"), Unit("ˈɔɪ", "ˈY"), Unit("", ".")]
    everything = {c for language in kokoro_symbols.LANGUAGES for c in read("Papa, Bob.", language)}
    assert everything <= set(kokoro_symbols.VOCABULARY)


def test_phonemes_are_heard_earlier_than_the_durations_say():
    units = [Unit("p", "p"), Unit("ˈɑː", "ˈɑ"), Unit("", " "), Unit("m", "m"), Unit("", ".")]
    durations = np.array([12, 4, 2, 6, 2, 4, 8, 9])
    samples = np.arange(47 * 600, dtype=np.float32)
    cut, phonemes = kokoro.place_phonemes(units, durations, samples)
    # The first phoneme is heard at 12 x 0.025 - 0.055 s, and 0.06 s before it are kept.
    assert cut[0] == round((0.3 - 0.055 - 0.06) * kokoro.RATE)
    spans = [(p.symbol, round(p.start, 3), round(p.end, 3)) for p in phonemes]
    # "m" closes the lips with the space before it.
    assert spans == [("p", 0.06, 0.16), ("ˈɑː", 0.16, 0.36), ("m", 0.36, 0.51)]
    assert len(cut) == round((0.51 + 0.12) * kokoro.RATE)


def test_it_speaks_with_a_blend_and_keeps_what_it_said(files, monkeypatch, tmp_path):
    session = start(monkeypatch, Session())
    (tmp_path / "cache").mkdir()
    voice = KokoroVoice("en-us", (("af_one", 0.25), ("bm_two", 0.75)), 1.1)
    speak = speaking.make_speak(speaking.KokoroFiles(*files, tmp_path / "cache"))
    speech = speak("Papa.", voice)
    assert speech.rate == 24000 and [p.symbol for p in speech.phonemes] == ["p", "ˈɑː", "p", "ə"]
    (asked,) = session.asked
    assert asked["tokens"].tolist() == [[0, 58, 156, 69, 58, 83, 4, 0]]
    # Row n - 1 is for n symbols.
    np.testing.assert_allclose(asked["style"], np.full((1, 256), 5 + 750.0))
    assert asked["speed"] == np.float32(1.1)
    again = speak("Papa.", voice)
    assert len(session.asked) == 1 and again.phonemes == speech.phonemes
    np.testing.assert_array_equal(again.samples, speech.samples)
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    np.testing.assert_array_equal(speak("Papa.", voice).samples, speech.samples)
    assert len(session.asked) == 2
    assert speak("Papa.", KokoroVoice("en-us", (("af_one", 1.0),))) and len(session.asked) == 3


def test_drawn_voices(files):
    rng = np.random.default_rng(0)
    drawn = [kokoro.sample_voice(rng, list(NAMES)) for _ in range(300)]
    names = {name for v in drawn for name, _ in v.blend}
    assert names == {"af_one", "bm_two", "ef_three"}  # af_kore is kept for tests
    assert all(abs(sum(share for _, share in v.blend) - 1) < 1e-6 for v in drawn)
    assert 90 < sum(len(v.blend) == 1 for v in drawn) < 150
    assert {v.language for v in drawn} == {"en-us", "en-gb", "es", "fr", "it"}
    assert kokoro.sample_voice(np.random.default_rng(0), list(NAMES)) == drawn[0]


def test_wrong_files(files, monkeypatch, tmp_path):
    model, voices = files
    start(monkeypatch, Session(inputs=("image",)))
    with pytest.raises(UserError, match=r"not Kokoro's model: its inputs are image"):
        kokoro.Kokoro(model, voices)
    metadata = {"kokoro_config": '{"vocab": {"a": 1}}'}
    start(monkeypatch, Session(("input_ids", "style", "speed"), metadata))
    with pytest.raises(UserError, match="another vocabulary"):
        kokoro.Kokoro(model, voices)
    with pytest.raises(UserError, match="cannot be read"):
        kokoro.Kokoro(tmp_path / "none.onnx", voices)
    with pytest.raises(UserError, match="holds no voices"):
        kokoro.load_voices(model)
    with (tmp_path / "wrong.bin").open("wb") as file:
        np.savez(file, one=np.zeros((3, 256), np.float32))
    with pytest.raises(UserError, match=r"one has shape \(3, 256\)"):
        kokoro.load_voices(tmp_path / "wrong.bin")
    start(monkeypatch, Session())
    k = kokoro.Kokoro(model, voices)
    with pytest.raises(UserError, match="no 'af_two'; it has af_kore, af_one"):
        k.speak("Papa.", KokoroVoice("en-us", (("af_two", 1.0),)))
    with pytest.raises(UserError, match="'ja'"):
        k.speak("Papa.", KokoroVoice("ja", (("af_one", 1.0),)))
    for text in ("...", "papa " * 200):
        with pytest.raises(ValueError, match="Kokoro"):
            k.speak(text, KokoroVoice("en-us", (("af_one", 1.0),)))


def test_what_is_no_model_is_refused(files):
    pytest.importorskip("onnxruntime")
    with pytest.raises(UserError, match=r"is not Kokoro's model"):
        kokoro.Kokoro(*files)


def field(number, content):
    return bytes([number << 3 | 2, len(content)]) + content


def test_an_inner_tensor_becomes_an_output():
    """The model is a ModelProto of two nodes, y = -x and z = -y, written by hand."""
    onnxruntime = pytest.importorskip("onnxruntime")
    nodes = b"".join(
        field(1, field(1, a) + field(2, b) + field(4, b"Neg"))
        for a, b in ((b"x", b"y"), (b"y", b"z"))
    )
    floats = field(2, field(1, b"\x08\x01" + field(2, field(1, b"\x08\x02"))))  # Two of them.
    graph = nodes + field(2, b"g") + field(11, field(1, b"x") + floats)
    graph += field(12, field(1, b"z") + floats)
    model = b"\x08\x08" + field(7, graph) + field(8, b"\x10\x0d")
    session = onnxruntime.InferenceSession(
        kokoro.add_output(model, "y"), providers=["CPUExecutionProvider"]
    )
    z, y = session.run(None, {"x": np.float32([1, 2])})
    assert z.tolist() == [1, 2] and y.tolist() == [-1, -2]


@pytest.mark.slow
def test_the_model_itself_is_heard_when_its_phonemes_say():
    folder = pathlib.Path(os.environ.get("TALKJAX_KOKORO") or "")
    if not (folder / "kokoro-v1.0.onnx").is_file():
        pytest.skip("TALKJAX_KOKORO is not set to a folder with Kokoro's files")
    k = kokoro.Kokoro(folder / "kokoro-v1.0.onnx", folder / "voices-v1.0.bin", threads=2)
    lags = []
    for name in ("af_heart", "am_adam", "bf_emma"):
        text = "Papa bought a purple umbrella, and Bob moved a box of mushrooms to the market."
        speech = k.speak(text, KokoroVoice("en-us", ((name, 1.0),)))
        count = int(100 * len(speech.samples) / speech.rate)
        loud = np.log(1e-3 + np.abs(speech.samples[: count * 240]).reshape(count, 240).mean(1))
        vowel = np.zeros(count)
        for p in speech.phonemes:
            if visemes.first_sound(p.symbol) in visemes.VOWELS:
                vowel[round(100 * p.start) : round(100 * p.end)] = 1
        a, b = vowel - vowel.mean(), loud - loud.mean()
        fits = [np.dot(a[20:-20], b[20 + lag : len(b) - 20 + lag]) for lag in range(-15, 16)]
        lags.append(int(np.argmax(fits)) - 15)
    assert abs(np.mean(lags)) <= 2  # in 10 ms
