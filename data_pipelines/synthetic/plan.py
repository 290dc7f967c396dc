"""Plans a corpus: who says what in which clip, as a list that is complete before any work starts.

Every clip depends only on the seed, its split, the number of its identity and its own number.
A larger corpus of the same seed therefore contains the smaller one, and neither the order of the
work nor the number of processes matters.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .speech.recordings import Excerpt
from .speech.sentences import SPLITS, sample_sentence
from .speech.speaking import AnyVoice
from .speech.voices import sample_random_voice, sample_voice

PAUSES = ("none", "start", "middle", "end")
_PAUSE_SHARES = (0.72, 0.08, 0.12, 0.08)
_ROOM_SHARE = 0.3
_NOISE_SHARE = 0.25
_SNR_DB = (18.0, 35.0)
_SHORT_SENTENCE = 1.1  # Seconds.
# These take the place of a split's number in the keys of clips without images.
_SPEECH, _RECORDING = 2, 3
_TEXT_SHARE = 0.5  # Of the sentences for which there are texts of the user.
_PLAN, _VOICE = 0, 1  # Purposes of random streams; `clip` has further ones.


@dataclass(frozen=True)
class CorpusSettings:
    """Settings that all clips of a corpus share.

    Attributes:
      size: Side of the square frames in pixels, which must be even.
      fps: Frames per second.
      seconds: Approximate duration of a clip in seconds; a clip ends with a sentence.
    """

    size: int = 256
    fps: float = 25.0
    seconds: float = 4.0


@dataclass(frozen=True)
class ClipPlan:
    """Plan of one clip.

    Attributes:
      clip_id: Name of the clip's files, unique in the corpus.
      split: "train" or "test".
      identity: Number of the person within the split.
      identity_key: Key of all random streams that stay with the person.
      clip_key: Key of all other random streams.
      voice: The person's voice, which may be an excerpt of a recording.
      sentences: Sentences, spoken one after another until the clip is long enough.
      pause: Position of an additional pause, one of `PAUSES`.
      pause_seconds: Duration of this pause in seconds.
      room: Whether the sound has the reverberation of a room.
      snr_db: Signal-to-noise ratio in dB; None adds no noise.
    """

    clip_id: str
    split: str
    identity: int
    identity_key: tuple[int, ...]
    clip_key: tuple[int, ...]
    voice: AnyVoice
    sentences: tuple[str, ...]
    pause: str = "none"
    pause_seconds: float = 0.0
    room: bool = False
    snr_db: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as plain data, with lists for tuples."""
        return json.loads(json.dumps(asdict(self)))


def random_stream(key: tuple[int, ...], purpose: int) -> np.random.Generator:
    """Returns a generator for one purpose of an identity or a clip, independent of all others."""
    return np.random.default_rng([*key, purpose])


def plan_corpus(
    identities: int,
    clips: int,
    seed: int,
    test_identities: int,
    settings: CorpusSettings | None = None,
) -> list[ClipPlan]:
    """Plans a corpus of videos.

    Args:
      identities: Number of people, including those of the test split.
      clips: Number of clips per person.
      seed: Seed of the corpus, not negative.
      test_identities: Number of people in the test split.
      settings: Settings of the corpus; the duration decides how many sentences may be needed.

    Returns:
      The clips, person by person, the training split first. The splits share no identity, voice or
      sentence.

    Raises:
      ValueError: A number is out of range.
    """
    if not 0 <= test_identities <= identities or clips < 0 or seed < 0:
        raise ValueError(
            f"identities={identities}, clips={clips}, seed={seed} and "
            f"test_identities={test_identities} must not be negative, and there cannot be more "
            "test_identities than identities"
        )
    settings = settings or CorpusSettings()
    counts = (identities - test_identities, test_identities)
    return [
        _plan_clip(seed, split, identity, clip, settings)
        for split, count in enumerate(counts)
        for identity in range(count)
        for clip in range(clips)
    ]


def plan_speech(
    clips: int,
    seed: int,
    settings: CorpusSettings | None = None,
    sample: Callable[[np.random.Generator, int], AnyVoice] | None = None,
    texts: Sequence[str] = (),
) -> list[ClipPlan]:
    """Plans clips of the training split that are not rendered.

    Args:
      clips: Number of clips. Each has a face and a randomly drawn voice of its own.
      seed: Seed of the corpus, not negative.
      settings: Settings of the clips.
      sample: Draws the voice of the clip with a number; None draws voices of espeak-ng.
      texts: English sentences of which half of the English sentences are drawn.

    Returns:
      The clips, whose sentences belong to the training split.
    """
    sample = sample or (lambda rng, _: sample_random_voice(rng))
    return [
        _plan_clip(seed, _SPEECH, number, 0, settings or CorpusSettings(), sample, texts)
        for number in range(clips)
    ]


def plan_recordings(
    excerpts: Sequence[tuple[int, int, Excerpt]], texts: Sequence[str], seed: int
) -> list[ClipPlan]:
    """Plans clips that are excerpts of recordings.

    Args:
      excerpts: (row of the table, number within the recording, excerpt).
      texts: The text of each row.
      seed: Seed of the faces and rooms, not negative.

    Returns:
      The clips. All excerpts of a recording have the same face.
    """
    out = []
    for row, number, excerpt in excerpts:
        identity_key = (seed, _RECORDING, row)
        clip_key = (*identity_key, 1 + number)
        rng = random_stream(clip_key, _PLAN)
        name = f"recording_{row:05d}_{number:03d}"
        heard = dict(zip(("room", "snr_db"), _sample_recording(rng), strict=True))
        out.append(
            ClipPlan(name, "train", row, identity_key, clip_key, excerpt, (texts[row],), **heard)
        )
    return out


def _sample_recording(rng: np.random.Generator) -> tuple[bool, float | None]:
    """Draws whether a room is heard, and the signal-to-noise ratio."""
    room = bool(rng.random() < _ROOM_SHARE)
    snr_db = round(float(rng.uniform(*_SNR_DB)), 1) if rng.random() < _NOISE_SHARE else None
    return room, snr_db


def _plan_clip(
    seed: int,
    split_key: int,
    identity: int,
    clip: int,
    settings: CorpusSettings,
    sample: Callable[[np.random.Generator, int], AnyVoice] | None = None,
    texts: Sequence[str] = (),
) -> ClipPlan:
    split = "train" if split_key == _SPEECH else SPLITS[split_key]
    identity_key = (seed, split_key, identity)
    clip_key = (*identity_key, 1 + clip)
    rng = random_stream(identity_key, _VOICE)
    voice = sample(rng, identity) if sample else sample_voice(rng, split)
    rng = random_stream(clip_key, _PLAN)
    pause = str(rng.choice(PAUSES, p=_PAUSE_SHARES))
    pause_seconds = round(float(rng.uniform(1.0, 2.0)), 2) if pause != "none" else 0.0
    room, snr_db = _sample_recording(rng)
    count = 2 + math.ceil(settings.seconds / _SHORT_SENTENCE)
    sentences = tuple(_sample_text(rng, voice.language, split, texts) for _ in range(count))
    return ClipPlan(
        clip_id=f"{'speech' if split_key == _SPEECH else split}_{identity:05d}_{clip:03d}",
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


def _sample_text(rng, language: str, split: str, texts: Sequence[str]) -> str:
    if texts and language.startswith("en") and rng.random() < _TEXT_SHARE:
        return texts[int(rng.integers(len(texts)))]
    return sample_sentence(rng, language, split)
