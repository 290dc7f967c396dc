"""Stands in for a sampler where the page is tested and not the networks."""

import shutil
import threading
import types

import numpy as np

from talkjax.errors import UserError
from talkjax.sampling.output_queue import StreamItem
from talkjax.sampling.summary import Summary

FRAMES = 10


class FakeSampler:
    """Copies the template; waits before its first frame where `hold` was called."""

    fingerprint = "0123456789abcdef"
    networks = types.SimpleNamespace(schedule=types.SimpleNamespace(steps=1000))

    def __init__(self):
        self.begun, self.go = threading.Event(), threading.Event()
        self.go.set()
        self.generated = FRAMES
        self.sessions = []

    def hold(self):
        self.begun.clear()
        self.go.clear()

    def check_guidance(self, options):
        pass

    def generate(self, *, video, audio, out, options, detector, callback):
        self.begun.set()
        assert self.go.wait(120)
        if not self.generated:
            raise UserError(f"{video}: no face was found in it; give another template")
        for frame in range(FRAMES):
            callback(frame / FRAMES, None, None, frame)
        shutil.copy(video, out)
        summary = Summary(str(out), 96, 80, 25.0, frames=FRAMES, audio_seconds=1.0)
        summary.frames_generated = self.generated
        return summary

    def stream(self, path, *, rate, when_full):
        self.sessions.append(FakeSession(rate))
        return self.sessions[-1]


class FakeSession:
    """Gives back what is pushed, one frame for each piece."""

    latency = 0.28

    def __init__(self, rate):
        self.rate, self.pushed, self.closed = rate, [], False
        self.interrupted = 0

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.closed = True

    def push_audio(self, samples):
        self.pushed.append(samples)

    def interrupt(self):
        self.interrupted += 1

    def __iter__(self):
        for tick in range(10_000):
            threading.Event().wait(0.01)
            frame = np.full((80, 96, 3), tick % 256, np.uint8)
            sound = np.zeros(self.rate // 25, np.float32)
            yield StreamItem(tick, frame, sound, bool(self.pushed))
