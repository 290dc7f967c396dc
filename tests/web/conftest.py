"""A service of the tiny sampler of tests/sampling, with a scripted face and short files."""

import shutil

import pytest

from talkjax.web.limits import Limits
from talkjax.web.service import Service
from talkjax.web.store import Store
from tests.sampling import fakes
from tests.sampling.conftest import avatar, checkpoint, sampler, speech, template  # noqa: F401

LIMITS = Limits(
    upload_mb=1, speech_seconds=2.0, template_seconds=2.0, megapixels=0.1, characters=40, waiting=2
)


@pytest.fixture
def store(tmp_path):
    made = Store(60.0, str(tmp_path))
    yield made
    made.close()


@pytest.fixture
def service(sampler, store):  # noqa: F811
    return Service(sampler, LIMITS, store, fakes.opening_mesh)


@pytest.fixture
def upload(store):
    """Puts a file where uploads come in; returns its path."""

    def put(path, name=None, folder="abc"):
        place = store.uploads / folder
        place.mkdir(exist_ok=True)
        return shutil.copy(path, place / (name or path.name))

    return put
