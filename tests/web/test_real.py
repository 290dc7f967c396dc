"""The page's jobs with a real sampler, though a tiny one."""

import importlib.util

import jax
import pytest

import talkjax
from talkjax.errors import UserError
from talkjax.media import audio
from talkjax.sampling.options import Options
from talkjax.web.service import Service
from tests.sampling import fakes
from tests.web.conftest import LIMITS

FAST = Options(steps=0, batch=4)


@pytest.fixture(scope="module")
def sampler(tmp_path_factory):
    folder = fakes.save_checkpoint(tmp_path_factory.mktemp("checkpoint"))
    return talkjax.Sampler.from_pretrained(folder, devices=jax.devices()[:1])


@pytest.fixture
def service(sampler, store):
    return Service(sampler, LIMITS, store, fakes.opening_mesh)


def run(work):
    assert work.wait(300)
    assert work.error is None, work.error
    return work.result


def test_from_uploads_to_a_video_and_a_live_session(service, anna, upload, tmp_path):
    made = run(service.generate(anna, FAST))
    assert made.generated == 25
    assert audio.audio_duration(made.video) == pytest.approx(1.0, abs=0.05)
    assert (made.sheet is not None) == (importlib.util.find_spec("matplotlib") is not None)

    token, path = run(service.prepare(anna, Options()))
    assert service.find_avatar(token) == (anna, str(path))
    # The file that was downloaded can be opened again, and takes the place of the other.
    kept = upload(path, "person.safetensors")
    again = service.open_avatar(anna, kept)
    assert service.find_avatar(again) == (anna, kept)
    for gone in (token, "anything"):
        with pytest.raises(UserError, match="is gone; prepare it again"):
            service.find_avatar(gone)

    # Files that cannot be used leave the page as it is.
    data = path.read_bytes()
    broken, other = tmp_path / "broken.safetensors", tmp_path / "other.safetensors"
    broken.write_bytes(data[:1000])
    fingerprint = service.sampler.fingerprint.encode()
    assert data.count(fingerprint) == 1
    other.write_bytes(data.replace(fingerprint, fingerprint[::-1]))
    for bad, words in ((broken, "truncated or not an"), (other, "with another checkpoint")):
        with pytest.raises(UserError, match=words):
            service.open_avatar("ben", upload(bad))
    service.leave(anna)
    with pytest.raises(UserError, match="is gone"):
        service.find_avatar(again)
