"""Tests of talkjax.media.video."""

from __future__ import annotations

import itertools
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from talkjax.errors import UserError
from talkjax.media import pixels, video
from talkjax.media.playback import iterate_pictures
from tests import media_files as make


def read(path):
    return list(video.VideoReader(path))


@pytest.mark.parametrize(
    "name", ["a.mp4", "a.mkv", "a.mov", "a.webm", "a.mpg", "a.ts", "a.avi", "a.m4v"]
)
def test_reads_every_container(tmp_path, name):
    images = make.pictures(10, 64, 48)
    codec = "mpeg4" if name.endswith("avi") else None
    reader = video.VideoReader(make.make_media(tmp_path / name, images, codec=codec))
    frames = list(reader)
    assert (reader.info.width, reader.info.height) == (64, 48)
    assert reader.info.fps == pytest.approx(25)
    assert not reader.info.has_audio and reader.info.audio_codec is None
    assert [frame.index for frame in frames] == list(range(10))
    np.testing.assert_allclose([f.time for f in frames], np.arange(10) / 25, atol=1e-3)
    assert not reader.truncated
    for frame, image in zip(frames, images, strict=True):
        assert frame.rgb.shape == (48, 64, 3) and frame.rgb.dtype == np.uint8
        assert frame.rgb.flags.c_contiguous and frame.rgb.flags.writeable
        assert np.abs(frame.rgb.astype(int) - image).mean() < 5
    assert [f.time for f in reader] == [f.time for f in frames]  # may be read again


@pytest.mark.parametrize("size", [(4, 4), (65, 47), (2, 6), (1, 1), (322, 18)])
def test_small_and_odd_sizes(tmp_path, size):
    images = make.pictures(3, *size)
    path = make.make_media(tmp_path / "a.mp4", images, pix_fmt="yuv444p")
    frames = read(path)
    assert len(frames) == 3
    assert frames[0].rgb.shape == (size[1], size[0], 3)
    assert np.abs(frames[2].rgb.astype(int) - images[2]).mean() < 12


@pytest.mark.parametrize(
    ("codec", "pix_fmt"),
    [
        ("libx265", "yuv420p10le"), ("libx265", "yuv420p"), ("libx264", "yuv422p10le"),
        ("prores", "yuv422p10le"), ("ffv1", "bgr0"), ("ffv1", "gray"), ("libx264rgb", "rgb24"),
        ("mjpeg", "yuvj420p"), ("ffv1", "yuva444p"),
    ],
)  # fmt: skip
def test_pixel_formats(tmp_path, codec, pix_fmt):
    images = make.pictures(5, 64, 64)
    if pix_fmt == "gray":
        images = [np.repeat(image[..., :1], 3, axis=-1) for image in images]
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    tags = (2, 2, 5, 2) if pix_fmt == "yuvj420p" else None
    path = make.make_media(
        tmp_path / "a.mkv", images, codec=codec, pix_fmt=pix_fmt, options=options, tags=tags
    )
    frames = read(path)
    assert len(frames) == 5
    for frame, image in zip(frames, images, strict=True):
        assert np.abs(frame.rgb.astype(int) - image).mean() < (1.5 if codec == "ffv1" else 4)


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", [1, 5, 6])
def test_colour_matrix_and_range_follow_the_tags(tmp_path, matrix, full_range):
    colours = [(200, 40, 40), (40, 180, 60), (50, 60, 220), (255, 255, 255), (0, 0, 0)]
    images = [np.full((64, 64, 3), colour, np.uint8) for colour in colours]
    tags = (2, 2, matrix, 2 if full_range else 1)
    path = make.make_media(tmp_path / "a.mp4", images, tags=tags, options={"crf": "1"})
    assert video.probe(path).colorspace == matrix
    for frame, colour in zip(read(path), colours, strict=True):
        assert np.abs(frame.rgb.astype(int) - np.array(colour)).max() <= 3


@pytest.mark.parametrize(("size", "expected"), [((1280, 64), 1), ((64, 580), 1), ((64, 576), 6)])
def test_untagged_matrix_goes_by_size(tmp_path, size, expected):
    path = make.make_media(tmp_path / "a.mp4", make.pictures(1, *size))
    assert video.probe(path).matrix == expected
    assert pixels.effective_matrix(5, *size) == 5


@pytest.mark.parametrize(
    ("matrix", "degrees", "turn"),
    [
        ((0, 1, -1, 0), 90, lambda image: np.rot90(image, -1)),
        ((-1, 0, 0, -1), 180, lambda image: np.rot90(image, 2)),
        ((0, -1, 1, 0), 270, lambda image: np.rot90(image, 1)),
        ((-1, 0, 0, 1), 0, lambda image: image[:, ::-1]),
        ((0, 1, 1, 0), 90, lambda image: image.transpose(1, 0, 2)),
    ],
)
def test_rotation_metadata_is_applied(tmp_path, matrix, degrees, turn):
    images = make.pictures(2, 64, 48)
    path = make.make_media(tmp_path / "a.mp4", images)
    upright = read(path)
    make.rotate_mp4(path, matrix)
    info, frames = video.probe(path), read(path)
    assert info.rotation == degrees
    assert (info.height, info.width) == frames[0].rgb.shape[:2]
    for frame, source in zip(frames, upright, strict=True):
        np.testing.assert_array_equal(frame.rgb, turn(source.rgb))


