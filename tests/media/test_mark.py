"""The visible mark: where it is, how large, and what is refused."""

import numpy as np
import pytest

from talkjax.errors import UserError
from talkjax.media import mark


@pytest.mark.parametrize("size", [(512, 512), (1920, 1080), (1080, 1920), (256, 256)])
@pytest.mark.parametrize("grey", [0, 128, 255])
def test_it_can_be_read_in_the_lower_right_corner(size, grey):
    width, height = size
    frame = np.full((height, width, 3), grey, np.uint8)
    marked = mark.Mark("AI-generated", width, height).draw(frame)
    assert (frame == grey).all() and marked.dtype == np.uint8  # the given frame stays
    rows, columns = np.nonzero((marked != grey).any(-1))
    assert rows.min() > 0.85 * height and columns.min() > 0.5 * width
    assert rows.max() < height - 4 and columns.max() < width - 4
    tall = rows.max() - rows.min()  # of the box, or of the letters where both are black
    assert 0.025 * min(size) < tall < 0.1 * min(size)
    inside = marked[rows.min() : rows.max(), columns.min() : columns.max()]
    assert inside.max() > 230 and inside.min() <= 0.45 * grey  # white before something dark


def test_without_text_the_frame_is_returned_as_it_is():
    frame = np.zeros((8, 8, 3), np.uint8)
    assert mark.Mark("", 8, 8).draw(frame) is frame


def test_long_texts_become_smaller():
    frame = np.full((512, 512, 3), 128, np.uint8)
    boxes = []
    for text in ("M" * 10, "M" * 42):
        rows, columns = np.nonzero((mark.Mark(text, 512, 512).draw(frame) != 128).any(-1))
        boxes.append((np.ptp(rows), columns.min()))
    assert boxes[1][0] < 0.95 * boxes[0][0] and 4 < boxes[1][1] < 60


@pytest.mark.parametrize(
    ("text", "size"), [("AI-generated", (64, 64)), ("x" * 60, (256, 256)), ("x", (512, 30))]
)
def test_frames_that_are_too_small(text, size):
    with pytest.raises(UserError, match="cannot be read in frames of"):
        mark.Mark(text, *size)


@pytest.mark.parametrize("text", ["x" * 61, "a\nb", "\u4eba\u5de5", " ", "\x00"])
def test_texts_that_cannot_be_written(text):
    with pytest.raises(UserError, match="mark="):
        mark.check(text)
