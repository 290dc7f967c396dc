"""Makes one clip from its plan: speech, motion, images, a video with sound, and ground truth.

Sentences are synthesized to sound and phonemes, and phonemes give viseme curves. Head motion
follows the loudness a little. Curves and motion are sampled to one pose per frame, which the avatar
renders.
"""

import os
import pathlib
import tempfile
import wave
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from talkjax.media.video_writer import VideoWriter

from . import outfit, scene, sidecar
from .animation import motion, visemes
from .animation.turns import Turns, apply_turns, sample_turns
from .geometry import face_model, shape
from .geometry.face import FaceGeometry
from .painting import appearance, backgrounds
from .painting.portrait import Textures, paint_portrait
from .plan import ClipPlan, CorpusSettings, random_stream
from .props import Props, compute_reach, sample_props
from .rendering.avatar import Avatar
from .rendering.capture import Capture, record, sample_capture
from .speech import acoustics, espeak, recordings
from .speech.phonemes import Phoneme
from .speech.speaking import Speak

_CRF = 12  # Coding errors of about one grey level, since the ground truth should be clean.
_PRESET = "veryfast"
# Ranges of silence in seconds: before, between and after the sentences.
_LEAD, _GAP, _TAIL = (0.12, 0.35), (0.12, 0.5), (0.2, 0.45)
_ENOUGH = 0.7  # No further sentence is started after this share of the wanted length.
_PEAK = (0.35, 0.8)  # Range of the sound's peak amplitude.
_LOUDNESS_SPAN = 0.08  # Seconds.
_NOSE = 4  # The landmark at the nose's tip.
# Purposes of random streams (see `plan.random_stream`) of an identity ...
_APPEARANCE, _PAINT, _STYLE, _OUTFIT, _GROOMING = range(2, 7)
# ... and of a clip.
_TIMING, _SOUND, _MOTION, _LIGHT, _CAMERA, _BACKGROUND = range(2, 8)
_PROPS, _TURNS, _CAPTURE, _HARDNESS = range(8, 12)


@dataclass(frozen=True, eq=False)
class Person:
    """What an identity looks like in all of its clips. Painting takes a second.

    Attributes:
      key: The identity's `ClipPlan.identity_key`.
      appearance: Its appearance.
      shape: Its geometry.
      textures: Its textures.
    """

    key: tuple[int, ...]
    appearance: appearance.Appearance
    shape: shape.Shape
    textures: Textures


@dataclass(frozen=True, eq=False)
class Setting:
    """Where and how a clip is filmed.

    Attributes:
      background: Background in sRGB in [0, 1], (size, size, 3).
      light, camera: Lights and lens.
      props: Things at the face.
      turns: Motion that is added to the performance.
      capture: How the frames are recorded.
    """

    background: np.ndarray
    light: scene.Light
    camera: scene.Camera
    props: Props
    turns: Turns
    capture: Capture


@dataclass(frozen=True, eq=False)
class Performance:
    """What a person says and how the face moves.

    Attributes:
      samples: Mono sound that fills whole frames, (S,) float32.
      rate: Sample rate in Hz.
      phonemes: Phonemes with times in the clip.
      spoken: Sentences that are spoken.
      curves: Viseme curves at `sidecar.CURVE_RATE`, (N, 7) float32.
      poses: One pose per frame.
    """

    samples: np.ndarray
    rate: int
    phonemes: tuple[Phoneme, ...]
    spoken: tuple[str, ...]
    curves: np.ndarray
    poses: tuple[scene.Pose, ...]


def _sample_identity(key: tuple[int, ...]) -> tuple[appearance.Appearance, shape.Shape]:
    rng = random_stream(key, _APPEARANCE)
    look = appearance.sample_appearance(rng)
    geometry = shape.sample_shape(rng, look.sex)
    worn = outfit.sample_outfit(random_stream(key, _OUTFIT), look)
    grown = outfit.sample_grooming(random_stream(key, _GROOMING), look)
    return replace(look, outfit=worn, grooming=grown), geometry


def make_person(key: tuple[int, ...]) -> Person:
    """Draws and paints the identity of a `ClipPlan.identity_key`."""
    look, geometry = _sample_identity(key)
    uv = face_model.load_face_model().uv
    return Person(key, look, geometry, paint_portrait(look, uv, random_stream(key, _PAINT)))


