"""Fréchet distances between sets of pictures (Heusel et al., arXiv 1706.08500).

    d² = |μ_a - μ_b|² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½)

of the features that a network gives. Only with Inception-v3's is it the FID of the literature, and
only with as many pictures as there; a distance has to be reported with the name of its network.

With F a factor of Σ = FᵀF, the eigenvalues of Σ_a Σ_b are the squares of the singular values of
F_a F_bᵀ, whose sum is the trace of the root. That holds with singular covariances too, where the
matrix root that is commonly taken becomes unstable.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from talkjax import weights
from talkjax.errors import UserError
from talkjax.metrics import inception, lpips, workspace

BATCH = 16
SMALLEST = 32  # px
_SUMS_LIMIT = 1 << 30  # bytes of second moments that are kept for the bootstrap

# ---- the distance -------------------------------------------------------------------------------

# Each takes a decomposition of a matrix as wide as the features.
RESAMPLES = 50


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """The Fréchet distance d² between Gaussians fitted to (N, D) and (M, D) features.

    With N or M below some multiple of D it is biased upwards, far so below D itself, where the
    covariance is singular: only distances between sets of the same sizes compare then.

    Raises:
      ValueError: other shapes, fewer than two rows, or features that are not finite.
    """
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"need (N, D) and (M, D) of two rows at least, not {a.shape}, {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("features must be finite")
    return _distance(a.mean(0) - b.mean(0), *(_factor(x) for x in (a, b)))


def frechet_of_statistics(
    mu_a: np.ndarray, sigma_a: np.ndarray, mu_b: np.ndarray, sigma_b: np.ndarray
) -> float:
    """The same of means (D,) and covariances (D, D)."""
    gap = np.asarray(mu_a, np.float64) - np.asarray(mu_b, np.float64)
    return _distance(gap, _root(sigma_a), _root(sigma_b))


def _factor(x: np.ndarray) -> np.ndarray:
    """F with at most D rows, FᵀF the covariance of (N, D)."""
    centred = (x - x.mean(0)) / np.sqrt(len(x) - 1)
    return centred if len(x) <= x.shape[1] else np.linalg.qr(centred, mode="r")


def _root(sigma: np.ndarray) -> np.ndarray:
    """F with FᵀF = Σ; what rounding made negative is taken for zero."""
    values, vectors = np.linalg.eigh(np.asarray(sigma, np.float64))
    return np.sqrt(np.maximum(values, 0))[:, None] * vectors.T


def _distance(gap: np.ndarray, f: np.ndarray, g: np.ndarray) -> float:
    singular = np.linalg.svd(f @ g.T, compute_uv=False)
    return max(0.0, float(gap @ gap + (f**2).sum() + (g**2).sum() - 2 * singular.sum()))


# ---- over clips ---------------------------------------------------------------------------------


def bootstrap(
    per_clip_a: Sequence[np.ndarray | None],
    per_clip_b: Sequence[np.ndarray | None],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict:
    """The distance over all clips, with a bootstrap interval over clips.

    Clips are drawn with replacement, the same in both sets. A set with repetitions is poorer than
    the one it was drawn from, which puts its distances too high; the interval is moved so that
    its median is the distance itself. It tells how much the choice of clips matters, and nothing
    of the bias of small sets (see `frechet`), which `mean` has.

    The time goes into the eigenvalues of a matrix for each resample, as large as D or the frames
    of both sets, whichever is less: seconds with 512 features, minutes with 2048 and many frames.

    Args:
      per_clip_a: (frames, D) features of each clip; clips without frames (or None) in either set
        are left out.
      per_clip_b: the same of the other set, clip by clip.
      seed: of the resampling.
      resamples: how many.

    Returns:
      {"mean": distance over all clips, None if there are too few frames; "ci95": [low, high], None
      with fewer than two clips; "n": clips}.
    """
    both = zip(per_clip_a, per_clip_b, strict=True)
    pairs = [p for p in both if all(x is not None and len(x) for x in p)]
    sets = [[np.asarray(x, np.float64) for x in part] for part in zip(*pairs, strict=True)]
    result = {"mean": None, "ci95": None, "n": len(pairs)}
    if not pairs or any(sum(map(len, part)) < 2 for part in sets):
        return result
    result["mean"] = frechet(*(np.concatenate(part) for part in sets))
    if len(pairs) < 2:
        return result
    rng = np.random.default_rng(seed)
    sums = [_Sums(part) for part in _reduced(sets)]
    values = []
    for _ in range(resamples):
        drawn = np.bincount(rng.integers(0, len(pairs), len(pairs)), minlength=len(pairs))
        if all(drawn @ part.counts > 1 for part in sums):
            values.append(_quick_distance(*(part.statistics(drawn) for part in sums)))
    if values:
        low, middle, high = np.quantile(values, [0.025, 0.5, 0.975])
        shift = result["mean"] - middle
        result["ci95"] = [max(0.0, float(low + shift)), float(high + shift)]
    return result


def _reduced(sets: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    """The features about their common mean, in a basis of what they span if that is smaller."""
    rows = np.concatenate([x for part in sets for x in part])
    centre = rows.mean(0)
    sets = [[x - centre for x in part] for part in sets]
    if len(rows) < rows.shape[1]:
        basis = np.linalg.qr((rows - centre).T)[0]
        sets = [[x @ basis for x in part] for part in sets]
    return sets


class _Sums:
    """What mean and covariance of any choice of clips are computed from."""

    def __init__(self, clips: list[np.ndarray]):
        width = clips[0].shape[1]
        self.counts = np.array([len(x) for x in clips])
        self._sums = np.stack([x.sum(0) for x in clips])
        small = len(clips) * width**2 * 8 <= _SUMS_LIMIT
        self._squares = np.stack([x.T @ x for x in clips]) if small else None
        self._rows = None if small else np.concatenate(clips)

    def statistics(self, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean (D,) and covariance (D, D) with clip i taken drawn[i] times."""
        count = drawn @ self.counts
        mean = drawn @ self._sums / count
        if self._squares is not None:
            squares = np.tensordot(drawn.astype(np.float64), self._squares, 1)
        else:
            weighted = self._rows * np.repeat(drawn, self.counts)[:, None]
            squares = self._rows.T @ weighted
        return mean, (squares - count * np.outer(mean, mean)) / (count - 1)


