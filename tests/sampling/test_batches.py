"""Frames keep their order, batches their shape, and waiting frames are few."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from talkjax.sampling.batches import FrameBatcher, FrameInputs
from talkjax.sampling.faces import Face
from talkjax.sampling.summary import Summary


@given(faces=st.lists(st.booleans(), max_size=60), size=st.integers(1, 7))
def test_order_shape_and_bound(faces, size):
    shapes, out = set(), []

    def generate(scene, masked, landmarks):
        shapes.add((masked.shape, landmarks.shape))
        return masked + 100

    def paste(rgb, region, inputs):
        assert inputs.look is None
        return rgb + region

    summary = Summary("o", 1, 1, 25.0)
    batcher = FrameBatcher(generate, size, paste, summary)

    face = Face(np.eye(2, 3), np.eye(2, 3), found=True)
    for i, shown in enumerate(faces):
        inputs = FrameInputs(face, np.array([1000 * i]), np.zeros((131, 2))) if shown else None
        out += list(batcher.add(i / 25, np.array([i]), inputs))
        assert i + 1 - len(out) <= 4 * size
    out += list(batcher.flush())
    expected = [(i / 25, i + 1000 * i + 100 if shown else i) for i, shown in enumerate(faces)]
    assert [(at, int(rgb[0])) for at, rgb in out] == expected
    assert shapes <= {((size, 1), (size, 131, 2))}
    assert summary.frames == len(faces) and summary.frames_generated == sum(faces)
    missed = [i for a, b in summary.faces_missed for i in range(a, b + 1)]
    assert missed == [i for i, shown in enumerate(faces) if not shown]


def test_without_faces_nothing_waits():
    batcher = FrameBatcher(None, 4, None, Summary("o", 1, 1, 25.0))
    for i in range(9):
        assert len(list(batcher.add(float(i), np.zeros(1), None))) == 1
