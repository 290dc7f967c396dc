"""One tiny sampler on one device for all tests here, and a few small files."""

import jax
import pytest

from talkjax.sampling import Options, Sampler
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
