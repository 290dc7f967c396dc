"""Reading photographs, and refusing bad ones before they cost memory."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from talkjax.errors import UserError
from talkjax.media.image import read_image


def photo(height=30, width=40):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 5, y * 7, x + y], -1).astype(np.uint8)


@pytest.mark.parametrize(
    ("suffix", "tolerance"), [("png", 0), ("bmp", 0), ("jpg", 12), ("webp", 25)]
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
