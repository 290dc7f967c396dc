"""HDR footage as an SDR screen shows it."""

import av
import numpy as np
import pytest

from talkjax.media import tone_map, video
from talkjax.media.video_writer import VideoWriter
from tests import media_files as make

WHITE = {tone_map.PQ: 0.5807, tone_map.HLG: 0.75}  # the signal of 203 cd/m2


def test_light_of_the_standards():
    """Values of ITU-R BT.2100 and BT.2408."""
    np.testing.assert_allclose(tone_map.pq_to_light(np.array([0, 0.5807, 1])), [0, 203, 1e4], 1e-3)
    assert tone_map.hlg_to_light(np.full(3, 0.75)) == pytest.approx([203] * 3, rel=2e-3)
    assert tone_map.hlg_to_light(np.ones(3)) == pytest.approx([1000] * 3, rel=1e-3)
    light = np.array([0.1, 50.0, 5000.0])
    np.testing.assert_allclose(tone_map.pq_to_light(tone_map.light_to_pq(light)), light, 1e-6)


@pytest.mark.parametrize("transfer", [tone_map.PQ, tone_map.HLG])
def test_white_grey_and_highlights(transfer):
    grey = np.linspace(0, 1, 101)[:, None].repeat(3, 1)
    shown = tone_map.to_sdr(grey, transfer)
    assert (np.ptp(shown, axis=-1) < 1e-3).all()  # grey stays grey
    assert (np.diff(shown[:, 0]) >= 0).all() and shown[0, 0] < 0.01 and shown[-1, 0] > 0.99
    assert 0.88 < tone_map.to_sdr(np.full(3, WHITE[transfer]), transfer)[0] < 0.95


def test_colours_keep_their_hue():
    """BT.709 red within BT.2020, at 100 cd/m2."""
    linear = np.array([0.6274, 0.0691, 0.0164]) * 100
    shown = tone_map.to_sdr(tone_map.light_to_pq(linear), tone_map.PQ)
    assert shown[0] > 0.6 and (shown[1:] < 0.1).all()


def hdr_signal(rgb: np.ndarray, transfer: int) -> np.ndarray:
    """The HDR signal of SDR grey levels whose white is 203 cd/m2."""
    light = 203 * (rgb / 255.0) ** 2.4
    table = np.linspace(0, 1, 4001)
    screen = (
        tone_map.pq_to_light(table)
        if transfer == tone_map.PQ
        else tone_map.hlg_to_light(table[:, None].repeat(3, 1))[:, 0]
    )
    return np.interp(light, screen, table)


@pytest.mark.parametrize("transfer", [tone_map.PQ, tone_map.HLG])
@pytest.mark.parametrize(
    ("name", "codec"), [("a.mkv", "libx265"), ("a.mp4", "libx265"), ("a.mp4", "libsvtav1")]
)
def test_hdr_files_become_sdr(tmp_path, transfer, name, codec):
    levels = (0, 64, 128, 180, 220, 255)
    images = [
        np.full((64, 64, 3), round(255 * hdr_signal(np.array(level), transfer)), np.uint8)
        for level in levels
    ]
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    path = make.make_media(
        tmp_path / name, images, codec=codec, pix_fmt="yuv420p10le", tags=(9, transfer, 9, 1),
        options=options,
    )  # fmt: skip
    reader = video.VideoReader(path)
    assert reader.info.hdr == tone_map.NAMES[transfer] and len(reader.info.notes()) == 1
    frames = [f.rgb for f in reader]
    expected = (0, 64, 128, 180, 212, 230)  # unchanged below the knee of BT.2390
    for rgb, level in zip(frames, expected, strict=True):
        assert np.abs(rgb.astype(int) - level).max() <= 5
    with VideoWriter.like(tmp_path / "out.mp4", reader.info) as writer:
        for i, rgb in enumerate(frames):
            writer.write(rgb, i / 25)
    out = video.probe(tmp_path / "out.mp4")
    assert out.hdr is None and out.pixel_format == "yuv420p"
    assert (out.color_primaries, out.color_trc, out.colorspace) == (1, 1, 1)


def test_ten_bits_of_sdr_are_no_hdr(tmp_path):
    images = make.pictures(3, 64, 48)
    path = make.make_media(
        tmp_path / "a.mkv", images, codec="libx264", pix_fmt="yuv420p10le", tags=(1, 1, 1, 1)
    )
    reader = video.VideoReader(path)
    assert reader.info.hdr is None and not reader.info.notes()
    for frame, image in zip(reader, images, strict=True):
        assert np.abs(frame.rgb.astype(int) - image).mean() < 2


def test_the_table_is_exact_enough():
    rng = np.random.default_rng(0)
    rgb = rng.random((32, 32, 3))
    frame = av.VideoFrame.from_ndarray(np.round(rgb * 65535).astype(np.uint16), format="gbrp16le")
    shown = tone_map.ToneMap(tone_map.HLG, 9)(frame).to_ndarray() / 65535.0
    error = np.abs(shown - tone_map.to_sdr(rgb, tone_map.HLG))
    assert error.mean() < 0.003 and np.quantile(error, 0.99) < 0.03


def test_field_recording(shared_data):
    """The avatar in HLG looks like the original."""
    hdr = next(iter(video.VideoReader(shared_data / "field" / "hdr_hlg.mp4"))).rgb
    from talkjax.sampling import bundled

    plain = next(iter(video.VideoReader(bundled.template()))).rgb
    ratio = hdr.astype(float).mean((0, 1)) / plain.astype(float).mean((0, 1))
    assert (np.abs(ratio - 0.95) < 0.1).all() and np.ptp(ratio) < 0.03
