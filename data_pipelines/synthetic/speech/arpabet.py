"""Phone labels of aligners and dictionaries, as IPA symbols.

Aligners for English mostly write ARPAbet (CMU's dictionary, Kaldi, the Montreal Forced Aligner's
older models), with or without stress digits; others write IPA, which stays as it is.
"""

import re

from .phonemes import STRESS

# fmt: off
IPA = {
    "AA": "ɑ", "AE": "æ", "AH": "ʌ", "AO": "ɔ", "AW": "aʊ", "AX": "ə", "AXR": "ɚ", "AY": "aɪ",
    "EH": "ɛ", "ER": "ɚ", "EY": "eɪ", "IH": "ɪ", "IX": "ɨ", "IY": "i", "OW": "oʊ", "OY": "ɔɪ",
    "UH": "ʊ", "UW": "u", "UX": "u",
    "B": "b", "CH": "tʃ", "D": "d", "DH": "ð", "DX": "ɾ", "EL": "əl", "EM": "əm", "EN": "ən",
    "F": "f", "G": "ɡ", "HH": "h", "HV": "h", "JH": "dʒ", "K": "k", "L": "l", "M": "m", "N": "n",
    "NG": "ŋ", "NX": "n", "P": "p", "Q": "ʔ", "R": "ɹ", "S": "s", "SH": "ʃ", "T": "t", "TH": "θ",
    "V": "v", "W": "w", "WH": "w", "Y": "j", "Z": "z", "ZH": "ʒ",
}
# Marks of silence and noise of the usual aligners.
_PAUSES = {"", "sil", "sp", "spn", "spoken_noise", "nsn", "pau", "eps", "silence", "sp1", "#", "h#",
           "noise", "breath", "laugh", "unk"}
# From IPA to the phones of CMU's dictionary, the longest first.
_FROM_IPA = {
    "aɪ": "AY", "aʊ": "AW", "eɪ": "EY", "oʊ": "OW", "əʊ": "OW", "ɔɪ": "OY", "tʃ": "CH", "dʒ": "JH",
    "əl": "AH L", "ɜː": "ER", "ɑ": "AA", "æ": "AE", "ʌ": "AH", "ɐ": "AH", "ə": "AH", "ɚ": "ER",
    "ɜ": "ER", "ɔ": "AO", "o": "OW", "ɒ": "AA", "a": "AA", "ɛ": "EH", "e": "EY", "ɪ": "IH",
    "ᵻ": "IH", "i": "IY", "ʊ": "UH", "u": "UW", "b": "B", "d": "D", "ð": "DH", "f": "F", "ɡ": "G",
    "h": "HH", "k": "K", "x": "K", "l": "L", "ɬ": "L", "m": "M", "n": "N", "ŋ": "NG", "p": "P",
    "ɹ": "R", "r": "R", "s": "S", "ʃ": "SH", "t": "T", "ɾ": "T", "ʔ": "T", "θ": "TH", "v": "V",
    "w": "W", "j": "Y", "z": "Z", "ʒ": "ZH",
}
# fmt: on
_SCHWA = 0.09  # Seconds; an AH without a stress digit that is shorter is a schwa.


def is_pause(label: str) -> bool:
    """Whether a label marks silence or noise."""
    return re.sub(r"[<>\[\](){}+*_]", "", label).lower() in _PAUSES


def to_ipa(label: str, seconds: float) -> str:
    """Converts a phone's label.

    Args:
      label: ARPAbet, with or without a stress digit and Kaldi's "_B", "_I", "_E", "_S"; or IPA.
      seconds: The phone's duration, which tells a schwa from a full vowel.

    Returns:
      An IPA symbol with a stress mark where the stress is known or the phone is a vowel of unknown
      stress; other labels unchanged.
    """
    name = re.sub(r"_[BIES]$", "", label)
    match = re.fullmatch(r"([A-Za-z]+)([012]?)", name)
    if not match or match[1].upper() not in IPA or not (match[1].isupper() or match[2]):
        return name
    phone, digit = match[1].upper(), match[2]
    symbol = IPA[phone]
    if phone == "AH" and (digit == "0" or (not digit and seconds < _SCHWA)):
        return "ə"
    if symbol[0] not in "ɑæʌɔaəɚɛeɪɨioʊu":
        return symbol
    return {"1": STRESS[0], "2": STRESS[1], "0": "", "": STRESS[1]}[digit] + symbol


def from_ipa(symbols: list[str]) -> list[str]:
    """Converts IPA symbols of English to phones of CMU's dictionary; unknown ones are left out."""
    phones: list[str] = []
    for symbol in symbols:
        rest = symbol.strip(STRESS)
        while rest:
            size = next((n for n in (2, 1) if rest[:n] in _FROM_IPA), 0)
            phones += _FROM_IPA[rest[:size]].split() if size else []
            rest = rest[max(size, 1) :]
    return phones
