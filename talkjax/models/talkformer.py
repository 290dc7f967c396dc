"""TalkFormer: cross-attention that follows landmarks and carries appearance from a reference.

Zhong et al. (arXiv 2408.05416), section 3.2. At one resolution of the U-Net a block does
(1) talking-motion alignment: features attend to the target's landmarks; (2) reference appearance
alignment: the aligned features attend to reference features that were aligned to the reference's
landmarks in the same way, and so warp appearance implicitly; (3) feed-forward. Each is residual and
zero-initialised at its output.

`positional="kernel"` (ours, for small budgets) adds `-softplus(temperature) * distance^2` to the
attention's logits: at initialisation every head is a local kernel around each landmark (1) or
around the corresponding point of the reference (2), and learning refines it. `"dot"` is plain
dot-product attention on Fourier position features.

All keys and values depend on landmarks and reference only, not on the noisy latent, so a sampler
computes them once (`motion_context`, `reference_context`) and not in every step.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import linen as nn

from talkjax.conventions import NUM_LANDMARKS
from talkjax.models import attention, positions


@dataclasses.dataclass(frozen=True)
class TalkFormerConfig:
    """What the blocks of one U-Net share.

    Attributes:
      region: (y0, x0, y1, x1) in crop coordinates of the features' grid.
      heads: attention heads.
      landmarks: K.
      landmark_features: width of a landmark token.
      fourier_bands: octaves of the position features.
      positional: "kernel" or "dot".
      sigma: width of the correspondence's weights, crop units.
      motion_unit, reference_unit: initial widths of the kernels of the two alignments, crop units.
      motion_align, reference_align: ablations `no_motion_align`, `no_reference_align`.
      ff_factor: width of the feed-forward over the features'.
      implementation: of the reference alignment's attention, see `talkjax.models.attention`; the
        motion alignment, which has few keys and needs the weights, is always `xla`.
    """

    region: tuple[float, ...]
    heads: int = 4
    landmarks: int = NUM_LANDMARKS
    landmark_features: int = 64
    fourier_bands: int = 5
    positional: str = "kernel"
    sigma: float = 0.05
    motion_unit: float = 0.06
    reference_unit: float = 0.04
    motion_align: bool = True
    reference_align: bool = True
    ff_factor: int = 2
    implementation: str = "xla"


@flax.struct.dataclass
class Geometry:
    """Places that all blocks of one resolution share, in crop coordinates.

    Attributes:
      points: (1, N, 2) the grid.
      matched: (B, N, 2) where the facial points under the grid lie in the reference.
    """

    points: jax.Array
    matched: jax.Array


def geometry(
    config: TalkFormerConfig,
    height: int,
    width: int,
    landmarks: jax.Array,
    reference_landmarks: jax.Array,
    keep_landmarks: jax.Array,
) -> Geometry:
    """Geometry of one resolution.

    Args:
      config: shared settings.
      height, width: the grid.
      landmarks: (B, K, 2) target's, crop coordinates.
      reference_landmarks: (B, K, 2).
      keep_landmarks: (B,) bool; where False the correspondence is the identity, so that nothing of
        the dropped condition is left.
    """
    batch = landmarks.shape[0]
    grid = positions.grid_positions(height, width, config.region)[None]
    points = jnp.broadcast_to(grid, (batch, *grid.shape[1:]))
    matched = positions.corresponding_points(points, landmarks, reference_landmarks, config.sigma)
    matched = jnp.where(keep_landmarks[:, None, None], matched, points)
    return Geometry(grid, matched)


class LayerNorm(nn.Module):
    """Layer normalisation with float32 statistics; runs under strict dtype promotion in bf16."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (1,) * (x.ndim - 1) + (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        h = x.astype(jnp.float32)
        h = h - h.mean(-1, keepdims=True)
        h = h * jax.lax.rsqrt(jnp.square(h).mean(-1, keepdims=True) + 1e-6)
        return (h * scale.reshape(shape) + bias.reshape(shape)).astype(self.dtype)


