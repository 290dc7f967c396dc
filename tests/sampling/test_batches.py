"""Frames keep their order, batches their shape, and waiting frames are few."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from talkjax.sampling.batches import Batches
from talkjax.sampling.summary import Summary


@given(faces=st.lists(st.booleans(), max_size=60), size=st.integers(1, 7))
def test_order_shape_and_bound(faces, size):
    shapes, out = set(), []

    def run(masked, landmarks):
        shapes.add((masked.shape, landmarks.shape))
        return masked + 100

    def paste(rgb, region, face):
        assert face == "face"
        return rgb + region

    summary = Summary("o", 1, 1, 25.0)
    batches = Batches(run, size, paste, summary)

    class Found(str):
        found = True

    for i, shown in enumerate(faces):
        todo = (Found("face"), np.array([1000 * i]), np.zeros((131, 2))) if shown else None
        out += list(batches.add(i / 25, np.array([i]), todo))
        assert i + 1 - len(out) <= 4 * size
    out += list(batches.flush())
    want = [(i / 25, i + 1000 * i + 100 if shown else i) for i, shown in enumerate(faces)]
    assert [(at, int(rgb[0])) for at, rgb in out] == want
    assert shapes <= {((size, 1), (size, 131, 2))}
    assert summary.frames == len(faces) and summary.frames_generated == sum(faces)
    missed = [i for a, b in summary.faces_missed for i in range(a, b + 1)]
    assert missed == [i for i, shown in enumerate(faces) if not shown]


def test_without_faces_nothing_waits():
    batches = Batches(None, 4, None, Summary("o", 1, 1, 25.0))
    for i in range(9):
        assert len(list(batches.add(float(i), np.zeros(1), None))) == 1
