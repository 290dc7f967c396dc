import dataclasses

import numpy as np
import pytest

from data_pipelines.synthetic import props, scene
from data_pipelines.synthetic.animation.visemes import CHANNELS
from data_pipelines.synthetic.geometry import expression, face_model, shape
from data_pipelines.synthetic.painting.appearance import sample_appearance
from data_pipelines.synthetic.painting.portrait import Textures
from data_pipelines.synthetic.rendering.avatar import Avatar
from talkjax import conventions

SIZE = 128


def visemes(**values):
    return tuple(float(values.get(name, 0.0)) for name in CHANNELS)


def make(seed=0, things=None):
    """An avatar of plain colours before a grey background."""
    rng = np.random.default_rng(seed)
    textures = Textures(
        face=np.full((128, 128, 3), (0.8, 0.62, 0.52), np.float32),
        gloss=np.full((128, 128), 0.3, np.float32),
        eye=np.full((64, 64, 3), 0.9, np.float32),
        hair=np.clip(rng.normal(0.3, 0.05, (64, 64, 3)), 0, 1).astype(np.float32),
        cloth=np.full((32, 32, 3), (0.2, 0.3, 0.6), np.float32),
        trim=np.full((32, 32, 3), (0.8, 0.8, 0.8), np.float32),
        neckwear=np.full((32, 32, 3), (0.7, 0.1, 0.1), np.float32),
        beard=np.zeros((128, 128), np.float32),
    )
    background = np.full((SIZE, SIZE, 3), 0.5, np.float32)
    camera = dataclasses.replace(scene.sample_camera(rng), grain=1.0)
    look = dataclasses.replace(sample_appearance(rng), hair_style="short", glasses="thin")
    return Avatar(
        look, shape.sample_shape(rng), textures, background, scene.Light(), camera, things
    )


@pytest.fixture(scope="module")
def person():
    return make()


def test_the_same_pose_gives_the_same_frame(person):
    pose = scene.Pose(yaw=0.2, visemes=visemes(jaw=0.6, part=1), blink=0.4)
    frame, points = person.render(pose)
    person.render(scene.Pose())
    again, points_again = make().render(pose)
    np.testing.assert_array_equal(frame, again)
    np.testing.assert_array_equal(points, points_again)
    assert frame.shape == (128, 128, 3) and frame.dtype == np.uint8
    assert points.shape == (478, 3) and points.dtype == np.float32


def test_landmarks_need_no_picture(person):
    pose = scene.Pose(yaw=0.2, z=0.3, visemes=visemes(jaw=0.6, part=1), blink=0.4)
    alone = person.face.landmarks(pose, person.camera, person.size)
    assert alone.shape == (468, 3)
    np.testing.assert_allclose(alone, person.render(pose)[1][:468], atol=1e-4)


def test_a_hand_hides_the_mouth_and_leaves_the_landmarks(person):
    covered = make(things=props.Props(cover="hand", cover_at=(0.0, -0.45), covered=(0.0, 1.0)))
    pose = scene.Pose(visemes=visemes(jaw=0.5, part=1))
    away, there = (covered.render(dataclasses.replace(pose, reach=r)) for r in (0.0, 1.0))
    free = person.render(pose)
    for _, points in (away, there):
        np.testing.assert_array_equal(points, free[1])
    np.testing.assert_allclose(away[0], free[0], atol=30)  # of the noise
    x, y = free[1][152, :2].astype(int)
    chin = (slice(y - 12, y + 6), slice(x - 6, x + 12))
    assert np.abs(there[0][chin].astype(int) - free[0][chin]).mean() > 8


def test_landmarks_lie_within_the_frame(person):
    for yaw in (-0.7, -0.35, 0.35, 0.7):
        for pitch in (-0.2, 0.2):
            _, points = person.render(
                scene.Pose(yaw=yaw, pitch=pitch, visemes=visemes(jaw=1, part=1))
            )
            assert points[:, :2].min() > 0 and points[:, :2].max() < 128


def test_landmarks_lie_on_the_drawn_face(person):
    frame, points = person.render(scene.Pose())
    cheek = points[[50, 280, 151, 199], :2].astype(int)
    colour = frame[cheek[:, 1], cheek[:, 0]].astype(int)
    assert (colour[:, 0] > colour[:, 2] + 10).all()  # skin, not the grey behind
    assert np.abs(frame[2, 2].astype(int) - 128).max() < 12


