"""A person whose mouth is a grey patch, a detector that reads it, models that paint it."""

import numpy as np

from talkjax import conventions, head_pose
from talkjax.conventions import MOUTH_REGION
from talkjax.media.video import probe
from talkjax.media.video_writer import VideoWriter
from talkjax.metrics import measure
from tests.media_files import Sound, make_media

SIDE = 160
PATCH = (slice(86, 104), slice(66, 94))  # well inside of the mask, for a face as below
_WIDEST = 0.5  # inter-ocular units, at white


def opening_curve(seed: int, ticks: int = 50) -> np.ndarray:
    """(ticks,) in [0, 1], smooth, another for every seed."""
    rng = np.random.default_rng(seed)
    knots = rng.uniform(0.1, 0.9, ticks // 4 + 3)
    return np.interp(np.arange(ticks) / 4, np.arange(len(knots)), knots)


def draw(frame: np.ndarray, opening: float) -> np.ndarray:
    """Paints a mouth into a copy of a frame."""
    out = frame.copy()
    out[PATCH] = round(255 * opening)
    return out


def background(seed: int) -> np.ndarray:
    """(SIDE, SIDE, 3) uint8."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    return (90 + 60 * np.stack([x, y, (x + y + 0.1 * seed) % 1], -1)).astype(np.uint8)


def make_clip(path, seed: int, ticks: int = 50, shut=()):
    """A video whose audio is as loud as its mouth is open; closed in the given (start, end)s."""
    curve = opening_curve(seed, ticks)
    for start, end in shut:
        curve[round(start * 25) : round(end * 25) + 1] = 0
    rate = 16000
    loud = np.interp(np.arange(ticks * rate // 25) / rate * 25, np.arange(ticks), curve)
    # In dB as the mouth opens, so that the loudest model is a linear one.
    gain = 10 ** ((loud * 50 - 55) / 20)
    sound = gain * np.sqrt(2) * np.sin(2 * np.pi * 400 * np.arange(len(loud)) / rate)
    frames = [draw(background(seed), value) for value in curve]
    return make_media(path, frames, sound=Sound(sound[None].astype(np.float32), rate, "flac"))


class PatchDetector:
    """A face that never moves; its lips part as its patch is bright. No face in black frames."""

    def __init__(self):
        self.versions = {"patch": "1"}
        self.frames = 0
        points = np.random.default_rng(0).uniform(0.3, 0.7, (conventions.FACEMESH_POINTS, 3))
        points[list(conventions.RIGID), :2] = 0.25 + 0.5 * head_pose.TEMPLATE
        self._points = (points * SIDE).astype(np.float32)

    def reset(self):
        pass

    def detect(self, rgb):
        self.frames += 1
        if rgb.mean() < 16:
            return np.zeros((0, conventions.FACEMESH_POINTS, 3), np.float32)
        points = self._points.copy()
        gap = rgb[PATCH].mean() / 255 * _WIDEST * head_pose.INTEROCULAR * SIDE / 2
        points[13, :2] = 80, 95 - gap / 2
        points[14, :2] = 80, 95 + gap / 2
        return points[None]


def loudness(wave: np.ndarray, ticks: int, sample_rate: int = 16000) -> np.ndarray:
    """(ticks,) RMS in dB of an 80 ms Hann window around each tick, not below -60."""
    half = sample_rate // 25
    window = np.hanning(2 * half + 2)[1:-1]
    window /= window.sum()
    power = np.pad(np.asarray(wave, np.float64) ** 2, half)
    starts = np.arange(ticks) * half
    out = np.array([(power[i : i + 2 * half] * window).sum() for i in starts])
    return 10 * np.log10(np.maximum(out, 1e-6))


class LoudGenerator:
    """A perfect model: the mouth opens as the audio is loud, `late` ticks behind it."""

    crop_size = 64
    region = MOUTH_REGION

    def __init__(self, late: int = 0, name: str = "loud"):
        self.identity = {"name": name, "late": late}
        self.late, self.calls = late, []

    def generate(self, *, video, audio: str, out):
        from talkjax.media.audio import load_audio

        self.calls.append(str(out))
        sound = load_audio(audio)
        template = [frame.rgb for frame in measure.read_frames(video)]
        ticks = len(sound) * 25 // 16000
        curve = np.clip((loudness(sound, ticks) + 55) / 50, 0, 1)
        curve = np.concatenate([np.full(self.late, curve[0]), curve])[:ticks]
        pingpong = [*range(len(template)), *range(len(template) - 2, 0, -1)]
        with VideoWriter.like(out, probe(video)) as writer:
            for tick, value in enumerate(curve):
                frame = template[pingpong[tick % len(pingpong)]]
                writer.write(draw(frame, value), tick / 25)

    def autoencode(self, regions):
        assert regions.shape[0] == 16
        return regions.astype(np.float32)