def speak_sentences(
    plan: ClipPlan, settings: CorpusSettings, speak: Speak = espeak.speak
) -> tuple[np.ndarray, int, tuple, tuple]:
    """Speaks sentences until the clip is long enough; an excerpt of a recording is the clip.

    Returns:
      (S,) float32 dry sound that fills whole frames, its sample rate, the phonemes, and the
      sentences that were used.
    """
    if isinstance(plan.voice, recordings.Excerpt):
        speech = speak(plan.sentences[0], plan.voice)
        frames = int(len(speech.samples) / speech.rate * settings.fps + 1e-6)
        samples = speech.samples[: round(frames / settings.fps * speech.rate)]
        return samples, speech.rate, speech.phonemes, plan.sentences
    rng = random_stream(plan.clip_key, _TIMING)
    lead, tail = rng.uniform(*_LEAD), rng.uniform(*_TAIL)
    lead += plan.pause_seconds if plan.pause == "start" else 0
    tail += plan.pause_seconds if plan.pause == "end" else 0
    pieces, phonemes, spoken, seconds, rate = [], [], [], lead, 0
    sentences = plan.sentences
    if plan.pause == "middle":  # This needs two sentences, so the short ones come first.
        sentences = sorted(sentences, key=len)
    for sentence in sentences:
        gap = rng.uniform(*_GAP)
        if spoken:
            pause_here = plan.pause == "middle" and len(spoken) == 1
            if seconds + tail >= _ENOUGH * settings.seconds and not pause_here:
                break
            seconds += plan.pause_seconds if pause_here else gap
        speech = speak(sentence, plan.voice)
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


def compute_loudness(samples: np.ndarray, rate: int, times: np.ndarray) -> np.ndarray:
    """Computes the RMS around each time (T,), relative to its maximum over the clip."""
    power = np.concatenate([[0.0], np.cumsum(samples.astype(np.float64) ** 2)])
    ends = [
        np.clip(np.round((times + side * _LOUDNESS_SPAN / 2) * rate), 0, len(samples)).astype(int)
        for side in (-1, 1)
    ]
    value = np.sqrt((power[ends[1]] - power[ends[0]]) / np.maximum(ends[1] - ends[0], 1))
    return value / max(value.max(), 1e-9)


def make_performance(
    plan: ClipPlan, settings: CorpusSettings, speak: Speak = espeak.speak
) -> Performance:
    """Makes a clip's speech and the motion that goes with it."""
    samples, rate, phonemes, spoken = speak_sentences(plan, settings, speak)
    times = np.arange(round(len(samples) / rate * settings.fps)) / settings.fps
    duration = len(samples) / rate
    style = visemes.sample_style(random_stream(plan.identity_key, _STYLE))
    curves = visemes.compute_curves(phonemes, duration, sidecar.CURVE_RATE, style)
    curve_times = np.arange(len(curves)) / sidecar.CURVE_RATE
    shown = np.stack([np.interp(times, curve_times, channel) for channel in curves.T], 1)
    moves = motion.sample_motion(
        random_stream(plan.clip_key, _MOTION),
        duration,
        rate=settings.fps,
        energy=compute_loudness(samples, rate, times),
    )
    poses = tuple(
        scene.Pose(
            **{
                name: float(getattr(moves, name)[i])
                for name in ("yaw", "pitch", "roll", "x", "y", "z", "blink", "brow", "breath")
            },
            gaze=tuple(map(float, moves.gaze[i])),
            visemes=tuple(map(float, shown[i])),
        )
        for i in range(len(times))
    )
    return Performance(_record(samples, rate, plan), rate, phonemes, spoken, curves, poses)


def _record(samples: np.ndarray, rate: int, plan: ClipPlan) -> np.ndarray:
    """Adds level, room and noise of a recording."""
    rng = random_stream(plan.clip_key, _SOUND)
    samples = samples * (rng.uniform(*_PEAK) / max(np.abs(samples).max(), 1e-9))
    if plan.room:
        samples = acoustics.add_room(samples, rate, rng)
    if plan.snr_db is not None:
        samples = acoustics.add_noise(samples, rate, rng, plan.snr_db)
    return np.clip(samples, -1, 1).astype(np.float32)


def compute_landmarks(
    plan: ClipPlan, settings: CorpusSettings, performance: Performance
) -> np.ndarray:
    """Computes a clip's landmarks without rendering it.

    Returns:
      (T, 468, 3) float32 as in `sidecar.GroundTruth`, without the irises.
    """
    _, geometry = _sample_identity(plan.identity_key)
    face = FaceGeometry(geometry)
    camera = scene.sample_camera(random_stream(plan.clip_key, _CAMERA))
    return np.stack([face.landmarks(pose, camera, settings.size) for pose in performance.poses])


def sample_setting(plan: ClipPlan, settings: CorpusSettings) -> Setting:
    """Draws the setting of a clip."""
    key = plan.clip_key
    light = scene.sample_light(random_stream(key, _LIGHT))
    return Setting(
        background=backgrounds.paint_background(random_stream(key, _BACKGROUND), settings.size),
        light=scene.sample_hard_light(random_stream(key, _HARDNESS), light),
        camera=scene.sample_camera(random_stream(key, _CAMERA)),
        props=sample_props(random_stream(key, _PROPS)),
        turns=sample_turns(random_stream(key, _TURNS)),
        capture=sample_capture(random_stream(key, _CAPTURE)),
    )


