"""The lips of the bundled checkpoint hardly depend on how loud or how wired a recording is."""

import numpy as np
import pytest

from talkjax.conventions import CONTENT, mel_windows, positions
from talkjax.media import audio, detection
from talkjax.sampling import Sampler, bundled, faces, pipeline, reference, template
from talkjax.sampling.completion import ContentTrack, PoseTrack
from tests.media.test_loudness import noise
from tests.media_files import write_wav

TOP, BOTTOM = positions((82, 13, 312), CONTENT), positions((87, 14, 317), CONTENT)


@pytest.fixture(scope="module")
def predict():
    """Maps (S,) samples to the (T,) opening of the lips of the bundled avatar, at rest."""
    sampler = Sampler.from_pretrained(bundled.checkpoint())
    shown = template.open_template(bundled.template(), None)
    with pipeline.make_detector("largest") as detector:
        detections = detection.detect_faces(shown.frames(), detector)
        table = faces.FaceTable(detections, shown.fps, first_seconds=1.0)
        candidates, shape = faces.normalize_candidates(table.first_faces(0))
    pose = candidates[0].face.pose(shape)
    known = reference.choose_landmarks(candidates, sampler.references)

    def opening(wave: np.ndarray) -> np.ndarray:
        mel, ticks = audio.log_mel(wave), audio.tick_count(len(wave))
        content = ContentTrack(
            lambda heard, poses: sampler.complete_content(heard, poses, known),
            lambda first, count: mel_windows(mel, np.arange(first, first + count)),
            PoseTrack(iter([]), pose),
            ticks,
            sampler.window,
            context=sampler.context,
        )
        lips = np.stack([content.at(tick / 25) for tick in range(ticks)])
        return (lips[:, BOTTOM, 1] - lips[:, TOP, 1]).mean(1)

    return opening


@pytest.fixture(scope="module")
def speech():
    return audio.load_audio(bundled.speech())


def amount(opening: np.ndarray) -> float:
    return float(np.ptp(np.percentile(opening, [5, 95])))


def check_same(opening: np.ndarray, expected: np.ndarray) -> None:
    assert np.corrcoef(opening, expected)[0, 1] > 0.95
    assert amount(opening) == pytest.approx(amount(expected), rel=0.1)


def record(wave: np.ndarray, decibels: float) -> np.ndarray:
    """Changes the level as a 16-bit recorder does: clipped and rounded."""
    loud = np.clip(wave * 10 ** (decibels / 20), -1, 1)
    return (np.round(loud * 32767) / 32767).astype(np.float32)


@pytest.mark.parametrize("room", [None, -42])  # noise of about 20 dB below the speech
def test_lips_do_not_depend_on_the_level(predict, speech, room):
    wave = speech if room is None else speech + noise(len(speech) / 16000, room)[: len(speech)]
    expected = predict(record(wave, -1))
    assert amount(expected) > 0.05
    for decibels in (-30, -20, -10, 10):
        check_same(predict(record(wave, decibels)), expected)


def test_noise_opens_no_mouth(predict, speech):
    loud = amount(predict(speech))
    for decibels in (-70, -50, -40):
        assert amount(predict(noise(5.0, decibels))) < 0.05 * loud


@pytest.mark.parametrize("other", [-1.0, 0.0])
def test_lips_do_not_depend_on_the_wiring(predict, speech, tmp_path, other):
    path = write_wav(tmp_path / "a.wav", np.stack([speech, np.float32(other) * speech]), 16000)
    check_same(predict(audio.load_audio(path)), predict(speech))


def test_lips_of_recordings_of_users(predict, speech, shared_data):
    expected = predict(speech)
    for name in ("phase.wav", "quiet20.wav", "tts_concat.wav"):
        check_same(predict(audio.load_audio(shared_data / "field" / name)), expected)
