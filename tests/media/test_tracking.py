"""Following a face, detecting cuts and filling short gaps, all without regard to the lips."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkjax import conventions
from talkjax.errors import UserError
from talkjax.media import tracking
from talkjax.media.detection import FrameDetections
from talkjax.media.tracking import FaceFollower, FaceTrack

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


def follow(frames, choice="largest", cuts=None, fps=25.0):
    """Returns the x of the chosen faces (None where missing) and the jumps."""
    follower = FaceFollower(choice)
    xs, jumps = [], []
    for i, faces in enumerate(frames):
        index, jumped = follower.update(faces, i / fps, bool(cuts and cuts[i]))
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


@pytest.mark.parametrize(("fps", "wait"), [(25, 6), (100, 25), (5, 1)])
def test_face_that_stays_elsewhere_has_jumped(fps, wait):
    frames = [frame(face(100))] * 3 + [frame(face(500))] * 40
    xs, jumps = follow(frames, fps=fps)  # the wait is the same in seconds at any rate
    assert xs == [100] * 3 + [None] * wait + [500] * (40 - wait)
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
            indices.append([follower.update(f, i / 25) for i, f in enumerate(clip)])
        assert indices[0] == indices[1]


@pytest.mark.parametrize("fps", [10, 25, 1000])
def test_track_fills_short_gaps_and_reports_long_ones(fps):
    track = FaceTrack(max_gap=3 / fps)
    seen = [1, 0, 0, 1, 0, 0, 0, 1, 0, 1, 0]  # a gap of 2, of 3, of 1, an open one
    items, lateness = [], []
    for i, visible in enumerate(seen):
        faces = frame(face(100 + 4 * i)) if visible else NONE
        for item in track.push(i, faces, False, i / fps):
            items.append(item)
            lateness.append(i - item.index)
    items += track.flush()
    assert [item.index for item in items] == list(range(11))
    assert [place(i) for i in items] == [100, 104, 108, 112, None, None, None, 128, 132, 136, None]
    assert [item.found for item in items] == [bool(v) for v in seen]
    assert max(lateness) <= 3 and not any(item.cut for item in items)


def test_a_pause_between_frames_is_a_gap_too():
    track = FaceTrack(max_gap=0.4)
    here = frame(face(100))
    items = track.push(0, here, False, 0.0) + track.push(1, NONE, False, 0.04)
    items += track.push(2, here, False, 1.8)
    assert [place(item) for item in items] == [100, None, 100]


def test_leading_frames_do_not_wait():
    track = FaceTrack(max_gap=0.2)
    assert [len(track.push(i, NONE, False, i / 25)) for i in range(4)] == [1, 1, 1, 1]


def test_nothing_is_filled_across_a_cut():
    here = frame(face(100))
    for cut_at in (2, 3):  # in the gap, and at its end
        track = FaceTrack(max_gap=0.2)
        items = []
        for i, faces in enumerate([here, NONE, NONE, here]):
            items += track.push(i, faces, i == cut_at, i / 25)
        assert [place(item) for item in items] == [100, None, None, 100]
        assert items[cut_at].cut


def test_times_of_variable_rate():
    track = FaceTrack(max_gap=1.0)
    items = track.push(0, frame(face(100)), False, 0.0) + track.push(1, NONE, False, 0.9)
    items += track.push(2, frame(face(110)), False, 1.0)
    assert [place(item) for item in items] == [100, 109, 110]


def test_a_known_path_overrules_the_choice():
    both = frame(face(100, size=80), face(300))
    boxes = tracking.pose_boxes(both)
    path = {0: None, 1: None, **{i: boxes[1] for i in range(2, 5)}}
    track = FaceTrack("largest", path=path)
    items = [x for i in range(9) for x in track.push(i, both, False, i / 25)]
    assert [place(item) for item in items] == [None, None] + [300] * 7
    assert not any(item.cut for item in items)


def gaps(seen):
    """(start, stop) of the runs of False."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], seen, [True]]).astype(int)))
    return edges.reshape(-1, 2)


@given(
    seen=st.lists(st.booleans(), max_size=40),
    max_gap=st.floats(0, 0.4),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_gaps_of_a_clip(seen, max_gap, seed):
    rng = np.random.default_rng(seed)
    cuts = rng.random(len(seen)) < 0.1
    times = np.cumsum(rng.uniform(0.01, 0.1, len(seen)))
    detections = [
        FrameDetections(i, time, frame(face(100 + i)) if v else NONE, bool(cut))
        for i, (v, time, cut) in enumerate(zip(seen, times, cuts, strict=True))
    ]
    track = tracking.track_clip(detections, max_gap=max_gap)
    landmarks, seen = track.landmarks, np.array(seen, bool)
    measured = landmarks[seen].mean(1)  # (n, 3) centres
    np.testing.assert_array_equal(track.found, seen)
    for start, stop in gaps(seen):  # frames start ... stop - 1 are missing
        inside = start > 0 and stop < len(seen) and not cuts[start : stop + 1].any()
        if inside and times[stop] - times[start - 1] <= max_gap:
            expected = [np.interp(times[start:stop], times[seen], column) for column in measured.T]
            got = landmarks[start:stop].mean(1)
            np.testing.assert_allclose(got, np.stack(expected, -1), rtol=1e-4)
        else:
            assert np.isnan(landmarks[start:stop]).all()
    runs = track.runs(0.05)
    shown = np.isfinite(landmarks).all((1, 2))
    assert np.concatenate([*runs, np.zeros(0, int)]).tolist() == np.flatnonzero(shown).tolist()
    for run in runs:
        assert not track.cuts[run[1:]].any() and (np.diff(times[run]) <= 0.05 + 1e-6).all()
