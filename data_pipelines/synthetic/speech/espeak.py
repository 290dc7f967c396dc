"""Speech synthesis with exact phoneme times, by espeak-ng.

The shared library comes with the package `espeakng-loader` (version 1.52) and is called through
ctypes in its synchronous mode: a callback receives the samples and an event at the first sample of
every phoneme. The library keeps one voice in process-wide state, which a lock guards. Parts of that
state, the pitch flutter and the phases of the oscillators, cannot be reset, so that a sentence
would sound different after another one. The library is therefore reloaded for each sentence, which
takes a millisecond.
"""

import _ctypes
import contextlib
import ctypes
import functools
import pathlib
import re
import tempfile
import threading
from collections.abc import Iterator, Sequence

import numpy as np

from talkjax.errors import UserError

from .phonemes import FRAME, Phoneme, Speech, compute_level, find_release, is_plosive
from .voices import RANDOM_VARIANT, Voice

_INSTALL = "`uv sync --extra speech` (or `uv run --extra speech ...`) installs it"
# Constants of espeak-ng's speak_lib.h.
_SYNCHRONOUS = 2
_PHONEME_EVENTS, _PHONEME_IPA, _DO_NOT_EXIT = 0x1, 0x2, 0x8000
_CHARACTERS_UTF8, _POSITION_CHARACTER = 1, 1
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_EVENT_END_OF_LIST, _EVENT_PHONEME = 0, 7
_AS_IPA, _SEPARATOR = 0x2, "_"  # How a transcription is written.
_FULL_SCALE = 32768.0
_LOCK = threading.Lock()

