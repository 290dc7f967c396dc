"""The real FaceMesh worker in its own environment, also on real footage if there is any."""

import multiprocessing
import re

import cv2
import numpy as np
import pytest

from talkjax.errors import UserError
from talkjax.media.facemesh import FaceMesh


def frame(height=6, width=5, value=1):
    return np.full((height, width, 3), value, np.uint8)


@pytest.fixture(scope="module")
def real():
    try:
        with FaceMesh() as mesh:
            yield mesh
    except UserError as error:
        if not re.search(
            "Failed to (fetch|download)|network was disabled|pip install uv", str(error)
        ):
            raise
        pytest.skip(f"the face landmark environment cannot be built here: {error}")


@pytest.mark.parametrize("shape", [(4, 4), (1, 1), (16, 16), (15, 800), (16, 900), (288, 360)])
def test_empty_frames_have_no_face(real, shape):
    rng = np.random.default_rng(0)
    for value in (frame(*shape, value=0), rng.integers(0, 256, (*shape, 3), np.uint8)):
        assert real.detect(value).shape == (0, 478, 3)


def test_project_settings_do_not_matter(real, monkeypatch, tmp_path):
    """The caller's folder and variables do not affect the start."""
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "other"\nversion = "0"\nrequires-python = ">=3.14"\n'
        '[tool.uv]\nconstraint-dependencies = ["numpy==2.0.0"]\n'
    )
    (tmp_path / ".python-version").write_text("3.8\n")
    monkeypatch.chdir(tmp_path)
    for name in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "UV_PROJECT_ENVIRONMENT"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("UV_PYTHON", "3.8")
    with FaceMesh() as mesh:
        assert mesh.versions == real.versions
        assert mesh.versions["mediapipe"] == "0.10.21"


def test_real_worker_survives_death(real):
    real.detect(frame(32, 32))
    real._worker.kill()
    assert real.detect(frame(32, 32)).shape == (0, 478, 3)


@pytest.fixture
def footage(shared_data):
    """footage(name, count): the first RGB frames of a clip of the shared footage."""

    def read(name: str, count: int) -> list[np.ndarray]:
        capture = cv2.VideoCapture(str(shared_data / name))
        frames = [np.ascontiguousarray(capture.read()[1][..., ::-1]) for _ in range(count)]
        capture.release()
        return frames

    return read


def track(mesh, frames) -> np.ndarray:
    mesh.reset()
    return np.array([mesh.detect(f)[0] for f in frames])


def test_same_clip_same_landmarks(real, footage):
    first, second = footage("grid_s1/bbaf4p.mkv", 12), footage("other_speakers/lbax4n.mpg", 6)
    alone = track(real, first)
    assert np.ptp(alone[0, :, 0]) == pytest.approx(103, rel=0.15)  # the face's known width
    track(real, second)
    np.testing.assert_array_equal(track(real, first), alone)  # independent of earlier frames,
    with FaceMesh() as other:
        np.testing.assert_array_equal(track(other, first), alone)  # of the worker
    with FaceMesh(max_faces=3) as several:
        np.testing.assert_array_equal(track(several, first), alone)  # and of the number of faces.


def test_small_face_in_a_large_frame(real, footage):
    """A face 5% of the frame's width, found by the full-range detector and followed."""
    frames = footage("grid_s1/bbaf4p.mkv", 10)
    truth = track(real, frames)
    wide = []
    for shift, small in enumerate(frames):
        canvas = np.full((1080, 1920, 3), 90, np.uint8)
        canvas[400:688, 900 + 4 * shift : 1260 + 4 * shift] = small
        wide.append(canvas)
    found = track(real, wide)
    shifts = np.array([(900 + 4 * i, 400, 0) for i in range(len(frames))])
    error = np.abs(found - shifts[:, None] - truth)[..., :2].mean()
    assert error / np.ptp(truth[0, :, 0]) < 0.01


def test_two_faces(real, footage):
    left, right = footage("grid_s1/bbaf4p.mkv", 3), footage("other_speakers/lbax4n.mpg", 3)
    with FaceMesh(max_faces=4) as mesh:
        for a, b in zip(left, right, strict=True):
            faces = mesh.detect(np.concatenate([a, b[:288, :352]], axis=1))
            centres = sorted(faces[:, :, 0].mean(1))
            assert len(faces) == 2 and centres[0] < 360 < centres[1]


def _detect_once(_):
    with FaceMesh() as mesh:
        return mesh.detect(frame(64, 64)).shape


def test_many_processes_at_once(real):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert pool.map(_detect_once, range(3)) == [(0, 478, 3)] * 3
