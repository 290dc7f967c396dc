"""The ping-pong's clock without pictures is that of the pictures; photographs."""

import itertools

import cv2
import numpy as np
import pytest

from talkjax.errors import UserError
from talkjax.media.pingpong import iterate_pingpong, with_output_times
from talkjax.sampling import template
from tests.media_files import make_media, pictures


def times_of(times):
    return lambda i: times[i] if i < len(times) else None


@pytest.mark.parametrize(
    "times", [None, [0.0, 0.04, 0.1, 0.13, 0.3], [0.0, 0.04], [0.0]], ids=["cfr", "vfr", "2", "1"]
)
@pytest.mark.parametrize("start", [0.0, None, 0.5])
def test_clock_equals_that_of_the_pictures(tmp_path, times, start):
    count = 7 if times is None else len(times)
    path = make_media(tmp_path / "v.mkv", pictures(count, 32, 32), times=times, fps=25)
    frames = list(template.VideoTemplate(path).frames())
    want = itertools.islice(with_output_times(iterate_pingpong(path), 25, start), 40)
    got = template.pingpong_clock(
        times_of([f.time for f in frames]), interval=0.04, end=1e9, start=start
    )
    for (time, frame), (at, index) in zip(want, got, strict=False):
        assert index == frame.index
        assert at == pytest.approx(time, abs=1e-9)


def test_clock_ends_where_it_is_told():
    clock = template.pingpong_clock(times_of([0.0, 0.04, 0.08]), interval=0.04, end=0.2)
    assert [i for _, i in clock] == [0, 1, 2, 1, 0]
    clock = template.pingpong_clock(times_of([0.0]), interval=0.04, end=1e-6)
    assert list(clock) == [(0.0, 0)]


def test_photograph(tmp_path):
    rgb = pictures(1, 40, 30)[0]
    path = tmp_path / "p.png"
    cv2.imwrite(str(path), rgb[..., ::-1])
    made = template.open_template(None, path)
    assert made.size == (40, 30) and made.fps == 25
    assert [f.index for f in made.frames()] == [0]
    for frame in itertools.islice(made.forever(), 3):
        np.testing.assert_array_equal(frame.rgb, rgb)


def test_one_template_is_wanted(tmp_path):
    for video, image in ((None, None), ("a.mp4", "b.png")):
        with pytest.raises(UserError, match="template"):
            template.open_template(video, image)
