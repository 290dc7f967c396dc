"""Fréchet distances between sets of images (Heusel et al., arXiv 1706.08500).

    d² = |μ_a - μ_b|² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½)

where μ and Σ are mean and covariance of a network's features. It is the FID of the literature only
with Inception-v3's features and as many images as there; a distance must be reported with the name
of its network.

With factors Σ = FᵀF, the eigenvalues of Σ_a Σ_b are the squared singular values of F_a F_bᵀ, whose
sum is the trace of the root. This also holds for singular covariances, where the usual matrix
square root becomes unstable.
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
MIN_SIDE = 32  # pixels
_MOMENTS_LIMIT = 1 << 30  # bytes of second moments that are kept for the bootstrap

# ---- the distance -------------------------------------------------------------------------------

# Each resample needs a decomposition of a matrix as wide as the features.
RESAMPLES = 50


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Computes the Fréchet distance d² between Gaussians fitted to (N, D) and (M, D) features.

    The distance is biased upwards unless N and M are several times D, and strongly so below D,
    where the covariance is singular: then only distances between sets of equal sizes are
    comparable.

    Raises:
      ValueError: The shapes do not fit, a set has fewer than two rows, or a feature is not finite.
    """
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            f"need (N, D) and (M, D) features with at least two rows, not {a.shape} and {b.shape}"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("features must be finite")
    return _distance(a.mean(0) - b.mean(0), *(_factor(x) for x in (a, b)))


def frechet_distance_of_statistics(
    mu_a: np.ndarray, sigma_a: np.ndarray, mu_b: np.ndarray, sigma_b: np.ndarray
) -> float:
    """Computes `frechet_distance` from means (D,) and covariances (D, D)."""
    gap = np.asarray(mu_a, np.float64) - np.asarray(mu_b, np.float64)
    return _distance(gap, _root(sigma_a), _root(sigma_b))


def _factor(x: np.ndarray) -> np.ndarray:
    """Returns F with at most D rows such that FᵀF is the covariance of (N, D) features."""
    centred = (x - x.mean(0)) / np.sqrt(len(x) - 1)
    return centred if len(x) <= x.shape[1] else np.linalg.qr(centred, mode="r")


def _root(sigma: np.ndarray) -> np.ndarray:
    """Returns F with FᵀF = Σ; eigenvalues that rounding made negative count as zero."""
    values, vectors = np.linalg.eigh(np.asarray(sigma, np.float64))
    return np.sqrt(np.maximum(values, 0))[:, None] * vectors.T


def _distance(gap: np.ndarray, f: np.ndarray, g: np.ndarray) -> float:
    singular = np.linalg.svd(f @ g.T, compute_uv=False)
    return max(0.0, float(gap @ gap + (f**2).sum() + (g**2).sum() - 2 * singular.sum()))


# ---- over clips ---------------------------------------------------------------------------------