def _quick_distance(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> float:
    """`frechet_of_statistics` in a third of the time, to some six digits."""
    gap = a[0] - b[0]
    try:
        root = np.linalg.cholesky(a[1]).T
    except np.linalg.LinAlgError:  # singular
        root = _root(a[1])
    values = np.linalg.eigvalsh(root @ b[1] @ root.T)
    trace = np.sqrt(np.maximum(values, 0)).sum()
    return float(gap @ gap + np.trace(a[1]) + np.trace(b[1]) - 2 * trace)


# ---- features -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class FeatureNet:
    """A network whose features are compared.

    Attributes:
      name: to be reported with every distance.
      sha256: of its weights.
      size: D, features of a picture.
      apply: (BATCH, H, W, 3) float32 in [-1, 1] to (BATCH, D) float32.
    """

    name: str
    sha256: str
    size: int
    apply: Callable[[np.ndarray], np.ndarray]

    @classmethod
    def load(cls, path: str | os.PathLike) -> "FeatureNet":
        """Reads Inception-v3 (`talkjax.convert_weights inception`), or the trunk of an LPIPS file.

        Raises:
          UserError: missing or damaged file, tensors of neither network.
        """
        names = weights.load_safetensors(path).keys()
        sha256 = workspace.file_hash(path)
        if inception.FIRST in names:
            params, width = inception.load(path)
            return cls(
                f"Inception-v3 (2015-12-05, pool3, {width}-d)",
                sha256,
                width,
                lambda x: inception.pool3(params, inception.resize(x)),
            )
        if "squeezenet.features.0.weight" in names:
            params = lpips.load(path)
            return cls(
                "SqueezeNet 1.1 of LPIPS (last layer, averaged, 512-d; not Inception)",
                sha256,
                512,
                lambda x: _squeezed(params, x),
            )
        raise UserError(
            f"{path} is neither Inception-v3 nor LPIPS with SqueezeNet; make it with "
            "`python -m talkjax.convert_weights`"
        )

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(N, H, W, 3) uint8, sides of at least 32, to (N, D) float32."""
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
            raise ValueError(f"need (N, H, W, 3) uint8, not {images.shape} {images.dtype}")
        if min(images.shape[1:3]) < SMALLEST:
            raise ValueError(f"pictures of {images.shape[1:3]} are smaller than {SMALLEST} px")
        out = []
        for start in range(0, len(images), BATCH):
            part = images[start : start + BATCH]
            filled = np.pad(part, [(0, BATCH - len(part))] + [(0, 0)] * 3)
            floats = jnp.asarray(filled.astype(np.float32) / 127.5 - 1.0)
            out.append(np.asarray(self.apply(floats))[: len(part)])
        return np.concatenate(out) if out else np.zeros((0, self.size), np.float32)


@jax.jit
def _squeezed(params: lpips.Params, images: jax.Array) -> jax.Array:
    return lpips.features(params, images)[-1].mean((1, 2))
