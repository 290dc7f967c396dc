"""Cuts: the detector begins anew at each, and only there is nothing else a sudden change can be."""

import cv2
import numpy as np
import pytest

from talkjax.media import detection
from talkjax.media.detection import ChangeMeter
from talkjax.media.facemesh import FaceMesh
from talkjax.media.video import VideoFrame, VideoReader
from talkjax.sampling import bundled
from tests.sampling import fakes

SIZE = (fakes.WIDTH, fakes.HEIGHT)


def noise(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 16, 3), np.uint8)
    return coarse.repeat(20, 0).repeat(20, 1)


def cuts_of(pictures, meter=None):
    meter = meter or ChangeMeter()
    return [meter.push(rgb, i / 25).cut for i, rgb in enumerate(pictures)]


def detect(pictures, mesh):
    frames = (VideoFrame(i, i / 25, rgb) for i, rgb in enumerate(pictures))
    return list(detection.detect_faces(frames, mesh))


def scene(seed: int, count: int = 4) -> list[np.ndarray]:
    return [cv2.resize(noise(seed), SIZE)] * count


def test_detector_begins_anew_before_the_first_frame_of_a_scene():
    mesh = fakes.TrackingMesh([16.0] * 4 + [30.0] * 4)
    found = detect(scene(0) + scene(1), mesh)
    assert [frame.cut for frame in found] == [False] * 4 + [True] + [False] * 3
    assert mesh.resets == [0, 4]
    shift = [frame.faces[0, :, 0].mean() - found[0].faces[0, :, 0].mean() for frame in found]
    np.testing.assert_allclose(shift, [0] * 4 + [14] * 4, atol=1e-4)


def test_no_cut_where_the_same_face_goes_on():
    plain = scene(0)
    overlay = [rgb.copy() for rgb in plain]
    for rgb in overlay:
        rgb[: SIZE[1] // 8] = 250  # above the face
        rgb[SIZE[1] * 9 // 16 :] = 5
    assert cuts_of(plain + overlay).count(True) == 1  # by the picture alone it would be one
    found = detect(plain + overlay + plain, fakes.ScriptedMesh(lambda i: [fakes.face_at(0)]))
    assert not any(frame.cut for frame in found)


def test_points_that_slipped_off_the_face_are_detected_again():
    pictures = scene(0, 8)
    mesh = fakes.TrackingMesh([16.0] * 8)
    slipped = fakes.face_at(0, x=32.0)[None]
    plain = mesh.detect
    mesh.detect = lambda rgb: slipped if mesh.calls == 4 and len(mesh.resets) == 1 else plain(rgb)
    found = detect(pictures, mesh)
    assert mesh.resets == [0, 4] and not any(frame.cut for frame in found)
    assert np.ptp([frame.faces[0, 0, 0] for frame in found]) == 0


def test_changes():
    assert cuts_of([noise(0)] * 4 + [noise(1)] * 4) == [False] * 4 + [True] + [False] * 3


def test_moving_camera_and_light_are_no_cuts():
    wide = np.concatenate([noise(i) for i in range(4)], axis=1)
    assert not any(cuts_of(wide[:, 3 * i : 3 * i + 320] for i in range(60)))
    assert not any(cuts_of((noise(0) * (i / 40)).astype(np.uint8) for i in range(40)))
    assert not any(cuts_of([np.zeros((1, 1, 3), np.uint8)]))


def test_flash_and_fade_through_black():
    white, black = np.full_like(noise(0), 255), np.zeros_like(noise(0))
    assert not any(cuts_of([noise(0)] * 4 + [white] * 2 + [noise(0)] * 4))
    dark = [(noise(0) * (1 - i / 20)).astype(np.uint8) for i in range(20)]
    light = [(noise(1) * (i / 20)).astype(np.uint8) for i in range(1, 21)]
    cuts = cuts_of(dark + [black] * 6 + light)
    assert np.flatnonzero(cuts).tolist() == [26 + cuts[26:].index(True)] and cuts[26:30].count(True)


def test_cuts_of_footage(shared_data):
    """Real clips have no cut inside; every change from one person to another is one."""
    meter, pictures, lengths = ChangeMeter(), [], []
    for path in sorted((shared_data / "other_speakers").iterdir()):
        frames = [
            rgb for _, rgb in zip(range(25), (f.rgb for f in VideoReader(path)), strict=False)
        ]
        lengths.append(len(frames))
        pictures += frames
    cuts = cuts_of(pictures, meter)
    assert np.flatnonzero(cuts).tolist() == np.cumsum(lengths)[:-1].tolist()


@pytest.mark.parametrize("zoom", [1.25, 2.0])
def test_real_detector_over_a_cut(zoom):
    """FaceMesh alone needs up to seven frames to find a face that is elsewhere after a cut."""
    frames = [frame.rgb for frame in VideoReader(bundled.template())][:16]
    height, width = frames[0].shape[:2]
    inner = (round(width / zoom), round(height / zoom))
    small = np.full((height, width, 3), (120, 30, 30), np.uint8)
    pictures = []
    for rgb in frames[:8]:
        picture = small.copy()
        picture[height - inner[1] :, : inner[0]] = cv2.resize(rgb, inner)
        pictures.append(picture)
    pictures += frames[8:]
    with FaceMesh() as mesh:
        found = detect(pictures, mesh)
        assert [frame.index for frame in found if frame.cut] == [8]
        for frame in found[8:12]:
            mesh.reset()
            alone = mesh.detect(pictures[frame.index])[0]
            size = np.ptp(alone[:, 0])
            error = np.linalg.norm(frame.faces[0, :, :2] - alone[:, :2], axis=-1).mean() / size
            assert error < 0.02


def test_cuts_between_people_of_footage(shared_data):
    """Sixteen people in one studio: each change is a cut, and there is no other."""
    pictures, lengths = [], []
    for folder in sorted((shared_data / "grid_people").iterdir()):
        for path in sorted(folder.glob("*.mkv"))[:1]:
            reader = zip(range(6), VideoReader(path), strict=False)
            pictures += [frame.rgb for _, frame in reader]
            lengths.append(6)
    with FaceMesh() as mesh:
        found = detect(pictures, mesh)
    assert len(lengths) >= 10 and all(len(frame.faces) for frame in found)
    cuts = [frame.index for frame in found if frame.cut]
    assert cuts == np.cumsum(lengths)[:-1].tolist()
