"""Landmark completion: predicts lip and jaw landmarks from speech and pose.

This is section 3.1 of the paper (arXiv 2408.05416). Lips and jaw follow speech almost
deterministically and head pose does not, so the pose is given and only the 57 content points are
predicted. The paper does not publish its sizes.

Two things are not in the paper. Every reference face may come with the sound that was heard at its
time, from which the network learns how this person speaks: what the mouth does is in the sound, how
far it opens is not. And the network hears the sound on both sides of its window. It hears through
a small network of its own or through a pretrained one (`talkjax.models.speech_features`).
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from talkjax.conventions import MEL_WINDOW, NUM_CONTENT, NUM_LANDMARKS, NUM_MELS, NUM_POSE
from talkjax.models import attention
from talkjax.models.layers import LayerNorm

# Crop units. Landmarks move by a few hundredths of the crop; the network sees them in this unit.
MOTION_UNIT = 0.03
AUDIO = ("mel", "whisper")


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
      past, future: Ticks of sound that are heard before and after the window.
      look_ahead: Ticks of later sound and pose that a prediction may depend on, for streaming; -1
        lets it depend on the whole window and its future. A tick's own mel window reaches two ticks
        further.
      reference_sound: Whether reference faces come with their sound. Without it they have learned
        embeddings by their order.
      max_ticks: Length of the longest window with its past and future; ticks have learned
        embeddings.
      max_references: Largest number of reference faces without `reference_sound`.
      audio: What sound arrives as: "mel", log-mel windows; or "whisper", features of a Whisper
        encoder, which hears the whole window, so that `look_ahead` must be -1.
    """

    features: int = 160
    layers: int = 4
    heads: int = 4
    dropout: float = 0.1
    pose_points: int = NUM_POSE
    content_points: int = NUM_CONTENT
    past: int = 8
    future: int = 8
    look_ahead: int = -1
    reference_sound: bool = True
    max_ticks: int = 64
    max_references: int = 8
    audio: str = "mel"

    def __post_init__(self) -> None:
        if self.audio not in AUDIO:
            raise ValueError(
                f"unknown landmark.audio={self.audio!r}; use one of {', '.join(AUDIO)}"
            )
        if self.audio == "whisper" and self.look_ahead >= 0:
            raise ValueError(
                "landmark.audio='whisper' hears the whole window; it needs landmark.look_ahead=-1"
            )
        if min(self.past, self.future) < 0 or self.look_ahead < -1:
            raise ValueError(
                f"landmark.past={self.past} and landmark.future={self.future} must be at least 0, "
                f"landmark.look_ahead={self.look_ahead} at least -1"
            )


class References(NamedTuple):
    """Faces of one person from outside of the window, with or without what was heard.

    Arrays of NumPy or JAX. The batch axis may be missing, see `single`.

    Attributes:
      landmarks: (B, R, 131, 2) landmarks in crop coordinates.
      mel: (B, R, 16, 80) log-mel windows around the times of the faces, or (B, R, width) features
        of them.
      heard: (B, R) bool, False where the sound is unknown or not this person's.
    """

    landmarks: Any
    mel: Any
    heard: Any

    @classmethod
    def single(
        cls, landmarks: np.ndarray, mel: np.ndarray | None = None, heard: np.ndarray | bool = True
    ) -> "References":
        """Makes the references of one sample, without a batch axis.

        Args:
          landmarks: (R, 131, 2).
          mel: (R, 16, 80), or None if nothing was heard.
          heard: (R,) bool or one value for all.
        """
        count = len(landmarks)
        if mel is None:
            mel, heard = np.zeros((count, MEL_WINDOW, NUM_MELS), np.float32), False
        return cls(landmarks, mel, np.broadcast_to(np.asarray(heard, bool), (count,)))

    @classmethod
    def example(cls, count: int = 1) -> "References":
        """Makes a batch of one sample that has the right shapes, to initialise a network."""
        one = cls.single(np.zeros((count, NUM_LANDMARKS, 2), np.float32))
        return cls(*(x[None] for x in one))


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