class KernelAttention(nn.Module):
    """Multi-head cross-attention whose logits may carry a learned Gaussian of a distance.

    Attributes:
      heads: number of heads.
      unit: the length (crop units) that a head of temperature 1 spans; heads start at half, one
        and two units in turn.
      kernel: whether the distance term is used.
      dtype: computation type of the products; the softmax is float32.
      implementation: see `talkjax.models.attention`.
    """

    heads: int
    unit: float
    kernel: bool
    dtype: Any = jnp.float32
    implementation: str = "xla"

    @nn.compact
    def __call__(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        query_places: jax.Array,
        key_places: jax.Array,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Attends.

        Args:
          query: (B, N, C).
          key: (B or 1, M, C). value: (B or 1, M, V).
          query_places: (B or 1, N, 2) crop coordinates. key_places: (B or 1, M, 2).

        Returns:
          ((B, N, V), (B, H, N, M) weights, None from a fused implementation).
        """
        batch, n, features = query.shape
        key = jnp.broadcast_to(key, (batch, *key.shape[1:]))
        value = jnp.broadcast_to(value, (batch, *value.shape[1:]))
        head = features // self.heads
        q = query.reshape(batch, n, self.heads, head) * jnp.asarray(head**-0.5, self.dtype)
        k = key.reshape(batch, -1, self.heads, head)
        v = value.reshape(batch, k.shape[1], self.heads, -1)
        nearness = None
        if self.kernel:
            spans = jnp.asarray([0.5, 1.0, 2.0], jnp.float32)[jnp.arange(self.heads) % 3]
            initial = jnp.log(1 / (2 * jnp.square(spans * self.unit)))
            log_temperature = self.param("log_temperature", lambda _: initial)
            places = (
                jnp.broadcast_to(x, (batch, *x.shape[1:])) for x in (query_places, key_places)
            )
            nearness = attention.Nearness(*places, jnp.exp(log_temperature))
        out, weights = attention.attend(q, k, v, nearness, self.implementation)
        return out.reshape(batch, n, -1), weights


class MotionAlign(nn.Module):
    """Step 1: features attend to landmark tokens."""

    config: TalkFormerConfig
    features: int
    dtype: Any = jnp.float32

    def setup(self) -> None:
        cfg = self.config
        self.index = self.param(
            "index", nn.initializers.normal(1.0), (cfg.landmarks, cfg.landmark_features)
        )
        self.norm = LayerNorm(dtype=self.dtype)
        self.embed = nn.Dense(cfg.landmark_features, dtype=self.dtype)
        self.query = nn.Dense(self.features, dtype=self.dtype)
        self.key = nn.Dense(self.features, dtype=self.dtype)
        self.value = nn.Dense(self.features, dtype=self.dtype)
        self.attention = KernelAttention(
            cfg.heads, cfg.motion_unit, cfg.positional == "kernel", self.dtype
        )
        self.out = nn.Dense(self.features, kernel_init=nn.initializers.zeros, dtype=self.dtype)
        self.null = self.param("null", nn.initializers.zeros, (self.features,), jnp.float32)

    def context(self, landmarks: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Keys and values (B, K, C) of (B, K, 2) landmarks."""
        cfg = self.config
        spots = positions.fourier_features(landmarks, cfg.fourier_bands).astype(self.dtype)
        tokens = self.index.astype(self.dtype)[None] + self.embed(spots)
        return self.key(tokens), self.value(tokens)

    def __call__(
        self,
        x: jax.Array,
        context: tuple[jax.Array, jax.Array],
        landmarks: jax.Array,
        geometry: Geometry,
        keep: jax.Array | None,
    ) -> jax.Array:
        """(B, N, C) features to the residual (B, N, C).

        The attended landmarks' own coordinates, relative to the cell in units of the kernel, join
        the values: they tell the offset of an edge inside its cell.
        """
        cfg = self.config
        spots = positions.fourier_features(geometry.points, cfg.fourier_bands).astype(self.dtype)
        h = self.norm(x)
        spots = jnp.broadcast_to(spots, (x.shape[0], *spots.shape[1:]))
        query = self.query(jnp.concatenate([h, spots], -1))
        out, weights = self.attention(query, *context, geometry.points, landmarks)
        # (B, N, H, 2): mean place of what each head looks at, from here
        batch, heads, n, k = weights.shape
        place = jnp.matmul(weights.reshape(batch, heads * n, k), landmarks)
        place = place.reshape(batch, heads, n, 2).swapaxes(1, 2)
        offset = place - geometry.points[:, :, None]
        offset = (offset / cfg.motion_unit).reshape(*x.shape[:2], -1).astype(self.dtype)
        out = self.out(jnp.concatenate([out, offset], -1))
        return _keep_or_null(out, self.null, keep)


class ReferenceAlign(nn.Module):
    """Step 2: aligned features attend to aligned reference features (implicit warping)."""

    config: TalkFormerConfig
    features: int
    dtype: Any = jnp.float32

    def setup(self) -> None:
        cfg = self.config
        self.reference_motion = MotionAlign(cfg, self.features, dtype=self.dtype)
        self.norm = LayerNorm(dtype=self.dtype)
        self.reference_norm = LayerNorm(dtype=self.dtype)
        self.query = nn.Dense(self.features, dtype=self.dtype)
        self.key = nn.Dense(self.features, dtype=self.dtype)
        self.value = nn.Dense(self.features, dtype=self.dtype)
        self.attention = KernelAttention(
            cfg.heads, cfg.reference_unit, cfg.positional == "kernel", self.dtype,
            cfg.implementation,
        )  # fmt: skip
        self.out = nn.Dense(self.features, kernel_init=nn.initializers.zeros, dtype=self.dtype)
        self.null = self.param("null", nn.initializers.zeros, (self.features,), jnp.float32)

    def context(
        self, reference: jax.Array, landmarks: jax.Array, own: Geometry
    ) -> tuple[jax.Array, jax.Array]:
        """Keys and values (B, N, C).

        Args:
          reference: (B, N, C) reference features at this resolution.
          landmarks: (B, K, 2) the reference's landmarks.
          own: geometry of the reference with itself.
        """
        motion = self.reference_motion
        aligned = reference + motion(reference, motion.context(landmarks), landmarks, own, None)
        return self.key(self.reference_norm(aligned)), self.value(reference)

    def __call__(
        self,
        x: jax.Array,
        context: tuple[jax.Array, jax.Array],
        geometry: Geometry,
        keep: jax.Array,
    ) -> jax.Array:
        """(B, N, C) features to the residual (B, N, C)."""
        query = self.query(self.norm(x))
        out, _ = self.attention(query, *context, geometry.matched, geometry.points)
        return _keep_or_null(self.out(out), self.null, keep)


class TalkFormer(nn.Module):
    """One block: motion alignment, reference alignment, feed-forward."""

    config: TalkFormerConfig
    features: int
    dtype: Any = jnp.float32

    def setup(self) -> None:
        cfg = self.config
        if cfg.motion_align:
            self.motion = MotionAlign(cfg, self.features, dtype=self.dtype)
        if cfg.reference_align:
            self.reference = ReferenceAlign(cfg, self.features, dtype=self.dtype)
        self.ff_norm = LayerNorm(dtype=self.dtype)
        self.ff_in = nn.Dense(cfg.ff_factor * self.features, dtype=self.dtype)
        self.ff_out = nn.Dense(self.features, kernel_init=nn.initializers.zeros, dtype=self.dtype)

    def motion_context(self, landmarks: jax.Array) -> Any:
        """What step 1 needs of the target's landmarks (B, K, 2)."""
        return self.motion.context(landmarks) if self.config.motion_align else ()

    def reference_context(self, reference: jax.Array, landmarks: jax.Array, own: Geometry) -> Any:
        """What step 2 needs of the reference: features (B, h, w, C), landmarks (B, K, 2)."""
        if not self.config.reference_align:
            return ()
        batch, _, _, features = reference.shape
        return self.reference.context(reference.reshape(batch, -1, features), landmarks, own)

    def __call__(
        self,
        x: jax.Array,
        motion_context: Any,
        reference_context: Any,
        landmarks: jax.Array,
        geometry: Geometry,
        keep_landmarks: jax.Array,
        keep_reference: jax.Array,
    ) -> jax.Array:
        """(B, h, w, C) -> (B, h, w, C)."""
        shape = x.shape
        x = x.reshape(shape[0], -1, shape[-1])
        if self.config.motion_align:
            x = x + self.motion(x, motion_context, landmarks, geometry, keep_landmarks)
        if self.config.reference_align:
            x = x + self.reference(x, reference_context, geometry, keep_reference)
        x = x + self.ff_out(nn.gelu(self.ff_in(self.ff_norm(x))))
        return x.reshape(shape)


def _keep_or_null(out: jax.Array, null: jax.Array, keep: jax.Array | None) -> jax.Array:
    """Where a condition is dropped, a learned vector takes its place."""
    if keep is None:
        return out
    return jnp.where(keep[:, None, None], out, null.astype(out.dtype)[None, None])
