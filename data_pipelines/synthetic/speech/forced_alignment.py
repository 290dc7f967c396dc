"""Forced alignment of English recordings with their words, by pocketsphinx.

Its wheel carries an acoustic model and CMU's dictionary. Words that the dictionary lacks are
pronounced as espeak-ng would. Times are exact to 10 ms at best.
"""

import re

import numpy as np

from talkjax.errors import UserError

from . import espeak
from .alignments import Alignment, Segment
from .arpabet import from_ipa, is_pause

RATE = 16_000  # Hz of the sound.
LANGUAGES = ("en",)
_FRAMES_PER_SECOND = 100
_BEAM = 1e-80
# A frame is heard through a window of 25.6 ms that starts at its time: a boundary between two
# frames lies between the centres of their windows. Measured on speech with exact times: 9 ms.
_CENTRE = 0.0128 - 0.005
_INSTALL = (
    "`uv sync --extra voices` (or `uv run --extra voices ...`) installs it for Python 3.11 to 3.13;"
    " or give the phone times with --alignments"
)


def normalize_words(text: str) -> list[str]:
    """Splits a text into lower-case words as CMU's dictionary writes them."""
    words = re.findall(r"[^\W_]+(?:['’][^\W_]+)*[’']?", text.replace("’", "'").lower())
    return [word.rstrip("'") if not word.endswith("s'") else word for word in words]


class Aligner:
    """Aligns recordings one after another.

    Raises:
      UserError: pocketsphinx is not installed.
    """

    def __init__(self):
        try:
            import pocketsphinx
        except ImportError:
            raise UserError(f"the package pocketsphinx is not installed; {_INSTALL}") from None
        # The search for the best path in the lattice gives some words fewer frames than they have
        # states, after which the second pass fails. With equal beams no right word is pruned.
        self._decoder = pocketsphinx.Decoder(
            pocketsphinx.Config(
                lm=None, loglevel="FATAL", bestpath=False, beam=_BEAM, wbeam=_BEAM, pbeam=_BEAM
            )
        )

    def align(self, samples: np.ndarray, text: str) -> Alignment | None:
        """Aligns a recording.

        Args:
          samples: Mono sound at `RATE`, (S,) float32.
          text: The words that are said.

        Returns:
          The alignment, or None if the words do not fit the sound or none can be pronounced.
        """
        words = normalize_words(text)
        if not words or not self._learn(words):
            return None
        decoder = self._decoder
        sound = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
        try:
            decoder.set_align_text(" ".join(words))
            self._decode(sound)
            if decoder.hyp() is None:
                return None
            decoder.set_alignment()  # A second pass finds the phones.
            self._decode(sound)
        except RuntimeError:  # No path through the words was found.
            return None
        phones, said, score, frames = [], [], 0.0, 0
        # The words must be used while the alignment and its iterator exist: they own them.
        found = decoder.get_alignment()
        if found is None:
            return None
        for word in found:
            said.append(_segment(word))
            for phone in word:
                phones.append(_segment(phone))
                if not is_pause(phone.name):
                    score, frames = score + phone.score, frames + phone.duration
        return Alignment(phones, said, score / frames if frames else None)

    def _decode(self, sound: bytes) -> None:
        self._decoder.start_utt()
        self._decoder.process_raw(sound, full_utt=True)
        self._decoder.end_utt()

    def _learn(self, words: list[str]) -> bool:
        """Adds words that the dictionary lacks; says whether all words can be pronounced."""
        unknown = [word for word in set(words) if self._decoder.lookup_word(word) is None]
        for word, spoken in zip(unknown, espeak.transcribe(unknown, "en-us"), strict=True):
            phones = from_ipa([symbol for part in spoken for symbol in part])
            if not phones:
                return False
            self._decoder.add_word(word, " ".join(phones), True)
        return True


def _segment(entry) -> Segment:
    start, end = entry.start, entry.start + entry.duration
    return Segment(entry.name, *(frame / _FRAMES_PER_SECOND + _CENTRE for frame in (start, end)))
