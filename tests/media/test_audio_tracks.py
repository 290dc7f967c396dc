"""Files with several audio tracks: which one speaks, and what becomes of it in the output."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from talkjax.errors import UserError
from talkjax.media import audio, container
from talkjax.media.video_writer import VideoWriter
from tests import media_files as make

HERTZ = (400, 1000, 2500)  # of the tracks
LATE = 0.3  # seconds by which the last track is late


def write_tracks(path: Path, channels=(1, 2, 1), default: int | None = None, video=True) -> Path:
    """Writes a file whose tracks hold tones of `HERTZ`; the last one starts late."""
    formats = {".ts": "mpegts", ".mkv": "matroska", ".mka": "matroska", ".mp4": "mp4"}
    with av.open(str(path), "w", format=formats[path.suffix]) as output:
        packets, streams = [], []
        if video:
            pictures = output.add_stream("libx264", rate=25)
            pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        for number, count in enumerate(channels):
            stream = output.add_stream("aac", rate=48000, layout=["mono", "stereo"][count - 1])
            stream.bit_rate = 64000 * count
            if default is not None:
                flag = av.stream.Disposition.default
                stream.disposition = flag if number == default else av.stream.Disposition(0)
            streams.append(stream)
        if video:
            for i, picture in enumerate(make.pictures(30, 64, 48)):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = i, Fraction(1, 25)
                packets += pictures.encode(frame)
            packets += pictures.encode(None)
        for number, stream in enumerate(streams):
            late = LATE if number == len(streams) - 1 else 0.0
            tone = make.tone(1.2 - late, 48000, hertz=HERTZ[number])
            tone = np.repeat(tone, channels[number], 0)
            packets += make._encode_audio(stream, make.Sound(tone, 48000, offset=late))
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            output.mux(packet)
    return path


def pitch(wave: np.ndarray, rate: int = 16000) -> int:
    """Returns which of `HERTZ` a wave has half a second before its end."""
    part = wave[-rate // 2 : -rate // 4]
    hertz = np.abs(np.fft.rfft(part * np.hanning(len(part)))).argmax() * rate / len(part)
    return int(np.abs(np.array(HERTZ) - hertz).argmin())


@pytest.mark.parametrize("name", ["a.ts", "a.mkv", "a.mp4", "a.mka"])
def test_first_track_speaks_and_any_can_be_chosen(tmp_path, name):
    path = write_tracks(tmp_path / name, video=not name.endswith("mka"))
    assert pitch(audio.load_audio(path)) == 0  # FFmpeg's choice is 1, the stereo track
    for track in range(3):
        wave = audio.load_audio(path, track=track)
        assert pitch(wave) == track
        assert len(wave) / 16000 == pytest.approx(
            1.2 if name != "a.mka" or track < 2 else 0.9, abs=0.04
        )
        start = np.argmax(np.abs(wave) > 0.1) / 16000
        late = LATE if track == 2 and name != "a.mka" else 0
        assert start == pytest.approx(late, abs=0.03), track


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_marked_track_speaks_as_in_players(tmp_path, name):
    path = write_tracks(tmp_path / name, default=2)
    assert pitch(audio.load_audio(path)) == 2


@pytest.mark.parametrize(
    ("name", "track", "why"), [("a.ts", 3, "3 audio tracks; give 0 to 2"), ("a.ts", -1, "0 to 2")]
)
def test_missing_track(tmp_path, name, track, why):
    path = write_tracks(tmp_path / name)
    with pytest.raises(UserError, match=why) as caught:
        audio.load_audio(path, track=track)
    assert "audio_track=" in str(caught.value) and "a.ts" in str(caught.value)


def test_missing_track_of_simple_files(tmp_path):
    path = make.make_media(tmp_path / "a.wav", sound=make.Sound(make.tone(0.3)))
    with pytest.raises(UserError, match="only audio track 0"):
        audio.load_audio(path, track=1)
    silent = make.make_media(tmp_path / "b.mp4", make.pictures(5, 64, 48))
    with pytest.raises(UserError, match="no audio; give a file with sound"):
        audio.load_audio(silent, track=0)


@pytest.mark.parametrize(("source", "out"), [("a.ts", "o.mp4"), ("a.mkv", "o.mov")])
@pytest.mark.parametrize("track", [None, 1, 2])
def test_chosen_track_is_written(tmp_path, source, out, track):
    path = write_tracks(tmp_path / source)
    options = {"audio": path, "audio_track": track, "preset": "ultrafast"}
    with VideoWriter(tmp_path / out, 64, 48, **options) as writer:
        for i, picture in enumerate(make.pictures(30, 64, 48)):
            writer.write(picture, i / 25)
    assert (writer.audio.tracks, writer.audio.track) == (3, track or 0)
    a, b = audio.load_audio(path, track=track), audio.load_audio(tmp_path / out)
    assert pitch(b) == (track or 0) and abs(len(a) - len(b)) <= 16
    onsets = [int(np.argmax(np.abs(wave) > 0.2)) for wave in (a, b)]
    assert abs(onsets[0] - onsets[1]) <= 32  # Matroska's clock counts milliseconds


def test_recording_with_music(shared_data):
    """The first track is speech (mono), the second music (stereo)."""
    path = shared_data / "field" / "two.ts"
    first = audio.load_audio(path)
    np.testing.assert_array_equal(first, audio.load_audio(path, track=0))
    with container.open_input(path) as opened:
        assert opened.streams.best("audio").channels == 2
        assert container.audio_stream(opened).channels == 1
