import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util

from talkjax import files, weights
from talkjax.errors import UserError

GOLDEN = Path(__file__).parent / "golden"
KL = GOLDEN / "autoencoder_kl.safetensors"
ENCODER = GOLDEN / "taesd_encoder.safetensors"
DECODER = GOLDEN / "taesd_decoder.safetensors"


def rewrite(source, target, change):
    tensors = safetensors.numpy.load_file(source)
    change(tensors)
    safetensors.numpy.save_file(tensors, target)
    return target


def one_line(error):
    text = str(error.value)
    assert "\n" not in text and ";" in text  # what is wrong; what to do
    return text


# ---- hostile files ------------------------------------------------------------------------------

WHOLE = ENCODER.read_bytes()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        WHOLE[:5],
        WHOLE[:100],
        WHOLE[:-1],
        WHOLE + b"tail",
        b"\xff" * 64,
        b"<!DOCTYPE html><html><body>404 not found</body></html>",
        b"\x80\x04cos\nsystem\n(S'true'\ntR.",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
        (2).to_bytes(8, "little") + b"[]",
        (60).to_bytes(8, "little")
        + b'{"a":{"dtype":"F32","shape":[999999999],"data_offsets":[0,4]}}'[:60],
        (64).to_bytes(8, "little")
        + b'{"a":{"dtype":"Z9","shape":[1],"data_offsets":[0,4]}}'.ljust(64)
        + bytes(4),
    ],
)
def test_not_safetensors(tmp_path, content):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        weights.load_safetensors(path)
    assert str(path) in one_line(error)


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "nothing.safetensors", tmp_path):
        with pytest.raises(UserError, match="not found"):
            weights.load_safetensors(path)


def test_not_finite(tmp_path):
    path = tmp_path / "w.safetensors"
    safetensors.numpy.save_file({"a": np.array([1.0, np.inf], np.float16)}, path)
    with pytest.raises(UserError, match="a holds NaN or infinity"):
        weights.load_safetensors(path)


def test_every_floating_type_becomes_float32(tmp_path):
    path = tmp_path / "w.safetensors"
    types = (np.float64, np.float16, jnp.bfloat16)
    tensors = {str(i): np.ones((2,), t) for i, t in enumerate(types)}
    safetensors.numpy.save_file({**tensors, "n": np.arange(3)}, path)
    loaded = weights.load_safetensors(path)
    assert all(loaded[name].dtype == np.float32 for name in tensors)
    assert loaded["n"].dtype == np.int64


def test_wrong_tensors_are_named(tmp_path):
    def change(tensors):
        tensors["12.conv.9.bias"] = tensors.pop("12.conv.4.bias")
        tensors["3.conv.0.weight"] = tensors["3.conv.0.weight"][:4]

    path = rewrite(ENCODER, tmp_path / "e.safetensors", change)
    with pytest.raises(UserError) as error:
        weights.taesd_params(path, DECODER)
    text = one_line(error)
    assert "missing 12.conv.4.bias;" in text and "unexpected 12.conv.9.bias;" in text
    assert "wrong shape 3.conv.0.weight (4, 8, 3, 3) instead of (8, 8, 3, 3)" in text


def test_many_wrong_tensors_are_counted(tmp_path):
    def change(tensors):
        for name in [n for n in tensors if n.startswith(("2.", "3.", "12."))]:
            del tensors[name]

    path = rewrite(DECODER, tmp_path / "d.safetensors", change)
    with pytest.raises(UserError, match=r"missing 3\.conv\.0\.bias, .* and 4 more"):
        weights.taesd_params(ENCODER, path)


def test_swapped_taesd_files():
    with pytest.raises(UserError, match="not a TAESD encoder"):
        weights.taesd_params(DECODER, ENCODER)
    with pytest.raises(UserError, match="not a TAESD decoder"):
        weights.taesd_params(ENCODER, ENCODER)


def test_layouts_of_the_two_files_must_agree():
    with pytest.raises(UserError, match=r"taesd_decoder.*missing 3\.pool"):
        weights.taesd_params(GOLDEN / "taesd_pool_encoder.safetensors", DECODER)


@pytest.mark.parametrize("shape", [(), (0,), (4,), (0, 0, 3, 3), (4, 0, 3, 3)])
def test_absurd_heads(tmp_path, shape):
    def taesd_head(tensors):
        tensors["14.weight"] = np.zeros(shape, np.float32)

    with pytest.raises(UserError):
        weights.taesd_params(rewrite(ENCODER, tmp_path / "e.st", taesd_head), DECODER)

    for name in ("post_quant_conv.weight", "encoder.down_blocks.0.resnets.0.conv1.weight"):

        def kl_head(tensors, name=name):
            tensors[name] = np.zeros(shape, np.float32)

        with pytest.raises(UserError):
            weights.autoencoder_kl_params(rewrite(KL, tmp_path / "k.st", kl_head), groups=4)


# ---- AutoencoderKL ------------------------------------------------------------------------------


