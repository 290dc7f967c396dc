"""The published layout: parity with torch, and its shapes in full size."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from talkjax import convert_weights
from talkjax.errors import UserError
from talkjax.metrics import sync_weights
from talkjax.models import sync_expert

GOLDEN = Path(__file__).parents[1] / "golden"
FILE = GOLDEN / "sync_expert.safetensors"
SIZE = (60, 84)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "sync_expert.npz") as arrays:
        return dict(arrays)


def test_both_networks_are_those_of_torch(golden):
    model, params = sync_weights.load_syncnet(FILE, SIZE)
    pictures = golden["pictures"].astype(np.float32)[None]
    windows = golden["windows"][None, ..., None]
    lips, sound = jax.jit(model.apply)({"params": params}, pictures, windows)
    np.testing.assert_allclose(lips[0], golden["lips"], atol=2e-4)
    np.testing.assert_allclose(sound[0], golden["sound"], atol=1e-4)
    assert golden["lips"].std() > 0.05 and np.abs(np.diff(golden["lips"], axis=0)).max() > 0.02


def test_the_default_is_the_published_network():
    """As `convert_weights syncnet` writes it, name by name."""
    model = sync_expert.SyncExpert()
    tree = jax.eval_shape(
        model.init,
        jax.random.key(0),
        jax.ShapeDtypeStruct((1, 5, 224, 224, 3), jnp.float32),
        jax.ShapeDtypeStruct((1, 1, 13, 20, 1), jnp.float32),
    )["params"]
    shapes = {
        sync_weights.torch_name((module, leaf)): sync_weights._torch_shape(module, value.shape)
        for module, leaves in tree.items()
        for leaf, value in leaves.items()
    }
    assert shapes == convert_weights.syncnet_shapes()


def test_counters_in_the_file_are_passed_over_and_strangers_refused(tmp_path):
    tensors = safetensors.numpy.load_file(FILE)
    assert any(name.endswith("num_batches_tracked") for name in tensors)
    for change, message in (
        ({"netcnnlip.4.weight": None}, r"missing netcnnlip\.4\.weight"),
        ({"netfcaud.0.weight": np.zeros((3, 3), np.float32)}, r"wrong shape netfcaud\.0\.weight"),
        ({"more": np.zeros(1, np.float32)}, "unexpected more"),
        ({"netcnnaud.0.weight": None}, "is not a SyncNet"),
        ({"netfclip.3.bias": np.full(24, np.nan, np.float32)}, "holds NaN"),
    ):
        path = tmp_path / "wrong.safetensors"
        wrong = {name: value for name, value in (tensors | change).items() if value is not None}
        safetensors.numpy.save_file(wrong, path)
        with pytest.raises(UserError, match=message):
            sync_weights.load_syncnet(path, SIZE)


@pytest.mark.parametrize("size", [(10, 10), (24, 200)])
def test_pictures_that_are_too_small(size):
    with pytest.raises(ValueError, match="too small"):
        jax.eval_shape(
            sync_expert.SyncExpert(0.125, 8, "group").init,
            jax.random.key(0),
            jax.ShapeDtypeStruct((1, 5, *size, 3), jnp.float32),
            None,
        )
