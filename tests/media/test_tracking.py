"""Following a face, detecting cuts and filling short gaps, all without regard to the lips."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkjax import conventions
from talkjax.errors import UserError
from talkjax.media import tracking
from talkjax.media.tracking import CutDetector, FaceFollower, FaceTrack

SHAPE = np.random.default_rng(0).uniform(-0.5, 0.5, (478, 3)).astype(np.float32)
SHAPE -= SHAPE.mean(0)


def face(x: float, y: float = 100, size: float = 50) -> np.ndarray:
    """(478,3) points in a square around (x, y)."""
    return SHAPE * np.float32(size) + np.array([x, y, 0], np.float32)


def frame(*faces: np.ndarray) -> np.ndarray:
    return np.array(faces, np.float32).reshape(-1, 478, 3)


NONE = frame()


def place(item) -> float | None:
    return None if item.landmarks is None else round(float(item.landmarks[:, 0].mean()))


def follow(frames, choice="largest", cuts=None):
    """Returns the x of the chosen faces (None where missing) and the jumps."""
    follower = FaceFollower(choice)
    xs, jumps = [], []
    for i, faces in enumerate(frames):
        index, jumped = follower.update(faces, bool(cuts and cuts[i]))
        xs.append(None if index is None else round(float(faces[index, :, 0].mean())))
        jumps.append(jumped)
    return xs, jumps


def test_parse_face():
    assert tracking.parse_face("largest") == "largest"
    assert tracking.parse_face("12") == 12 and tracking.parse_face(0) == 0
    for bad in ("-1", "left", "", "1.5"):
        with pytest.raises(UserError, match="largest"):
            tracking.parse_face(bad)


def test_choice():
    faces = frame(face(300, size=80), face(50, size=30), face(160, size=50))
    assert tracking.choose_face(faces, "largest") == 0
    assert [tracking.choose_face(faces, i) for i in range(3)] == [1, 2, 0]
    with pytest.raises(UserError, match="shows 3; give a number from 0 to 2"):
        tracking.choose_face(faces, 3)


def test_index_is_of_the_first_frame_with_faces():
    frames = [NONE, NONE, frame(face(300), face(100)), frame(face(90), face(300))]
    assert follow(frames, 1)[0] == [None, None, 300, 300]
    assert follow(frames, "0")[0] == [None, None, 100, 90]
    with pytest.raises(UserError, match=r"^face=2"):
        follow(frames, 2)


def test_followed_when_another_is_larger_and_order_changes():
    frames = [frame(face(100))]
    frames += [frame(face(300, size=50 + 5 * i), face(100 + i)) for i in range(1, 15)]
    frames += [frame(face(115 + i), face(300 - 5 * i, size=120)) for i in range(10)]
    xs, jumps = follow(frames)
    assert xs == list(range(100, 125)) and not any(jumps)


def test_neighbour_is_not_mistaken_for_an_absent_face():
    both, alone = frame(face(100), face(300)), frame(face(300))
    frames = [both, both] + [alone] * 30 + [both]
    xs, jumps = follow(frames, 0)
    assert xs == [100, 100, *[None] * 30, 100] and not any(jumps)


def test_newcomer_beside_a_followed_face_is_a_neighbour():
    frames = [frame(face(100))] * 3 + [frame(face(300), face(100))] * 3 + [frame(face(300))] * 20
    assert follow(frames)[0] == [100] * 6 + [None] * 20


def test_a_false_face_for_some_frames_is_ignored():
    frames = [frame(face(100))] * 3 + [frame(face(500, size=20))] * 4 + [frame(face(100))] * 3
    xs, jumps = follow(frames)
    assert xs == [100] * 3 + [None] * 4 + [100] * 3 and not any(jumps)


def test_face_that_stays_elsewhere_has_jumped():
    frames = [frame(face(100))] * 3 + [frame(face(500))] * 12
    xs, jumps = follow(frames)
    wait = tracking.PATIENCE
    assert xs == [100] * 3 + [None] * wait + [500] * (12 - wait)
    assert jumps.index(True) == 3 + wait and sum(jumps) == 1


def test_growth_is_a_jump_too():
    frames = [frame(face(100, size=50))] * 2 + [frame(face(100, size=150))] * 10
    assert sum(follow(frames)[1]) == 1


def test_cut_chooses_anew_at_once():
    frames = [frame(face(100), face(300, size=80))] * 2 + [
        frame(face(310, size=40), face(90, size=90))
    ]
    xs, jumps = follow(frames, "largest", cuts=[False, False, True])
    assert xs == [300, 300, 90] and jumps == [False, False, True]
    assert follow(frames, 1, cuts=[False, False, True])[0] == [300, 300, 310]
    fewer = [*frames[:2], frame(face(200))]
    assert follow(fewer, 1, cuts=[False, False, True])[0] == [300, 300, 200]


def test_lips_and_jaw_decide_nothing():
    rng = np.random.default_rng(1)
    frames = [frame(face(100 + 3 * i, size=50), face(300, size=52)) for i in range(20)]
    moved = [f.copy() for f in frames]
    others = [i for i in range(478) if i not in conventions.POSE]
    for f in moved:
        f[:, others] += rng.normal(0, 500, (2, len(others), 3)).astype(np.float32)
    for choice in ("largest", 0):
        indices = []
        for clip in (frames, moved):
            follower = FaceFollower(choice)
            indices.append([follower.update(f) for f in clip])
        assert indices[0] == indices[1]


def test_track_fills_short_gaps_and_reports_long_ones():
    track = FaceTrack(max_gap=2)
    seen = [1, 0, 0, 1, 0, 0, 0, 1, 0, 1, 0]  # a gap of 2, of 3, of 1, an open one
    items, lateness = [], []
    for i, visible in enumerate(seen):
        for item in track.push(i, frame(face(100 + 4 * i)) if visible else NONE):
            items.append(item)
            lateness.append(i - item.index)
    items += track.flush()
    assert [item.index for item in items] == list(range(11))
    assert [place(i) for i in items] == [100, 104, 108, 112, None, None, None, 128, 132, 136, None]
    assert [item.found for item in items] == [bool(v) for v in seen]
    assert max(lateness) <= 2 and not any(item.cut for item in items)


def test_leading_frames_do_not_wait():
    track = FaceTrack(max_gap=5)
    assert [len(track.push(i, NONE)) for i in range(4)] == [1, 1, 1, 1]


def test_nothing_is_filled_across_a_cut():
    here = frame(face(100))
    for cut_at in (2, 3):  # in the gap, and at its end
        track = FaceTrack(max_gap=5)
        items = []
        for i, faces in enumerate([here, NONE, NONE, here]):
            items += track.push(i, faces, cut=i == cut_at)
        assert [place(item) for item in items] == [100, None, None, 100]
        assert items[cut_at].cut


def test_times_of_variable_rate():
    track = FaceTrack(max_gap=5)
    items = track.push(0, frame(face(100)), time=0.0) + track.push(1, NONE, time=0.9)
    items += track.push(2, frame(face(110)), time=1.0)
    assert [place(item) for item in items] == [100, 109, 110]


def gaps(seen):
    """(start, stop) of the runs of False."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], seen, [True]]).astype(int)))
    return edges.reshape(-1, 2)