def test_variable_rate_times_are_kept(tmp_path):
    times = [0.0, 0.04, 0.1, 0.101, 0.35, 0.9, 1.0]
    path = make.make_media(tmp_path / "a.mp4", make.pictures(7, 64, 48), times=times)
    np.testing.assert_allclose([f.time for f in read(path)], times, atol=2e-5)


def test_video_that_starts_after_its_audio(tmp_path):
    path = make.make_media(
        tmp_path / "a.mp4",
        make.pictures(10, 64, 48),
        times=[0.25 + i / 25 for i in range(10)],
        sound=make.Sound(make.tone(1.0)),
    )
    assert read(path)[0].time == pytest.approx(0.25, abs=1e-3)


@pytest.mark.parametrize("name", ["a.mpg", "a.ts"])
def test_arbitrary_first_timestamp_is_not_a_delay(tmp_path, name):
    path = make.make_media(tmp_path / name, make.pictures(10, 64, 48))
    info = video.probe(path)
    assert info.zero > 0  # MPEG streams do not begin at 0
    assert read(path)[0].time == 0


def test_missing_timestamps_are_made_up(tmp_path):
    path = make.make_media(tmp_path / "a.mp4", make.pictures(1, 64, 48))
    info = video.probe(path)
    clock = video.FrameClock(info)

    class Frame:
        time_base = Fraction(1, 100)

        def __init__(self, pts):
            self.pts = self.dts = pts

    got = [clock(Frame(pts)) for pts in (None, None, 20, 20, 19, 30, None)]
    assert got[:2] == [0.0, pytest.approx(1 / info.fps)]
    assert got[2] == pytest.approx(0.2)
    assert got[5] == pytest.approx(0.3) and got[6] == pytest.approx(0.3 + 1 / info.fps)
    assert all(a < b for a, b in itertools.pairwise(got))
    joined = video.FrameClock(info)
    jump = [joined(Frame(pts)) for pts in (0, 400, 0, 4)]
    np.testing.assert_allclose(jump, [0, 4, 4 + 1 / info.fps, 4.04 + 1 / info.fps])


def test_raw_stream_without_container(tmp_path):
    path = make.make_media(tmp_path / "a.h264", make.pictures(12, 64, 48))
    frames = read(path)
    np.testing.assert_allclose([f.time for f in frames], np.arange(12) / 25, atol=1e-6)
    indices = [
        f.index for f in itertools.islice(iterate_pictures(path, cache_bytes=3 * 64 * 48 * 4), 30)
    ]
    assert indices == (list(range(12)) + list(range(10, -1, -1)) + list(range(1, 12)))[:30]


def test_probe_reports_audio(tmp_path):
    path = make.make_media(
        tmp_path / "a.mp4",
        make.pictures(10, 64, 48),
        fps=Fraction(30000, 1001),
        sound=make.Sound(make.tone(0.5)),
    )
    info = video.probe(path)
    assert info.has_audio and info.audio_codec == "aac" and info.codec == "h264"
    assert info.fps == pytest.approx(30000 / 1001) and info.frames == 10
    assert info.duration_s == pytest.approx(10 * 1001 / 30000, abs=1e-3)


# ------------------------------------------------------------------------------------ bad input


def bad_files(folder: Path):
    text = folder / "text.mp4"
    text.write_text("hello, this is not a video\n" * 50)
    yield "text", text
    empty = folder / "empty.mp4"
    empty.touch()
    yield "empty", empty
    yield "missing", folder / "missing.mp4"
    yield "directory", folder
    yield "no_name", ""
    yield "url", "https://example.com/a.mp4"
    yield "zero_byte_name", "a\0b.mp4"
    yield "truncated", make.cut(make.make_media(folder / "cut.mp4", make.pictures(9, 64, 48)), 0.6)
    yield "audio_only", make.make_media(folder / "s.m4a", sound=make.Sound(make.tone()))
    noise = folder / "noise.mp4"
    noise.write_bytes(np.random.default_rng(0).integers(0, 256, 20000, np.uint8).tobytes())
    yield "noise", noise
    clip = make.make_media(folder / "ok.mp4", make.pictures(3, 64, 48))
    hls = folder / "list.mp4"
    hls.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{clip.name}\n#EXT-X-ENDLIST\n")
    yield "hls", hls
    concat = folder / "concat.mp4"
    concat.write_text(f"ffconcat version 1.0\nfile {clip.name}\n")
    yield "concat", concat
    yield "concat_protocol", f"concat:{clip}|{clip}"
    sdp = folder / "a.sdp"
    sdp.write_text("v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nt=0 0\nm=video 9 RTP/AVP 96\n")
    yield "sdp", sdp
    fifo = folder / "fifo.mp4"
    os.mkfifo(fifo)
    yield "fifo", fifo


