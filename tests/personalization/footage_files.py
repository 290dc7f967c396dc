"""Pieces of footage whose sound says how far the mouth is open, without a face to be found."""

import types

import cv2
import numpy as np

from data_pipelines import one_person
from talkjax import conventions
from talkjax.data import records

SIZE = 32


def make_record(name, seed, ticks=100, delay=0, loud=4.0, moving=0.1):
    """A clip whose mel says how far the mouth is open, `delay` mel frames of 10 ms later."""
    rng = np.random.default_rng(seed)
    count = ticks // 4 + 3
    opening = np.interp(np.arange(ticks) / 4, np.arange(count), rng.random(count))
    points = np.repeat(np.random.default_rng(9).uniform(0.3, 0.7, (1, 131, 2)), ticks, 0)
    points[:, conventions.positions(conventions.LEFT_EYE)] = (0.35, 0.2)
    points[:, conventions.positions(conventions.RIGHT_EYE)] = (0.65, 0.2)
    upper, lower = conventions.positions((13, 14))
    points[:, upper] = (0.5, 0.6)
    points[:, lower, 0], points[:, lower, 1] = 0.5, 0.6 + moving * opening
    heard = np.interp(np.arange(4 * ticks + 4) - delay, np.arange(ticks) * 4, opening)
    mel = conventions.MEL_FLOOR + loud * heard[:, None] * np.ones((1, 80))
    image = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
    return records.ClipRecord(
        clip_id=name,
        timestamps=(np.arange(ticks) / 25).astype(np.float32),
        frame_landmarks=points.astype(np.float32),
        transforms=np.tile(np.eye(2, 3, dtype=np.float32), (ticks, 1, 1)),
        face_found=np.ones(ticks, bool),
        landmarks=points.astype(np.float32),
        mel=mel.astype(np.float32),
        source_fps=25.0,
        frames=(jpeg,) * ticks,
    )


def listening(mel, pose, references):
    """Opens the mouth as the mel at each tick says."""
    content = np.repeat(references.landmarks[:1, conventions.NUM_POSE :], len(mel), 0)
    upper, lower = conventions.positions((13, 14), conventions.CONTENT)
    content[:, lower, 1] = content[:, upper, 1] + 0.1 * (mel[:, 8, 0] - conventions.MEL_FLOOR) / 4
    return content


def make_pipeline(count=8, left_out=(), **options):
    """A `data_pipelines.one_person` that finds `count` pieces of 4 s, whatever the videos."""

    def extract_pieces(videos, cache, crop_size, face, quiet):
        cache.mkdir(parents=True, exist_ok=True)
        pieces = []
        for number in range(count):
            record = make_record(f"person/000#{number}", number, **options)
            path = cache / f"{number}.npz"
            records.save_npz(path, record)
            pieces.append(one_person.Piece(record.clip_id, path, str(videos[0]), 4.0 * number, 4.0))
        return pieces, list(left_out)

    return types.SimpleNamespace(extract_pieces=extract_pieces, pack_pieces=one_person.pack_pieces)
