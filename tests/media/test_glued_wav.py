"""WAV files that were glued together are read to the end."""

import itertools
import struct

import numpy as np
import pytest

from talkjax.errors import UserError
from talkjax.media import audio, container, glued_wav
from tests import media_files as make

RATE = 22050
SECONDS = (0.4, 0.25, 0.33)


def write_parts(folder, codec: str | None = None, rates=(RATE, RATE, RATE)) -> list[bytes]:
    sounds = [
        make.Sound(make.tone(seconds, rate, hertz=300 * (i + 1)), rate, codec)
        for i, (seconds, rate) in enumerate(zip(SECONDS, rates, strict=True))
    ]
    return [
        make.make_media(folder / f"part{i}.wav", sound=sound).read_bytes()
        for i, sound in enumerate(sounds)
    ]


def with_sizes(wav: bytes, riff: int | None, data: int | None) -> bytes:
    """Replaces the sizes of a WAV file, unless they are None."""
    at = wav.index(b"data") + 4
    sizes = [b"" if size is None else struct.pack("<I", size) for size in (riff, data)]
    return (
        wav[:4]
        + (sizes[0] or wav[4:8])
        + wav[8:at]
        + (sizes[1] or wav[at : at + 4])
        + wav[at + 4 :]
    )


@pytest.mark.parametrize(
    ("riff", "data"),
    [(None, None), (0, 0), (2**32 - 1, 2**32 - 1), (2**31 - 1, 2**31 - 37), (0, None), (36, 10**8)],
)
@pytest.mark.parametrize("codec", [None, "pcm_s24le"])
def test_all_parts_are_read(tmp_path, riff, data, codec):
    parts = write_parts(tmp_path, codec)
    path = tmp_path / "all.wav"
    path.write_bytes(b"".join(with_sizes(part, riff, data) for part in parts))
    alone = [audio.load_audio(tmp_path / f"part{i}.wav", RATE) for i in range(3)]
    np.testing.assert_array_equal(audio.load_audio(path, RATE), np.concatenate(alone))
    assert audio.audio_duration(path) == pytest.approx(sum(SECONDS), abs=1e-3)
    assert container.left_out_parts(path) == 0


def test_parts_of_different_kinds_of_sizes(tmp_path):
    parts = write_parts(tmp_path)
    sizes = [(None, None), (0, 0), (2**32 - 1, 2**32 - 1)]
    for number, order in enumerate(itertools.permutations(sizes)):
        path = tmp_path / f"all{number}.wav"
        data = [with_sizes(part, *size) for part, size in zip(parts, order, strict=True)]
        path.write_bytes(b"".join(data))
        assert audio.audio_duration(path) == pytest.approx(sum(SECONDS), abs=1e-3)


def test_other_formats_are_counted(tmp_path):
    path = tmp_path / "all.wav"
    path.write_bytes(b"".join(write_parts(tmp_path, rates=(RATE, RATE, 24000))))
    assert audio.audio_duration(path) == pytest.approx(sum(SECONDS[:2]), abs=1e-3)
    assert container.left_out_parts(path) == 1


def test_one_file_is_left_alone(tmp_path):
    part = write_parts(tmp_path)[0]
    path = tmp_path / "one.wav"
    tail = b"LIST" + struct.pack("<I", 4) + b"RIFF"
    for data in (part, with_sizes(part, 0, 0), part + tail, part + b"RIFF....", part[:1000]):
        path.write_bytes(data)
        assert glued_wav.find(str(path)) is None
        assert audio.audio_duration(path) > 0.02
    path.write_bytes(part + b"RIFF\0\0\0\0WAVEfmt ")  # cut within a header
    assert audio.audio_duration(path) == pytest.approx(SECONDS[0], abs=1e-3)


def test_changed_file_is_read_again(tmp_path):
    parts, path = write_parts(tmp_path), tmp_path / "a.wav"
    path.write_bytes(parts[0])
    assert audio.audio_duration(path) == pytest.approx(SECONDS[0], abs=1e-3)
    path.write_bytes(parts[0] + parts[1])
    assert audio.audio_duration(path) == pytest.approx(sum(SECONDS[:2]), abs=1e-3)


def test_many_parts_take_little_time(tmp_path):
    part = write_parts(tmp_path)[0][:200]
    path = tmp_path / "many.wav"
    path.write_bytes(with_sizes(part, 0, 0) * 20_000)
    assert audio.audio_duration(path) > 10_000 * 0.002


def test_nothing_but_wav_is_opened_within(tmp_path):
    """A play list behind two headers stays samples."""
    head = write_parts(tmp_path)[0][:78]
    path = tmp_path / "a.wav"
    path.write_bytes(with_sizes(head, 0, 0) + with_sizes(head, 0, 0) + b"ffconcat version 1.0\n")
    try:
        assert audio.audio_duration(path) < 0.01
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("suffix", [".mp3", ".flac", ".opus", ".aac"])
def test_other_glued_files(tmp_path, suffix):
    """Their decoders go on by themselves; lossy ones add the encoder's silence at each joint."""
    codec = "aac" if suffix == ".aac" else None
    sounds = [
        make.Sound(make.tone(s, 48000, hertz=h), 48000, codec) for s, h in ((1, 300), (2, 900))
    ]
    parts = [
        make.make_media(tmp_path / f"{i}{suffix}", sound=sound).read_bytes()
        for i, sound in enumerate(sounds)
    ]
    for order in (parts, parts[::-1]):
        path = tmp_path / f"all{suffix}"
        path.write_bytes(b"".join(order))
        wave = audio.load_audio(path)
        assert len(wave) / 16000 == pytest.approx(3, abs=0.1)
        assert wave[-8000:-3000].std() == pytest.approx(0.28, abs=0.05)


def test_recording_of_four_files(shared_data):
    whole = audio.load_audio(shared_data / "field" / "tts_concat.wav")
    assert len(whole) / 16000 == pytest.approx(3.390, abs=1e-3)
