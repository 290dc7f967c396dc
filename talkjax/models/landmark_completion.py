"""Landmark completion: speech and pose to lip and jaw landmarks (arXiv 2408.05416, section 3.1).

Head pose follows speech hardly, lips and jaw almost deterministically, so pose is given and only
the 57 content points are predicted. The paper's sizes are not published.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from talkjax.conventions import NUM_CONTENT, NUM_POSE
from talkjax.models.talkformer import LayerNorm

# Landmarks move by a few hundredths of the crop; the network sees them in units of this.
MOTION_UNIT = 0.03


@dataclasses.dataclass(frozen=True)
class LandmarkConfig:
    """Sizes of the landmark network.

    Attributes:
      features: width of a token.
      layers, heads: of the Transformer encoder.
      dropout: on tokens and inside the encoder, in training.
      pose_points, content_points: 74 and 57.
      max_ticks, max_references: longest window and most references (learned embeddings).
    """

    features: int = 160
    layers: int = 4
    heads: int = 4
    dropout: float = 0.1
    pose_points: int = NUM_POSE
    content_points: int = NUM_CONTENT
    max_ticks: int = 64
    max_references: int = 8


class PointEncoder(nn.Module):
    """Convolutions over the point axis (neighbours on the face are neighbours in the list)."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, points: jax.Array) -> jax.Array:
        """(B, N, K, d) -> (B, N, features)."""
        batch, n, k, d = points.shape
        x = points.reshape(batch * n, k, d)
        for i, channels in enumerate((32, 32)):
            x = nn.gelu(nn.Conv(channels, (3,), (2,), dtype=self.dtype, name=f"conv_{i}")(x))
        return nn.Dense(self.features, dtype=self.dtype, name="out")(x.reshape(batch, n, -1))


class AudioEncoder(nn.Module):
    """A small convolutional network over each tick's log-mel window."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, mel: jax.Array) -> jax.Array:
        """(B, T, W, bins) -> (B, T, features)."""
        batch, ticks, width, bins = mel.shape
        # About unit range: natural logarithms of power from -11.5 (silence) to 6.
        x = ((mel + 4.0) / 4.0).reshape(batch * ticks, width, bins).astype(self.dtype)
        for i in range(3):
            stride = 2 if i else 1
            x = nn.Conv(128, (3,), (stride,), dtype=self.dtype, name=f"conv_{i}")(x)
            x = nn.gelu(LayerNorm(dtype=self.dtype, name=f"norm_{i}")(x))
        return nn.Dense(self.features, dtype=self.dtype, name="out")(x.reshape(batch, ticks, -1))


class EncoderLayer(nn.Module):
    """Pre-norm self-attention and feed-forward."""

    heads: int
    dropout: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        batch, n, features = x.shape
        h = LayerNorm(dtype=self.dtype, name="norm1")(x)
        qkv = nn.Dense(3 * features, dtype=self.dtype, name="qkv")(h)
        q, k, v = jnp.split(qkv.reshape(batch, n, self.heads, -1), 3, -1)
        # jax.nn.dot_product_attention does not run in bfloat16 under strict promotion.
        logits = jnp.einsum("bnhd,bmhd->bhnm", q, k).astype(jnp.float32)
        weights = jax.nn.softmax(logits * q.shape[-1] ** -0.5, axis=-1).astype(self.dtype)
        h = jnp.einsum("bhnm,bmhd->bnhd", weights, v).reshape(batch, n, features)
        h = nn.Dense(features, dtype=self.dtype, name="out")(h)
        x = x + nn.Dropout(self.dropout, deterministic=not train)(h)
        h = LayerNorm(dtype=self.dtype, name="norm2")(x)
        h = nn.gelu(nn.Dense(4 * features, dtype=self.dtype, name="ff_in")(h))
        h = nn.Dense(features, dtype=self.dtype, name="ff_out")(h)
        return x + nn.Dropout(self.dropout, deterministic=not train)(h)


class LandmarkCompletion(nn.Module):
    """Predicts the content landmarks of a window."""

    config: LandmarkConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, mel: jax.Array, pose: jax.Array, references: jax.Array, train: bool = False
    ) -> jax.Array:
        """Completes landmarks.

        Args:
          mel: (B, T, 16, 80) log-mel windows around each tick of the 25 Hz clock.
          pose: (B, T, 74, 2) pose landmarks, crop coordinates.
          references: (B, R, 131, 2) whole faces from outside the window.
          train: whether dropout is on (needs the `dropout` stream).

        Returns:
          (B, T, 57, 2) float32 content landmarks, crop coordinates: offsets from the references'
          mean content.
        """
        cfg, dtype = self.config, self.dtype
        ticks, count = mel.shape[1], references.shape[1]
        mean = references.mean(1, keepdims=True)
        # (B, T, 74, 2), (B, R, 131, 4)
        pose_motion = (pose - mean[:, :, : cfg.pose_points]) / MOTION_UNIT
        shape = jnp.broadcast_to((mean - 0.5) * 4, references.shape)
        reference_motion = jnp.concatenate([(references - mean) / MOTION_UNIT, shape], -1)

        audio = AudioEncoder(cfg.features, dtype=dtype, name="audio")(mel)
        poses = PointEncoder(cfg.features, dtype=dtype, name="pose")(pose_motion.astype(dtype))
        refs = PointEncoder(cfg.features, dtype=dtype, name="reference")(
            reference_motion.astype(dtype)
        )

        small = nn.initializers.normal(0.02)
        time = self.param("position", small, (cfg.max_ticks, cfg.features)).astype(dtype)[None]
        order = self.param("order", small, (cfg.max_references, cfg.features)).astype(dtype)[None]
        modality = self.param("modality", small, (3, cfg.features)).astype(dtype)[:, None, None]
        tokens = jnp.concatenate(
            [
                audio + time[:, :ticks] + modality[0],
                poses + time[:, :ticks] + modality[1],
                refs + order[:, :count] + modality[2],
            ],
            axis=1,
        )
        x = nn.Dropout(cfg.dropout, deterministic=not train)(tokens)
        for layer in range(cfg.layers):
            x = EncoderLayer(cfg.heads, cfg.dropout, dtype=dtype, name=f"layer_{layer}")(x, train)
        x = LayerNorm(dtype=dtype, name="norm")(x)
        x = jnp.concatenate([x[:, :ticks], x[:, ticks : 2 * ticks]], -1)
        x = nn.gelu(nn.Dense(cfg.features, dtype=dtype, name="head")(x))
        offsets = nn.Dense(
            2 * cfg.content_points,
            kernel_init=nn.initializers.normal(0.01),
            dtype=jnp.float32,
            name="offsets",
        )(x.astype(jnp.float32))
        offsets = offsets.reshape(*x.shape[:2], cfg.content_points, 2) * MOTION_UNIT
        return mean[:, :, cfg.pose_points :] + offsets
