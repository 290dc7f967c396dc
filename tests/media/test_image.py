"""Reading photographs, and refusing bad ones before they cost memory."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from talkjax.errors import UserError
from talkjax.media.image import is_photograph, read_image, read_photograph


def photo(height=30, width=40):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 5, y * 7, x + y], -1).astype(np.uint8)


@pytest.mark.parametrize(
    ("suffix", "tolerance"), [("png", 0), ("bmp", 0), ("jpg", 12), ("webp", 25), ("avif", 12)]
)
def test_kinds(tmp_path, suffix, tolerance):
    path = tmp_path / f"p.{suffix}"
    assert cv2.imwrite(str(path), photo()[..., ::-1])
    difference = np.abs(read_image(path).astype(int) - photo())
    assert difference.mean() <= tolerance


def test_grey_alpha_and_depth_become_rgb(tmp_path):
    for name, image in (
        ("grey", photo()[..., 0]),
        ("alpha", np.dstack([photo(), photo()[..., :1]])),
        ("deep", photo().astype(np.uint16) * 257),
    ):
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
        got = read_image(tmp_path / f"{name}.png")
        assert got.shape == (30, 40, 3) and got.dtype == np.uint8


@pytest.mark.parametrize(
    ("suffix", "depth"), [("png", np.uint8), ("png", np.uint16), ("webp", np.uint8)]
)
def test_transparent_pixels_are_white(tmp_path, suffix, depth):
    image = np.dstack([photo()[..., ::-1], np.full((30, 40), 255, np.uint8)])
    image[:, 20:] = (255, 0, 255, 0)  # hidden
    path = tmp_path / f"a.{suffix}"
    cv2.imwrite(str(path), image.astype(depth) * (257 if depth == np.uint16 else 1),
                [cv2.IMWRITE_WEBP_QUALITY, 101])  # fmt: skip
    shown = read_photograph(path)
    assert shown.transparent
    assert (shown.rgb[:, 20:] == 255).all()
    np.testing.assert_array_equal(shown.rgb[:, :20], photo()[:, :20])
    cv2.imwrite(str(path), np.dstack([photo(), np.full((30, 40), 255, np.uint8)]))
    assert not read_photograph(path).transparent


def test_photographs_are_known_by_their_content(tmp_path):
    for suffix, still in (("png", True), ("jpg", True), ("webp", True), ("gif", False)):
        path = tmp_path / f"a.{suffix}"
        cv2.imwrite(str(path), photo())
        assert is_photograph(path.rename(tmp_path / f"{suffix}.mp4")) == still
    moving = cv2.Animation()
    moving.frames, moving.durations = [photo(), photo()[::-1].copy()], [40, 40]
    for suffix in ("webp", "png"):
        cv2.imwriteanimation(str(tmp_path / f"b.{suffix}"), moving)
        assert not is_photograph(tmp_path / f"b.{suffix}")


def test_heic_says_what_to_do(tmp_path):
    path = tmp_path / "a.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    assert is_photograph(path)
    with pytest.raises(UserError, match=r"HEIC.*convert it to JPEG"):
        read_image(path)


def png_of_size(width, height):
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * 100)
    chunks = [header, data, b"IEND"]
    body = b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello, world", "not a readable picture"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (b"\xff\xd8\xff\xe0", "truncated"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "truncated"),
        (png_of_size(100_000, 100_000), "too many"),
        (png_of_size(16_000, 16_000), "too many"),
        (b"\xff\xd8\xff\xe0\0\x04ab\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03", "too many"),
    ],
)
def test_refused(tmp_path, data, reason):
    path = tmp_path / "p.png"
    path.write_bytes(data)
    with pytest.raises(UserError, match=reason) as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


def test_cut_short(tmp_path):
    path = tmp_path / "p.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match="truncated or damaged"):
        read_image(path)


def test_missing(tmp_path):
    with pytest.raises(UserError, match="not found"):
        read_image(tmp_path / "none.png")
