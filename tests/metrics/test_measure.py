"""Clips with cuts: nothing is measured or smoothed across one."""

import numpy as np

from talkjax import head_pose
from talkjax.media.video import VideoReader
from talkjax.metrics import baselines, measure
from tests.media_files import make_media
from tests.sampling import fakes

CUT = 12
PLACES = [16.0] * CUT + [30.0] * CUT


def make_cut(path):
    pictures = [fakes.picture(0)] * CUT + [255 - fakes.picture(0)] * CUT
    return make_media(path, pictures, codec="libx264rgb", pix_fmt="rgb24", options={"qp": "0"})


def test_transforms_are_not_smoothed_over_a_cut(tmp_path):
    measured = measure.measure_video(
        make_cut(tmp_path / "a.mkv"), fakes.TrackingMesh([*PLACES, 0.0])
    )
    assert np.flatnonzero(measured.cuts).tolist() == [CUT]
    for i, x in enumerate(PLACES):
        want = head_pose.fit_transforms(fakes.face_at(0, x=x)[None], np.zeros(1))[0]
        np.testing.assert_allclose(measured.transforms[i], want, atol=1e-5)


def test_every_scene_has_its_reference_frame(tmp_path):
    path = make_cut(tmp_path / "a.mkv")
    measured = measure.measure_video(path, fakes.TrackingMesh([*PLACES, 0.0]))
    chosen = baselines.choose_reference_frames(measured)
    first, second = sorted(set(chosen.tolist()))
    assert first < CUT <= second and chosen.tolist() == [first] * CUT + [second] * CUT
    baselines.write_copied_mouth(path, tmp_path / "o.mkv", measured, chosen, 64, None)
    for a, b in zip(VideoReader(path), VideoReader(tmp_path / "o.mkv"), strict=True):
        assert np.abs(a.rgb.astype(int) - b.rgb).mean() < 12  # not the inverse of the picture
