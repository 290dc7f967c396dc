"""What a run writes besides Orbax's checkpoints works in a bucket, here one that is a folder."""

import os

import numpy as np
import pytest
from etils.epath import backend, gpath

from talkjax import files, pictures, runs, weights
from talkjax.export import export
from talkjax.training import metrics
from tests.training import toy

NAMES = ("exists", "isdir", "listdir", "makedirs", "mkdir", "remove", "rmtree", "stat")


class Bucket(type(backend.os_backend)):
    def __init__(self, folder):
        self.folder = folder

    def local(self, path):
        return os.fspath(path).replace("gs://", f"{self.folder}/", 1)

    def open(self, path, mode):
        assert "a" not in mode, "objects cannot be appended to"
        return super().open(self.local(path), mode)

    def replace(self, path, dst):
        return super().replace(self.local(path), self.local(dst))


for name in NAMES:

    def method(self, path, *args, name=name, **kwargs):
        return getattr(super(Bucket, self), name)(self.local(path), *args, **kwargs)

    setattr(Bucket, name, method)


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, "gs", Bucket(tmp_path))
    (tmp_path / "mine").mkdir()
    return tmp_path / "mine"


def test_config_metrics_and_pictures(bucket):
    runs.write_config("gs://mine/run", toy.config())
    assert runs.read_config("gs://mine/run")["stage"] == "toy"
    path = files.as_path("gs://mine/run") / metrics.FILE
    for resumed_at, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        writer = metrics.Writer(path, resumed_at)
        for step in steps:
            writer.write({"step": step, "eval_loss": 0.5 * step})
    assert [row["step"] for row in metrics.read(path)] == [1, 2, 3, 4]
    assert metrics.evaluation_losses(path)[4] == 2.0
    pictures.write_png("gs://mine/run/samples/1.png", np.zeros((4, 4, 3), np.uint8))
    assert sorted(os.listdir(bucket / "run")) == ["config.json", "metrics.jsonl", "samples"]


def test_checkpoints_are_opened_by_their_address():
    assert str(runs.checkpoint_directory("gs://mine/run")) == "gs://mine/run/checkpoints"


def test_an_export_may_be_in_a_bucket(bucket):
    params = {"denoiser": {"kernel": np.ones((2, 2), np.float32)}}
    weights.save_params("gs://mine/a", params, {"stage": "diffusion"})
    export("gs://mine/b", run="gs://mine/a", dtype="float16")
    found, config, trained = runs.load_weights("gs://mine/b")
    np.testing.assert_array_equal(found["denoiser"]["kernel"], 1)
    assert trained == ["denoiser"] and config["stage"] == "diffusion"
    assert sorted(os.listdir(bucket / "b")) == ["config.json", "model.safetensors"]
