"""Synthetic clip records and videos, shards made of them, and a face finder that needs no face."""

import functools
import os
import pathlib
import time

import cv2
import numpy as np

from data_pipelines import clip_cache
from talkjax import conventions, head_pose
from talkjax.data import records, windows
from tests.media_files import Sound, make_media, tone


def make_record(
    clip_id: str = "clip", ticks: int = 75, fps: float = 25.0, size: int = 32, seed: int = 0
) -> records.ClipRecord:
    """A record whose values tell where they come from: x of the first jaw point is the tick."""
    rng = np.random.default_rng([seed, len(clip_id), *clip_id.encode()])
    frames = int((ticks - 1) / 25 * fps + 1e-6) + 1
    timestamps = (np.arange(frames) / fps).astype(np.float32)
    shape = rng.uniform(0.2, 0.8, (131, 2))

    def points(times):
        moving = shape + 0.02 * np.sin(times[:, None, None] * 5 + np.arange(131)[:, None])
        moving[:, conventions.NUM_POSE, 0] = times * 25 / 1000
        return moving.astype(np.float32)

    image = rng.integers(0, 256, (size, size, 3), np.uint8)
    encoded = []
    for index in range(frames):
        image[:4, :, :] = index % 256  # the frame's number can be read off its top rows
        encoded.append(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())
    return records.ClipRecord(
        clip_id=clip_id,
        timestamps=timestamps,
        frame_landmarks=points(timestamps),
        transforms=np.tile(np.eye(2, 3, dtype=np.float32), (frames, 1, 1)),
        face_found=np.ones(frames, bool),
        landmarks=points(np.arange(ticks) / 25),
        mel=rng.normal(-5, 2, (4 * ticks + 1, 80)).astype(np.float32),
        source_fps=fps,
        frames=tuple(encoded),
    )


def write_shards(directory, splits):
    """Packs {split: [record, ...]} with the TFDS builder; returns the data directory."""
    from data_pipelines import builder

    clips = {}
    for split, items in splits.items():
        clips[split] = []
        for record in items:
            path = directory / "npz" / f"{record.clip_id}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            records.save_npz(path, record)
            clips[split].append(str(path))
    out = directory / "shards"
    picture = next(record.frames[0] for items in splits.values() for record in items)
    size = windows.decode_jpeg(picture).shape[0] if picture else 0
    index = {"fingerprint": "synthetic", "crop_size": size}
    builder.TalkjaxClips(data_dir=str(out), clips=clips, index=index).download_and_prepare()
    return out


class FakeMesh:
    """Stands in for FaceMesh: a frontal face, or none where the top left corner is black."""

    def __init__(self):
        self.resets = 0

    def reset(self):
        self.resets += 1

    def detect(self, rgb):
        if rgb[:12, :12].mean() < 30:
            return np.zeros((0, 478, 3), np.float32)
        height, width = rgb.shape[:2]
        rng = np.random.default_rng(0)
        points = rng.uniform(0.3, 0.7, (478, 3)).astype(np.float32)
        points[list(conventions.RIGID), :2] = 0.25 + 0.5 * head_pose.TEMPLATE
        return (points * (width, height, width))[None].astype(np.float32)


def make_fake_work(cache, options, log=None, delay=0.0):
    """As `clip_cache.make_work`, with a `FakeMesh`; notes every clip that is begun in `log`."""
    work = functools.partial(clip_cache.extract_one, pathlib.Path(cache), options, FakeMesh())
    return functools.partial(_logged, work, log, delay)


def begun(log):
    """The names in a log, in order."""
    return [line.split()[0] for line in log.read_text().splitlines()]


def _logged(work, log, delay, job):
    if log is not None:
        with open(log, "a") as file:
            file.write(f"{job.clip_id} {os.getpid()}\n")
    time.sleep(delay)
    if "crash" in job.clip_id:
        os._exit(9)
    return work(job)


def make_video(path, frames=30, black=(), seconds=None, size=(96, 64), changes=(), fps=25):
    """A small video with a tone; frames in `black` show no face, scenes begin at `changes`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    x = np.linspace(60, 200, size[0])[None, :, None] * np.ones((size[1], 1, 3))
    images, shade = [], 0
    for index in range(frames):
        shade += index in changes
        image = x[:, :: -1 if shade % 2 else 1] + index % 3
        image[:16, :16] *= index not in black  # too small a change to be taken for a cut
        images.append(image.astype(np.uint8))
    wave = tone(frames / fps if seconds is None else seconds)
    return make_media(path, images, fps=fps, sound=Sound(wave) if seconds != 0 else None)
