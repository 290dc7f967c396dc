"""Every output says that it is synthetic, and what made it."""

import dataclasses

import av
import numpy as np
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


def last_frame(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)][-1]


def test_the_mark_is_in_the_frames(generate):
    plain, marked = (last_frame(generate(f"{m or 'none'}.mp4", mark=m)) for m in ("", "AI"))
    rows, columns = np.nonzero(np.abs(marked.astype(int) - plain).max(-1) > 60)
    assert rows.min() > plain.shape[0] / 2 and columns.min() > plain.shape[1] / 2


def test_another_comment_is_no_label():
    assert label.read("my holiday; tool: hammer") == {}
