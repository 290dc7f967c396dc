from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talkjax import weights
from talkjax.models import taesd

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(params=["taesd", "taesd_pool"])
def golden(request):
    name = request.param
    params = weights.taesd_params(
        GOLDEN / f"{name}_encoder.safetensors", GOLDEN / f"{name}_decoder.safetensors"
    )
    with np.load(GOLDEN / f"{name}.npz") as data:
        return taesd.TAESD(**taesd.layout_of(params)), params, dict(data)


def test_matches_torch(golden):
    model, params, data = golden
    latents = model.apply({"params": params}, data["images"] * 2 - 1, method="encode")
    np.testing.assert_allclose(latents, data["latents"], atol=1e-4)
    images = model.apply({"params": params}, 4 * data["latents"], method="decode")
    np.testing.assert_allclose(images, data["decoded"] * 2 - 1, atol=1e-4)
    # Otherwise the agreement would say little.
    assert data["latents"].std() > 0.05 and np.abs(4 * data["latents"]).max() > 1


def test_bfloat16_compute_keeps_float32_parameters_and_outputs(golden):
    model, params, data = golden
    half = model.clone(dtype=jnp.bfloat16)
    images = data["images"] * 2 - 1
    latents = half.apply({"params": params}, images, method="encode")
    assert latents.dtype == jnp.float32
    np.testing.assert_allclose(latents, data["latents"], atol=0.05)
    tree = weights.abstract_params(half, images)
    assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("golden", ["taesd_pool"], indirect=True)
def test_remat_changes_no_gradient(golden):
    model, params, data = golden

    def gradient(model):
        loss = jax.jit(jax.grad(lambda p: model.apply({"params": p}, data["images"][:1]).mean()))
        return jax.tree.leaves(loss(params))

    for a, b in zip(gradient(model), gradient(model.clone(remat=True)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_published_layout_has_the_published_size():
    model = taesd.TAESD(**taesd.LAYOUTS["taef2"])
    params = weights.abstract_params(model, jax.ShapeDtypeStruct((1, 80, 112, 3), jnp.float32))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 2_677_027
    assert taesd.layout_of(params) == {**taesd.LAYOUTS["taef2"], "width": 64}
    shape = jax.eval_shape(
        lambda p, x: model.apply({"params": p}, x, method="encode"),
        params,
        jax.ShapeDtypeStruct((2, 80, 112, 3), jnp.float32),
    )
    assert shape.shape == (2, 10, 14, 32) and shape.dtype == jnp.float32


def test_sides_must_divide(golden):
    model, params, _ = golden
    with pytest.raises(ValueError, match="multiples of 8"):
        model.apply({"params": params}, jnp.zeros((1, 12, 16, 3)), method="encode")


def test_round_trip_of_real_faces(shared_data):
    cv2 = pytest.importorskip("cv2")
    av = pytest.importorskip("av")
    data = shared_data
    params = weights.taesd_params(
        data / "weights" / "taef2_encoder.safetensors",
        data / "weights" / "taef2_decoder.safetensors",
    )
    crops = []
    for path in sorted((data / "other_speakers").iterdir()):
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
        crops.append(cv2.resize(frame[60:276, 72:288], (128, 128), interpolation=cv2.INTER_AREA))
    images = np.stack(crops).astype(np.float32) / 127.5 - 1
    model = taesd.TAESD(**taesd.layout_of(params))
    decoded = np.clip(model.apply({"params": params}, images), -1, 1)
    psnr = 10 * np.log10(4 / np.square(decoded - images).mean(axis=(1, 2, 3)))
    assert psnr.min() > 29 and psnr.max() < 45, psnr
