"""Who says what in which clip: the whole corpus as a list, before anything is made.

Every clip is a function of the seed, its split, its identity's number and its own number alone, so
a larger corpus of the same seed contains the smaller one, and neither the order of the work nor
the number of processes matters.
"""

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from data_pipelines.synthetic.sentences import sample_sentence
from data_pipelines.synthetic.voices import Voice, draw_voice, sample_voice

SPLITS = ("train", "test")
PAUSES = ("none", "start", "middle", "end")
_PAUSE_SHARES = (0.72, 0.08, 0.12, 0.08)
_ROOM_SHARE = 0.3
_NOISE_SHARE = 0.25
_SNR_DB = (18.0, 35.0)
_BRISK = 1.1  # seconds of a short sentence
_DRAWN = 2  # where a split's number is in a key
_PLAN, _VOICE = 0, 1  # what a stream of random numbers is for; `stream` takes further numbers


@dataclass(frozen=True)
class Settings:
    """What all clips of a corpus have in common.

    Attributes:
      size: side of the square frames, px, even.
      fps: frames a second.
      seconds: about how long a clip is; it ends with a sentence.
    """

    size: int = 256
    fps: float = 25.0
    seconds: float = 4.0


@dataclass(frozen=True)
class ClipPlan:
    """One clip.

    Attributes:
      clip_id: unique in the corpus; the files' name.
      split: "train" or "test".
      identity: number of the person within the split.
      identity_key: seed of everything that stays with the person (`stream`).
      clip_key: seed of everything else.
      voice: the person's.
      sentences: spoken one after the other until the clip is long enough.
      pause: where there is a second or two without any speech, one of `PAUSES`.
      pause_seconds: how long it is.
      room: whether the sound is that of a room.
      snr_db: of background noise; None for none.
    """

    clip_id: str
    split: str
    identity: int
    identity_key: tuple[int, ...]
    clip_key: tuple[int, ...]
    voice: Voice
    sentences: tuple[str, ...]
    pause: str = "none"
    pause_seconds: float = 0.0
    room: bool = False
    snr_db: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields as plain data."""
        return json.loads(json.dumps(asdict(self)))


def stream(key: tuple[int, ...], purpose: int) -> np.random.Generator:
    """The random numbers of an identity or a clip for one purpose, independent of all others."""
    return np.random.default_rng([*key, purpose])


def plan(
    identities: int,
    clips: int,
    seed: int,
    test_identities: int,
    settings: Settings | None = None,
) -> list[ClipPlan]:
    """Plans a corpus.

    Args:
      identities: people, those of the test split included.
      clips: of each.
      seed: not negative.
      test_identities: how many of the people are the test split's.
      settings: how long the clips are, which says how many sentences may be needed.

    Returns:
      The clips, person by person, training split first. No identity, voice or sentence is in both
      splits.
    """
    if not 0 <= test_identities <= identities or clips < 0 or seed < 0:
        raise ValueError(f"no corpus of {identities} ({test_identities}) x {clips}, seed {seed}")
    settings = settings or Settings()
    counts = (identities - test_identities, test_identities)
    return [
        _clip(seed, split, identity, clip, settings)
        for split, count in zip(SPLITS, counts, strict=True)
        for identity in range(count)
        for clip in range(clips)
    ]


def plan_speech(clips: int, seed: int, settings: Settings | None = None) -> list[ClipPlan]:
    """Plans clips for the training split that are heard and not seen.

    Args:
      clips: how many, each with a face and a drawn voice (`voices.draw_voice`) of its own.
      seed: not negative.
      settings: how long the clips are.

    Returns:
      The clips; their sentences are the training split's.
    """
    return [
        _clip(seed, "train", identity, 0, settings or Settings(), drawn=True)
        for identity in range(clips)
    ]


def _clip(
    seed: int, split: str, identity: int, clip: int, settings: Settings, drawn: bool = False
) -> ClipPlan:
    identity_key = (seed, _DRAWN if drawn else SPLITS.index(split), identity)
    clip_key = (*identity_key, 1 + clip)
    rng = stream(identity_key, _VOICE)
    voice = draw_voice(rng) if drawn else sample_voice(rng, split)
    rng = stream(clip_key, _PLAN)
    pause = str(rng.choice(PAUSES, p=_PAUSE_SHARES))
    pause_seconds = round(float(rng.uniform(1.0, 2.0)), 2) if pause != "none" else 0.0
    room = bool(rng.random() < _ROOM_SHARE)
    snr_db = round(float(rng.uniform(*_SNR_DB)), 1) if rng.random() < _NOISE_SHARE else None
    count = 2 + math.ceil(settings.seconds / _BRISK)
    sentences = tuple(sample_sentence(rng, voice.language, split) for _ in range(count))
    return ClipPlan(
        clip_id=f"{'speech' if drawn else split}_{identity:05d}_{clip:03d}",
        split=split,
        identity=identity,
        identity_key=identity_key,
        clip_key=clip_key,
        voice=voice,
        sentences=sentences,
        pause=pause,
        pause_seconds=pause_seconds,
        room=room,
        snr_db=snr_db,
    )
