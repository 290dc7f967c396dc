"""Photographs as templates."""

import itertools

import cv2
import numpy as np
import pytest

from talkjax.errors import UserError
from talkjax.sampling import template
from tests.media_files import pictures


def test_photograph(tmp_path):
    rgb = pictures(1, 40, 30)[0]
    path = tmp_path / "p.png"
    cv2.imwrite(str(path), rgb[..., ::-1])
    made = template.open_template(None, path)
    assert made.size == (40, 30) and made.fps == 25
    assert [f.index for f in made.frames()] == [0]
    for frame in itertools.islice(made.pingpong(), 3):
        np.testing.assert_array_equal(frame.rgb, rgb)


def test_exactly_one_template_is_required(tmp_path):
    for video, image in ((None, None), ("a.mp4", "b.png")):
        with pytest.raises(UserError, match="template"):
            template.open_template(video, image)
