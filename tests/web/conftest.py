"""A service of a sampler that only copies, and short files."""

import shutil

import pytest

from talkjax.web import jobs
from talkjax.web.limits import Limits
from talkjax.web.service import Service
from talkjax.web.store import Store
from tests.sampling import fakes
from tests.web.fakes import FakeSampler

LIMITS = Limits(
    upload_mb=1, speech_seconds=2.0, template_seconds=2.0, megapixels=0.1, characters=40, waiting=2
)


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """12 frames at 25 fps."""
    return fakes.make_template(tmp_path_factory.mktemp("template") / "face.mp4")


@pytest.fixture(scope="session")
def speech(tmp_path_factory):
    """One second."""
    return fakes.make_speech(tmp_path_factory.mktemp("speech") / "speech.wav", 1.0)


@pytest.fixture
def store(tmp_path):
    made = Store(60.0, str(tmp_path))
    yield made
    made.close()


@pytest.fixture
def fake(monkeypatch):
    """The sampler; its runs have no contact sheet."""
    monkeypatch.setattr(jobs, "_make_sheet", lambda: None)
    made = FakeSampler()
    yield made
    made.go.set()


@pytest.fixture
def service(fake, store):
    return Service(fake, LIMITS, store, fakes.opening_mesh)


@pytest.fixture
def upload(store):
    """Puts a file where uploads come in; returns its path."""

    def put(path, name=None, folder="abc"):
        place = store.uploads / folder
        place.mkdir(exist_ok=True)
        return str(shutil.copy(path, place / (name or path.name)))

    return put


@pytest.fixture
def anna(service, upload, template, speech):
    """A visitor with template and speech."""
    service.take_template("anna", upload(template, folder="a"))
    service.take_speech("anna", upload(speech, folder="b"))
    return "anna"
