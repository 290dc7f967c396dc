"""Speech with the exact times of its phonemes, from espeak-ng.

The library comes with the package `espeakng-loader` (version 1.52) and is called through ctypes in
its synchronous mode: a callback receives the sound and, with it, an event at every phoneme's first
sample. The library is process-wide state with one voice at a time: a lock guards it. Some of that
state, the pitch's flutter and the waves' phases, cannot be set from outside, and a sentence would
sound different after another one; so the library is loaded anew for each, which takes a
millisecond.
"""

import _ctypes
import contextlib
import ctypes
import functools
import pathlib
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data_pipelines.synthetic.voices import DRAWN, Voice
from talkjax.errors import UserError

STRESS = "ˈˌ"
# Consonants with a hold: nothing (or only a murmur) is heard until they are released.
_PLOSIVES = "pbtdkɡgcɟqʔ"

_INSTALL = "`uv sync --extra speech` (or `uv run --extra speech ...`) installs it"
# From speak_lib.h.
_SYNCHRONOUS = 2
_PHONEME_EVENTS, _PHONEME_IPA, _DO_NOT_EXIT = 0x1, 0x2, 0x8000
_CHARACTERS_UTF8, _POSITION_CHARACTER = 1, 1
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_EVENT_END_OF_LIST, _EVENT_PHONEME = 0, 7
_FULL_SCALE = 32768.0
_LOCK = threading.Lock()

_FRAME = 0.004  # seconds; the library's own step is 2.9 ms
_LONGEST_HOLD = 0.1  # before a release
_QUIET = 0.04  # of the sound's loud parts


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    """`espeak_EVENT`."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # ms
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass(frozen=True)
class Phoneme:
    """One phoneme; pauses are not listed.

    Attributes:
      symbol: IPA, stress marks included, as espeak-ng writes it ("ˈaɪ", "tʃ").
      start: seconds. A plosive starts with its hold, although that is silent.
      end: seconds.
      hold: seconds from `start` until a plosive is released; 0 for all other phonemes.
    """

    symbol: str
    start: float
    end: float
    hold: float = 0.0


@dataclass(frozen=True, eq=False)
class Speech:
    """What `speak` returns.

    Attributes:
      samples: (S,) float32 mono in [-1, 1].
      rate: Hz.
      phonemes: in order, without overlap.
    """

    samples: np.ndarray
    rate: int
    phonemes: tuple[Phoneme, ...]


class _Library:
    """A fresh copy of the library, and what its callback receives."""

    def __init__(self, path: str, folder: str):
        try:
            self.library = ctypes.CDLL(path)
        except OSError as error:
            raise UserError(f"espeak-ng cannot be loaded ({error}): {_INSTALL}") from None
        self.variants = pathlib.Path(folder) / "voices" / "!v"
        self.sound: list[bytes] = []
        self.events: list[tuple[str, int]] = []
        self._callback = _CALLBACK(self._receive)  # must outlive the library's use of it
        self._declare()
        # Without an explicit path the library would look at the system's and the environment's.
        options = _PHONEME_EVENTS | _PHONEME_IPA | _DO_NOT_EXIT
        self.rate = self.library.espeak_Initialize(_SYNCHRONOUS, 0, folder.encode(), options)
        if self.rate <= 0:
            self.close()
            raise UserError(f"espeak-ng cannot use its data in {folder}: {_INSTALL}")
        self.library.espeak_SetSynthCallback(self._callback)

    def _declare(self):
        integer, text = ctypes.c_int, ctypes.c_char_p
        library = self.library
        library.espeak_Initialize.argtypes = (integer, integer, text, integer)
        library.espeak_SetSynthCallback.argtypes = (_CALLBACK,)
        library.espeak_SetSynthCallback.restype = None
        library.espeak_SetVoiceByName.argtypes = (text,)
        library.espeak_SetParameter.argtypes = (integer, integer, integer)
        library.espeak_ng_SetRandSeed.argtypes = (ctypes.c_long,)
        library.espeak_Synth.argtypes = (
            text, ctypes.c_size_t, ctypes.c_uint, integer, ctypes.c_uint, ctypes.c_uint,
            ctypes.POINTER(ctypes.c_uint), ctypes.c_void_p,
        )  # fmt: skip

    def _receive(self, wave, count, events):
        if wave and count > 0:
            self.sound.append(ctypes.string_at(wave, 2 * count))
        i = 0
        while events[i].type != _EVENT_END_OF_LIST:
            if events[i].type == _EVENT_PHONEME:
                # Eight bytes, without an end if all are used; a cut character is of no use.
                symbol = bytes(events[i].id.string).decode("utf-8", "ignore")
                self.events.append((symbol, events[i].sample))
            i += 1
        return 0

    def synthesize(self, text: str, voice: Voice) -> tuple[np.ndarray, list[tuple[str, int]]]:
        """(S,) int16 sound and the phonemes' first samples."""
        data = text.encode()
        if voice.timbre:
            lines = "\n".join(("language variant", f"name {DRAWN}", *voice.timbre, ""))
            (self.variants / DRAWN).write_text(lines, encoding="ascii")
        # The library itself goes on without a variant that it does not find.
        if voice.variant and not (self.variants / voice.variant).is_file():
            raise ValueError(f"espeak-ng has no variant {voice.variant}")
        if self.library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice.name}")
        # A voice may bring its own values along, so they are set after it.
        for parameter, value in (
            (_RATE, voice.rate), (_VOLUME, 100), (_PITCH, voice.pitch), (_RANGE, voice.range),
        ):  # fmt: skip
            if self.library.espeak_SetParameter(parameter, value, 0) != 0:
                raise ValueError(f"espeak-ng does not accept {voice}")
        self.library.espeak_ng_SetRandSeed(1)  # else the time of day
        status = self.library.espeak_Synth(
            data, len(data) + 1, 0, _POSITION_CHARACTER, 0, _CHARACTERS_UTF8, None, None
        )
        sound = np.frombuffer(b"".join(self.sound), np.int16)
        if status != 0 or not any(symbol for symbol, _ in self.events):
            raise ValueError(f"espeak-ng cannot say {text!r} as {voice.name} ({status})")
        return sound, self.events

    def close(self):
        """Unloads the copy; the object must not be used any more."""
        self.library.espeak_Terminate()
        _ctypes.dlclose(self.library._handle)


