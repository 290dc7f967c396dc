"""Frame rates where the header is silent or wrong."""

from fractions import Fraction

import numpy as np
import pytest

from talkjax.media import frame_rate, video
from talkjax.media.video_writer import VideoWriter
from tests import media_files as make

LIVE = {"live": "1"}  # no duration and no index, as browsers write it


def jittered(count=80):
    """Times 32 to 66 ms apart, in whole milliseconds, as a browser records a webcam."""
    steps = np.random.default_rng(0).choice([0.032, 0.033, 0.034, 0.066], count - 1)
    return [0.0, *np.cumsum(steps).tolist()]


def test_live_webm_of_a_browser(tmp_path):
    """Its header claims a frame every millisecond."""
    times = jittered()
    path = make.make_media(
        tmp_path / "a.webm", make.pictures(80, 64, 48), fps=1000, times=times,
        codec="libvpx", container_options=LIVE,
    )  # fmt: skip
    info = video.probe(path)
    assert info.fps == pytest.approx(79 / times[-1], rel=0.02)  # it was 1000
    assert info.duration_s is None
    with VideoWriter.like(tmp_path / "out.mp4", info) as writer:
        for frame in video.VideoReader(path):
            writer.write(frame.rgb, frame.time)
    out = video.VideoReader(tmp_path / "out.mp4")
    assert out.info.fps == pytest.approx(79 / times[-1], rel=0.02)
    np.testing.assert_allclose([f.time for f in out], times, atol=1e-3)


@pytest.mark.parametrize("rate", [Fraction(24), Fraction(25), Fraction(30000, 1001)])
def test_standard_rates_survive_a_clock_of_milliseconds(tmp_path, rate):
    times = [i / float(rate) for i in range(60)]
    path = make.make_media(
        tmp_path / "a.webm", make.pictures(60, 64, 48), fps=1000, times=times,
        codec="libvpx", container_options=LIVE,
    )  # fmt: skip
    assert video.probe(path).fps == float(rate)


@pytest.mark.parametrize("name", ["a.flv", "a.ts", "a.mkv"])
def test_wrong_nominal_rates(tmp_path, name):
    """A screen recorder declares 60 frames a second and delivers 12.5."""
    times = [i * 0.08 for i in range(30)]
    codec = "flv1" if name.endswith("flv") else None
    path = make.make_media(
        tmp_path / name, make.pictures(30, 64, 48), fps=60, times=times, codec=codec,
        options={} if codec else {"bf": "0"},
    )  # fmt: skip
    assert video.probe(path).fps == pytest.approx(12.5)


def test_counted_averages_are_believed(tmp_path):
    """A phone's mp4 has exact times of a variable rate."""
    times = jittered()
    path = make.make_media(tmp_path / "a.mp4", make.pictures(80, 64, 48), fps=30, times=times)
    assert video.probe(path).fps == pytest.approx(80 / (times[-1] + 1 / 30), rel=0.02)


def test_pauses_are_no_part_of_the_rate():
    times = np.concatenate([np.arange(25) / 25, 9 + np.arange(25) / 25])
    assert frame_rate.rate_of_times(times[::-1]) == 25
    assert frame_rate.rate_of_times([0.0, 0.04]) is None


def test_real_recording(shared_data):
    info = video.probe(shared_data / "field" / "recorder.webm")
    assert info.fps == pytest.approx(81 / 3.131, rel=0.01)