def bootstrap_distance(
    per_clip_a: Sequence[np.ndarray | None],
    per_clip_b: Sequence[np.ndarray | None],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict:
    """Computes the distance over all clips and its bootstrap interval over clips.

    Clips are drawn with replacement, the same ones in both sets. A set with repetitions is less
    diverse than the set it was drawn from, which makes its distances too large; therefore the
    interval is shifted so that its median is the distance itself. It shows how much the choice of
    clips matters. It does not show the bias of small sets (see `frechet_distance`), which `mean`
    has.

    Every resample needs the eigenvalues of a matrix whose width is D or the number of all frames,
    whichever is smaller: seconds with 512 features, minutes with 2048 and many frames.

    Args:
      per_clip_a: (frames, D) features of each clip; clips without frames (or None) in either set
        are left out.
      per_clip_b: Features of the other set, clip by clip.
      seed: Seed of the resampling.
      resamples: Number of resamples.

    Returns:
      {"mean", "ci95", "n"}: the distance over all clips, or None if there are too few frames or a
      feature is not finite; [low, high], or None with fewer than two clips; the number of clips.
    """
    both = zip(per_clip_a, per_clip_b, strict=True)
    pairs = [p for p in both if all(x is not None and len(x) for x in p)]
    sets = [[np.asarray(x, np.float64) for x in part] for part in zip(*pairs, strict=True)]
    result = {"mean": None, "ci95": None, "n": len(pairs)}
    if not pairs or any(sum(map(len, part)) < 2 for part in sets):
        return result
    if not all(np.isfinite(x).all() for part in sets for x in part):
        return result
    result["mean"] = frechet_distance(*(np.concatenate(part) for part in sets))
    if len(pairs) < 2:
        return result
    rng = np.random.default_rng(seed)
    moments = [_ClipMoments(part) for part in _reduced(sets)]
    values = []
    for _ in range(resamples):
        drawn = np.bincount(rng.integers(0, len(pairs), len(pairs)), minlength=len(pairs))
        if all(drawn @ part.counts > 1 for part in moments):
            values.append(_quick_distance(*(part.statistics(drawn) for part in moments)))
    if values:
        low, middle, high = np.quantile(values, [0.025, 0.5, 0.975])
        shift = result["mean"] - middle
        result["ci95"] = [max(0.0, float(low + shift)), float(high + shift)]
    return result


def _reduced(sets: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    """Centres the features, and expresses them in a basis of their span if that is smaller."""
    rows = np.concatenate([x for part in sets for x in part])
    centre = rows.mean(0)
    sets = [[x - centre for x in part] for part in sets]
    if len(rows) < rows.shape[1]:
        basis = np.linalg.qr((rows - centre).T)[0]
        sets = [[x @ basis for x in part] for part in sets]
    return sets


class _ClipMoments:
    """Moments of each clip, from which those of any selection of clips follow."""

    def __init__(self, clips: list[np.ndarray]):
        width = clips[0].shape[1]
        self.counts = np.array([len(x) for x in clips])
        self._sums = np.stack([x.sum(0) for x in clips])
        small = len(clips) * width**2 * 8 <= _MOMENTS_LIMIT
        self._squares = np.stack([x.T @ x for x in clips]) if small else None
        self._rows = None if small else np.concatenate(clips)

    def statistics(self, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns mean (D,) and covariance (D, D) where clip i is taken `drawn[i]` times."""
        count = drawn @ self.counts
        mean = drawn @ self._sums / count
        if self._squares is not None:
            squares = np.tensordot(drawn.astype(np.float64), self._squares, 1)
        else:
            weighted = self._rows * np.repeat(drawn, self.counts)[:, None]
            squares = self._rows.T @ weighted
        return mean, (squares - count * np.outer(mean, mean)) / (count - 1)


def _quick_distance(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> float:
    """Computes `frechet_distance_of_statistics` in a third of the time, to about six digits."""
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
      name: Name to report with every distance.
      sha256: Hash of the weights.
      size: Number of features per image, D.
      apply: Maps (BATCH, H, W, 3) float32 images in [-1, 1] to (BATCH, D) float32.
    """

    name: str
    sha256: str
    size: int
    apply: Callable[[np.ndarray], np.ndarray]

    @classmethod
    def load(cls, path: str | os.PathLike) -> "FeatureNet":
        """Loads Inception-v3 (`talkjax.convert_weights inception`), or the trunk of an LPIPS file.

        Raises:
          UserError: The file is missing or damaged, or holds the weights of neither network.
        """
        names = weights.load_safetensors(path).keys()
        sha256 = workspace.hash_file(path)
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
                lambda x: _squeezenet_features(params, x),
            )
        raise UserError(
            f"{path} is neither Inception-v3 nor LPIPS with SqueezeNet; make it with "
            "`python -m talkjax.convert_weights`"
        )

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Maps (N, H, W, 3) uint8 images, at least 32 pixels a side, to (N, D) float32."""
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
            raise ValueError(f"need (N, H, W, 3) uint8, not {images.shape} {images.dtype}")
        if min(images.shape[1:3]) < MIN_SIDE:
            raise ValueError(f"images of {images.shape[1:3]} are smaller than {MIN_SIDE} pixels")
        out = []
        for start in range(0, len(images), BATCH):
            part = images[start : start + BATCH]
            filled = np.pad(part, [(0, BATCH - len(part))] + [(0, 0)] * 3)
            floats = jnp.asarray(filled.astype(np.float32) / 127.5 - 1.0)
            out.append(np.asarray(self.apply(floats))[: len(part)])
        return np.concatenate(out) if out else np.zeros((0, self.size), np.float32)


@jax.jit
def _squeezenet_features(params: lpips.Params, images: jax.Array) -> jax.Array:
    return lpips.features(params, images)[-1].mean((1, 2))
