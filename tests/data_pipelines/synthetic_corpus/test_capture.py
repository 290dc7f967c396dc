"""What cameras and coding do to frames."""

import dataclasses
import json

import cv2
import numpy as np
import pytest

from data_pipelines.synthetic.rendering import capture as captures
from data_pipelines.synthetic.rendering.capture import Capture, record, sample_capture
from data_pipelines.synthetic.rendering.transcoder import CODECS

SIZE = 64


def frames(count=6, step=3.0):
    rng = np.random.default_rng(0)
    image = np.clip(rng.normal(128, 50, (SIZE, SIZE, 3)), 0, 255).astype(np.float32)
    image = np.clip(128 + 3 * (cv2.GaussianBlur(image, (0, 0), 2) - 128), 20, 235).astype(np.uint8)
    return [(np.roll(image, 3 * i, 1), np.array([10.0 + step * i, 20.0])) for i in range(count)]


def film(capture, **more):
    source = frames(**more)
    out = list(record(iter(source), capture, SIZE, 25.0, len(source) / 25))
    assert len(out) == len(source)
    for frame in out:
        assert frame.shape == (SIZE, SIZE, 3) and frame.dtype == np.uint8
    return np.stack(out).astype(int)


CLEAN = np.stack([frame for frame, _ in frames()]).astype(int)


def test_the_default_changes_nothing():
    np.testing.assert_array_equal(film(Capture()), CLEAN)


def test_captures_repeat_are_json_and_one_in_six_is_clean():
    drawn = [sample_capture(np.random.default_rng(i)) for i in range(300)]
    assert drawn == [sample_capture(np.random.default_rng(i)) for i in range(300)]
    assert json.loads(json.dumps(dataclasses.asdict(drawn[0])))["codec"] == drawn[0].codec
    assert {c.codec for c in drawn} == set(CODECS)
    clean = [dataclasses.replace(c, flicker=(0, 1), shadow=(0, 0, 0), coarse=0, seed=0,
                                 resampler="linear", codec="none", quality=0) == Capture()
             for c in drawn if c.flicker[0] == c.shadow[0] == 0 and c.codec == "none"]  # fmt: skip
    assert 0.08 < sum(clean) / 300 < 0.35


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gains", (1.2, 1.0, 0.8)), ("gamma", 1.5), ("contrast", 0.7), ("saturation", 0.2),
        ("fade", (0.6, 1.0)), ("flicker", (0.15, 6.0)), ("shadow", (0.5, 0.3, 0.2)),
        ("shutter", 1.0), ("defocus", 3.0), ("luma_noise", 5.0), ("chroma_noise", 5.0),
        ("shot_noise", 6.0), ("row_noise", 4.0), ("scale", 0.4), ("sharpening", 1.0),
    ],
)  # fmt: skip
def test_every_property_shows_and_repeats(name, value):
    changed = Capture(**{name: value}, seed=3)
    out = film(changed)
    assert 1 < np.abs(out - CLEAN).mean() < 70
    np.testing.assert_array_equal(film(changed), out)


def test_a_colour_cast_shifts_channels_and_saturation_keeps_brightness():
    out = film(Capture(gains=(1.2, 1.0, 0.8))).mean((0, 1, 2)) / CLEAN.mean((0, 1, 2))
    assert out[0] > 1.1 and out[1] == pytest.approx(1, abs=0.01) and out[2] < 0.9
    grey = film(Capture(saturation=0.0))
    assert np.ptp(grey, -1).max() <= 2 and np.abs(grey.mean() - CLEAN.mean()) < 6


def test_a_fade_ends_as_bright_as_it_says():
    out = film(Capture(fade=(0.5, 1.0)), count=50)
    bright = out.mean((1, 2, 3)) / CLEAN[0].mean()
    assert bright[0] == pytest.approx(0.5, abs=0.02) and bright[-1] == pytest.approx(1, abs=0.02)


def test_motion_blur_is_along_the_motion_and_still_frames_stay_sharp():
    def sharpness(frame):
        return np.array([np.abs(np.diff(frame, axis=a)).mean() for a in (1, 0)])

    across, down = sharpness(film(Capture(shutter=1.0), step=8.0)[-1]) / sharpness(CLEAN[-1])
    assert across < 0.8 and across < 0.9 * down
    np.testing.assert_array_equal(film(Capture(shutter=1.0), step=0.0), CLEAN)


def test_noise_changes_from_frame_to_frame():
    out = film(Capture(luma_noise=6.0, seed=1)) - CLEAN
    assert np.abs(np.corrcoef(out[0].ravel(), out[1].ravel())[0, 1]) < 0.2


@pytest.mark.parametrize("codec", CODECS[1:])
def test_coding_keeps_the_order_and_costs_quality(codec):
    low, high = captures._QUALITY[codec]
    good, bad = (film(Capture(codec=codec, quality=q), count=20) for q in (low, high))
    clean = np.stack([frame for frame, _ in frames(20)]).astype(int)
    errors = [np.abs(out - clean).mean() for out in (good, bad)]
    assert errors[0] < errors[1] < 40
    # Every frame is nearest to itself.
    distance = np.abs(good[:, None] - clean[None]).mean((2, 3, 4))
    assert (distance.argmin(1)[:10] == np.arange(10)).all()
    np.testing.assert_array_equal(film(Capture(codec=codec, quality=high), count=20), bad)


def test_memory_is_bounded():
    """A frame is asked for only when the ones before it were nearly all given out."""
    asked = []

    def source():
        for number, item in enumerate(frames(40)):
            asked.append(number)
            yield item

    recorded = record(source(), Capture(codec="h264", quality=30), SIZE, 25.0, 1.6)
    for given, _ in enumerate(recorded, 1):
        assert len(asked) - given < 8
    assert given == 40