class FeatureEncoder(nn.Module):
    """Brings features of a pretrained speech encoder to the width of the landmark network."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, sound: jax.Array) -> jax.Array:
        """Embeds each of T ticks: (B, T, width) -> (B, T, features)."""
        x = LayerNorm(dtype=self.dtype, name="norm")(sound.astype(self.dtype))
        return nn.Dense(self.features, dtype=self.dtype, name="out")(x)


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each with the norm before it."""

    heads: int
    dropout: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: np.ndarray | None = None) -> jax.Array:
        """Maps tokens (B, N, C) to tokens of the same shape; `mask` is that of `attend`."""
        batch, n, features = x.shape
        h = LayerNorm(dtype=self.dtype, name="norm1")(x)
        qkv = nn.Dense(3 * features, dtype=self.dtype, name="qkv")(h)
        # (B, N, heads, C / heads) each
        q, k, v = jnp.split(qkv.reshape(batch, n, self.heads, -1), 3, -1)
        h, _ = attention.attend(q * q.shape[-1] ** -0.5, k, v, mask=mask)
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
        self, sound: jax.Array, pose: jax.Array, references: References, train: bool = False
    ) -> jax.Array:
        """Completes the landmarks of a window.

        Args:
          sound: (B, past + T + future, 16, 80) log-mel windows around each tick of the 25 Hz clock;
            with `config.audio` "whisper", (B, past + T + future, width) features.
          pose: (B, T, 74, 2) pose landmarks in crop coordinates.
          references: R faces from outside the window, with windows or features alike.
          train: Whether to apply dropout, which requires the random stream `dropout`.

        Returns:
          (B, T, 57, 2) float32 content landmarks in crop coordinates. The network predicts their
          offsets from the mean content of the references.

        Raises:
          ValueError: `sound` and `pose` have lengths that do not fit each other.
        """
        cfg, dtype = self.config, self.dtype
        faces = references.landmarks
        heard, ticks, count = sound.shape[1], pose.shape[1], faces.shape[1]
        if heard != cfg.past + ticks + cfg.future:
            raise ValueError(
                f"{heard} mel windows do not fit {ticks} poses with past={cfg.past} and "
                f"future={cfg.future}"
            )
        # (B, 1, 131, 2)
        mean = faces.mean(1, keepdims=True)
        # (B, T, 74, 2)
        pose_motion = (pose - mean[:, :, : cfg.pose_points]) / MOTION_UNIT
        shape = jnp.broadcast_to((mean - 0.5) * 4, faces.shape)
        # (B, R, 131, 4)
        reference_motion = jnp.concatenate([(faces - mean) / MOTION_UNIT, shape], -1)

        encoder = AudioEncoder if cfg.audio == "mel" else FeatureEncoder
        encode_audio = encoder(cfg.features, dtype=dtype, name="audio")
        audio = encode_audio(sound)
        poses = PointEncoder(cfg.features, dtype=dtype, name="pose")(pose_motion.astype(dtype))
        refs = PointEncoder(cfg.features, dtype=dtype, name="reference")(
            reference_motion.astype(dtype)
        )

        small = nn.initializers.normal(0.02)
        time = self.param("position", small, (cfg.max_ticks, cfg.features)).astype(dtype)[None]
        modality = self.param("modality", small, (3, cfg.features)).astype(dtype)[:, None, None]
        if cfg.reference_sound:
            unheard = self.param("unheard", small, (cfg.features,)).astype(dtype)
            speech = encode_audio(references.mel)
            refs = refs + jnp.where(references.heard[..., None], speech, unheard)
        else:
            order = self.param("order", small, (cfg.max_references, cfg.features)).astype(dtype)
            refs = refs + order[None, :count]
        # (B, past + T + future + T + R, C)
        tokens = jnp.concatenate(
            [
                audio + time[:, :heard] + modality[0],
                poses + time[:, cfg.past : cfg.past + ticks] + modality[1],
                refs + modality[2],
            ],
            axis=1,
        )
        x = nn.Dropout(cfg.dropout, deterministic=not train)(tokens)
        for layer in range(cfg.layers):
            mask = _streaming_mask(cfg, ticks, count, first=layer == 0)
            x = EncoderLayer(cfg.heads, cfg.dropout, dtype=dtype, name=f"layer_{layer}")(
                x, train, mask
            )
        x = LayerNorm(dtype=dtype, name="norm")(x)
        own = x[:, cfg.past : cfg.past + ticks]
        x = jnp.concatenate([own, x[:, heard : heard + ticks]], -1)
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


def _streaming_mask(
    config: LandmarkConfig, ticks: int, references: int, first: bool
) -> np.ndarray | None:
    """Returns which token may attend to which, (N, N) bool; None if all may attend to all.

    Later layers are causal, or the look-ahead of all layers would add up. Reference tokens see one
    another alone: what they gather is seen by every tick.
    """
    if config.look_ahead < 0:
        return None
    sound = np.arange(-config.past, ticks + config.future)
    time = np.concatenate([sound, np.arange(ticks), np.full(references, -(10**6))])
    return time[None] <= time[:, None] + (config.look_ahead if first else 0)
