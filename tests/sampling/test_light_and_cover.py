"""The bundled avatar in a dim scene, in black and white, and behind a sheet of paper."""

import numpy as np
import pytest

from talkjax.conventions import Box
from talkjax.media.crop import warp_crop
from talkjax.media.facemesh import FaceMesh
from talkjax.media.video import VideoReader
from talkjax.sampling import Options, Sampler, bundled
from tests.media_files import make_media

FRAMES = 48
DIM, GREY, PAPER = range(12), range(12, 24), range(32, 40)
JAW = Box(0.6, 0.3, 0.8, 0.7)
OPTIONS = {"codec": "libx264rgb", "pix_fmt": "rgb24", "options": {"crf": "12"}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Jaws of the plain and of the changed template's output, its frames, and its summary."""
    folder = tmp_path_factory.mktemp("avatar")
    plain = [frame.rgb for frame in VideoReader(bundled.template())][:FRAMES]
    changed = [rgb.astype(np.float32) for rgb in plain]
    for i in DIM:
        changed[i] = changed[i] * 0.25
    for i in GREY:
        changed[i] = (changed[i] @ (0.299, 0.587, 0.114))[..., None] + np.zeros(3)
    for i in PAPER:
        changed[i][150:] = (235, 232, 218)
    changed = [np.rint(rgb).astype(np.uint8) for rgb in changed]
    sampler, options = Sampler.from_pretrained(), Options(steps=1, lossless=True)
    made = []
    for name, frames in (("plain", plain), ("changed", changed)):
        template, out = folder / f"{name}.mkv", folder / f"{name}_out.mkv"
        make_media(template, frames, **OPTIONS)
        faces = []
        with FaceMesh(max_faces=1) as mesh:
            summary = sampler.generate(
                video=template, audio=bundled.speech(), out=out, options=options, detector=mesh,
                callback=lambda at, face, points, index, faces=faces: faces.append(face),
            )  # fmt: skip
        output = [frame.rgb for frame in VideoReader(out)][:FRAMES]
        made.append((output, faces, [frame.rgb for frame in VideoReader(template)], summary))
    return made


def jaw(rgb, face):
    return JAW.cut(warp_crop(rgb, face.transform, 128)).astype(np.float32)


def test_a_dim_jaw_stays_dim(runs):
    (plain, faces, _, _), (changed, _, _, summary) = runs
    assert summary.reference_frame not in [*DIM, *GREY, *PAPER]
    for i in DIM:
        error = jaw(changed[i], faces[i]) - 0.25 * jaw(plain[i], faces[i])
        assert abs(error.mean()) < 3 and np.sqrt(np.square(error).mean()) < 10


def test_grey_stays_grey(runs):
    (_, faces, _, _), (changed, _, _, _) = runs
    for i in GREY:
        assert np.ptp(jaw(changed[i], faces[i]), axis=-1).max() <= 6  # of coding


def test_paper_stays_in_front(runs):
    (_, _, _, before), (changed, _, template, summary) = runs
    assert before.frames_occluded == before.frames_partly_occluded == 0
    for i in PAPER:
        np.testing.assert_array_equal(changed[i], template[i])
    assert f"{summary.frames_occluded} frames are unchanged" in summary.text()
    assert summary.frames_occluded + sum(b - a + 1 for a, b in summary.faces_missed) >= len(PAPER)
