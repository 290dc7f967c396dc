"""Defects that are planted must be seen by the metrics that are there for them."""

import numpy as np
import pytest

from benchmarks import planted_defects
from talkjax.metrics import evaluator
from talkjax.metrics.clip_evaluator import MetricModels
from talkjax.metrics.videos import EvaluationClip
from tests.metrics.synthetic import PatchDetector, make_clip

# The sync expert and real pictures are for the benchmark; the patch has no lips to tremble.
DEFECTS = ("none", "2 frames late", "2 frames early", "padded by 2", "blurred", "frozen",
           "mumbling", "wrong sound", "somebody else")  # fmt: skip


class Features:
    """Local contrast, which blurring takes away."""

    sha256 = "0"

    def __call__(self, images):
        rough = np.abs(np.diff(images.astype(np.float32), axis=1)).mean((1, 2))
        return np.concatenate([rough, images.astype(np.float32).mean((1, 2))], 1)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    clips = [EvaluationClip(f"{n}.mkv", make_clip(folder / f"{n}.mkv", n, 50)) for n in range(1, 4)]
    return planted_defects.measure_defects(
        clips, PatchDetector(), folder / "out", MetricModels(features=Features()), DEFECTS,
        evaluator.EvaluationSettings(crop_size=64),
    )  # fmt: skip


CASES = [(d, m) for d in DEFECTS for m in planted_defects.EXPECTED.get(d, {})]
NEEDS_WEIGHTS = ("lpips", "csim", "lse_c", "lse_d", "av_offset_ms")


@pytest.mark.parametrize(("defect", "metric"), CASES, ids=[f"{d}-{m}" for d, m in CASES])
def test_a_defect_is_seen(found, defect, metric):
    if metric in NEEDS_WEIGHTS:
        assert metric not in found[defect]
        return
    values = {name: metrics[metric]["mean"] for name, metrics in found.items()}
    assert planted_defects.check_expectations(found)[defect, metric], values


def test_what_is_not_wrong_is_not_complained_of(found):
    clean = {metric: entry["mean"] for metric, entry in found["none"].items()}
    assert clean["opening_correlation"] > 0.99 and clean["opening_lag_ms"] == 0
    assert clean["articulation"] == pytest.approx(1, abs=0.05) and clean["psnr"] > 38
    assert "!" not in planted_defects.format_table(found)
