"""Deinterlacing."""

import itertools

import numpy as np
import pytest

from talkjax.media import video
from talkjax.media.playback import iterate_pictures
from tests import media_files as make

COUNT, HEIGHT, WIDTH = 30, 64, 96


def scene(half: float) -> np.ndarray:
    """A bar that moves by 3 pixels a field over thin lines that stand still."""
    image = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    image[1::4, :24] = 160
    x = round(26 + 3 * half) % 60 + 26
    image[:, x : x + 8] = 200
    return image


def woven(count: int = COUNT) -> list[np.ndarray]:
    """The lower field of each picture is 20 ms later."""
    images = []
    for i in range(count):
        image = scene(2 * i)
        image[1::2] = scene(2 * i + 1)[1::2]
        images.append(image)
    return images


def combing(rgb: np.ndarray) -> float:
    """Share of the pixels right of the lines that differ from those above and below alike."""
    y = rgb[:, 26:].astype(float).mean(-1)
    return float(((y[1:-1] - y[:-2]) * (y[1:-1] - y[2:]) > 400).mean())


CASES = [("a.mp4", "libx264"), ("a.mpg", "mpeg2video"), ("a.ts", "libx264")]


@pytest.mark.parametrize(("name", "codec"), CASES)
def test_interlaced_pictures_become_progressive(tmp_path, name, codec):
    images = woven()
    assert combing(images[5]) > 0.06
    path = make.make_media(tmp_path / name, images, codec=codec, interlaced=True)
    reader = video.VideoReader(path)
    assert reader.info.interlaced and reader.info.notes()
    frames = list(reader)
    assert len(frames) == COUNT
    np.testing.assert_allclose([f.time for f in frames], np.arange(COUNT) / 25, atol=1e-3)
    assert max(combing(f.rgb) for f in frames) < 0.01
    for i in (3, 20):  # the upper field's moment; the still lines keep their full resolution
        error = np.abs(frames[i].rgb.astype(int) - scene(2 * i))
        assert error[:, :24].mean() < 6 and error.mean() < 6


@pytest.mark.parametrize(("name", "codec"), CASES)
@pytest.mark.parametrize("cached", [2, 7])
def test_pingpong_of_interlaced_footage_is_exact(tmp_path, name, codec, cached):
    path = make.make_media(tmp_path / name, woven(), codec=codec, interlaced=True, gop=7)
    frames = list(video.VideoReader(path))
    pictures = iterate_pictures(path, cache_bytes=cached * WIDTH * HEIGHT * 3)
    turns = itertools.islice(pictures, 4 * COUNT)
    for frame in turns:
        np.testing.assert_array_equal(frame.rgb, frames[frame.index].rgb)


def test_progressive_pictures_pass_unchanged(tmp_path):
    """Joined recordings: a progressive one, an interlaced one, a progressive one."""
    parts = [make.make_media(tmp_path / f"{i}.ts", woven(12), interlaced=i == 1) for i in range(3)]
    alone = [[f.rgb for f in video.VideoReader(part)] for part in parts]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames = [f.rgb for f in video.VideoReader(joined)]
    assert len(frames) == 36
    for i in (*range(12), *range(24, 36)):
        np.testing.assert_array_equal(frames[i], alone[i // 12][i % 12])
        assert combing(frames[i]) > 0.06
    assert max(combing(rgb) for rgb in frames[12:24]) < 0.01
    turns = itertools.islice(iterate_pictures(joined, cache_bytes=5 * WIDTH * HEIGHT * 3), 100)
    for frame in turns:
        np.testing.assert_array_equal(frame.rgb, frames[frame.index])


def test_field_recording(shared_data):
    reader = video.VideoReader(shared_data / "field" / "interlaced.mp4")
    assert np.mean([combing(f.rgb) for f in reader]) < 0.004  # it was 0.039
