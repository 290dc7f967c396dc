"""Natural speech by Kokoro-82M, a neural synthesizer whose duration predictor times each phoneme.

Model and voices are two files of the user's, in the layout of the package kokoro-onnx:
`kokoro-v1.0.onnx`, and `voices-v1.0.bin` with a (510, 1, 256) array per voice. A voice may be a
blend of several. The same text and voice always give the same samples on one machine.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import zipfile
from dataclasses import dataclass

import numpy as np

from talkjax import files
from talkjax.errors import UserError

from .kokoro_symbols import LANGUAGES, VOCABULARY, Unit, transcribe
from .phonemes import Phoneme, Speech, add_holds

RATE = 24_000  # Hz
MAX_TOKENS = 510  # Rows of a voice: one for each length of the input.
# These voices are kept back for tests.
TEST_VOICES = ("af_kore", "am_eric", "bf_lily", "bm_fable", "ef_dora", "if_sara", "zm_yunyang")
_INSTALL = "`uv sync --extra voices` (or `uv run --extra voices ...`) installs it"
_STYLE = (MAX_TOKENS, 1, 256)
_FRAME = 600 / RATE  # Seconds of a frame of the duration predictor.
# Phonemes are heard this many seconds earlier than the sum of the durations before them says.
# Measured: vowels against the level below 1.2 kHz and sibilants against that above 4 kHz.
_EARLY = 0.055
_DURATIONS = "/encoder/Clip_output_0"  # The tensor with the duration of each token, in frames.
_MARGIN = (0.06, 0.12)  # Seconds kept before the first phoneme and after the last one.
_WORD_GAP = 4 * _FRAME  # Longer spaces between words are pauses.
_TOKENS = ("tokens", "input_ids")  # Names of the input in older and newer exports.
_TYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(float16)": np.float16}

# Languages of the sentences, their shares, and the first letter of the names of their voices.
_SPOKEN = {"en-us": (0.5, "a"), "en-gb": (0.2, "b"), "es": (0.12, "e"), "fr": (0.08, "f"),
           "it": (0.1, "i")}  # fmt: skip
_BLEND_SHARE = 0.6
_FOREIGN_SHARE = 0.35  # Of the voices that are drawn: any voice, which speaks with an accent.
_SPEED = (0.8, 1.25)


@dataclass(frozen=True)
class KokoroVoice:
    """A voice of Kokoro.

    Attributes:
      language: A key of `kokoro_symbols.LANGUAGES`.
      blend: Names of voices and their shares, which sum to 1.
      speed: Speaking rate; 1 is the voice's own.
    """

    language: str
    blend: tuple[tuple[str, float], ...]
    speed: float = 1.0


def sample_voice(
    rng: np.random.Generator, names: list[str], language: str | None = None
) -> KokoroVoice:
    """Draws a voice of the training split: one voice, or a blend of two or three.

    Args:
      rng: Generator that draws the voice.
      names: Names of all voices of the file. Those of `TEST_VOICES` are not drawn.
      language: The language to speak; None draws one of those that have sentences.
    """
    names = sorted(set(names) - set(TEST_VOICES)) or sorted(names)
    shares = np.array([share for share, _ in _SPOKEN.values()])
    drawn = list(_SPOKEN)[int(rng.choice(len(_SPOKEN), p=shares / shares.sum()))]
    language = language or drawn
    letter = _SPOKEN[language][1] if language in _SPOKEN else language[0]
    native = [name for name in names if name.startswith(letter)] or names
    count = int(rng.integers(2, 4)) if rng.random() < _BLEND_SHARE else 1
    chosen: list[str] = []
    while len(chosen) < min(count, len(names)):
        pool = names if rng.random() < _FOREIGN_SHARE or set(native) <= set(chosen) else native
        name = pool[int(rng.integers(len(pool)))]
        if name not in chosen:
            chosen.append(name)
    parts = rng.dirichlet(np.full(len(chosen), 2.0)).round(3)
    parts[0] += 1 - parts.sum()
    blend = tuple((name, round(float(part), 3)) for name, part in zip(chosen, parts, strict=True))
    return KokoroVoice(language, blend, round(float(rng.uniform(*_SPEED)), 2))


class Kokoro:
    """The model and its voices.

    Attributes:
      names: Names of the voices.
      fingerprint: Changes with either file.

    Args:
      model: ONNX file of the model.
      voices: File of the voices.
      threads: Number of threads of the model.
      cache: Folder that keeps what the model says, so that it is not computed again; or None.

    Raises:
      UserError: A package or a file is missing, or a file is not Kokoro's.
    """

    def __init__(
        self,
        model: str | os.PathLike,
        voices: str | os.PathLike,
        threads: int = 1,
        cache: str | os.PathLike | None = None,
    ):
        self._cache = None if cache is None else pathlib.Path(cache)
        self._voices = load_voices(voices)
        self.names = sorted(self._voices)
        stored, digest = _read(model), hashlib.sha256()
        for part in (stored, *(self._voices[name].tobytes() for name in self.names)):
            digest.update(part)
        self.fingerprint = digest.hexdigest()[:16]
        self._session = _start(stored, os.fspath(model), threads)
        inputs = {i.name: _TYPES.get(i.type, np.float32) for i in self._session.get_inputs()}
        self._tokens = next((name for name in _TOKENS if name in inputs), "")
        if not self._tokens or not {"style", "speed"} <= set(inputs):
            raise UserError(
                f"{model} is not Kokoro's model: its inputs are {', '.join(inputs) or 'none'} "
                "instead of tokens, style and speed; give kokoro-v1.0.onnx"
            )
        self._types = inputs
        self._vocabulary = _find_vocabulary(self._session, os.fspath(model))

    def speak(self, text: str, voice: KokoroVoice) -> Speech:
        """Synthesizes a text.

        Args:
          text: One or two sentences in the voice's language.
          voice: Voice that speaks the text.

        Raises:
          UserError: The voice or its language is unknown.
          ValueError: The text holds nothing that can be spoken, or is too long.
        """
        if voice.language not in LANGUAGES:
            raise UserError(
                f"Kokoro cannot be given {voice.language!r} here; it speaks {', '.join(LANGUAGES)}"
            )
        units = [
            Unit(unit.symbol, "".join(c for c in unit.characters if c in self._vocabulary))
            for unit in transcribe(text, voice.language)
        ]
        ids = [self._vocabulary[c] for unit in units for c in unit.characters]
        if not any(unit.symbol and unit.characters for unit in units):
            raise ValueError(f"Kokoro cannot say {text!r}")
        if len(ids) > MAX_TOKENS:
            raise ValueError(f"{text[:40]!r}... has {len(ids)} symbols, Kokoro takes {MAX_TOKENS}")
        samples, durations = self._run([0, *ids, 0], self._blend(voice)[len(ids) - 1], voice.speed)
        samples, phonemes = place_phonemes(units, durations, samples.astype(np.float32) / 32767)
        return Speech(samples, RATE, add_holds(phonemes, samples, RATE))

    def _blend(self, voice: KokoroVoice) -> np.ndarray:
        """Returns (510, 1, 256) styles."""
        for name, _ in voice.blend:
            if name not in self._voices:
                raise UserError(
                    f"the file of voices has no {name!r}; it has {', '.join(self.names)}"
                )
        return sum(np.float32(share) * self._voices[name] for name, share in voice.blend)

    def _run(self, ids, style, speed) -> tuple[np.ndarray, np.ndarray]:
        """Returns (S,) int16 samples and (len(ids),) durations in frames."""
        key = repr((self.fingerprint, ids, speed)).encode() + style.tobytes()
        kept = self._cache and self._cache / f"{hashlib.sha256(key).hexdigest()[:32]}.npz"
        if kept:
            # A damaged file is computed again.
            damages = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
            with contextlib.suppress(*damages), np.load(kept, allow_pickle=False) as arrays:
                return arrays["samples"], arrays["durations"]
        samples, durations = self._compute(ids, style, speed)
        if kept:
            with files.replacing(kept) as temporary:
                np.savez(temporary, samples=samples, durations=durations)
        return samples, durations

    def _compute(self, ids, style, speed) -> tuple[np.ndarray, np.ndarray]:
        inputs = {self._tokens: [ids], "style": style, "speed": [speed]}
        samples, durations = self._session.run(
            None, {name: np.asarray(x, self._types[name]) for name, x in inputs.items()}
        )[:2]
        samples = np.clip(np.asarray(samples, np.float32).ravel(), -1, 1)
        return (samples * 32767).round().astype(np.int16), np.ravel(durations).astype(np.float32)


def place_phonemes(
    units: list[Unit], durations: np.ndarray, samples: np.ndarray
) -> tuple[np.ndarray, list[Phoneme]]:
    """Gives each phoneme its time, and cuts the silence at both ends.

    Args:
      units: What was read.
      durations: Frames of each character of the units, and of one more at either end, (n + 2,).
      samples: The sound, (S,).

    Returns:
      The (S',) samples that remain, and the phonemes with their times in them.
    """
    ends = np.cumsum(durations) * _FRAME - _EARLY
    position, spans = 0, []
    for unit in units:
        start = ends[position]
        position += len(unit.characters)
        spans.append((float(start), float(ends[position])))
    phonemes = []
    for number, (unit, (start, end)) in enumerate(zip(units, spans, strict=True)):
        if not unit.symbol or end <= start:
            continue
        # A short space between two words belongs to both, but a closure begins with the space.
        before, after = (_space(units, spans, number + side) for side in (-1, 1))
        if before > 0:
            start -= before if _is_closed(unit) else before / 2
        if after > 0:
            end += 0.0 if _is_closed(units[number + 2]) else after / 2
        phonemes.append(Phoneme(unit.symbol, max(start, 0.0), end))
    cut = max(phonemes[0].start - _MARGIN[0], 0.0)
    first = round(cut * RATE)
    samples = samples[first : round((phonemes[-1].end + _MARGIN[1]) * RATE)]
    last = len(samples) / RATE
    moved = [
        dataclasses.replace(p, start=p.start - first / RATE, end=min(p.end - first / RATE, last))
        for p in phonemes
    ]
    return samples, [p for p in moved if p.end > p.start]


def _space(units, spans, number) -> float:
    """Returns the duration of a short space between two words, or 0."""
    if not 0 < number < len(units) - 1 or units[number].characters != " ":
        return 0.0
    if not (units[number - 1].symbol and units[number + 1].symbol):
        return 0.0  # Beside punctuation, it is a pause.
    length = spans[number][1] - spans[number][0]
    return length if length <= _WORD_GAP else 0.0


def _is_closed(unit: Unit) -> bool:
    return unit.symbol.lstrip("ˈˌ")[:1] in tuple("pbmtdkɡ")


def load_voices(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the voices: a (510, 1, 256) float32 array per name.

    Raises:
      UserError: The file is missing or holds something else.
    """
    remedy = "give the file voices-v1.0.bin of kokoro-onnx"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            voices = {name: np.asarray(arrays[name], np.float32) for name in arrays.files}
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); {remedy}") from None
    except (ValueError, AttributeError, TypeError, EOFError, zipfile.BadZipFile):
        raise UserError(f"{path} holds no voices; {remedy}") from None
    wrong = next((name for name, array in voices.items() if array.shape != _STYLE), None)
    if wrong is not None or not voices:
        found = (
            f"{wrong} has shape {voices[wrong].shape}, not {_STYLE}" if voices else "it is empty"
        )
        raise UserError(f"{path} holds no voices of Kokoro ({found}); {remedy}")
    return voices


