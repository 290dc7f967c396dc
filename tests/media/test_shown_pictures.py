"""Pictures as a player shows them: pixels that are not square, and transparent ones."""

from fractions import Fraction

import cv2
import numpy as np
import pytest

from talkjax.media import pixels, video
from talkjax.media.video_writer import VideoWriter
from tests import media_files as make

# ------------------------------------------------------------------------------ shape of pixels


def disc(width: int, height: int) -> np.ndarray:
    image = np.full((height, width, 3), 50, np.uint8)
    return cv2.circle(image, (width // 2, height // 2), height // 3, (200, 180, 160), -1)


def extent(rgb: np.ndarray) -> tuple[int, int]:
    """Width and height of the disc."""
    inside = rgb[..., 0] > 120
    return int(inside.any(0).sum()), int(inside.any(1).sum())


@pytest.mark.parametrize(
    ("size", "aspect", "shown"),
    [
        ((720, 576), (16, 15), (768, 576)),  # DVD, PAL, 4:3
        ((720, 576), (64, 45), (1024, 576)),  # 16:9
        ((720, 480), (8, 9), (720, 540)),  # NTSC, 4:3: higher, because narrower loses detail
        ((720, 480), (32, 27), (854, 480)),
        ((1440, 1080), (4, 3), (1920, 1080)),  # HDV, AVCHD
        ((1920, 1080), (1, 1), (1920, 1080)),
        ((640, 480), (1000, 1001), (640, 480)),  # nobody sees it
        ((64, 64), (100, 1), (64, 64)),  # no picture's
    ],
)
def test_sizes_of_common_formats(size, aspect, shown):
    assert pixels.square_size(*size, Fraction(*aspect)) == shown


def test_size_within_the_limit():
    assert pixels.square_size(100, 60, Fraction(2), limit=100) == (100, 30)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mpg", "a.ts", "a.mov", "a.avi"])
@pytest.mark.parametrize("turned", [False, True])
def test_frames_have_square_pixels(tmp_path, name, turned):
    if turned and name != "a.mp4":
        pytest.skip("only mp4 is turned here")
    width, height, aspect = (108, 96, Fraction(32, 27)) if name == "a.mpg" else (96, 96, None)
    aspect = aspect or Fraction(4, 3)
    images = [cv2.resize(disc(128, 96), (width, height), interpolation=cv2.INTER_AREA)] * 6
    codec = "mpeg4" if name == "a.avi" else None
    path = make.make_media(tmp_path / name, images, aspect=aspect, codec=codec)
    if turned:
        make.rotate_mp4(path, (0, 1, -1, 0))
    reader = video.VideoReader(path)
    info, rgb = reader.info, next(iter(reader)).rgb
    assert rgb.shape[:2] == ((128, 96) if turned else (96, 128)) == (info.height, info.width)
    wide, high = extent(rgb)
    assert abs(wide - high) <= 2  # it was 48 by 64
    assert info.sample_aspect_ratio == 1 and info.stored_size == (width, height)
    assert info.stored_aspect_ratio == (1 / aspect if turned else aspect)
    assert len(info.notes()) == 1
    with VideoWriter.like(tmp_path / "out.mp4", info) as writer:
        writer.write(rgb, 0.0)
    out = video.probe(tmp_path / "out.mp4")
    assert (out.width, out.height) == (info.width, info.height) and not out.notes()


def test_nearly_square_pixels_are_left_alone(tmp_path):
    path = make.make_media(tmp_path / "a.mp4", make.pictures(3, 64, 48), aspect=Fraction(200, 201))
    plain = make.make_media(tmp_path / "b.mp4", make.pictures(3, 64, 48))
    info = video.probe(path)
    assert info.sample_aspect_ratio == Fraction(200, 201) and not info.notes()
    for a, b in zip(video.VideoReader(path), video.VideoReader(plain), strict=True):
        np.testing.assert_array_equal(a.rgb, b.rgb)


def test_field_recording_has_the_faces_shape(shared_data):
    from talkjax.sampling import bundled

    squeezed = video.VideoReader(shared_data / "field" / "sar_4_3.mp4")
    for a, b in zip(squeezed, video.VideoReader(bundled.template()), strict=True):
        assert a.rgb.shape == b.rgb.shape  # it was 192 wide
        assert np.abs(a.rgb.astype(int) - b.rgb).mean() < 3


# ----------------------------------------------------------------------------------------- alpha


def cut_out(width=64, height=48) -> np.ndarray:
    """Opaque red on the left, hidden green on the right."""
    image = np.zeros((height, width, 4), np.uint8)
    image[:, : width // 2] = (200, 40, 40, 255)
    image[:, width // 2 :] = (20, 240, 20, 0)
    return image


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.webm", "libvpx", "yuva420p"), ("a.webm", "libvpx-vp9", "yuva420p"),
        ("a.mov", "png", "rgba"), ("a.mov", "qtrle", "argb"), ("a.mkv", "ffv1", "yuva444p"),
        ("a.mov", "prores_ks", "yuva444p10le"),
    ],
)  # fmt: skip
def test_hidden_pixels_of_videos_are_black(tmp_path, name, codec, pix_fmt):
    options = {"auto-alt-ref": "0", "crf": "4", "b": "4M"} if "vpx" in codec else {}
    path = make.make_media(
        tmp_path / name, [cut_out()] * 3, codec=codec, pix_fmt=pix_fmt, options=options,
        alpha_mode="vpx" in codec,
    )  # fmt: skip
    reader = video.VideoReader(path)
    assert reader.info.background == 0 and "black" in reader.info.notes()[0]
    frames = list(reader)
    assert len(frames) == 3
    for frame in frames:
        assert frame.rgb[:, 40:].max() < 16  # it was green
        assert np.abs(frame.rgb[:, :28].astype(int) - (200, 40, 40)).max() < 16
    again = video.VideoReader(path)
    np.testing.assert_allclose([f.time for f in again], np.arange(3) / 25, atol=1e-3)


def test_opaque_alpha_is_no_news(tmp_path):
    image = np.dstack([make.picture(0, 64, 48), np.full((48, 64), 255, np.uint8)])
    path = make.make_media(tmp_path / "a.mov", [image] * 2, codec="png", pix_fmt="rgba")
    info = video.probe(path)
    assert info.background is None and not info.notes()
    np.testing.assert_array_equal(next(iter(video.VideoReader(path))).rgb, image[..., :3])


def test_flatten_mixes():
    rgba = np.array([[[100, 200, 0, 128], [9, 9, 9, 0]]], np.uint8)
    np.testing.assert_array_equal(pixels.flatten(rgba, 255), [[[177, 227, 127], [255, 255, 255]]])
