"""Sampling without a denoiser: mouths are warped out of the template's own frames."""

import dataclasses

import jax
import numpy as np
import pytest

from talkjax.media import composite
from talkjax.media.video import VideoReader
from talkjax.sampling import Sampler, checkpoint
from tests.sampling import fakes

OPENINGS = (0.0, 0.02, 0.04, 0.06, 0.08)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return checkpoint.load(fakes.save_checkpoint(tmp_path_factory.mktemp("checkpoint")))


def run(parts, options, tmp_path, name, **files):
    params, config, networks = parts
    mesh = fakes.ScriptedMesh(lambda i: [fakes.face_at(i, OPENINGS[i % 5])])
    out = tmp_path / name
    Sampler(params, config, networks).generate(
        out=out, options=dataclasses.replace(options, steps=0), detector=mesh, **files
    )
    return np.stack([frame.rgb for frame in VideoReader(out)])


def test_no_image_network_is_used(parts, options, tmp_path):
    params, config, networks = parts
    template = fakes.make_template(tmp_path / "t.mp4", 12)
    speech = fakes.make_speech(tmp_path / "s.wav", 0.4)
    files = {"video": template, "audio": speech}
    first = run(parts, options, tmp_path, "a.mp4", **files)
    others = {n: jax.tree.map(lambda x: x * 0, params[n]) for n in ("autoencoder", "denoiser")}
    second = run((params | others, config, networks), options, tmp_path, "b.mp4", **files)
    np.testing.assert_array_equal(first, second)


def test_the_mouths_come_from_the_template(parts, options, tmp_path, monkeypatch):
    """A template of one still picture: whatever is warped out of it, it has its colours."""
    picture = np.full((fakes.HEIGHT, fakes.WIDTH, 3), (180, 120, 90), np.uint8)
    picture[::2] = (170, 110, 80)
    pasted = []
    plain = composite.paste
    monkeypatch.setattr(
        composite,
        "paste",
        lambda rgb, region, *a, **k: pasted.append(region) or plain(rgb, region, *a, **k),
    )
    template = fakes.make_media(tmp_path / "t.mp4", [picture] * 6)
    speech = fakes.make_speech(tmp_path / "s.wav", 0.2)
    made = run(parts, options, tmp_path, "o.mp4", video=template, audio=speech)
    assert len(made) == 5 == len(pasted)
    for region in pasted:
        assert np.abs(region.mean((0, 1)) - (175, 115, 85)).max() < 4


def test_references_are_kept_at_the_templates_resolution(parts, options, tmp_path, monkeypatch):
    from talkjax.sampling import pipeline

    found = []
    plain = pipeline.find_person
    monkeypatch.setattr(pipeline, "find_person", lambda *a: found.append(plain(*a)) or found[-1])
    template = fakes.make_template(tmp_path / "t.mp4", 12)
    speech = fakes.make_speech(tmp_path / "s.wav", 0.2)
    run(parts, options, tmp_path, "o.mp4", video=template, audio=speech)
    assert found[0].images.shape == (12, 32, 32, 3)  # the networks'
    assert found[0].sharp_images.shape == (12, 64, 64, 3)  # the face's
    assert isinstance(found[0].sharp_images, np.memmap)  # not in memory


def test_a_full_disk_keeps_references_in_memory(parts, options, tmp_path, monkeypatch):
    from talkjax.sampling import person

    class Full:
        def __enter__(self):
            return self

        def __exit__(self, *unused):
            return None

        def write(self, data):
            raise OSError(28, "No space left on device")

    template = fakes.make_template(tmp_path / "t.mp4", 12)
    speech = fakes.make_speech(tmp_path / "s.wav", 0.2)
    files = {"video": template, "audio": speech}
    usual = run(parts, options, tmp_path, "a.mp4", **files)
    monkeypatch.setattr(person.tempfile, "TemporaryFile", Full)
    np.testing.assert_array_equal(run(parts, options, tmp_path, "b.mp4", **files), usual)
