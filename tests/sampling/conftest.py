"""One tiny sampler on one device for all tests here, and a few small files."""

import jax
import pytest

import talkjax
from talkjax.media import audio
from talkjax.sampling import Options, Sampler
from talkjax.sampling.avatar import Avatar
from tests.media_files import syllables, write_wav
from tests.sampling import fakes

FAST = {"steps": 2, "batch": 4, "lossless": True}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return fakes.save_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def sampler(checkpoint):
    return Sampler.from_pretrained(checkpoint, devices=jax.devices()[:1])


@pytest.fixture(scope="session")
def options():
    return Options(**FAST)


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """12 frames at 25 fps."""
    return fakes.make_template(tmp_path_factory.mktemp("template") / "face.mp4")


@pytest.fixture(scope="session")
def speech(tmp_path_factory):
    """One second."""
    return fakes.make_speech(tmp_path_factory.mktemp("speech") / "speech.wav", 1.0)


@pytest.fixture(scope="session")
def avatar(sampler, template, tmp_path_factory):
    path = tmp_path_factory.mktemp("avatar") / "person.safetensors"
    made = talkjax.prepare_avatar(
        template, path, sampler=sampler, lossless=True, detector=fakes.opening_mesh()
    )
    return Avatar.load(made)


@pytest.fixture
def stream(sampler, avatar):
    """Opens sessions that are closed in the end."""
    opened = []

    def start(**options):
        steps = options.pop("steps", 0)
        settings = {"realtime": False, "options": talkjax.Options(steps=steps)} | options
        opened.append(sampler.stream(avatar, **settings))
        return opened[-1]

    yield start
    for each in opened:
        each.close()
    assert not sampler.open_sessions


@pytest.fixture(scope="session")
def spoken(tmp_path_factory):
    """2.3 s of something like speech, as a file and as its samples."""
    path = tmp_path_factory.mktemp("spoken") / "speech.wav"
    write_wav(path, syllables(2.3, level=0.1)[None], 16000)
    return path, audio.load_audio(path)
