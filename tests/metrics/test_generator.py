"""The real sampling pipeline, tiny and random, under the evaluator."""

import jax
import numpy as np
import pytest

from talkjax.errors import UserError
from talkjax.metrics import evaluator, landmarks, workspace
from talkjax.metrics.generator import SamplerGenerator
from talkjax.metrics.videos import EvaluationClip
from talkjax.sampling import Options
from tests.metrics.synthetic import PatchDetector, make_clip
from tests.metrics.test_landmarks import record
from tests.sampling import fakes


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return fakes.save_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def test_a_checkpoint_is_evaluated_and_nothing_is_generated_twice(checkpoint, tmp_path):
    clips = [EvaluationClip(f"{n}.mkv", make_clip(tmp_path / f"{n}.mkv", n, 12)) for n in (1, 2)]
    identity = {"checkpoint": workspace.hash_checkpoint(checkpoint)}

    def evaluate():
        generator = SamplerGenerator(
            checkpoint, identity, Options(steps=1, batch=4), PatchDetector(), jax.devices()[:1]
        )
        return evaluator.evaluate_model(clips, generator, PatchDetector(), tmp_path / "work").report

    report = evaluate()
    assert not report["failures"]
    assert all(row["face_found"]["n"] == 2 for row in report["rows"].values())
    files = sorted(path.name for path in (tmp_path / "work").iterdir())
    assert sum(name.startswith("self-") for name in files) == 2
    assert evaluate()["rows"] == report["rows"]
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == files


def test_the_round_trip_is_that_of_the_networks(checkpoint):
    generator = SamplerGenerator(checkpoint, {}, Options(steps=1), PatchDetector())
    images = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), np.uint8)
    made = generator.autoencode(images)
    assert made.shape == images.shape and made.min() >= 0 and made.max() <= 255
    networks, params = generator._sampler.networks, generator._params
    floats = images.astype(np.float32) / 127.5 - 1
    model = networks.autoencoder
    encoded = model.apply({"params": params}, floats, method="encode")
    direct = np.clip(model.apply({"params": params}, encoded, method="decode"), -1, 1)
    assert np.allclose(made, (direct + 1) * 127.5, atol=0.5)


def test_options_that_make_no_sense_are_refused(checkpoint):
    with pytest.raises(UserError, match="steps=100000 is out of range"):
        SamplerGenerator(checkpoint, {}, Options(steps=100_000), PatchDetector())


def test_the_landmark_network_of_an_export_is_measured(checkpoint, tmp_path):
    predict, config = landmarks.load_predictor(checkpoint)
    window = config["data"]["window"]
    result = landmarks.evaluate_landmarks(
        predict,
        [record("a", 1, 30)],
        window=window,
        references=config["data"]["references"],
        context=(config["landmark"]["past"], config["landmark"]["future"]),
    )
    assert result["metrics"]["l1"]["mean"] > 0
    with pytest.raises(UserError):
        landmarks.load_predictor(tmp_path)
