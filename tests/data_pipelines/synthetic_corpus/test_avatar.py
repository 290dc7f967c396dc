import dataclasses
import types

import numpy as np
import pytest

from data_pipelines.synthetic import avatar, expression, face_model, hair, shape
from talkjax import conventions

LIPS = list(conventions.LIPS)
NAMES = ("jaw", "part", "press", "round", "spread", "tuck", "tongue")


def visemes(**values):
    return tuple(float(values.get(name, 0.0)) for name in NAMES)


def make(seed=0, style="short", size=128):
    rng = np.random.default_rng(seed)
    look = types.SimpleNamespace(hair_style=style)
    model = face_model.load()
    face = np.full((128, 128, 3), (0.8, 0.62, 0.52), np.float32)
    textures = types.SimpleNamespace(
        face=face,
        gloss=np.full((128, 128), 0.3, np.float32),
        eye=np.full((64, 64, 3), 0.9, np.float32),
        hair=np.clip(rng.normal(0.3, 0.05, (64, 64, 3)), 0, 1).astype(np.float32),
        cloth=np.full((32, 32, 3), (0.2, 0.3, 0.6), np.float32),
    )
    background = np.full((size, size, 3), 0.5, np.float32)
    camera = dataclasses.replace(avatar.sample_camera(rng), grain=1.0)
    person = shape.sample_shape(rng, look)
    made = avatar.Avatar(look, person, textures, background, avatar.Light(), camera, size)
    assert model.points.shape == (478, 3)
    return made


@pytest.fixture(scope="module")
def person():
    return make()


def test_the_same_pose_gives_the_same_frame(person):
    pose = avatar.Pose(yaw=0.2, visemes=visemes(jaw=0.6, part=1), blink=0.4)
    frame, points = person.render(pose)
    person.render(avatar.Pose())
    again, points_again = make().render(pose)
    np.testing.assert_array_equal(frame, again)
    np.testing.assert_array_equal(points, points_again)
    assert frame.shape == (128, 128, 3) and frame.dtype == np.uint8
    assert points.shape == (478, 3) and points.dtype == np.float32


def test_identities_differ():
    assert np.abs(make(1).face.points - make(2).face.points).max() > 0.02


def test_landmarks_need_no_picture(person):
    pose = avatar.Pose(yaw=0.2, z=0.3, visemes=visemes(jaw=0.6, part=1), blink=0.4)
    alone = person.face.landmarks(pose, person.camera, person.size)
    assert alone.shape == (468, 3)
    np.testing.assert_allclose(alone, person.render(pose)[1][:468], atol=1e-4)


def test_landmarks_lie_within_the_frame(person):
    for yaw in (-0.35, 0.35):
        for pitch in (-0.2, 0.2):
            _, points = person.render(
                avatar.Pose(yaw=yaw, pitch=pitch, visemes=visemes(jaw=1, part=1))
            )
            assert points[:, :2].min() > 0 and points[:, :2].max() < 128


def test_landmarks_lie_on_the_drawn_face(person):
    frame, points = person.render(avatar.Pose())
    cheek = points[[50, 280, 151, 199], :2].astype(int)
    colour = frame[cheek[:, 1], cheek[:, 0]].astype(int)
    assert (colour[:, 0] > colour[:, 2] + 10).all()  # skin, not the grey behind
    assert np.abs(frame[2, 2].astype(int) - 128).max() < 12


def test_lips_meet_at_rest(person):
    points = person.render(avatar.Pose(yaw=0.1))[1]
    upper, lower = list(face_model.UPPER_SEAM), list(face_model.LOWER_SEAM)
    np.testing.assert_array_equal(points[upper], points[lower])


@pytest.mark.parametrize("other", ["jaw", "part", "round", "spread", "tuck", "tongue"])
def test_press_seals_whatever_else_moves(person, other):
    points = person.render(avatar.Pose(visemes=visemes(press=1, **{other: 1, "jaw": 0.5})))[1]
    assert np.linalg.norm(points[13] - points[14]) == 0


def test_jaw_opens_monotonically(person):
    unit = person.camera.scale * person.size
    gaps, chins = [], []
    for jaw in np.linspace(0, 1, 6):
        points = person.render(avatar.Pose(visemes=visemes(jaw=jaw, part=1)))[1]
        gaps.append(np.linalg.norm(points[13] - points[14]) / unit)
        chins.append(points[152, 1] / unit)
    assert (np.diff(gaps) > 0).all() and (np.diff(chins) > 0).all()
    assert gaps[0] < 0.1 and 0.3 < gaps[-1] < 0.5


def test_unparted_lips_stay_closed_over_a_moving_jaw(person):
    points = person.render(avatar.Pose(visemes=visemes(jaw=0.4)))[1]
    assert np.linalg.norm(points[13] - points[14]) == 0


def test_rounding_narrows_and_spreading_widens_the_mouth(person):
    def width(**values):
        points = person.render(avatar.Pose(visemes=visemes(**values)))[1]
        return np.linalg.norm(points[61, :2] - points[291, :2])

    assert width(round=1) < 0.8 * width() < 0.9 * width(spread=1)


def test_no_pose_point_follows_the_visemes(person):
    rng = np.random.default_rng(0)
    points = list(conventions.POSE)
    still = person.render(avatar.Pose(yaw=0.1))[1][points]
    for _ in range(4):
        pose = avatar.Pose(yaw=0.1, visemes=tuple(rng.uniform(0, 1, 7)))
        np.testing.assert_array_equal(person.render(pose)[1][points], still)


def test_a_blink_shuts_the_eyes(person):
    def opening(blink):
        points = person.render(avatar.Pose(blink=blink))[1]
        return np.linalg.norm(points[159] - points[145])

    assert opening(1.0) < 0.15 * opening(0.0)


@pytest.mark.parametrize("lids", [-1.5, 0.0, 1.5])
def test_lids_at_rest_hang_lower_but_a_blink_still_shuts_them(lids):
    model = face_model.load()
    base = shape.neutral_points(model, shape.Shape())
    droop = shape.Shape(lids=lids).droop
    move = expression.Expression(base[:468], model.points, np.zeros(0), droop=droop).move
    still = expression.Expression(base[:468], model.points, np.zeros(0)).move
    rest, shut = move((0,) * 7, 0, 0), move((0,) * 7, 1, 0)
    opening = (rest[145] - rest[159])[1] / (base[145] - base[159])[1]
    assert opening == pytest.approx(1 - droop, abs=0.01)
    np.testing.assert_allclose(shut, still((0,) * 7, 1, 0), atol=1e-12)


def test_yaw_turns_the_nose_to_the_right_and_pitch_turns_it_down(person):
    nose = person.render(avatar.Pose())[1][4]
    assert person.render(avatar.Pose(yaw=0.2))[1][4, 0] > nose[0] + 1
    assert person.render(avatar.Pose(pitch=0.2))[1][4, 1] > nose[1] + 1


@pytest.mark.parametrize("style", [*hair.STYLES, "bald"])
def test_every_haircut_can_be_drawn(style):
    frame, _ = make(3, style, 64).render(avatar.Pose())
    assert frame.std() > 5
