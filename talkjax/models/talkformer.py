"""TalkFormer: cross-attention that follows landmarks and warps the appearance of a reference.

Zhong et al. (arXiv 2408.05416), section 3.2. At one resolution of the U-Net, a block does three
things. (1) Talking-motion alignment: features attend to the target's landmarks. (2) Reference
appearance alignment: the aligned features attend to the features of the reference, which were
aligned to the reference's landmarks in the same way; this warps its appearance implicitly.
(3) A feed-forward network. Each is residual and zero-initialised at its output.

`positional="kernel"` is this project's own, for small training budgets. It adds
`-exp(log_temperature) * distance^2` to the logits of attention, so that at initialisation every
head is a local kernel around each landmark (1) or around the corresponding point of the
reference (2), which learning refines. `"dot"` is plain dot-product attention on Fourier features of
the positions.

All keys and values depend on the landmarks and the reference but not on the noisy latent. A sampler
therefore computes them once (`motion_context`, `reference_context`) and not in every step.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import linen as nn

from talkjax.conventions import NUM_LANDMARKS
from talkjax.models import attention, positions
from talkjax.models.layers import LayerNorm


@dataclasses.dataclass(frozen=True)
class TalkFormerConfig:
    """Options that all blocks of a U-Net share.

    Attributes:
      region: Part of the crop that the features cover, (y0, x0, y1, x1) in crop coordinates.
      heads: Number of attention heads.
      landmarks: Number of landmarks K.
      landmark_features: Width of a landmark token.
      fourier_bands: Number of octaves of the Fourier features of a position.
      positional: "kernel" or "dot"; see the module's description.
      sigma: Width of the Gaussian of `positions.corresponding_points`, in crop units.
      motion_unit: Initial width of the kernels of the motion alignment, in crop units.
      reference_unit: Initial width of the kernels of the reference alignment, in crop units.
      motion_align: False is the ablation `no_motion_align`.
      reference_align: False is the ablation `no_reference_align`.
      ff_factor: Width of the feed-forward network, as a multiple of the features.
      implementation: Implementation of the reference alignment's attention, one of
        `attention.IMPLEMENTATIONS`. The motion alignment, which has few keys and needs the weights,
        always uses `xla`.
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
    """Positions that all blocks of one resolution share, in crop coordinates.

    Attributes:
      points: (1, N, 2) cells of the grid.
      matched: (B, N, 2) where the facial points at the cells lie in the first reference.
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
    """Computes the geometry of one resolution.

    Args:
      config: Options of the blocks.
      height: Number of rows of the grid.
      width: Number of columns of the grid.
      landmarks: (B, K, 2) landmarks of the target, in crop coordinates.
      reference_landmarks: (B, K, 2) landmarks of the reference.
      keep_landmarks: (B,) bool. Where False, the correspondence is the identity, so that nothing of
        the dropped condition is left.
    """
    batch = landmarks.shape[0]
    grid = positions.grid_positions(height, width, config.region)[None]
    points = jnp.broadcast_to(grid, (batch, *grid.shape[1:]))
    matched = positions.corresponding_points(points, landmarks, reference_landmarks, config.sigma)
    matched = jnp.where(keep_landmarks[:, None, None], matched, points)
    return Geometry(grid, matched)


@flax.struct.dataclass
class ReferenceContext:
    """What the reference alignment attends to: the cells of all R references in a row.

    Attributes:
      key, value: (B, R * N, C).
      points: (B, R * N, 2) where the facial points at the cells lie in the first reference, in crop
        coordinates.
    """

    key: jax.Array
    value: jax.Array
    points: jax.Array


class KernelAttention(nn.Module):
    """Multi-head cross-attention with an optional Gaussian of a distance, of learned width.

    Attributes:
      heads: Number of heads.
      unit: Length in crop units. The heads' kernels start half, one and two units wide, in turn.
      kernel: Whether to use the distance.
      dtype: Computation type of the products; the softmax is float32.
      implementation: One of `attention.IMPLEMENTATIONS`.
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
        query_points: jax.Array,
        key_points: jax.Array,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Attends.

        Args:
          query: (B, N, C).
          key: (B or 1, M, C).
          value: (B or 1, M, V).
          query_points: (B or 1, N, 2) positions of the queries, in crop coordinates.
          key_points: (B or 1, M, 2) positions of the keys.

        Returns:
          The result (B, N, V) and the weights (B, H, N, M), or None in place of the weights if the
          implementation is fused.
        """
        batch, n, features = query.shape
        key = jnp.broadcast_to(key, (batch, *key.shape[1:]))
        value = jnp.broadcast_to(value, (batch, *value.shape[1:]))
        head = features // self.heads
        # (B, N or M, heads, C / heads)
        q = query.reshape(batch, n, self.heads, head) * jnp.asarray(head**-0.5, self.dtype)
        k = key.reshape(batch, -1, self.heads, head)
        v = value.reshape(batch, k.shape[1], self.heads, -1)
        bias = None
        if self.kernel:
            spans = jnp.asarray([0.5, 1.0, 2.0], jnp.float32)[jnp.arange(self.heads) % 3]
            initial = jnp.log(1 / (2 * jnp.square(spans * self.unit)))
            log_temperature = self.param("log_temperature", lambda _: initial)
            points = (
                jnp.broadcast_to(x, (batch, *x.shape[1:])) for x in (query_points, key_points)
            )
            bias = attention.DistanceBias(*points, jnp.exp(log_temperature))
        out, weights = attention.attend(q, k, v, bias, self.implementation)
        return out.reshape(batch, n, -1), weights


class MotionAlign(nn.Module):
    """Talking-motion alignment, step 1: features attend to landmark tokens."""

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
        """Computes keys and values (B, K, C) of landmarks (B, K, 2)."""
        cfg = self.config
        # (B, K, 4 * bands)
        position = positions.fourier_features(landmarks, cfg.fourier_bands).astype(self.dtype)
        tokens = self.index.astype(self.dtype)[None] + self.embed(position)
        return self.key(tokens), self.value(tokens)

    def __call__(
        self,
        x: jax.Array,
        context: tuple[jax.Array, jax.Array],
        landmarks: jax.Array,
        geometry: Geometry,
        keep: jax.Array | None,
    ) -> jax.Array:
        """Maps features (B, N, C) to their residual (B, N, C).

        The mean position of the landmarks that a head attends to, relative to the cell and in units
        of the kernel, joins the values, so that the result knows the offset of an edge in its cell.
        """
        cfg = self.config
        position = positions.fourier_features(geometry.points, cfg.fourier_bands)
        position = jnp.broadcast_to(position.astype(self.dtype), (*x.shape[:2], position.shape[-1]))
        query = self.query(jnp.concatenate([self.norm(x), position], -1))
        out, weights = self.attention(query, *context, geometry.points, landmarks)
        batch, heads, n, k = weights.shape
        # (B, H * N, 2), then (B, N, H, 2)
        mean = positions.mean_position(weights.reshape(batch, heads * n, k), landmarks)
        mean = mean.reshape(batch, heads, n, 2).swapaxes(1, 2)
        offset = (mean - geometry.points[:, :, None]) / cfg.motion_unit
        offset = offset.reshape(batch, n, 2 * heads).astype(self.dtype)
        out = self.out(jnp.concatenate([out, offset], -1))
        return _keep_or_null(out, self.null, keep)


class ReferenceAlign(nn.Module):
    """Reference appearance alignment, step 2: features attend to those of the reference."""

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
    ) -> ReferenceContext:
        """Computes keys and values of R references; the arguments are those of `TalkFormer`."""
        batch = reference.shape[0]
        flat, landmarks = (x.reshape(-1, *x.shape[2:]) for x in (reference, landmarks))
        motion = self.reference_motion
        aligned = flat + motion(flat, motion.context(landmarks), landmarks, own, None)
        key, value = self.key(self.reference_norm(aligned)), self.value(flat)
        joined = (x.reshape(batch, -1, x.shape[-1]) for x in (key, value, own.matched))
        return ReferenceContext(*joined)

    def __call__(
        self,
        x: jax.Array,
        context: ReferenceContext,
        geometry: Geometry,
        keep: jax.Array,
    ) -> jax.Array:
        """Maps features (B, N, C) to their residual (B, N, C)."""
        query = self.query(self.norm(x))
        out, _ = self.attention(query, context.key, context.value, geometry.matched, context.points)
        return _keep_or_null(self.out(out), self.null, keep)


class TalkFormer(nn.Module):
    """A block of motion alignment, reference alignment and a feed-forward network."""

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
        """Computes what the motion alignment needs of the target's landmarks (B, K, 2)."""
        return self.motion.context(landmarks) if self.config.motion_align else ()

    def reference_context(self, reference: jax.Array, landmarks: jax.Array, own: Geometry) -> Any:
        """Computes what the reference alignment needs of the references.

        Args:
          reference: (B, R, N, C) features of the references at this resolution.
          landmarks: (B, R, K, 2) landmarks of the references.
          own: Geometry of the B * R references as targets, matched with the first of them.
        """
        return (
            self.reference.context(reference, landmarks, own) if self.config.reference_align else ()
        )

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
        """Maps features (B, h, w, C) to features of the same shape."""
        shape = x.shape
        x = x.reshape(shape[0], -1, shape[-1])
        if self.config.motion_align:
            x = x + self.motion(x, motion_context, landmarks, geometry, keep_landmarks)
        if self.config.reference_align:
            x = x + self.reference(x, reference_context, geometry, keep_reference)
        x = x + self.ff_out(nn.gelu(self.ff_in(self.ff_norm(x))))
        return x.reshape(shape)


def _keep_or_null(out: jax.Array, null: jax.Array, keep: jax.Array | None) -> jax.Array:
    """Replaces results (B, N, C) by a learned vector where their condition is dropped."""
    if keep is None:
        return out
    return jnp.where(keep[:, None, None], out, null.astype(out.dtype)[None, None])
