"""One clip, from its plan to files: speech, motion, pictures, video with sound, truth.

Sentences give sound and phonemes (espeak-ng), phonemes give viseme curves, and the sound's loudness
sways the head's motion; curves and motion are poses, which the avatar turns into frames.
"""

import os
import pathlib
import tempfile
import wave
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from data_pipelines.synthetic import (
    acoustics,
    avatar,
    backgrounds,
    espeak,
    face_model,
    look,
    motion,
    paint_skin,
    shape,
    sidecar,
    visemes,
)  # fmt: skip
from data_pipelines.synthetic.geometry import FaceGeometry
from data_pipelines.synthetic.plan import ClipPlan, Settings, stream
from talkjax.media.video_writer import VideoWriter

CRF = 12  # the truth should be clean: errors of coding are about a grey level
PRESET = "veryfast"
_LEAD, _GAP, _TAIL = (0.12, 0.35), (0.12, 0.5), (0.2, 0.45)  # seconds without speech
_ENOUGH = 0.7  # of the wanted length: then no further sentence is begun
_PEAK = (0.35, 0.8)
_LOUDNESS_SPAN = 0.08  # seconds
# What a stream of random numbers is for (`plan.stream`), of an identity ...
_LOOK, _PAINT, _STYLE = 2, 3, 4
# ... and of a clip.
_TIMING, _SOUND, _MOTION, _LIGHT, _CAMERA, _BACKGROUND = range(2, 8)


@dataclass(frozen=True, eq=False)
class Person:
    """What an identity looks like; slow to make (painting), and the same in all its clips.

    Attributes:
      key: `ClipPlan.identity_key`.
      look, shape: their parameters.
      textures: painted skin, eyes, hair and cloth.
    """

    key: tuple[int, ...]
    look: look.Look
    shape: shape.Shape
    textures: paint_skin.Textures


@dataclass(frozen=True, eq=False)
class Performance:
    """What is said and how the face moves.

    Attributes:
      samples: (S,) float32 mono, as many as the frames last.
      rate: of the samples, Hz.
      phonemes: on the clip's clock.
      spoken: the sentences.
      curves: (N, 7) viseme channels at `sidecar.CURVE_RATE`.
      poses: one for each frame.
    """

    samples: np.ndarray
    rate: int
    phonemes: tuple[espeak.Phoneme, ...]
    spoken: tuple[str, ...]
    curves: np.ndarray
    poses: tuple[avatar.Pose, ...]


def make_person(key: tuple[int, ...]) -> Person:
    """Draws and paints an identity."""
    rng = stream(key, _LOOK)
    appearance = look.sample_look(rng)
    geometry = shape.sample_shape(rng, appearance)
    textures = paint_skin.paint(appearance, face_model.load().uv, stream(key, _PAINT))
    return Person(key, appearance, geometry, textures)


def speak(plan: ClipPlan, settings: Settings) -> tuple[np.ndarray, int, tuple, tuple]:
    """Says sentences until the clip is long enough.

    Returns:
      (S,) float32 dry sound that fills whole frames, its rate, the phonemes and the sentences
      that were used.
    """
    rng = stream(plan.clip_key, _TIMING)
    lead, tail = rng.uniform(*_LEAD), rng.uniform(*_TAIL)
    lead += plan.pause_seconds if plan.pause == "start" else 0
    tail += plan.pause_seconds if plan.pause == "end" else 0
    pieces, phonemes, spoken, seconds, rate = [], [], [], lead, 0
    sentences = plan.sentences
    if plan.pause == "middle":  # which takes two sentences: short ones
        sentences = sorted(sentences, key=len)
    for sentence in sentences:
        gap = rng.uniform(*_GAP)
        if spoken:
            pause_here = plan.pause == "middle" and len(spoken) == 1
            if seconds + tail >= _ENOUGH * settings.seconds and not pause_here:
                break
            seconds += plan.pause_seconds if pause_here else gap
        speech = espeak.speak(sentence, plan.voice)
        rate = speech.rate
        start = round(seconds * rate)
        pieces.append((start, speech.samples))
        phonemes += [
            replace(p, start=p.start + start / rate, end=p.end + start / rate)
            for p in speech.phonemes
        ]
        spoken.append(sentence)
        seconds = (start + len(speech.samples)) / rate
    frames = int(np.ceil((seconds + tail) * settings.fps - 1e-6))
    samples = np.zeros(round(frames / settings.fps * rate), np.float32)
    for start, piece in pieces:
        samples[start : start + len(piece)] += piece
    return samples, rate, tuple(phonemes), tuple(spoken)


def loudness(samples: np.ndarray, rate: int, times: np.ndarray) -> np.ndarray:
    """(T,) RMS around each time over the clip's greatest, in [0, 1]."""
    power = np.concatenate([[0.0], np.cumsum(samples.astype(np.float64) ** 2)])
    ends = [
        np.clip(np.round((times + side * _LOUDNESS_SPAN / 2) * rate), 0, len(samples)).astype(int)
        for side in (-1, 1)
    ]
    value = np.sqrt((power[ends[1]] - power[ends[0]]) / np.maximum(ends[1] - ends[0], 1))
    return value / max(value.max(), 1e-9)


