"""Photographs as templates."""

import itertools

import cv2
import numpy as np
import pytest

from talkjax.errors import UserError
from talkjax.sampling import template
from tests.media_files import make_media, pictures


def test_photograph(tmp_path):
    rgb = pictures(1, 40, 30)[0]
    path = tmp_path / "p.png"
    cv2.imwrite(str(path), rgb[..., ::-1])
    made = template.open_template(None, path)
    assert made.size == (40, 30) and made.fps == 25
    assert [f.index for f in made.frames()] == [0]
    for frame in itertools.islice(made.pictures(), 3):
        np.testing.assert_array_equal(frame.rgb, rgb)


def test_exactly_one_template_is_required(tmp_path):
    for video, image in ((None, None), ("a.mp4", "b.png")):
        with pytest.raises(UserError, match="template"):
            template.open_template(video, image)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
def test_a_photograph_given_as_video_works(tmp_path, suffix):
    path = tmp_path / f"p.{suffix}"
    cv2.imwrite(str(path), pictures(1, 41, 30)[0])
    made = template.open_template(path, None)
    assert made.size == (41, 30) and made.fps == 25 and not made.notes()
    assert [f.index for f in itertools.islice(made.pictures(), 3)] == [0, 0, 0]
    with made.writer(tmp_path / "out.mp4") as writer:
        assert writer.size == (42, 30) and "41x30" in writer.notes()[0]
        writer.write(next(made.frames()).rgb, 0.0)


def test_a_moving_gif_is_a_video(tmp_path):
    path = make_media(tmp_path / "a.gif", pictures(5, 40, 30), codec="gif", pix_fmt="rgb8", fps=10)
    made = template.open_template(path, None)
    assert [f.index for f in made.frames()] == list(range(5)) and made.fps == 10


def test_transparent_photograph_is_noted(tmp_path):
    rgba = np.dstack([pictures(1, 40, 30)[0], np.zeros((30, 40), np.uint8)])
    cv2.imwrite(str(tmp_path / "p.png"), rgba)
    made = template.open_template(None, tmp_path / "p.png")
    assert (next(made.frames()).rgb == 255).all() and "white" in made.notes()[0]