def test_bad_files_give_one_line(tmp_path):
    names = []
    for name, path in bad_files(tmp_path):
        for use in (video.probe, video.VideoReader, lambda p: next(iterate_pictures(p))):
            with pytest.raises(UserError) as caught:
                use(path)
            message = str(caught.value)
            assert message and "\n" not in message, name
            assert "; " in message, (name, message)  # what is wrong; what to do
        names.append(name)
    assert len(names) == 15


def test_unreadable_file(tmp_path):
    path = make.make_media(tmp_path / "a.mp4", make.pictures(2, 64, 48))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("permissions do not bind this user")
    with pytest.raises(UserError, match="permission"):
        video.probe(path)


@pytest.mark.parametrize("faststart", [True, False])
def test_file_cut_in_the_middle_yields_what_is_there(tmp_path, faststart):
    images = make.pictures(60, 64, 48)
    name = "a.mp4" if faststart else "a.mkv"
    muxer = {"movflags": "+faststart"} if faststart else None
    path = make.make_media(tmp_path / name, images, container_options=muxer)
    make.cut(path, 0.6)
    reader = video.VideoReader(path)
    frames = list(reader)
    assert 5 < len(frames) < 60
    assert reader.truncated
    indices = [f.index for f in itertools.islice(iterate_pictures(path), 2 * len(frames))]
    assert max(indices) == len(frames) - 1


def test_damaged_packets_are_skipped(tmp_path):
    path = make.make_media(tmp_path / "a.ts", make.pictures(60, 64, 48))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 800] = bytes(800)
    path.write_bytes(bytes(data))
    frames = read(path)
    assert len(frames) > 40
    assert all(a.time < b.time for a, b in itertools.pairwise(frames))


def test_size_that_changes_in_the_middle_is_scaled(tmp_path):
    first = make.make_media(tmp_path / "a.ts", make.pictures(12, 64, 48))
    second = make.make_media(tmp_path / "b.ts", make.pictures(12, 96, 80))
    first.write_bytes(first.read_bytes() + second.read_bytes())
    frames = read(first)
    assert len(frames) == 24 and {frame.rgb.shape for frame in frames} == {(48, 64, 3)}
    assert all(a.time < b.time < a.time + 0.1 for a, b in itertools.pairwise(frames))


def test_absurd_size_is_refused(tmp_path, monkeypatch):
    path = make.make_media(tmp_path / "a.mp4", make.pictures(1, 64, 48))
    monkeypatch.setattr("talkjax.media.container.MAX_SIDE", 63)
    with pytest.raises(UserError, match="64x48 are too large"):
        video.probe(path)


def test_cover_art_is_not_a_video(tmp_path):
    # A flac file with a PNG in a PICTURE block.
    import cv2

    plain = make.make_media(tmp_path / "a.flac", sound=make.Sound(make.tone())).read_bytes()
    png = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    body = (3).to_bytes(4, "big") + (9).to_bytes(4, "big") + b"image/png" + bytes(4)
    body += b"".join(n.to_bytes(4, "big") for n in (8, 8, 24, 0, len(png))) + png
    block = bytes([6]) + len(body).to_bytes(3, "big") + body
    end = 8 + int.from_bytes(plain[5:8], "big")  # after STREAMINFO
    path = tmp_path / "art.flac"
    path.write_bytes(plain[:end] + block + plain[end:])
    with pytest.raises(UserError, match="no video stream"):
        video.probe(path)


# ------------------------------------------------------------------------------- real recordings


@pytest.mark.parametrize(
    ("name", "size", "count"),
    [
        ("clips/odd_22.13fps_700.mp4", (700, 700), 135),
        ("clips/silent_template_30fps_256.mp4", (256, 256), 270),
        ("clips/square_590_25fps.mp4", (590, 590), 125),
    ],
)
def test_real_clips(shared_data, name, size, count):
    path = shared_data / name
    reader = video.VideoReader(path)
    times = [time for time, _ in reader.decoded()]
    assert (reader.info.width, reader.info.height) == size
    assert len(times) == count == reader.info.frames and not reader.truncated


def test_real_program_streams(shared_data):
    for path in sorted((shared_data / "other_speakers").glob("*.mpg")):
        reader = video.VideoReader(path)
        times = [time for time, _ in reader.decoded()]
        np.testing.assert_allclose(times, np.arange(75) / 25, atol=1e-4)
