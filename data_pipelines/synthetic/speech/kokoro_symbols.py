"""From text to the symbols that Kokoro reads.

Kokoro was trained on the symbols of misaki, in which diphthongs and affricates are single
characters. espeak-ng's phonemes are converted as misaki 0.9.4 does it (misaki/espeak.py,
Apache-2.0, by hexgrad).
"""

import re
from typing import NamedTuple

from . import espeak

# Languages with a transcription by espeak-ng, and their voices of espeak-ng. Kokoro's Japanese and
# Chinese need transcriptions of their own.
LANGUAGES = {
    "en-us": "en-us", "en-gb": "en-gb-x-rp", "es": "es", "fr": "fr", "it": "it", "pt-br": "pt-br",
    "hi": "hi",
}  # fmt: skip
PUNCTUATION = ';:,.!?—…"()“”'
# fmt: off
_ANY = {
    "aɪ": "I", "aʊ": "W", "dz": "ʣ", "dʒ": "ʤ", "eɪ": "A", "oʊ": "O", "əʊ": "Q", "ts": "ʦ",
    "tʃ": "ʧ", "ɔɪ": "Y", "g": "ɡ",
}
_ENGLISH = {
    "ʔn": "tn", "əl": "ᵊl", "ɚ": "əɹ", "r": "ɹ", "x": "k", "ç": "k", "ɐ": "ə", "ɬ": "l",
    "\u0303": "",
}
_AMERICAN = {"oʊ": "O", "ɜː": "ɜɹ", "ɪə": "iə", "ː": "", "ɾ": "T", "ʔ": "t", "o": "ɔ"}
_BRITISH = {"eə": "ɛː", "iə": "ɪə", "o": "ɔ", "ɾ": "T", "ʔ": "t"}
VOCABULARY = {
    ";": 1, ":": 2, ",": 3, ".": 4, "!": 5, "?": 6, "—": 9, "…": 10, '"': 11, "(": 12, ")": 13,
    "“": 14, "”": 15, " ": 16, "\u0303": 17, "ʣ": 18, "ʥ": 19, "ʦ": 20, "ʨ": 21, "ᵝ": 22, "ꭧ": 23,
    "A": 24, "I": 25, "O": 31, "Q": 33, "S": 35, "T": 36, "W": 39, "Y": 41, "ᵊ": 42, "a": 43,
    "b": 44, "c": 45, "d": 46, "e": 47, "f": 48, "h": 50, "i": 51, "j": 52, "k": 53, "l": 54,
    "m": 55, "n": 56, "o": 57, "p": 58, "q": 59, "r": 60, "s": 61, "t": 62, "u": 63, "v": 64,
    "w": 65, "x": 66, "y": 67, "z": 68, "ɑ": 69, "ɐ": 70, "ɒ": 71, "æ": 72, "β": 75, "ɔ": 76,
    "ɕ": 77, "ç": 78, "ɖ": 80, "ð": 81, "ʤ": 82, "ə": 83, "ɚ": 85, "ɛ": 86, "ɜ": 87, "ɟ": 90,
    "ɡ": 92, "ɥ": 99, "ɨ": 101, "ɪ": 102, "ʝ": 103, "ɯ": 110, "ɰ": 111, "ŋ": 112, "ɳ": 113,
    "ɲ": 114, "ɴ": 115, "ø": 116, "ɸ": 118, "θ": 119, "œ": 120, "ɹ": 123, "ɾ": 125, "ɻ": 126,
    "ʁ": 128, "ɽ": 129, "ʂ": 130, "ʃ": 131, "ʈ": 132, "ʧ": 133, "ʊ": 135, "ʋ": 136, "ʌ": 138,
    "ɣ": 139, "ɤ": 140, "χ": 142, "ʎ": 143, "ʒ": 147, "ʔ": 148, "ˈ": 156, "ˌ": 157, "ː": 158,
    "ʰ": 162, "ʲ": 164, "↓": 169, "→": 171, "↗": 172, "↘": 173, "ᵻ": 177,
}
# fmt: on
_OPENING = "(“"
_MARKS = re.compile(f"([{re.escape(PUNCTUATION)}])")


class Unit(NamedTuple):
    """A phoneme, a space or a punctuation mark.

    Attributes:
      symbol: The phoneme in espeak-ng's IPA; "" for spaces and punctuation.
      characters: What Kokoro reads.
    """

    symbol: str
    characters: str


def transcribe(text: str, language: str) -> list[Unit]:
    """Transcribes a text to what Kokoro reads.

    Args:
      text: One or more sentences.
      language: A key of `LANGUAGES`.

    Returns:
      Phonemes, spaces and punctuation in order.
    """
    # espeak-ng takes what lies between two marks, and the marks stay where they were.
    pieces = _MARKS.split(text.replace("«", "“").replace("»", "”"))
    spoken = espeak.transcribe(pieces[::2], LANGUAGES[language])
    table = _table(language)
    out: list[Unit] = []
    for number, words in enumerate(spoken):
        for word in words:
            if out and not out[-1].characters.endswith((" ", *_OPENING)):
                out.append(Unit("", " "))
            out += [Unit(symbol, _convert(symbol, table)) for symbol in word]
        if 2 * number + 1 < len(pieces):
            mark = pieces[2 * number + 1]
            out.append(Unit("", f" {mark}" if out and mark in _OPENING else mark))
    return out


def _table(language: str) -> list[tuple[str, str]]:
    """Lists replacements, the longest first."""
    table = dict(_ANY)
    if language.startswith("en"):
        table |= _ENGLISH | (_AMERICAN if language == "en-us" else _BRITISH)
    return sorted(table.items(), key=lambda pair: -len(pair[0]))


def _convert(symbol: str, table: list[tuple[str, str]]) -> str:
    """Converts a phoneme from left to right, so that no replacement is replaced again."""
    symbol = re.sub("([^ˈˌ])\u0329", "ᵊ\\1", symbol)  # A syllabic consonant.
    out = ""
    while symbol:
        old, new = next((p for p in table if symbol.startswith(p[0])), (symbol[0], symbol[0]))
        out, symbol = out + new, symbol[len(old) :]
    return out