def test_lips_meet_at_rest(person):
    points = person.render(scene.Pose(yaw=0.1))[1]
    upper, lower = list(face_model.UPPER_SEAM), list(face_model.LOWER_SEAM)
    np.testing.assert_array_equal(points[upper], points[lower])


@pytest.mark.parametrize("other", ["jaw", "part", "round", "spread", "tuck", "tongue"])
def test_press_seals_whatever_else_moves(person, other):
    points = person.render(scene.Pose(visemes=visemes(press=1, **{other: 1, "jaw": 0.5})))[1]
    assert np.linalg.norm(points[13] - points[14]) == 0


def test_jaw_opens_monotonically(person):
    unit = person.camera.scale * person.size
    gaps, chins = [], []
    for jaw in np.linspace(0, 1, 6):
        points = person.render(scene.Pose(visemes=visemes(jaw=jaw, part=1)))[1]
        gaps.append(np.linalg.norm(points[13] - points[14]) / unit)
        chins.append(points[152, 1] / unit)
    assert (np.diff(gaps) > 0).all() and (np.diff(chins) > 0).all()
    assert gaps[0] < 0.1 and 0.3 < gaps[-1] < 0.5


def test_unparted_lips_stay_closed_over_a_moving_jaw(person):
    points = person.render(scene.Pose(visemes=visemes(jaw=0.4)))[1]
    assert np.linalg.norm(points[13] - points[14]) == 0


def test_rounding_narrows_and_spreading_widens_the_mouth(person):
    def width(**values):
        points = person.render(scene.Pose(visemes=visemes(**values)))[1]
        return np.linalg.norm(points[61, :2] - points[291, :2])

    assert width(round=1) < 0.8 * width() < 0.9 * width(spread=1)


def test_no_pose_point_follows_the_visemes(person):
    rng = np.random.default_rng(0)
    points = list(conventions.POSE)
    still = person.render(scene.Pose(yaw=0.1))[1][points]
    for _ in range(4):
        pose = scene.Pose(yaw=0.1, visemes=tuple(rng.uniform(0, 1, 7)))
        np.testing.assert_array_equal(person.render(pose)[1][points], still)


def test_a_blink_shuts_the_eyes(person):
    def opening(blink):
        points = person.render(scene.Pose(blink=blink))[1]
        return np.linalg.norm(points[159] - points[145])

    assert opening(1.0) < 0.15 * opening(0.0)


@pytest.mark.parametrize("lids", [-1.5, 0.0, 1.5])
def test_lids_at_rest_hang_lower_but_a_blink_still_shuts_them(lids):
    model = face_model.load_face_model()
    base = shape.deform_mean_face(model, shape.Shape())
    droop = shape.Shape(lids=lids).droop
    move = expression.Expression(base[:468], model.points, np.zeros(0), droop=droop).deform
    still = expression.Expression(base[:468], model.points, np.zeros(0)).deform
    rest, shut = move((0,) * 7, 0, 0), move((0,) * 7, 1, 0)
    opening = (rest[145] - rest[159])[1] / (base[145] - base[159])[1]
    assert opening == pytest.approx(1 - droop, abs=0.01)
    np.testing.assert_allclose(shut, still((0,) * 7, 1, 0), atol=1e-12)


def test_a_lopsided_mouth_opens_more_on_one_side_and_still_shuts():
    model = face_model.load_face_model()
    base = shape.deform_mean_face(model, shape.Shape())

    def gap(lopsided, **values):
        move = expression.Expression(base[:468], model.points, np.zeros(0), lopsided=lopsided)
        points = move.deform(visemes(**values), 0, 0)
        return [float(points[low, 1] - points[up, 1]) for up, low in ((81, 178), (311, 402))]

    right, left = gap(0.3, jaw=0.5, part=0.9)
    even = gap(0.0, jaw=0.5, part=0.9)
    assert right < 0.9 * even[0] and left > 1.1 * even[1]
    assert gap(0.3, jaw=0.1, press=1.0) == [0.0, 0.0]
    assert shape.Shape().lopsided == 0.0
    drawn = [shape.sample_shape(np.random.default_rng(i)).lopsided for i in range(50)]
    assert 0.05 < np.std(drawn) < 0.15 and np.abs(drawn).max() <= 0.3


def test_yaw_turns_the_nose_to_the_right_and_pitch_turns_it_down(person):
    nose = person.render(scene.Pose())[1][4]
    assert person.render(scene.Pose(yaw=0.2))[1][4, 0] > nose[0] + 1
    assert person.render(scene.Pose(pitch=0.2))[1][4, 1] > nose[1] + 1
