"""Tests of talkjax.media.video_writer and talkjax.media.audio_mux."""

from __future__ import annotations

import resource
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from talkjax.errors import UserError
from talkjax.media import audio, pixels, video
from talkjax.media.video_writer import ColorTags, VideoWriter
from tests import media_files as make


def write(path, images, times=None, **options):
    height, width = images[0].shape[:2]
    with VideoWriter(path, width, height, **options) as writer:
        for i, image in enumerate(images):
            writer.write(image, i / 25 if times is None else times[i])
    return writer


def audio_bytes(path) -> bytes:
    with av.open(str(path)) as container:
        return b"".join(bytes(packet) for packet in container.demux(audio=0) if packet.size)


def video_end(path) -> float:
    """Where the video track ends, in seconds."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return float((stream.start_time + stream.duration) * stream.time_base)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".m4v"])
def test_round_trip(tmp_path, suffix):
    images = make.pictures(30, 64, 48)
    path = tmp_path / f"a{suffix}"
    writer = write(path, images, crf=10)
    assert writer.audio_copied is None
    reader = video.VideoReader(path)
    frames = list(reader)
    assert (reader.info.width, reader.info.height, reader.info.fps) == (64, 48, 25)
    assert reader.info.pixel_format == "yuv420p" and reader.info.codec == "h264"
    assert reader.info.duration_s == pytest.approx(30 / 25, abs=2e-3)
    np.testing.assert_allclose([f.time for f in frames], np.arange(30) / 25, atol=1e-3)
    for frame, image in zip(frames, images, strict=True):
        assert np.abs(frame.rgb.astype(int) - image).mean() < 2
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("size", [(4, 4), (65, 47), (64, 47), (65, 48), (1, 1), (2, 2)])
def test_odd_sizes_are_padded_for_players(tmp_path, size):
    images = make.pictures(10, *size)
    writer = write(tmp_path / "a.mp4", images, crf=6)
    frames = list(video.VideoReader(tmp_path / "a.mp4"))
    assert video.probe(tmp_path / "a.mp4").pixel_format == "yuv420p"
    width, height = size[0] + size[0] % 2, size[1] + size[1] % 2
    assert len(frames) == 10 and frames[0].rgb.shape == (height, width, 3)
    assert writer.size == (width, height) and len(writer.notes()) == (writer.size != size)
    if min(size) > 40:  # a few colours cannot be told in 4:2:0
        padded = np.pad(images[9], [(0, height - size[1]), (0, width - size[0]), (0, 0)], "edge")
        assert np.abs(frames[9].rgb.astype(int) - padded).mean() < 2


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_coarse_time_base_is_made_finer(tmp_path, suffix):
    """A source of 2 frames a second may tick 2 times a second, which no other rate fits."""
    path = tmp_path / f"a{suffix}"
    write(path, make.pictures(25, 64, 48), time_base=Fraction(1, 2))
    got = [frame.time for frame in video.VideoReader(path)]
    np.testing.assert_allclose(got, np.arange(25) / 25, atol=1.1e-3)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("size", [(64, 48), (65, 47)])
def test_lossless(tmp_path, suffix, size):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (size[1], size[0], 3), np.uint8) for _ in range(5)]
    write(tmp_path / f"a{suffix}", images, lossless=True)
    for frame, image in zip(video.VideoReader(tmp_path / f"a{suffix}"), images, strict=True):
        np.testing.assert_array_equal(frame.rgb, image)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(
    "tags", [ColorTags(), ColorTags(2, 2, pixels.MATRIX_SMPTE170M), ColorTags(9, 14, 9)]
)
def test_tags_and_matrix_agree(tmp_path, suffix, tags):
    colours = [(200, 40, 40), (40, 180, 60), (50, 60, 220), (255, 255, 255), (0, 0, 0)]
    images = [np.full((64, 64, 3), colour, np.uint8) for colour in colours]
    path = tmp_path / f"a{suffix}"
    write(path, images, crf=1, color=tags)
    info = video.probe(path)
    assert (info.color_primaries, info.color_trc, info.colorspace) == (
        tags.primaries, tags.transfer, tags.matrix,
    )  # fmt: skip
    assert info.color_range == 1 and ColorTags.of(info) == tags
    for frame, colour in zip(video.VideoReader(path), colours, strict=True):
        assert np.abs(frame.rgb.astype(int) - np.array(colour)).max() <= 3
    # The stored luma itself, so that reader and writer cannot share a mistake.
    kr, kb = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}[tags.matrix]
    with av.open(str(path)) as container:
        for frame, (r, g, b) in zip(container.decode(video=0), colours, strict=True):
            luma = 16 + 219 / 255 * (kr * r + (1 - kr - kb) * g + kb * b)
            stored = np.frombuffer(frame.planes[0], np.uint8)[0]
            assert abs(stored - luma) < 2.5


def test_colours_do_not_move_sideways(tmp_path):
    x = np.linspace(40, 220, 128)
    image = np.zeros((64, 128, 3), np.uint8)
    image[..., 0], image[..., 1], image[..., 2] = x, 100, x[::-1]
    write(tmp_path / "a.mp4", [image] * 3, crf=1)
    frame = next(iter(video.VideoReader(tmp_path / "a.mp4")))
    error = (frame.rgb.astype(float) - image)[8:-8, 8:-8].mean(axis=(0, 1))
    assert np.abs(error).max() < 0.3  # half a pixel would be 0.7


@pytest.mark.parametrize("time_base", [None, Fraction(1, 15360), Fraction(1, 90000)])
def test_variable_rate(tmp_path, time_base):
    times = [0.0, 1 / 30, 0.1, 0.104, 0.4, 0.9, 0.91]
    path = tmp_path / "a.mp4"
    write(path, make.pictures(7, 64, 48), times, fps=22.13, time_base=time_base)
    got = [frame.time for frame in video.VideoReader(path)]
    np.testing.assert_allclose(got, times, atol=1e-4)


def test_ntsc_rate_is_exact(tmp_path):
    rate = Fraction(30000, 1001)
    path = tmp_path / "a.mp4"
    write(path, make.pictures(40, 64, 48), [float(i / rate) for i in range(40)], fps=float(rate))
    info = video.probe(path)
    assert info.fps == float(rate)
    got = [frame.time for frame in video.VideoReader(path)]
    np.testing.assert_allclose(got, [float(i / rate) for i in range(40)], atol=1e-9)


def test_first_frame_may_be_late_and_last_one_long(tmp_path):
    path = tmp_path / "a.mp4"
    sound = make.make_media(tmp_path / "s.wav", sound=make.Sound(make.tone(1.0)))
    with VideoWriter(path, 64, 48, audio=sound) as writer:
        for i, image in enumerate(make.pictures(5, 64, 48)):
            writer.write(image, 0.2 + i / 25)
        writer.close(end=1.0)
    assert next(iter(video.VideoReader(path))).time == pytest.approx(0.2, abs=1e-3)
    assert video_end(path) == pytest.approx(1.0, abs=2e-3)


def test_like_its_source(tmp_path):
    source = make.make_media(
        tmp_path / "a.mkv", make.pictures(9, 64, 48), fps=Fraction(24000, 1001), tags=(5, 6, 5, 1)
    )
    info = video.probe(source)
    with VideoWriter.like(tmp_path / "b.mp4", info, crf=2, preset="fast") as writer:
        for frame in video.VideoReader(source):
            writer.write(frame.rgb, frame.time)
    copy = video.probe(tmp_path / "b.mp4")
    for name in ("width", "height", "color_primaries", "color_trc", "colorspace"):
        assert getattr(copy, name) == getattr(info, name), name
    assert copy.fps == pytest.approx(info.fps, rel=1e-3)
    for a, b in zip(video.VideoReader(source), video.VideoReader(tmp_path / "b.mp4"), strict=True):
        assert a.time == pytest.approx(b.time, abs=1e-6)
        assert np.abs(a.rgb.astype(int) - b.rgb).mean() < 1


# ---------------------------------------------------------------------------------------- audio

SOURCES = [
    ("a.m4a", "aac", 44100, 2), ("a.mp4", "aac", 16000, 1), ("a.mp3", None, 44100, 2),
    ("a.flac", None, 44100, 2), ("a.wav", None, 24000, 1), ("a.wav", None, 44100, 2),
    ("a.opus", None, 48000, 2), ("a.mp4", "alac", 48000, 1), ("a.mp4", "ac3", 48000, 2),
    ("a.mkv", "mp2", 44100, 2), ("a.mpg", None, 44100, 2), ("a.wav", "pcm_f32le", 96000, 2),
    ("a.wav", None, 44100, 6), ("a.mkv", "aac", 44100, 2), ("a.webm", None, 48000, 1),
]  # fmt: skip
COPIED_TO_MP4 = {"aac", "alac"}
EXACT_IN_SAMPLES = 2  # at 16 kHz


@pytest.mark.parametrize(("name", "codec", "rate", "channels"), SOURCES)
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_audio_is_kept(tmp_path, name, codec, rate, channels, suffix):
    has_video = name.endswith((".mp4", ".mkv", ".mpg", ".webm"))
    source = make.make_media(
        tmp_path / name,
        make.pictures(30, 64, 48) if has_video else None,
        sound=make.Sound(make.clicks(1.2345, rate, (0.2, 0.9), channels), rate, codec),
    )
    path = tmp_path / f"out{suffix}"
    writer = write(path, make.pictures(30, 64, 48), audio=source)
    with av.open(str(source)) as before, av.open(str(path)) as after:
        old, new = before.streams.audio[0], after.streams.audio[0]
        assert (new.rate, new.channels) == (old.rate, old.channels)
        kind = old.codec_context.codec.canonical_name
        assert writer.audio_copied == (new.codec_context.codec.canonical_name == kind)
    if suffix == ".mp4":
        assert writer.audio_copied == (kind in COPIED_TO_MP4)
    if writer.audio_copied:
        assert audio_bytes(path) == audio_bytes(source)
    a, b = audio.load_audio(source), audio.load_audio(path)
    # Matroska stores times, and so the length, in milliseconds. FFmpeg's mp4 reader shows the
    # padding at the end of mp3, up to one frame of 1152 samples.
    rounded = name.endswith((".mkv", ".webm")) and kind in ("aac", "opus")
    slack = 16 if rounded else 420 if kind == "mp3" else EXACT_IN_SAMPLES
    assert abs(len(a) - len(b)) <= slack
    for time in (0.2, 0.9):
        near = slice(round((time - 0.05) * 16000), round((time + 0.05) * 16000))
        onset = [np.argmax(np.abs(wave[near]) > 0.3 * np.abs(wave[near]).max()) for wave in (a, b)]
        assert abs(int(onset[0]) - int(onset[1])) <= 16  # 1 ms


CODECS = [
    # source, output, audio_codec, codec of the output or a part of the message
    ("a.mp3", ".mp4", "auto", "aac"), ("a.mp3", ".mp4", "copy", "mp3"),
    ("a.flac", ".mp4", "copy", "flac"), ("a.flac", ".mkv", "auto", "flac"),
    ("a.opus", ".mov", "copy", "opus sound of this kind cannot be copied"),
    ("a.wav", ".mp4", "copy", "pcm_s16le sound of this kind cannot be copied"),
    ("a.wav", ".mov", "auto", "pcm_s16le"), ("a.m4a", ".mp4", "aac", "aac"),
    ("a.m4a", ".mkv", "aac", "would shift the sound"), ("a.mp3", ".m4v", "aac", "aac"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "suffix", "how", "result"), CODECS)
def test_audio_codec(tmp_path, name, suffix, how, result):
    source = make.make_media(
        tmp_path / name, sound=make.Sound(make.clicks(1.2345, 48000, (0.2, 0.9), 2), 48000)
    )
    path, images = tmp_path / f"out{suffix}", make.pictures(30, 64, 48)
    if " " in result:
        with pytest.raises(UserError, match=result) as caught:
            write(path, images, audio=source, audio_codec=how)
        assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == [source]
        return
    writer = write(path, images, audio=source, audio_codec=how)
    sound = writer.audio
    assert sound.codec == result and sound.copied == (how != "aac" and sound.source_codec == result)
    with av.open(str(path)) as written:
        assert written.streams.audio[0].codec_context.codec.canonical_name == result
    a, b = audio.load_audio(source), audio.load_audio(path)
    # FFmpeg's mp4 reader shows the padding at the end of mp3.
    assert abs(len(a) - len(b)) <= (420 if result == "mp3" else EXACT_IN_SAMPLES)
    assert abs(int(np.argmax(np.abs(a) > 0.3)) - int(np.argmax(np.abs(b) > 0.3))) <= 16


def test_audio_starts_with_the_clip(tmp_path):
    """A late audio stream stays late, whatever its container's own zero is."""
    for name in ("a.mp4", "a.ts"):
        source = make.make_media(
            tmp_path / name,
            make.pictures(40, 64, 48),
            sound=make.Sound(make.clicks(1.0, 44100, (0.1, 0.5)), 44100, "aac", offset=0.5),
        )
        path = tmp_path / "out.mp4"
        assert write(path, make.pictures(40, 64, 48), audio=source).audio_copied
        a, b = audio.load_audio(source), audio.load_audio(path)
        assert abs(len(a) - len(b)) <= EXACT_IN_SAMPLES
        count = min(len(a), len(b))
        np.testing.assert_allclose(a[:count], b[:count], atol=1e-3)


