"""PSNR and SSIM against their formulas, and LPIPS and face alignment on what is known of them."""

import numpy as np
import pytest

from talkjax import conventions
from talkjax.conventions import MASK
from talkjax.errors import UserError
from talkjax.metrics import identity, images, lpips


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_psnr_is_its_formula():
    a = np.full((8, 8, 3), 100, np.uint8)
    assert images.psnr(a, a + 5) == pytest.approx(10 * np.log10(255**2 / 25))
    assert images.psnr(a, a) == 100
    assert images.psnr(a, a + 5) == images.psnr(a + 5, a)


def test_only_the_mask_counts():
    a = noise((128, 128, 3))
    b = 255 - a
    y0, x0, y1, x1 = MASK.pixels(128)
    b[y0:y1, x0:x1] = a[y0:y1, x0:x1]
    assert images.masked_psnr(a, b) == 100
    b[y0, x0] ^= 255
    assert images.masked_psnr(a, b) < 100


def test_ssim_is_its_formula_in_a_flat_and_a_noisy_picture():
    a = noise((64, 64, 3))
    assert images.ssim_map(a, a).mean() == pytest.approx(1)
    flat = [np.full((64, 64, 3), v, np.uint8) for v in (100, 150)]
    c1 = (0.01 * 255) ** 2
    expected = (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)
    assert images.ssim_map(*flat).mean() == pytest.approx(expected)
    assert abs(images.ssim_map(a, noise((64, 64, 3), 1)).mean()) < 0.1


@pytest.fixture(scope="module")
def squeeze_params():
    rng = np.random.default_rng(0)
    out = {}
    for name, shape in lpips.shapes().items():
        fan_in = np.prod(shape[1:]) if len(shape) > 1 else 1
        value = rng.normal(0, np.sqrt(2 / fan_in), shape) if len(shape) > 1 else np.zeros(shape)
        out[name] = (np.abs(value) if name.startswith("lin") else value).astype(np.float32)
    return out


def save(path, tensors):
    import safetensors.numpy

    safetensors.numpy.save_file(tensors, path)
    return path


def test_lpips_is_a_distance(squeeze_params, tmp_path):
    measure = lpips.load_metric(save(tmp_path / "w.safetensors", squeeze_params))
    a = noise((3, 48, 40, 3))
    b = np.clip(a.astype(int) + 20, 0, 255).astype(np.uint8)
    assert np.allclose(measure(a, a), 0, atol=1e-6)
    near, far = measure(a, b), measure(a, noise((3, 48, 40, 3), 1))
    assert near.shape == (3,) and (near > 0).all() and (far > near).all()
    assert np.allclose(near, measure(b, a), rtol=1e-5)
    assert np.allclose(near[:1], measure(a[:1], b[:1]), rtol=1e-5)  # padding does not count


def test_lpips_agrees_with_torch(squeeze_params, tmp_path):
    # torch 2.13's layers with these very weights, put together as in the lpips package 0.1.4.
    expected = [0.2014778, 0.20315401, 0.20574988]
    measure = lpips.load_metric(save(tmp_path / "w.safetensors", squeeze_params))
    values = measure(noise((3, 48, 41, 3)), noise((3, 48, 41, 3), 1))
    assert np.allclose(values, expected, rtol=1e-5)


def test_lpips_refuses_other_weights(squeeze_params, tmp_path):
    less = {k: v for k, v in squeeze_params.items() if k != "lin.lin3.model.1.weight"}
    with pytest.raises(UserError, match=r"lin\.lin3"):
        lpips.load_metric(save(tmp_path / "w.safetensors", less))
    with pytest.raises(UserError, match="not found"):
        lpips.load_metric(tmp_path / "none.safetensors")


def test_real_lpips_weights_know_likeness(shared_data):
    measure = lpips.load_metric(shared_data / "weights" / "lpips_squeeze.safetensors")
    y, x = np.mgrid[0:64, 0:64]
    a = np.repeat((128 + 60 * np.sin(x / 5) * np.cos(y / 7))[None, ..., None], 3, -1)
    a = a.astype(np.uint8)
    brighter = a + 6
    values = measure(np.concatenate([a, a]), np.concatenate([brighter, noise((1, 64, 64, 3))]))
    assert values[0] < 0.05 < 0.3 < values[1]


def test_alignment_puts_the_five_points_where_they_belong():
    landmarks = np.zeros((131, 2))
    five = identity.TEMPLATE * 1.5 @ np.array([[0.98, 0.2], [-0.2, 0.98]]) + (60, 30)
    landmarks[conventions.positions(conventions.LEFT_EYE)] = five[0]
    landmarks[conventions.positions(conventions.RIGHT_EYE)] = five[1]
    landmarks[conventions.positions((4, 61, 291))] = five[2:]
    assert np.allclose(identity.five_points(landmarks), five)
    frame = np.zeros((300, 300, 3), np.uint8)
    for x, y in five:
        frame[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3] = 255
    face = identity.align(frame, landmarks)
    for x, y in identity.TEMPLATE:
        assert face[round(y), round(x)].min() > 200


def test_similarity_of_directions():
    a, b = np.eye(4)[:2]
    assert identity.similarity([a, a], [a]) == pytest.approx(1)
    assert identity.similarity([a], [b]) == 0
    assert np.isnan(identity.similarity([], [a]))


def test_a_bad_embedding_is_an_error(tmp_path):
    with pytest.raises(UserError, match="not found"):
        identity.FaceEmbedding(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match="not a usable ONNX"):
        identity.FaceEmbedding(tmp_path / "bad.onnx")


def test_real_embedding_is_of_length_one(shared_data):
    embed = identity.FaceEmbedding(shared_data / "weights" / "mobilefacenet.onnx")
    vector = embed(noise((112, 112, 3)))
    assert vector.ndim == 1 and np.linalg.norm(vector) == pytest.approx(1)


def test_flicker_is_what_changes_against_the_truth():
    rng = np.random.default_rng(0)
    truth = 100 + np.cumsum(rng.normal(0, 0.5, (40, 4, 4)), axis=0)
    numbers = np.arange(40)
    assert images.flicker_ratio(truth, truth, numbers) == pytest.approx(1)
    assert images.flicker_ratio(truth + 20, truth, numbers) == pytest.approx(1)
    blinking = truth + 3 * (-1.0) ** numbers[:, None, None]
    assert images.flicker_ratio(blinking, truth, numbers) > 5
    # Over a missing frame there is no second difference, however large the step.
    split = np.concatenate([truth[:20], truth[20:] + 100])
    apart = numbers + (numbers >= 20)
    assert images.flicker_ratio(split, truth, apart) == pytest.approx(1)
    assert np.isnan(images.flicker_ratio(truth[:2], truth[:2], numbers[:2]))
    assert np.isnan(images.flicker_ratio(truth, truth * 0, numbers))


def test_brightness_of_the_masks_sixteenths():
    crop = np.zeros((64, 64, 3), np.uint8)
    y0, x0, y1, x1 = MASK.pixels(64)
    crop[y0:y1, x0:x1] = 50
    np.testing.assert_allclose(images.coarse(crop), np.full((4, 4), 50))
    crop[y0 : (y0 + y1) // 2] = 90
    np.testing.assert_allclose(images.coarse(crop)[:, 0], [90, 90, 50, 50])