def _read(model: str | os.PathLike) -> bytes:
    try:
        with open(model, "rb") as file:
            return file.read()
    except OSError as error:
        raise UserError(
            f"{model} cannot be read ({error.strerror or error}); give kokoro-v1.0.onnx, the model "
            "of kokoro-onnx"
        ) from None


def _start(stored: bytes, name: str, threads: int):
    """Starts a session whose second output is the durations."""
    try:
        import onnxruntime
    except ImportError:
        raise UserError(f"the package onnxruntime is not installed; {_INSTALL}") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(
            add_output(stored, _DURATIONS), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # The package has no public base class of its errors.
        raise UserError(
            f"{name} is not Kokoro's model ({str(error).splitlines()[0][:120]}); give "
            "kokoro-v1.0.onnx"
        ) from None


def add_output(model: bytes, tensor: str) -> bytes:
    """Adds an inner tensor of an ONNX model (a serialized `ModelProto`) to its outputs.

    Serialized protocol buffers are joined by concatenation: the second graph's fields are added to
    the first one's, so no library has to parse the model.
    """

    def field(number: int, content: bytes) -> bytes:
        assert len(content) < 128  # One byte holds the length.
        return bytes([number << 3 | 2, len(content)]) + content

    value = field(1, tensor.encode())  # ValueInfoProto.name
    return model + field(7, field(12, value))  # ModelProto.graph, GraphProto.output


def _find_vocabulary(session, name: str) -> dict[str, int]:
    """Returns the vocabulary that a newer export carries, or that of version 1.0."""
    config = session.get_modelmeta().custom_metadata_map.get("kokoro_config")
    if not config:
        return VOCABULARY
    try:
        vocabulary = {str(k): int(v) for k, v in json.loads(config)["vocab"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{name} carries a damaged vocabulary; give kokoro-v1.0.onnx") from None
    missing = [c for c in "aeioupbmftdsznlɹˈ " if c not in vocabulary]
    if missing:
        raise UserError(
            f"{name} has another vocabulary, without {''.join(missing)!r}; give kokoro-v1.0.onnx"
        )
    return vocabulary
