"""The encoder against a NumPy version of it that reads Hugging Face's tensors."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talkjax import weights
from talkjax.models import whisper
from talkjax.models.whisper import WhisperConfig, WhisperEncoder
from tests import whisper_files
from tests.whisper_files import SMALL


class Reference:
    """The encoder in NumPy and float64, for one spectrogram (M, mels)."""

    def __init__(self, tensors):
        self.tensors = {name: value.astype(np.float64) for name, value in tensors.items()}

    def gelu(self, x):
        return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2

    def dense(self, x, name):
        return x @ self.tensors[f"{name}.weight"].T + self.tensors.get(f"{name}.bias", 0)

    def norm(self, x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
        return x * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]

    def conv(self, x, name, stride):
        x, kernel = np.pad(x, ((1, 1), (0, 0))), self.tensors[f"{name}.weight"]
        out = [np.einsum("oik,ki->o", kernel, x[t : t + 3]) for t in range(0, len(x) - 2, stride)]
        return self.gelu(np.array(out) + self.tensors[f"{name}.bias"])

    def attend(self, x, name):
        out = []
        q, k, v = (self.dense(x, f"{name}.{part}_proj") for part in "qkv")
        for head in range(0, x.shape[1], 64):
            a, b, c = (y[:, head : head + 64] for y in (q, k, v))
            power = np.exp(a @ b.T / 8)
            out.append(power / power.sum(1, keepdims=True) @ c)
        return self.dense(np.concatenate(out, 1), f"{name}.out_proj")

    def __call__(self, mel, average=False):
        x = self.conv(self.conv(mel.astype(np.float64), "conv1", 1), "conv2", 2)
        x, outputs = x + self.tensors["embed_positions.weight"][: len(x)], []
        while f"layers.{len(outputs)}.fc1.weight" in self.tensors:
            layer = f"layers.{len(outputs)}"
            x = x + self.attend(self.norm(x, f"{layer}.self_attn_layer_norm"), f"{layer}.self_attn")
            h = self.dense(self.norm(x, f"{layer}.final_layer_norm"), f"{layer}.fc1")
            x = x + self.dense(self.gelu(h), f"{layer}.fc2")
            outputs.append(x)
        return self.norm(np.mean(outputs, 0) if average else x, "layer_norm")


@pytest.fixture(scope="module")
def tensors():
    return whisper_files.random_tensors()


@pytest.fixture(scope="module")
def params(tensors, tmp_path_factory):
    path = whisper_files.save(tmp_path_factory.mktemp("whisper") / "model.safetensors", tensors)
    config, params = weights.whisper_params(path)
    assert config == SMALL
    return params


def spectrograms(frames, batch=2, seed=1):
    shape = (batch, frames, SMALL.mels)
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("frames", [80, 51, 2, 1])
def test_matches_numpy(tensors, params, frames, average):
    mel, model = spectrograms(frames), WhisperEncoder(SMALL, average=average)
    found = jax.jit(model.apply)({"params": params}, mel)
    assert found.shape == (2, -(-frames // 2), SMALL.width) and found.dtype == jnp.float32
    expected = np.stack([Reference(tensors)(one, average) for one in mel])
    assert np.abs(found - expected).max() < 1e-4
    assert expected.std() > 0.5  # otherwise the agreement would say little


def test_the_average_is_another_result(tensors):
    (mel,), reference = spectrograms(20, batch=1), Reference(tensors)
    assert np.abs(reference(mel) - reference(mel, average=True)).max() > 0.1


def test_positions():
    table = whisper.sinusoids(1500, 1280)
    assert table.dtype == jnp.float32
    # Phases reach 1499, and float32 rounds them, as it does in the published table.
    np.testing.assert_allclose(table, whisper_files.sinusoids(1500, 1280), atol=2e-4)


def test_bfloat16(params):
    mel, model = spectrograms(40), WhisperEncoder(SMALL)
    exact = model.apply({"params": params}, mel)
    half = model.clone(dtype=jnp.bfloat16).apply({"params": params}, mel)
    assert half.dtype == jnp.bfloat16
    error = np.abs(half.astype(jnp.float32) - exact)
    assert error.mean() < 0.02 * np.abs(exact).mean()
    tree = weights.abstract_params(model.clone(dtype=jnp.bfloat16), mel)
    assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {jnp.dtype("float32")}


def test_remat_changes_no_gradient(params):
    mel = spectrograms(8, batch=1)
    model = WhisperEncoder(dataclasses.replace(SMALL, layers=1))
    first = {name: value for name, value in params.items() if name not in ("layer_1", "layer_2")}

    def gradient(model):
        loss = jax.jit(jax.grad(lambda p: jnp.square(model.apply({"params": p}, mel) - 1).mean()))
        return jax.tree.leaves(loss(first))

    for a, b in zip(gradient(model), gradient(model.clone(remat=True)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 82, 20), (1, 80, 80)])
def test_wrong_spectrograms(params, shape):
    with pytest.raises(ValueError, match=r"takes \(B, M, 20\) log-mel with M <= 80, got"):
        WhisperEncoder(SMALL).apply({"params": params}, jnp.zeros(shape))


def test_unknown_size():
    with pytest.raises(ValueError, match=r"unknown Whisper size 'huge'; use one of tiny, .*large"):
        WhisperConfig.named("huge")


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("tiny", 7_632_384),
        ("base", 19_822_592),
        ("small", 87_002_112),
        ("medium", 305_680_384),
        ("large-v3", 635_048_960),
    ],
)
def test_published_sizes(name, count):
    """Counts are those of Hugging Face's encoders without the table of positions."""
    config = WhisperConfig.named(name)
    assert config.width == whisper.HEAD_WIDTH * config.heads
    model = WhisperEncoder(config, dtype=jnp.bfloat16)
    mel = jax.ShapeDtypeStruct((2, 3000, config.mels), jnp.float32)
    params = weights.abstract_params(model, mel)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count
    out = jax.eval_shape(model.apply, {"params": params}, mel)
    assert out.shape == (2, 1500, config.width) and out.dtype == jnp.bfloat16