def stage_poses(
    poses: tuple[scene.Pose, ...], setting: Setting, settings: CorpusSettings
) -> tuple[scene.Pose, ...]:
    """Adds what a setting brings to the poses of a performance: wider motion and visiting hands."""
    duration = len(poses) / settings.fps
    reach = compute_reach(setting.props, np.arange(len(poses)) / settings.fps, duration)
    wider = apply_turns(poses, settings.fps, setting.turns)
    return tuple(replace(p, reach=float(r)) for p, r in zip(wider, reach, strict=True))


def make_clip(
    plan: ClipPlan,
    settings: CorpusSettings,
    out: str | os.PathLike,
    person: Person | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
    speak: Speak = espeak.speak,
) -> dict[str, Any]:
    """Makes a clip and its ground truth.

    Args:
      plan: Plan of the clip.
      settings: CorpusSettings of the corpus.
      out: Folder of the corpus. The files go to its subfolder `plan.split`, which must exist.
      person: The identity if it was made before.
      on_stage: Called with the name of each stage when it ends: "paint", "speech", and then
        "render" and "encode" for every frame.
      speak: Speaks with the plan's voice.

    Returns:
      {"clip_id", "split", "frames", "seconds"}.

    Raises:
      UserError: A file cannot be written, or the speech synthesizer is not usable.
    """
    if person is None or person.key != plan.identity_key:
        person = make_person(plan.identity_key)
    on_stage("paint")
    performance = make_performance(plan, settings, speak)
    on_stage("speech")
    setting = sample_setting(plan, settings)
    poses = stage_poses(performance.poses, setting, settings)
    avatar = Avatar(
        person.appearance, person.shape, person.textures, setting.background, setting.light,
        setting.camera, setting.props,
    )  # fmt: skip
    path = pathlib.Path(out) / plan.split / f"{plan.clip_id}.mp4"
    # The old sidecar must not vouch for a video that is being replaced.
    sidecar.sidecar_paths(path)[1].unlink(missing_ok=True)
    landmarks = []

    def render():
        for pose in poses:
            frame, exact = avatar.render(pose)
            landmarks.append(exact)
            on_stage("render")
            yield frame, exact[_NOSE, :2]

    seconds = len(poses) / settings.fps
    frames = record(render(), setting.capture, settings.size, settings.fps, seconds)
    with tempfile.TemporaryDirectory() as folder:
        sound = pathlib.Path(folder) / "speech.wav"
        write_wav(sound, performance.samples, performance.rate)
        size = settings.size
        with VideoWriter(
            path, size, size, settings.fps, crf=_CRF, preset=_PRESET, audio=sound
        ) as writer:
            for number, frame in enumerate(frames):
                writer.write(frame, number / settings.fps)
                on_stage("encode")
    performance = replace(performance, poses=poses)
    truth = _ground_truth(plan, settings, performance, np.stack(landmarks), person, setting)
    sidecar.save_truth(path, truth)
    on_stage("encode")
    return {
        "clip_id": plan.clip_id,
        "split": plan.split,
        "frames": len(poses),
        "seconds": round(seconds, 3),
    }


def _ground_truth(plan, settings, performance, landmarks, person, setting) -> sidecar.GroundTruth:
    poses = [
        (p.yaw, p.pitch, p.roll, p.x, p.y, p.z, p.blink, p.brow, *p.gaze, p.breath)
        for p in performance.poses
    ]
    phonemes = performance.phonemes
    return sidecar.GroundTruth(
        times=np.arange(len(poses)) / settings.fps,
        landmarks=landmarks.astype(np.float32),
        curves=performance.curves.astype(np.float32),
        poses=np.array(poses, np.float32),
        bilabial=visemes.find_closures(phonemes),
        info={
            "plan": plan.to_json(),
            "settings": asdict(settings),
            "seconds": round(len(poses) / settings.fps, 4),
            "spoken": list(performance.spoken),
            "phonemes": [[p.symbol, round(p.start, 4), round(p.end, 4)] for p in phonemes],
            "channels": list(visemes.CHANNELS),
            "look": asdict(person.appearance),
            "shape": asdict(person.shape),
            "light": asdict(setting.light),
            "camera": asdict(setting.camera),
            "props": asdict(setting.props),
            "capture": asdict(setting.capture),
        },
    )


def write_wav(path: str | os.PathLike, samples: np.ndarray, rate: int) -> None:
    """Writes mono samples in [-1, 1], (S,), as a 16-bit WAV file."""
    with wave.open(os.fspath(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).round().astype("<i2").tobytes())