def test_streams_are_interleaved(tmp_path):
    source = make.make_media(tmp_path / "a.m4a", sound=make.Sound(make.tone(20.0)))
    path = tmp_path / "out.mp4"
    images = make.pictures(10, 64, 48)
    write(path, [images[i % 10] for i in range(500)], audio=source, preset="ultrafast")
    at = {"video": 0.0, "audio": 0.0}
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.size:
                at[packet.stream.type] = float(packet.dts * packet.time_base)
                assert abs(at["video"] - at["audio"]) < 2.0


def test_long_audio_takes_little_memory(tmp_path):
    source = make.write_wav(tmp_path / "a.wav", np.zeros((2, 48000 * 240), np.float32), 48000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    write(tmp_path / "out.mp4", make.pictures(3, 64, 48), [0, 100, 239], audio=source)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before < 60
    assert audio.audio_duration(tmp_path / "out.mp4") == 240


# ------------------------------------------------------------------------------------- failures


def test_exception_leaves_nothing(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"earlier")
    with pytest.raises(RuntimeError, match="boom"), VideoWriter(path, 64, 48) as writer:
        writer.write(make.picture(0, 64, 48), 0.0)
        raise RuntimeError("boom")
    assert path.read_bytes() == b"earlier" and len(list(tmp_path.iterdir())) == 1


def test_a_file_is_finished_before_it_has_its_name(tmp_path):
    path, seen = tmp_path / "o.mp4", []

    def finish(temporary):
        with av.open(temporary) as container:
            seen.append((path.exists(), container.streams.video[0].frames))

    write(path, make.pictures(3, 64, 48), finish=finish)
    assert seen == [(False, 3)] and path.exists()

    def fail(temporary):
        raise UserError("cannot be signed")

    with pytest.raises(UserError, match="cannot be signed"):
        write(tmp_path / "p.mp4", make.pictures(3, 64, 48), finish=fail)
    assert [each.name for each in tmp_path.iterdir()] == ["o.mp4"]


def test_wrong_frames_are_bugs(tmp_path):
    path = tmp_path / "a.mp4"
    with pytest.raises(ValueError, match="expected"), VideoWriter(path, 64, 48) as w:
        w.write(np.zeros((48, 63, 3), np.uint8), 0)
    with pytest.raises(ValueError, match="cannot follow"), VideoWriter(path, 64, 48) as w:
        w.write(make.picture(0, 64, 48), 1.0)
        w.write(make.picture(1, 64, 48), 0.5)
    with pytest.raises(ValueError, match="cannot be written"):
        VideoWriter(tmp_path / "a.mp4", 0, 48)
    assert not list(tmp_path.iterdir())


def test_frames_within_one_tick_stay_apart(tmp_path):
    path = tmp_path / "a.mkv"
    write(path, make.pictures(3, 64, 48), [0.1, 0.1, 0.1], time_base=Fraction(1, 1000))
    got = [frame.time for frame in video.VideoReader(path)]
    np.testing.assert_allclose(got, [0.0, 0.001, 0.002], atol=1e-6)  # from the clip's zero


def test_no_frame(tmp_path):
    with pytest.raises(UserError, match="no frame"), VideoWriter(tmp_path / "a.mp4", 64, 48):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none/a.mp4", "does not exist"),
        ("a.txt", "must end in"),
        ("a", "must end in"),
        ("folder.mp4", "is a directory"),
        ("file/a.mp4", "not a directory"),
    ],
)
def test_impossible_outputs(tmp_path, name, words):
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=words) as caught:
        VideoWriter(tmp_path / name, 64, 48)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.mp4"]


def test_directory_that_is_not_writable():
    with pytest.raises(UserError, match="directory"):
        VideoWriter("/proc/a.mp4", 64, 48)


def test_file_that_is_not_audio(tmp_path):
    silent = make.make_media(tmp_path / "s.mp4", make.pictures(3, 64, 48))
    for bad in (silent, tmp_path / "missing.wav"):
        with pytest.raises(UserError):
            VideoWriter(tmp_path / "out.mp4", 64, 48, audio=bad)
    assert [p.name for p in tmp_path.iterdir()] == ["s.mp4"]


FULL_DISK = """
import resource, sys
import numpy as np
from talkjax.errors import UserError
from talkjax.media.video_writer import VideoWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
rng = np.random.default_rng(0)
try:
    with VideoWriter(sys.argv[1], 320, 240, preset="ultrafast") as writer:
        for i in range(int(sys.argv[2])):
            writer.write(rng.integers(0, 256, (240, 320, 3), np.uint8), i / 25)
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("frames", [4, 40])  # the disk fills up at the end, or in the middle
def test_full_disk(tmp_path, suffix, frames):
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / f"a{suffix}"), str(frames)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "disk is full" in done.stdout, done
    assert not list(tmp_path.iterdir())
