"""End to end, with real footage, the real face detector and a random checkpoint."""

import dataclasses
import wave

import numpy as np
import pytest

from talkjax.media import composite, detection
from talkjax.media.facemesh import FaceMesh
from talkjax.media.video import VideoReader
from talkjax.sampling import faces

CLIPS = ["clips/square_590_25fps.mp4", "clips/odd_22.13fps_700.mp4"]


@pytest.mark.parametrize("clip", CLIPS)
def test_real_clip(shared_data, sampler, options, tmp_path, clip):
    template, out = shared_data / clip, tmp_path / "o.mp4"
    with wave.open(str(shared_data / "audio" / "speech_16k.wav")) as whole:
        data = whole.readframes(whole.getframerate() * 3 // 4)
        with wave.open(str(tmp_path / "a.wav"), "wb") as part:
            part.setparams(whole.getparams())
            part.writeframes(data)
    options = dataclasses.replace(options, first_pass=1.0)
    summary = sampler.generate(video=template, audio=tmp_path / "a.wav", out=out, options=options)
    assert summary.frames_generated == summary.frames
    reader = VideoReader(template)
    with FaceMesh(max_faces=4) as mesh:
        table = faces.FaceTable(detection.detect_faces(reader, mesh), reader.info.fps)
        count, sources = 0, iter(reader)
        source = next(sources)
        following, first = next(sources), source.time
        for made in VideoReader(out):
            if made.time > following.time - first - 2e-3:  # else the picture is repeated
                source, following = following, next(sources)
            window = (0, 0, *source.rgb.shape[:2])
            alpha = composite.feathered_alpha(
                table.face(source.index).transform, window, sampler.mask
            )
            np.testing.assert_array_equal(made.rgb[alpha == 0], source.rgb[alpha == 0])
            assert (made.rgb[alpha == 1] != source.rgb[alpha == 1]).mean() > 0.5
            assert -2e-3 <= made.time - (source.time - first) < 0.04
            count += 1
    assert count == summary.frames
