"""Tests of talkjax.media.playback."""

from __future__ import annotations

import itertools
import resource

import numpy as np
import pytest

from talkjax.media import video
from talkjax.media.playback import Clock, filled_rate, iterate_pictures
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
    sequence = list(
        itertools.islice(iterate_pictures(path, cache_bytes=cached * 64 * 48 * 3), length)
    )
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
    for frame in itertools.islice(iterate_pictures(path, cache_bytes=5 * 64 * 48 * 3), 120):
        np.testing.assert_array_equal(frame.rgb, frames[frame.index].rgb)


def show(times, start=0.0, end=1e9, mode="bounce"):
    """Yields (time, index) of a template whose frames have these times."""
    clock = Clock(lambda i: times[i] if i < len(times) else None, 0.04, end, start, mode)
    return ((shown.time, shown.index) for shown in clock)


def test_clock_keeps_intervals():
    shown = itertools.islice(show([0.0, 0.04, 0.05, 0.0917]), 8)
    expected = [0, 0.04, 0.05, 0.0917, 0.1334, 0.1434, 0.1834, 0.2234]
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


@pytest.mark.parametrize(
    ("fps", "made"),
    [(2, 26), (5, 25), (10, 30), (12.5, 25), (15, 30), (20, 40), (24, 24), (50, 50)],
)
def test_a_picture_that_stands_is_repeated(fps, made):
    times = np.arange(int(3 * fps) + 1) / fps
    shown = list(itertools.islice(show(list(times), end=3.0 - 1e-9), 10 * made))
    assert len(shown) == round(3 * made) and filled_rate(fps) == pytest.approx(made)
    np.testing.assert_allclose(np.diff([time for time, _ in shown]), 1 / made)
    assert [index for _, index in shown] == [int(time * fps + 1e-6) for time, _ in shown]


def test_a_long_pause_lasts_until_the_end_and_backward():
    times = [0.0, 0.04, 1.84, 1.88]
    shown = list(show(times, end=4.5))
    assert np.diff([time for time, _ in shown]).max() < 0.04 + 1e-9
    assert [index for index, _ in itertools.groupby(index for _, index in shown)] == [
        0, 1, 2, 3, 2, 1, 0, 1,
    ]  # fmt: skip
    assert 4.5 - shown[-1][0] <= 0.04 + 1e-9


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("bounce", [0, 1, 2, 1, 0, 1, 2, 1]),
        ("loop", [0, 1, 2, 0, 1, 2, 0, 1]),
        ("cut_off", [0, 1, 2]),
        ("hold", [0, 1, 2, 2, 2, 2, 2, 2]),
    ],
)
def test_modes(tmp_path, mode, expected):
    shown = list(show([0.0, 0.04, 0.08], end=0.32, mode=mode))
    assert [index for _, index in shown] == expected
    np.testing.assert_allclose([time for time, _ in shown], np.arange(len(expected)) / 25)
    path = make.make_media(tmp_path / "v.mkv", make.pictures(3, 32, 32))
    for cached in (2, 100):
        pictures = itertools.islice(iterate_pictures(path, mode, cached * 32 * 32 * 3), 8)
        decoded = [frame.index for frame in pictures]
        assert decoded == [index for index, _ in itertools.groupby(expected)]


def test_laps_are_counted():
    times = [0.0, 0.04]
    clock = Clock(lambda i: times[i] if i < 2 else None, 0.04, 0.2, mode="loop")
    assert [shown.lap for shown in clock] == [0, 0, 1, 1, 2]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_clock_counts_the_frames_that_are_decoded(tmp_path, count):
    path = make.make_media(tmp_path / "v.mkv", make.pictures(count, 32, 32))
    decoded = itertools.islice(iterate_pictures(path), 40)
    clock = itertools.islice(show([frame.time for frame in read(path)]), 40)
    assert [frame.index for frame in decoded] == [index for _, index in clock]


def test_memory_does_not_grow_with_length(tmp_path):
    image = make.picture(3, 640, 360)  # 0.7 MB a frame, 420 MB for all
    path = make.make_media(
        tmp_path / "a.mp4", [image] * 600, options={"preset": "ultrafast"}, gop=50
    )
    usage = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # noqa: E731
    for _ in itertools.islice(iterate_pictures(path, cache_bytes=16 << 20), 100):
        pass
    before = usage()
    for _ in itertools.islice(iterate_pictures(path, cache_bytes=16 << 20), 1500):
        pass
    assert usage() - before < 60