def test_old_attention_names_are_the_same_network(tmp_path):
    old = {"to_q.": "query.", "to_k.": "key.", "to_v.": "value.", "to_out.0.": "proj_attn."}

    def rename(tensors):
        for name in [n for n in tensors if ".attentions." in n]:
            new = name
            for a, b in old.items():
                new = new.replace(a, b)
            tensors[new] = tensors.pop(name)

    path = rewrite(KL, tmp_path / "old.safetensors", rename)
    assert "decoder.mid_block.attentions.0.query.weight" in weights.load_safetensors(path)
    for a, b in zip(
        jax.tree.leaves(weights.autoencoder_kl_params(path, groups=4)),
        jax.tree.leaves(weights.autoencoder_kl_params(KL, groups=4)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_kl_names_in_errors_are_the_files_own(tmp_path):
    def change(tensors):
        del tensors["decoder.mid_block.attentions.0.to_out.0.bias"]
        del tensors["encoder.down_blocks.1.downsamplers.0.conv.weight"]

    path = rewrite(KL, tmp_path / "k.safetensors", change)
    with pytest.raises(UserError) as error:
        weights.autoencoder_kl_params(path, groups=4)
    assert (
        "missing decoder.mid_block.attentions.0.to_out.0.bias, "
        "encoder.down_blocks.1.downsamplers.0.conv.weight;" in one_line(error)
    )


def test_other_layouts_are_told(tmp_path):
    with pytest.raises(UserError, match="diffusers AutoencoderKL layout"):
        weights.autoencoder_kl_params(ENCODER)
    path = tmp_path / "ldm.safetensors"
    name = "first_stage_model.encoder.down.0.block.0.conv1.weight"
    safetensors.numpy.save_file({name: np.zeros((8, 8, 3, 3), np.float32)}, path)
    with pytest.raises(UserError, match="original latent-diffusion"):
        weights.autoencoder_kl_params(path)


# ---- released weights ---------------------------------------------------------------------------


@pytest.fixture
def tree():
    rng = np.random.default_rng(0)
    return {
        "encoder": {"layer_0": {"kernel": rng.normal(size=(3, 4)).astype(np.float32).T}},
        "scale": np.float32(2.5),
        "steps": np.arange(3),
    }


def assert_trees_equal(a, b):
    a, b = (traverse_util.flatten_dict(t, sep="/") for t in (a, b))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


def test_save_and_load(tmp_path, tree):
    # The transposed kernel matters: safetensors alone would write it wrong.
    config = {"model": {"channels": [1, 2]}, "name": "x"}
    weights.save_params(tmp_path / "new" / "dir", tree, config)
    loaded, loaded_config = weights.load_params(tmp_path / "new" / "dir", expected=tree)
    assert_trees_equal(loaded, tree)
    assert loaded_config == config
    assert sorted(os.listdir(tmp_path / "new" / "dir")) == ["config.json", "model.safetensors"]
    raw = safetensors.numpy.load_file(tmp_path / "new" / "dir" / "model.safetensors")
    assert set(raw) == {"encoder/layer_0/kernel", "scale", "steps"}


def test_jax_arrays_and_storage_type(tmp_path, tree):
    weights.save_params(tmp_path, jax.tree.map(jnp.asarray, tree), {}, dtype=jnp.bfloat16)
    raw = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    assert raw["encoder/layer_0/kernel"].dtype == jnp.bfloat16
    assert raw["steps"].dtype == np.int32
    loaded, _ = weights.load_params(tmp_path)
    kernel = loaded["encoder"]["layer_0"]["kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_allclose(kernel, tree["encoder"]["layer_0"]["kernel"], rtol=0.01)


def test_values_that_do_not_fit_the_stored_type(tmp_path):
    with pytest.raises(UserError, match=r"a/b does not fit into float16"):
        weights.save_params(tmp_path / "x", {"a": {"b": np.array([1e5])}}, {}, dtype=np.float16)
    assert not (tmp_path / "x").exists()


def test_expected_tree_is_checked(tmp_path, tree):
    weights.save_params(tmp_path, tree, {})
    expected = {
        "encoder": {"layer_0": {"kernel": jax.ShapeDtypeStruct((3, 3), jnp.float32)}},
        "scale": jax.ShapeDtypeStruct((), jnp.float32),
        "bias": jax.ShapeDtypeStruct((2,), jnp.float32),
    }
    with pytest.raises(UserError) as error:
        weights.load_params(tmp_path, expected)
    text = one_line(error)
    assert "missing bias; unexpected steps; wrong shape encoder/layer_0/kernel (4, 3)" in text


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_bad_config(tmp_path, tree, content):
    weights.save_params(tmp_path, tree, {})
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json"):
        weights.load_params(tmp_path)


def test_missing_config_and_weights(tmp_path, tree):
    with pytest.raises(UserError, match=r"config\.json does not exist"):
        weights.load_params(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"model\.safetensors; check"):
        weights.load_params(tmp_path)


def test_tensor_inside_tensor(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    tensors = {name: np.zeros(1, np.float32) for name in ("a", "a/b/c")}
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="inside another tensor"):
        weights.load_params(tmp_path)


def test_failed_write_leaves_the_old_file(tmp_path, tree, monkeypatch):
    weights.save_params(tmp_path, tree, {"v": 1})

    def full(path, content):
        with open(path, "wb") as file:
            file.write(content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(files.as_path(tmp_path)), "write_bytes", full)
    with pytest.raises(UserError, match="No space left"):
        weights.save_params(tmp_path, tree, {"v": 2})
    monkeypatch.undo()
    loaded, config = weights.load_params(tmp_path, tree)
    assert config == {"v": 1}
    assert_trees_equal(loaded, tree)
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors"]


def test_unwritable_directory(tmp_path, tree):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write weights"):
        weights.save_params(tmp_path / "file", tree, {})


def test_unserialisable_config_writes_nothing(tmp_path, tree):
    with pytest.raises(TypeError):
        weights.save_params(tmp_path / "d", tree, {"x": object()})
    assert not (tmp_path / "d").exists()


def test_buckets_are_read_without_file_descriptors(tmp_path, tree, monkeypatch):
    weights.save_params(tmp_path, tree, {})
    monkeypatch.setattr(weights.files, "is_remote", lambda path: True)
    monkeypatch.setattr(safetensors.numpy, "load_file", lambda path: pytest.fail("not local"))
    assert_trees_equal(weights.load_params(tmp_path, expected=tree)[0], tree)
