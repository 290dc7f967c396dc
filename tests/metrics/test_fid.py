"""Fréchet distances against closed forms, and the feature networks against torch."""

from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
import safetensors.numpy
from scipy import linalg

from talkjax import convert_weights
from talkjax.errors import UserError
from talkjax.metrics import fid, lpips

GOLDEN = Path(__file__).parents[1] / "golden"


def spd(rng, size, rank=None):
    x = rng.normal(size=(rank or 2 * size, size))
    return x.T @ x / len(x)


# ---- the distance -------------------------------------------------------------------------------


def test_against_the_matrix_root():
    rng = np.random.default_rng(0)
    for size in (1, 2, 7, 20):
        a, b = spd(rng, size), spd(rng, size)
        mu, nu = rng.normal(size=(2, size))
        root = linalg.sqrtm(a @ b).real
        expected = ((mu - nu) ** 2).sum() + np.trace(a + b - 2 * root)
        assert fid.frechet_distance_of_statistics(mu, a, nu, b) == pytest.approx(expected, rel=1e-9)
        assert fid.frechet_distance_of_statistics(nu, b, mu, a) == pytest.approx(expected, rel=1e-9)


def test_closed_forms_of_gaussians():
    # One dimension: (μ - ν)² + (σ - τ)². Covariances that commute: the same in each direction.
    assert fid.frechet_distance_of_statistics([1], [[4]], [3], [[25]]) == pytest.approx(4 + 9)
    turn = linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    s, t = np.array([3.0, 2, 1, 0]), np.array([1.0, 2, 0, 0])  # singular ones too
    a, b = (turn @ np.diag(x**2) @ turn.T for x in (s, t))
    zero = np.zeros(4)
    expected = ((s - t) ** 2).sum()
    assert fid.frechet_distance_of_statistics(zero, a, zero, b) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("rows", [2, 5, 8, 9, 200])
def test_of_samples(rows):
    """Fewer and more rows than the eight features have."""
    rng = np.random.default_rng(rows)
    a, b = rng.normal(size=(rows, 8)), 2 * rng.normal(size=(rows + 3, 8)) + 1
    statistics = [f(x) for x in (a, b) for f in (lambda x: x.mean(0), lambda x: np.cov(x.T))]
    assert fid.frechet_distance(a, b) == pytest.approx(
        fid.frechet_distance_of_statistics(*statistics), rel=1e-6
    )
    assert fid.frechet_distance(a, a) == pytest.approx(0, abs=1e-10)
    shift = rng.normal(size=(1, 8))
    assert fid.frechet_distance(a, a + shift) == pytest.approx((shift**2).sum(), rel=1e-9)
    assert fid.frechet_distance(a.astype(np.float32), b) == pytest.approx(
        fid.frechet_distance(a, b), rel=1e-4
    )


def test_many_samples_come_close_to_the_truth():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(40000, 3)), rng.normal(size=(40000, 3)) * (2, 1, 3) + (0, 1, 0)
    assert fid.frechet_distance(a, b) == pytest.approx(1 + 1 + 4, rel=0.03)


def test_what_has_no_distance():
    ok = np.zeros((3, 4))
    for bad in (np.zeros((1, 4)), np.zeros((3, 5)), np.zeros(4), np.full((3, 4), np.nan)):
        with pytest.raises(ValueError, match=r"need|finite"):
            fid.frechet_distance(ok, bad)


# ---- over clips ---------------------------------------------------------------------------------


def clips(seed, count, frames, size, shift=0.0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(frames, size)) + rng.normal(size=size) + shift for _ in range(count)]


@pytest.mark.parametrize(("count", "frames", "size"), [(12, 10, 5), (4, 2, 60)])
def test_bootstrap_over_clips(count, frames, size):
    a, b = clips(0, count, frames, size), clips(1, count, frames, size, 0.5)
    result = fid.bootstrap_distance(a, b, seed=3, resamples=50)
    assert result["n"] == count
    assert result["mean"] == pytest.approx(
        fid.frechet_distance(np.concatenate(a), np.concatenate(b))
    )
    low, high = result["ci95"]
    assert 0 <= low < result["mean"] < high
    assert result == fid.bootstrap_distance(a, b, seed=3, resamples=50)
    assert result["ci95"] != fid.bootstrap_distance(a, b, seed=4, resamples=50)["ci95"]


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_sums_are_those_of_the_drawn_clips(monkeypatch, limit):
    monkeypatch.setattr(fid, "_MOMENTS_LIMIT", limit)
    parts = [x[: 2 + i] for i, x in enumerate(clips(0, 5, 9, 4))]
    drawn = np.array([0, 2, 1, 0, 2])
    mean, covariance = fid._ClipMoments(parts).statistics(drawn)
    rows = np.concatenate([x for x, times in zip(parts, drawn, strict=True) for _ in range(times)])
    np.testing.assert_allclose(mean, rows.mean(0))
    np.testing.assert_allclose(covariance, np.cov(rows.T))
    other = fid._ClipMoments(clips(1, 5, 9, 4)).statistics(drawn)
    expected = fid.frechet_distance_of_statistics(mean, covariance, *other)
    assert fid._quick_distance((mean, covariance), other) == pytest.approx(expected, rel=1e-6)


def test_a_smaller_basis_keeps_distances():
    sets = [clips(0, 3, 2, 50), clips(1, 3, 2, 50)]
    reduced = fid._reduced(sets)
    assert reduced[0][0].shape == (2, 12)
    expected = fid.frechet_distance(*map(np.concatenate, sets))
    assert fid.frechet_distance(*map(np.concatenate, reduced)) == pytest.approx(expected)