@functools.cache
def _paths() -> tuple[str, str]:
    """Of the library and of its data."""
    try:
        import espeakng_loader
    except ImportError:
        raise UserError(f"speech needs the package espeakng-loader: {_INSTALL}") from None
    return str(espeakng_loader.get_library_path()), str(espeakng_loader.get_data_path())


@contextlib.contextmanager
def _data(voice: Voice) -> Iterator[str]:
    """The library's data: its own, or a copy by links into which a drawn timbre can be written."""
    source = pathlib.Path(_paths()[1])
    if not voice.timbre:
        yield str(source)
        return
    # Anew for each sentence, a millisecond: worker processes are ended without cleaning up.
    with tempfile.TemporaryDirectory(prefix="talkjax-espeak-") as folder:
        variants = pathlib.Path(folder) / "voices" / "!v"
        variants.mkdir(parents=True)
        for path in (*source.iterdir(), *(source / "voices").iterdir()):
            if path.name not in ("voices", variants.name):
                (pathlib.Path(folder) / path.relative_to(source)).symlink_to(path)
        yield folder


def speak(text: str, voice: Voice) -> Speech:
    """Says a text. The same text and voice give the same samples, in every process.

    Args:
      text: one or more sentences of the voice's language.
      voice: see `voices.sample_voice`.

    Raises:
      UserError: espeak-ng is not installed or cannot be loaded.
      ValueError: there is no such voice, or nothing in the text can be said.
    """
    with _LOCK, _data(voice) as data:
        library = _Library(_paths()[0], data)
        try:
            sound, events = library.synthesize(text, voice)
        finally:
            library.close()
    samples = (sound / _FULL_SCALE).astype(np.float32)
    rate = library.rate
    ends = [sample for _, sample in events[1:]] + [len(samples)]
    phonemes = [
        Phoneme(symbol, start / rate, min(end, len(samples)) / rate)
        for (symbol, start), end in zip(events, ends, strict=True)
        if end > start
    ]
    return Speech(samples, rate, tuple(_with_holds(phonemes, samples, rate)))


def is_plosive(symbol: str) -> bool:
    """Whether a phoneme begins with a hold (affricates do)."""
    return symbol.lstrip(STRESS)[:1] in _PLOSIVES and symbol.strip(STRESS) != ""


def _with_holds(phonemes: list[Phoneme], samples: np.ndarray, rate: int) -> list[Phoneme]:
    """Gives plosives their holds, takes pauses out.

    The library marks a voiceless plosive where it is released, after a silence which it counts to
    the phoneme before; and a voiced one where its murmur begins.
    """
    level = _level(samples, rate)
    quiet = level < _QUIET * np.percentile(level, 95)
    out: list[Phoneme] = []
    for number, phoneme in enumerate(phonemes):
        if not phoneme.symbol:
            continue
        start = phoneme.start
        if is_plosive(phoneme.symbol):
            before = phonemes[number - 1] if number else None
            earliest = max(start - _LONGEST_HOLD, 0.0)
            if before is not None and before.symbol:
                earliest = max(earliest, before.start + 0.4 * (before.end - before.start))
            start = _quiet_since(quiet, start, earliest)
            release = _release(level, phoneme)
            if out and out[-1].end > start:
                last = out.pop()
                hold = min(last.hold, start - last.start)
                out.append(Phoneme(last.symbol, last.start, start, hold))
            phoneme = Phoneme(phoneme.symbol, start, phoneme.end, release - start)
        out.append(phoneme)
    return out


def _level(samples: np.ndarray, rate: int) -> np.ndarray:
    """RMS of each `_FRAME`."""
    step = round(_FRAME * rate)
    count = len(samples) // step
    return np.sqrt((samples[: count * step].reshape(count, step).astype(np.float64) ** 2).mean(1))


def _quiet_since(quiet: np.ndarray, time: float, earliest: float) -> float:
    """When the silence began that ends at `time`; `time` if there is none."""
    last = min(int(time / _FRAME), len(quiet)) - 1
    # The burst may begin within a frame of the mark.
    frame = last if last >= 0 and quiet[last] else last - 1
    if frame < 0 or not quiet[frame]:
        return time
    while frame > 0 and quiet[frame - 1]:
        frame -= 1
    return min(max(frame * _FRAME, earliest), time)


def _release(level: np.ndarray, phoneme: Phoneme) -> float:
    """When a marked plosive is released: where its sound rises most within the first 80%."""
    first = int(phoneme.start / _FRAME)
    last = min(int((phoneme.start + 0.8 * (phoneme.end - phoneme.start)) / _FRAME) + 1, len(level))
    if last - first < 2:
        return phoneme.start
    rise = np.diff(np.log(level[max(first - 1, 0) : last] + 1e-4))
    return max(phoneme.start, (max(first - 1, 0) + 1 + int(rise.argmax())) * _FRAME)
