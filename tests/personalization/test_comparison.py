"""Videos of a held-out piece, before and after the adaptation."""

import contextlib
import dataclasses
import functools

import cv2
import numpy as np

from data_pipelines import one_person
from talkjax.data import records
from talkjax.media import video
from talkjax.personalization import comparison
from talkjax.sampling import Options
from tests.metrics import synthetic
from tests.personalization import footage_files
from tests.sampling import fakes


def test_a_held_out_piece_is_generated_measured_and_drawn(tmp_path, monkeypatch):
    checkpoint = fakes.save_checkpoint(tmp_path / "base")
    clip = synthetic.make_clip(tmp_path / "person.mkv", 1, 40)
    transform = np.eye(2, 3, dtype=np.float32) / synthetic.SIDE  # the face fills the picture
    record = dataclasses.replace(
        footage_files.make_record("person/000", 0, 25), transforms=np.tile(transform, (25, 1, 1))
    )
    records.save_npz(tmp_path / "piece.npz", record)
    piece = one_person.Piece("person/000", tmp_path / "piece.npz", str(clip), 0.4, 1.0)
    detector = contextlib.nullcontext(synthetic.PatchDetector())
    monkeypatch.setattr(comparison, "FaceMesh", lambda max_faces: None)
    monkeypatch.setattr(comparison, "TurnedFaces", lambda mesh: detector)
    monkeypatch.setattr(comparison, "Options", functools.partial(Options, steps=1, batch=4))

    found = comparison.compare_videos({"before": checkpoint}, piece, 0.0, tmp_path / "out")
    assert found.keys() == {"before"} and found["before"]["opening_correlation"] is not None
    assert 0 < found["before"]["psnr"] < 60
    truth = video.VideoReader(tmp_path / "out" / "compared" / "truth.mp4")
    whole = [frame.rgb for frame in video.VideoReader(clip)]
    shown = [frame.rgb for frame in truth]
    assert len(shown) == 25 and shown[0].shape == whole[0].shape
    for a, b in zip(shown, whole[10:], strict=False):
        assert np.abs(a[synthetic.PATCH].mean() - b[synthetic.PATCH].mean()) < 5
    sheet = cv2.imread(str(tmp_path / "out" / comparison.SHEET))
    assert sheet is not None and sheet.shape[0] > 200
