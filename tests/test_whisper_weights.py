"""Hugging Face's Whisper files: names, types, and what is wrong with others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from talkjax import files, weights
from talkjax.errors import UserError
from tests import whisper_files
from tests.whisper_files import SMALL

TENSORS = whisper_files.random_tensors()
DECODER = {
    "model.decoder.conv1.weight": np.ones((2, 2), np.float32),
    "proj_out.weight": np.full((2,), np.nan, np.float32),  # not even looked at
}


def test_layout(tmp_path):
    path = whisper_files.save(tmp_path / "w.safetensors", TENSORS, **DECODER)
    config, params = weights.whisper_params(path)
    assert config == SMALL
    expected = {
        ("conv1", "kernel"): TENSORS["conv1.weight"].transpose(2, 1, 0),
        ("layer_2", "k_proj", "kernel"): TENSORS["layers.2.self_attn.k_proj.weight"].T,
        ("layer_0", "out_proj", "bias"): TENSORS["layers.0.self_attn.out_proj.bias"],
        ("layer_1", "final_layer_norm", "scale"): TENSORS["layers.1.final_layer_norm.weight"],
        ("layer_1", "self_attn_layer_norm", "bias"): TENSORS["layers.1.self_attn_layer_norm.bias"],
        ("layer_norm", "bias"): TENSORS["layer_norm.bias"],
    }
    for names, value in expected.items():
        found = params
        for name in names:
            found = found[name]
        np.testing.assert_array_equal(found, value)
    leaves = jax.tree.leaves(params)
    assert len(leaves) == len(TENSORS) - 1  # positions are no parameters
    assert {leaf.dtype.name for leaf in leaves} == {"float32"}


@pytest.mark.parametrize("prefix", ["model.encoder.", "encoder."])
@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_names_and_types_of_published_files(tmp_path, prefix, dtype):
    path = whisper_files.save(tmp_path / "w.safetensors", TENSORS, prefix, dtype)
    config, params = weights.whisper_params(path)
    assert config == SMALL
    np.testing.assert_array_equal(
        params["layer_1"]["fc1"]["kernel"],
        TENSORS["layers.1.fc1.weight"].T.astype(dtype).astype(np.float32),
    )


def refused(path, match):
    with pytest.raises(UserError, match=match) as error:
        weights.whisper_params(path)
    text = str(error.value)
    assert str(path) in text and "\n" not in text and ";" in text  # what is wrong; what to do


def changed(folder, **changes):
    """A file with other tensors in place of some; None removes one."""
    tensors = TENSORS | {name.replace("__", "."): value for name, value in changes.items()}
    tensors = {name: value for name, value in tensors.items() if value is not None}
    return whisper_files.save(folder / "w.safetensors", tensors)


def test_wrong_tensors_are_named(tmp_path):
    path = changed(
        tmp_path,
        layers__1__fc2__bias=None,
        layers__1__self_attn__k_proj__bias=np.zeros(128, np.float32),
        layers__0__fc1__weight=np.zeros((128, 512), np.float32),
    )
    refused(path, r"missing layers\.1\.fc2\.bias; unexpected layers\.1\.self_attn\.k_proj\.bias;")
    refused(path, r"wrong shape layers\.0\.fc1\.weight \(128, 512\) instead of \(512, 128\)")


def test_a_layer_is_missing(tmp_path):
    changes = {name: None for name in TENSORS if name.startswith("layers.1.")}
    refused(changed(tmp_path, **changes), r"missing layers\.1\.fc1\.bias, .* and 12 more")


@pytest.mark.parametrize("shape", [(), (0,), (128, 20), (0, 20, 3), (128, 0, 3), (96, 20, 3)])
def test_absurd_first_kernels(tmp_path, shape):
    path = changed(tmp_path, conv1__weight=np.zeros(shape, np.float32))
    refused(path, "not in the Hugging Face layout of Whisper")


@pytest.mark.parametrize("shape", [None, (), (0, 128), (40,), (40, 0), (40, 2), (40, 64)])
def test_absurd_positions(tmp_path, shape):
    places = None if shape is None else np.zeros(shape, np.float32)
    path = changed(tmp_path, embed_positions__weight=places)
    wide = shape in [(40, 2), (40, 64)]
    refused(path, "does not hold Whisper's sinusoids" if wide else "layout of Whisper")


def test_positions_must_be_sinusoids(tmp_path):
    path = changed(tmp_path, embed_positions__weight=np.zeros((40, 128), np.float32))
    refused(path, "embed_positions.weight does not hold Whisper's sinusoids")


def test_other_files(tmp_path):
    other = tmp_path / "other.safetensors"
    safetensors.numpy.save_file(DECODER, other)
    refused(other, "give the model.safetensors of a repository such as openai/whisper-base")
    refused(tmp_path / "none.safetensors", "weights not found")
    pickled = tmp_path / "pytorch_model.bin"
    pickled.write_bytes(b"PK\x03\x04" + bytes(100))
    refused(pickled, "truncated or not a safetensors file")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whisper_files.save(tmp_path / "w.safetensors", TENSORS).read_bytes()[:-1])
    refused(cut, "truncated or not a safetensors file")
    broken = {**TENSORS, "layer_norm.bias": np.full(128, np.inf, np.float32)}
    whisper_files.save(other, broken)
    refused(other, "layer_norm.bias holds NaN or infinity")


def test_a_file_in_a_bucket(tmp_path, monkeypatch):
    path = whisper_files.save(tmp_path / "w.safetensors", TENSORS, **DECODER)
    monkeypatch.setattr(files, "is_remote", lambda path: True)
    assert weights.whisper_params(path)[0] == SMALL
