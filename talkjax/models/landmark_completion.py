"""Landmark completion: predicts lip and jaw landmarks from speech and pose.

This is section 3.1 of the paper (arXiv 2408.05416). Lips and jaw follow speech almost
deterministically and head pose does not, so the pose is given and only the 57 content points are
predicted. The paper does not publish its sizes.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from talkjax.conventions import NUM_CONTENT, NUM_POSE
from talkjax.models import attention
from talkjax.models.layers import LayerNorm

# Crop units. Landmarks move by a few hundredths of the crop; the network sees them in this unit.
MOTION_UNIT = 0.03


@dataclasses.dataclass(frozen=True)
class LandmarkConfig:
    """Sizes of the landmark network.

    Attributes:
      features: Width of a token.
      layers: Number of layers of the Transformer encoder.
      heads: Number of attention heads.
      dropout: Dropout rate of the tokens and inside the encoder, in training.
      pose_points: Number of pose landmarks, which are given.
      content_points: Number of content landmarks, which are predicted.
      max_ticks: Length of the longest window; ticks have learned embeddings.
      max_references: Largest number of reference faces; they have learned embeddings, too.
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
    """Convolutions over the point axis, along which neighbours on the face are neighbours."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, points: jax.Array) -> jax.Array:
        """Embeds each of N faces: (B, N, K, d) -> (B, N, features)."""
        batch, n, k, d = points.shape
        x = points.reshape(batch * n, k, d)
        for i, channels in enumerate((32, 32)):
            x = nn.gelu(nn.Conv(channels, (3,), (2,), dtype=self.dtype, name=f"conv_{i}")(x))
        return nn.Dense(self.features, dtype=self.dtype, name="out")(x.reshape(batch, n, -1))


class AudioEncoder(nn.Module):
    """A small convolutional network over the log-mel window of each tick."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, mel: jax.Array) -> jax.Array:
        """Embeds each of T ticks: (B, T, W, bins) -> (B, T, features)."""
        batch, ticks, width, bins = mel.shape
        # Logarithms of power reach from -11.5 (silence) to 6; this brings them to about unit range.
        x = ((mel + 4.0) / 4.0).reshape(batch * ticks, width, bins).astype(self.dtype)
        for i in range(3):
            stride = 2 if i else 1
            x = nn.Conv(128, (3,), (stride,), dtype=self.dtype, name=f"conv_{i}")(x)
            x = nn.gelu(LayerNorm(dtype=self.dtype, name=f"norm_{i}")(x))
        return nn.Dense(self.features, dtype=self.dtype, name="out")(x.reshape(batch, ticks, -1))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each with the norm before it."""

    heads: int
    dropout: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps tokens (B, N, C) to tokens of the same shape."""
        batch, n, features = x.shape
        h = LayerNorm(dtype=self.dtype, name="norm1")(x)
        qkv = nn.Dense(3 * features, dtype=self.dtype, name="qkv")(h)
        # (B, N, heads, C / heads) each
        q, k, v = jnp.split(qkv.reshape(batch, n, self.heads, -1), 3, -1)
        h, _ = attention.attend(q * q.shape[-1] ** -0.5, k, v)
        h = nn.Dense(features, dtype=self.dtype, name="out")(h.reshape(batch, n, features))
        x = x + nn.Dropout(self.dropout, deterministic=not train)(h)
        h = LayerNorm(dtype=self.dtype, name="norm2")(x)
        h = nn.gelu(nn.Dense(4 * features, dtype=self.dtype, name="ff_in")(h))
        h = nn.Dense(features, dtype=self.dtype, name="ff_out")(h)
        return x + nn.Dropout(self.dropout, deterministic=not train)(h)


class LandmarkCompletion(nn.Module):
    """Predicts the content landmarks of a window.

    Attributes:
      config: Sizes.
      dtype: Computation type; parameters are float32.
    """

    config: LandmarkConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, mel: jax.Array, pose: jax.Array, references: jax.Array, train: bool = False
    ) -> jax.Array:
        """Completes the landmarks of a window.

        Args:
          mel: (B, T, 16, 80) log-mel windows around each tick of the 25 Hz clock.
          pose: (B, T, 74, 2) pose landmarks in crop coordinates.
          references: (B, R, 131, 2) landmarks of whole faces from outside the window.
          train: Whether to apply dropout, which requires the random stream `dropout`.

        Returns:
          (B, T, 57, 2) float32 content landmarks in crop coordinates. The network predicts their
          offsets from the mean content of the references.
        """
        cfg, dtype = self.config, self.dtype
        ticks, count = mel.shape[1], references.shape[1]
        # (B, 1, 131, 2)
        mean = references.mean(1, keepdims=True)
        # (B, T, 74, 2)
        pose_motion = (pose - mean[:, :, : cfg.pose_points]) / MOTION_UNIT
        shape = jnp.broadcast_to((mean - 0.5) * 4, references.shape)
        # (B, R, 131, 4)
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
        # (B, 2 T + R, C)
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
            precision=jax.lax.Precision.HIGHEST,  # the result is a coordinate
            name="offsets",
        )(x.astype(jnp.float32))
        offsets = offsets.reshape(*x.shape[:2], cfg.content_points, 2) * MOTION_UNIT
        return mean[:, :, cfg.pose_points :] + offsets