def perform(plan: ClipPlan, settings: Settings) -> Performance:
    """Speech, and the motion that goes with it."""
    samples, rate, phonemes, spoken = speak(plan, settings)
    times = np.arange(round(len(samples) / rate * settings.fps)) / settings.fps
    duration = len(samples) / rate
    style = visemes.sample_style(stream(plan.identity_key, _STYLE))
    curves = visemes.curves(phonemes, duration, sidecar.CURVE_RATE, style)
    at = np.arange(len(curves)) / sidecar.CURVE_RATE
    shown = np.stack([np.interp(times, at, channel) for channel in curves.T], 1)
    energy = loudness(samples, rate, times)
    moves = motion.sample_motion(
        stream(plan.clip_key, _MOTION), duration, rate=settings.fps, energy=energy
    )
    poses = tuple(
        avatar.Pose(
            **{
                name: float(getattr(moves, name)[i])
                for name in ("yaw", "pitch", "roll", "x", "y", "z", "blink", "brow", "breath")
            },
            gaze=tuple(map(float, moves.gaze[i])),
            visemes=tuple(map(float, shown[i])),
        )
        for i in range(len(times))
    )
    sound = _record(samples, rate, plan)
    return Performance(sound, rate, phonemes, spoken, curves, poses)


def _record(samples: np.ndarray, rate: int, plan: ClipPlan) -> np.ndarray:
    """The sound as a microphone hears it."""
    rng = stream(plan.clip_key, _SOUND)
    samples = samples * (rng.uniform(*_PEAK) / max(np.abs(samples).max(), 1e-9))
    if plan.room:
        samples = acoustics.add_room(samples, rate, rng)
    if plan.snr_db is not None:
        samples = acoustics.add_noise(samples, rate, rng, plan.snr_db)
    return np.clip(samples, -1, 1).astype(np.float32)


def follow(plan: ClipPlan, settings: Settings, performance: Performance) -> np.ndarray:
    """The landmarks of a clip of which no picture is drawn.

    Returns:
      (T, 468, 3) float32 as in `sidecar.Truth`, without the irises.
    """
    rng = stream(plan.identity_key, _LOOK)
    face = FaceGeometry(shape.sample_shape(rng, look.sample_look(rng)))
    camera = avatar.sample_camera(stream(plan.clip_key, _CAMERA))
    return np.stack([face.landmarks(pose, camera, settings.size) for pose in performance.poses])


def make_clip(
    plan: ClipPlan,
    settings: Settings,
    out: str | os.PathLike,
    person: Person | None = None,
    clock: Callable[[str], None] = lambda stage: None,
) -> dict[str, Any]:
    """Makes a clip and its truth.

    Args:
      plan: of the clip.
      settings: of the corpus.
      out: folder of the corpus; the files go into its subfolder `plan.split`, which must exist.
      person: the identity, if it has been made before.
      clock: called at the end of each stage, with its name: "paint", "speech", "render", "encode"
        (the last two alternate).

    Returns:
      {"clip_id", "split", "frames", "seconds"}.

    Raises:
      UserError: a file cannot be written, or the speech synthesizer cannot be used.
      OSError: the truth cannot be written.
    """
    if person is None or person.key != plan.identity_key:
        person = make_person(plan.identity_key)
    clock("paint")
    shown = perform(plan, settings)
    clock("speech")
    light = avatar.sample_light(stream(plan.clip_key, _LIGHT))
    camera = avatar.sample_camera(stream(plan.clip_key, _CAMERA))
    background = backgrounds.paint_background(stream(plan.clip_key, _BACKGROUND), settings.size)
    model = avatar.Avatar(
        person.look, person.shape, person.textures, background, light, camera, settings.size
    )
    path = pathlib.Path(out) / plan.split / f"{plan.clip_id}.mp4"
    sidecar.paths(path)[1].unlink(missing_ok=True)  # it vouched for what is replaced now
    landmarks = []
    with tempfile.TemporaryDirectory() as folder:
        sound = pathlib.Path(folder) / "speech.wav"
        write_wav(sound, shown.samples, shown.rate)
        size = settings.size
        with VideoWriter(
            path, size, size, settings.fps, crf=CRF, preset=PRESET, audio=sound
        ) as writer:
            for number, pose in enumerate(shown.poses):
                frame, exact = model.render(pose)
                clock("render")
                writer.write(frame, number / settings.fps)
                landmarks.append(exact)
                clock("encode")
    sidecar.save(path, _truth(plan, settings, shown, np.stack(landmarks), person, light, camera))
    clock("encode")
    frames = len(shown.poses)
    return {
        "clip_id": plan.clip_id,
        "split": plan.split,
        "frames": frames,
        "seconds": round(frames / settings.fps, 3),
    }


def _truth(plan, settings, shown, landmarks, person, light, camera) -> sidecar.Truth:
    poses = [
        (p.yaw, p.pitch, p.roll, p.x, p.y, p.z, p.blink, p.brow, *p.gaze, p.breath)
        for p in shown.poses
    ]
    return sidecar.Truth(
        times=np.arange(len(poses)) / settings.fps,
        landmarks=landmarks.astype(np.float32),
        curves=shown.curves.astype(np.float32),
        poses=np.array(poses, np.float32),
        bilabial=np.asarray(visemes.bilabial_times(shown.phonemes), np.float64).reshape(-1, 2),
        info={
            "plan": plan.to_json(),
            "settings": asdict(settings),
            "seconds": round(len(poses) / settings.fps, 4),
            "spoken": list(shown.spoken),
            "phonemes": [[p.symbol, round(p.start, 4), round(p.end, 4)] for p in shown.phonemes],
            "channels": list(visemes.CHANNELS),
            "look": asdict(person.look),
            "shape": asdict(person.shape),
            "light": asdict(light),
            "camera": asdict(camera),
        },
    )


def write_wav(path: str | os.PathLike, samples: np.ndarray, rate: int) -> None:
    """Writes (S,) float samples in [-1, 1] as 16-bit mono."""
    with wave.open(os.fspath(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).round().astype("<i2").tobytes())
