"""Sampling, preparation and evaluation place the crop where the head is, not where fits are."""

import numpy as np
import pytest

from data_pipelines import extract
from talkjax.media import detection
from talkjax.media.video import VideoReader
from talkjax.metrics import measure
from talkjax.sampling import faces
from tests.media_files import Sound, make_media, tone
from tests.shaken_head import ShakenHead, misplacement


def in_sampling(path, head):
    table = faces.FaceTable(detection.detect_faces(VideoReader(path), head), 25.0)
    return np.stack([table.face(i).transform for i in range(len(head.shifts))])


def in_preparation(path, head):
    options = extract.ExtractOptions(crop_size=32)
    (clip,) = extract.extract_video(path, "id", head, options).clips
    return clip.transforms.astype(np.float64)


def in_evaluation(path, head):
    return measure.measure_video(path, head).transforms


@pytest.mark.parametrize("place", [in_sampling, in_preparation, in_evaluation])
def test_place_follows_the_head(tmp_path, place):
    head = ShakenHead()
    path = make_media(
        tmp_path / "v.mkv", head.frames, sound=Sound(tone(2.0, 16000), 16000), codec="libx264rgb",
        pix_fmt="rgb24", options={"crf": "8"},
    )  # fmt: skip
    error = misplacement(place(path, head), head.shifts)  # in interocular distances
    assert np.quantile(error, 0.95) < 0.02 and error.max() < 0.03
