"""Tests of talkjax.media.pingpong."""

from __future__ import annotations

import itertools
import resource

import numpy as np
import pytest

from talkjax.media import video
from talkjax.media.pingpong import iterate_pingpong, pingpong_clock
from tests import media_files as make


def read(path):
    return list(video.VideoReader(path))


def expected_sequence(count: int, length: int) -> list[int]:
    turn = list(range(count)) + list(range(count - 2, 0, -1))
    return list(itertools.islice(itertools.cycle(turn), length))


@pytest.mark.parametrize("count", [1, 2, 3, 10, 40])
@pytest.mark.parametrize("cached", [2, 7, 1000])
@pytest.mark.parametrize(("name", "gop"), [("a.mp4", 12), ("a.mkv", 250), ("a.mov", 5)])
def test_pingpong_order_and_pixels(tmp_path, count, cached, name, gop):
    path = make.make_media(tmp_path / name, make.pictures(count, 64, 48), gop=gop)
    frames = read(path)
    assert len(frames) == count
    length = 4 * count + 3
    sequence = list(itertools.islice(iterate_pingpong(path, cached * 64 * 48 * 3), length))
    assert [frame.index for frame in sequence] == expected_sequence(count, length)
    for frame in sequence:
        np.testing.assert_array_equal(frame.rgb, frames[frame.index].rgb)
        assert frame.time == frames[frame.index].time


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mpg", "mpeg2video"), ("a.mpg", "mpeg1video"), ("a.ts", "libx264")]
)
def test_pingpong_of_mpeg_streams(tmp_path, name, codec):
    path = make.make_media(tmp_path / name, make.pictures(40, 64, 48), codec=codec)
    frames = read(path)
    for frame in itertools.islice(iterate_pingpong(path, 5 * 64 * 48 * 3), 120):
        np.testing.assert_array_equal(frame.rgb, frames[frame.index].rgb)


def show(times, start=0.0, end=1e9):
    """The clock of a ping-pong over frames with these times."""
    return pingpong_clock(
        lambda i: times[i] if i < len(times) else None, interval=0.04, end=end, start=start
    )


def test_clock_keeps_intervals():
    shown = itertools.islice(show([0.0, 0.04, 0.1, 0.35]), 8)
    expected = [0, 0.04, 0.1, 0.35, 0.6, 0.66, 0.7, 0.74]
    np.testing.assert_allclose([time for time, _ in shown], expected)
    shown = itertools.islice(show([0.3, 0.34], start=None), 3)
    np.testing.assert_allclose([time for time, _ in shown], [0.3, 0.34, 0.38])
    shown = itertools.islice(show([0.0], start=1.0), 4)
    np.testing.assert_allclose([time for time, _ in shown], [1.0, 1.04, 1.08, 1.12])


def test_clock_stops_before_its_end():
    assert [index for _, index in show([0.0, 0.04, 0.08], end=0.2)] == [0, 1, 2, 1, 0]
    assert list(show([0.0], end=1e-6)) == [(0.0, 0)]
    with pytest.raises(ValueError, match="at least one frame"):
        next(show([]))


@pytest.mark.parametrize("count", [1, 2, 7])
def test_clock_counts_the_frames_that_are_decoded(tmp_path, count):
    path = make.make_media(tmp_path / "v.mkv", make.pictures(count, 32, 32))
    decoded = itertools.islice(iterate_pingpong(path), 40)
    clock = itertools.islice(show([frame.time for frame in read(path)]), 40)
    assert [frame.index for frame in decoded] == [index for _, index in clock]


def test_memory_does_not_grow_with_length(tmp_path):
    image = make.picture(3, 640, 360)  # 0.7 MB a frame, 420 MB for all
    path = make.make_media(
        tmp_path / "a.mp4", [image] * 600, options={"preset": "ultrafast"}, gop=50
    )
    usage = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # noqa: E731
    for _ in itertools.islice(iterate_pingpong(path, 16 << 20), 100):
        pass
    before = usage()
    for _ in itertools.islice(iterate_pingpong(path, 16 << 20), 1500):
        pass
    assert usage() - before < 60