def test_few_clips():
    a, b = clips(0, 3, 4, 2), clips(1, 3, 4, 2)
    assert fid.bootstrap_distance([], []) == {"mean": None, "ci95": None, "n": 0}
    assert fid.bootstrap_distance([a[0][:1]], [b[0]]) == {"mean": None, "ci95": None, "n": 1}
    alone = fid.bootstrap_distance(a[:1], b[:1])
    assert alone == {"mean": pytest.approx(fid.frechet_distance(a[0], b[0])), "ci95": None, "n": 1}
    gaps = fid.bootstrap_distance([a[0], None, a[2]], [b[0], b[1], b[2][:0]])
    assert gaps == alone
    with pytest.raises(ValueError, match="zip"):
        fid.bootstrap_distance(a, b[:2])
    single = fid.bootstrap_distance([x[:1] for x in a], [x[:1] for x in b])
    assert single["n"] == 3 and single["mean"] is not None


# ---- networks -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("net") / "inception.safetensors"
    convert_weights.convert("inception", [GOLDEN / "inception.safetensors"], path)
    return path


@pytest.fixture(scope="module")
def squeeze_file(tmp_path_factory):
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)
        for name, shape in lpips.shapes().items()
    }
    path = tmp_path_factory.mktemp("net") / "lpips.safetensors"
    safetensors.numpy.save_file(tensors, path)
    return path


def test_inception_agrees_with_torch(inception_file):
    net = fid.FeatureNet.load(inception_file)
    assert net.name == "Inception-v3 (2015-12-05, pool3, 128-d)" and net.size == 128
    with np.load(GOLDEN / "inception.npz") as golden:
        for name, factor in (("small", 8), ("large", 64)):
            images = golden["coarse"].repeat(factor, 1).repeat(factor, 2)
            features = net(images)
            assert features.dtype == np.float32
            np.testing.assert_allclose(features, golden[f"{name}_features"], rtol=1e-4, atol=1e-3)


def pictures(count, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 6, 6, 3), np.uint8)
    return np.stack([cv2.resize(x, (48, 48), interpolation=cv2.INTER_NEAREST) for x in coarse])


def test_squeezenet_features(squeeze_file):
    net = fid.FeatureNet.load(squeeze_file)
    assert "SqueezeNet" in net.name and "not Inception" in net.name and net.size == 512
    images = pictures(fid.BATCH + 3)
    features = net(images)
    assert features.shape == (fid.BATCH + 3, 512) and (features >= 0).all()
    floats = images[-3:].astype(np.float32) / 127.5 - 1
    maps = jax.jit(lpips.features)(lpips.load(squeeze_file), floats)
    expected = np.asarray(maps[-1]).mean((1, 2))
    np.testing.assert_allclose(features[-3:], expected, rtol=1e-3, atol=1e-4)
    assert net(images[:0]).shape == (0, 512)
    for bad in (images[0], images.astype(np.float32), images[:, :16], images[..., :1]):
        with pytest.raises(ValueError, match=r"need|smaller"):
            net(bad)


@pytest.mark.parametrize("kind", ["squeeze_file", "inception_file"])
def test_blur_and_noise_increase_the_distance(kind, request):
    net = fid.FeatureNet.load(request.getfixturevalue(kind))
    images = pictures(24)
    features, others = net(images), net(pictures(24, seed=1))
    rng = np.random.default_rng(0)
    changes = {
        "blur": lambda x, s: np.stack([cv2.GaussianBlur(i, (0, 0), s) for i in x]),
        "noise": lambda x, s: np.clip(x + rng.normal(0, 20 * s, x.shape), 0, 255).astype(np.uint8),
    }
    assert fid.frechet_distance(features, features) == pytest.approx(0, abs=1e-3)
    assert fid.frechet_distance(features, others) > 0
    for change in changes.values():
        little, much = (fid.frechet_distance(features, net(change(images, s))) for s in (1, 4))
        assert 0 < little < much


def test_other_files_are_refused(tmp_path, inception_file, squeeze_file):
    path = tmp_path / "w.safetensors"

    def changed(source, change):
        tensors = safetensors.numpy.load_file(source)
        change(tensors)
        safetensors.numpy.save_file(tensors, path)
        return path

    with pytest.raises(UserError, match="not found"):
        fid.FeatureNet.load(tmp_path / "none")
    with pytest.raises(UserError, match="neither Inception-v3 nor LPIPS"):
        fid.FeatureNet.load(GOLDEN / "taesd_encoder.safetensors")
    with pytest.raises(UserError, match=r"unexpected extra"):
        fid.FeatureNet.load(changed(inception_file, lambda t: t.update(extra=np.zeros(1))))
    name = "Mixed_6b.branch7x7_2.conv.weight"
    with pytest.raises(UserError, match=r"wrong shape Mixed_6b\.branch7x7_2\.conv"):
        flip = {name: safetensors.numpy.load_file(inception_file)[name].swapaxes(2, 3).copy()}
        fid.FeatureNet.load(changed(inception_file, lambda t: t.update(flip)))
    with pytest.raises(UserError, match=r"missing Mixed_7c"):
        gone = "Mixed_7c.branch3x3dbl_3b.conv.weight"
        fid.FeatureNet.load(changed(inception_file, lambda t: t.pop(gone)))
    variance = {"Mixed_5b.branch1x1.bn.running_var": np.full(4, -1, np.float32)}
    with pytest.raises(UserError, match="variances"):
        fid.FeatureNet.load(changed(inception_file, lambda t: t.update(variance)))
    with pytest.raises(UserError, match=r"missing lin\.lin3"):
        fid.FeatureNet.load(changed(squeeze_file, lambda t: t.pop("lin.lin3.model.1.weight")))