@given(
    seen=st.lists(st.booleans(), max_size=40),
    max_gap=st.integers(0, 6),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_gaps_of_a_clip(seen, max_gap, seed):
    rng = np.random.default_rng(seed)
    cuts = rng.random(len(seen)) < 0.1
    times = np.cumsum(rng.uniform(0.01, 0.1, len(seen)))
    detections = [frame(face(100 + i)) if v else NONE for i, v in enumerate(seen)]
    landmarks, found, _ = tracking.track_clip(detections, cuts, max_gap=max_gap, times=times)
    seen = np.array(seen, bool)
    measured = landmarks[seen].mean(1)  # (n, 3) centres
    np.testing.assert_array_equal(found, seen)
    for start, stop in gaps(seen):  # frames start ... stop - 1 are missing
        inside = start > 0 and stop < len(seen) and not cuts[start : stop + 1].any()
        if inside and stop - start <= max_gap:
            expected = [np.interp(times[start:stop], times[seen], column) for column in measured.T]
            got = landmarks[start:stop].mean(1)
            np.testing.assert_allclose(got, np.stack(expected, -1), rtol=1e-4)
        else:
            assert np.isnan(landmarks[start:stop]).all()


def noise(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 16, 3), np.uint8)
    return coarse.repeat(20, 0).repeat(20, 1)


def test_cut_detector():
    detector = CutDetector()
    scenes = [noise(0)] * 4 + [noise(1)] * 4
    assert [detector.push(rgb) for rgb in scenes] == [False] * 4 + [True] + [False] * 3


def test_moving_camera_and_light_are_no_cuts():
    wide = np.concatenate([noise(i) for i in range(4)], axis=1)
    pan, fade = CutDetector(), CutDetector()
    assert not any(pan.push(wide[:, 3 * i : 3 * i + 320]) for i in range(60))
    assert not any(fade.push((noise(0) * (i / 40)).astype(np.uint8)) for i in range(40))
    assert not CutDetector().push(np.zeros((1, 1, 3), np.uint8))


def test_cut_detector_on_footage(shared_data):
    """Real clips have no cut inside; every change from one person to another is one."""
    detector, cuts, lengths = CutDetector(), [], []
    for path in sorted((shared_data / "other_speakers").iterdir()):
        capture = cv2.VideoCapture(str(path))
        frames = []
        while (step := capture.read())[0] and len(frames) < 25:
            frames.append(step[1])
        lengths.append(len(frames))
        cuts += [detector.push(rgb) for rgb in frames]
    assert np.flatnonzero(cuts).tolist() == np.cumsum(lengths)[:-1].tolist()