_LONGEST_HOLD = 0.1  # Seconds of silence before a release that are searched for its closure.
_QUIET = 0.04  # A frame is silent below this share of the 95th percentile of the level.


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    """The C struct `espeak_EVENT`."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # Milliseconds.
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class _Library:
    """A freshly loaded copy of the library, and the results that its callback collects."""

    def __init__(self, path: str, folder: str):
        try:
            self.library = ctypes.CDLL(path)
        except OSError as error:
            raise UserError(f"espeak-ng cannot be loaded ({error}): {_INSTALL}") from None
        self.variants = pathlib.Path(folder) / "voices" / "!v"
        self.sound: list[bytes] = []
        self.events: list[tuple[str, int]] = []
        self._callback = _CALLBACK(self._receive)  # The library keeps no reference to it.
        self._declare()
        # Without an explicit path the library would search the system and the environment.
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
        library.espeak_TextToPhonemes.argtypes = (ctypes.POINTER(text), integer, integer)
        library.espeak_TextToPhonemes.restype = text

    def _receive(self, wave, count, events):
        if wave and count > 0:
            self.sound.append(ctypes.string_at(wave, 2 * count))
        i = 0
        while events[i].type != _EVENT_END_OF_LIST:
            if events[i].type == _EVENT_PHONEME:
                # The field has eight bytes and, when they are all used, no terminator; a symbol
                # may be cut within a character, which is dropped.
                symbol = bytes(events[i].id.string).decode("utf-8", "ignore")
                self.events.append((symbol, events[i].sample))
            i += 1
        return 0

    def synthesize(self, text: str, voice: Voice) -> tuple[np.ndarray, list[tuple[str, int]]]:
        """Returns (S,) int16 samples, and the symbol and first sample of each phoneme."""
        data = text.encode()
        if voice.timbre:
            lines = "\n".join(("language variant", f"name {RANDOM_VARIANT}", *voice.timbre, ""))
            (self.variants / RANDOM_VARIANT).write_text(lines, encoding="ascii")
        # espeak-ng silently ignores a variant that does not exist.
        if voice.variant and not (self.variants / voice.variant).is_file():
            raise ValueError(f"espeak-ng has no variant {voice.variant!r}")
        if self.library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice.name!r}")
        # A voice may set parameters of its own, so these follow it.
        for parameter, value in (
            (_RATE, voice.rate), (_VOLUME, 100), (_PITCH, voice.pitch), (_RANGE, voice.range),
        ):  # fmt: skip
            if self.library.espeak_SetParameter(parameter, value, 0) != 0:
                raise ValueError(f"espeak-ng does not accept {voice}")
        self.library.espeak_ng_SetRandSeed(1)  # The default seed is the time of day.
        status = self.library.espeak_Synth(
            data, len(data) + 1, 0, _POSITION_CHARACTER, 0, _CHARACTERS_UTF8, None, None
        )
        sound = np.frombuffer(b"".join(self.sound), np.int16)
        if status != 0 or not any(symbol for symbol, _ in self.events):
            raise ValueError(f"espeak-ng cannot say {text!r} as {voice.name} ({status})")
        return sound, self.events

    def transcribe(self, text: str, language: str) -> str:
        """Returns the phonemes of a text in IPA, separated by `_SEPARATOR` and by spaces."""
        if self.library.espeak_SetVoiceByName(language.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {language!r}")
        rest = ctypes.c_char_p(text.encode())
        mode = _AS_IPA | ord(_SEPARATOR) << 8
        clauses = []
        while rest.value is not None:  # Each call takes a clause.
            clause = self.library.espeak_TextToPhonemes(ctypes.byref(rest), _CHARACTERS_UTF8, mode)
            clauses.append((clause or b"").decode("utf-8", "ignore"))
        return " ".join(clauses)

    def close(self):
        """Unloads the copy, which must not be used afterwards."""
        self.library.espeak_Terminate()
        _ctypes.dlclose(self.library._handle)


@functools.cache
def _paths() -> tuple[str, str]:
    """Returns the paths of the library and of its data folder."""
    try:
        import espeakng_loader
    except ImportError:
        raise UserError(f"the package espeakng-loader is not installed; {_INSTALL}") from None
    return str(espeakng_loader.get_library_path()), str(espeakng_loader.get_data_path())


@contextlib.contextmanager
def _data_folder(voice: Voice) -> Iterator[str]:
    """Yields a data folder that holds the voice's timbre.

    This is the library's own folder, or for a random timbre a temporary copy made of links.
    """
    source = pathlib.Path(_paths()[1])
    if not voice.timbre:
        yield str(source)
        return
    # The copy takes a millisecond. It is not kept, since workers may end without cleaning up.
    with tempfile.TemporaryDirectory(prefix="talkjax-espeak-") as folder:
        variants = pathlib.Path(folder) / "voices" / "!v"
        variants.mkdir(parents=True)
        for path in (*source.iterdir(), *(source / "voices").iterdir()):
            if path.name not in ("voices", variants.name):
                (pathlib.Path(folder) / path.relative_to(source)).symlink_to(path)
        yield folder


def speak(text: str, voice: Voice) -> Speech:
    """Synthesizes a text. The result depends on the text and the voice alone.

    Args:
      text: One or more sentences in the voice's language.
      voice: Voice that speaks the text.

    Raises:
      UserError: espeak-ng is not installed or cannot be loaded.
      ValueError: The voice does not exist, or the text holds nothing that can be spoken.
    """
    with _LOCK, _data_folder(voice) as data:
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
    return Speech(samples, rate, tuple(_add_holds(phonemes, samples, rate)))


def transcribe(texts: Sequence[str], language: str) -> list[list[list[str]]]:
    """Transcribes texts without speaking them.

    Args:
      texts: Texts, each in the language and without punctuation that ends a clause.
      language: A language of espeak-ng.

    Returns:
      For each text, its words as lists of IPA symbols with stress marks.

    Raises:
      UserError: espeak-ng is not installed or cannot be loaded.
      ValueError: The language does not exist.
    """
    with _LOCK:
        library = _Library(*_paths())
        try:
            lines = [library.transcribe(text, language) for text in texts]
        finally:
            library.close()
    # "(en)" and "(es)" mark words that are pronounced as in another language.
    words = [re.sub(r"\([^)]*\)", "", line).split() for line in lines]
    return [[[s for s in word.split(_SEPARATOR) if s] for word in line] for line in words]


def _add_holds(phonemes: list[Phoneme], samples: np.ndarray, rate: int) -> list[Phoneme]:
    """Adds the closures of plosives and removes pauses.

    espeak-ng marks a voiceless plosive at its release and counts the silence before it as part of
    the previous phoneme; it marks a voiced plosive at the start of its closure.
    """
    level = compute_level(samples, rate)
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
            start = _find_silence(quiet, start, earliest)
            release = find_release(level, phoneme)
            if out and out[-1].end > start:
                last = out.pop()
                hold = min(last.hold, start - last.start)
                out.append(Phoneme(last.symbol, last.start, start, hold))
            phoneme = Phoneme(phoneme.symbol, start, phoneme.end, release - start)
        out.append(phoneme)
    return out


def _find_silence(quiet: np.ndarray, time: float, earliest: float) -> float:
    """Returns the start of the silence that ends at `time`, or `time` if there is none."""
    last = min(int(time / FRAME), len(quiet)) - 1
    # The burst may begin up to a frame before the mark.
    frame = last if last >= 0 and quiet[last] else last - 1
    if frame < 0 or not quiet[frame]:
        return time
    while frame > 0 and quiet[frame - 1]:
        frame -= 1
    return min(max(frame * FRAME, earliest), time)
