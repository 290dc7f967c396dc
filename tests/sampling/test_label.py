"""Every output says that it is synthetic, and what made it."""

import dataclasses

import av
import pytest

import talkjax
from talkjax.sampling import label
from tests.sampling import fakes


def comment_of(path):
    with av.open(str(path)) as container:
        tags = {name.lower(): value for name, value in container.metadata.items()}
    return tags.get("comment", "")


@pytest.fixture
def generate(sampler, options, template, tmp_path):
    speech = fakes.make_speech(tmp_path / "s.wav", 0.12)

    def run(name, **changes):
        out = tmp_path / name
        settings = dataclasses.replace(options, steps=0, lossless=False, **changes)
        sampler.generate(
            video=template, audio=speech, out=out, options=settings, detector=fakes.ScriptedMesh()
        )
        return out

    return run


@pytest.mark.parametrize("suffix", ["mp4", "m4v", "mov", "mkv"])
def test_the_label_is_in_the_container(generate, sampler, suffix):
    comment = comment_of(generate(f"o.{suffix}"))
    assert label.read(comment) == {
        "synthetic": "lip-synced",
        "tool": f"talkjax {talkjax.__version__}",
        "checkpoint": sampler.fingerprint,
    }
    assert comment.startswith("synthetic: lip-synced; ")


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_it_can_be_left_out(generate, suffix):
    assert comment_of(generate(f"o.{suffix}", metadata=False)) == ""


def test_another_comment_is_no_label():
    assert label.read("my holiday; tool: hammer") == {}
