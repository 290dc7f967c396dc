"""A light KL-regularised autoencoder that a few CPU cores can train from scratch.

It has the interface of `talkjax.models.autoencoder` and a sixth of the arithmetic of its tiny size.
Pixels are folded 2x2 into channels, so nothing runs at full resolution. Residual blocks have no
norms, as in TAESD, so nothing depends on the image as a whole, and it can be trained on patches.
Smaller maps have more features. It takes the place of the autoencoder of the paper
(arXiv 2408.05416), which does not publish its sizes.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from talkjax.models.layers import upsample2x

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"channels": (8, 8, 16), "blocks": (1, 1, 1), "latent_channels": 4},
    "small": {"channels": (32, 64, 128), "blocks": (1, 2, 2), "latent_channels": 16},
}
FOLD = 2  # side in pixels of what one position of the finest map stands for
# Log-variance of an untrained encoder. Without norms its means begin near 0. Under noise of
# variance 1 they would carry no information, and training would stay there (posterior collapse).
START_LOGVAR = -6.0


def size_arguments(name: str, f: int = 8) -> dict[str, Any]:
    """Returns constructor arguments of `LightAutoencoder` for a named size.

    Args:
      name: A key of `SIZES`.
      f: Downsampling factor, 4 or 8.

    Raises:
      ValueError: The name or the factor is unknown.
    """
    if name not in SIZES or f not in (4, 8):
        raise ValueError(
            f"unknown light autoencoder size {name!r} with f={f}; "
            f"use one of {sorted(SIZES)} and f=4 or 8"
        )
    levels = int(math.log2(f // FOLD)) + 1
    channels, blocks = SIZES[name]["channels"][:levels], SIZES[name]["blocks"][:levels]
    return {**SIZES[name], "channels": channels, "blocks": blocks}


def fold(x: jax.Array) -> jax.Array:
    """Moves space to depth: (B, H, W, C) -> (B, H/2, W/2, 4C)."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // FOLD, FOLD, w // FOLD, FOLD, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h // FOLD, w // FOLD, FOLD * FOLD * c)


def unfold(x: jax.Array) -> jax.Array:
    """Moves depth to space, the inverse of `fold`: (B, h, w, 4C) -> (B, 2h, 2w, C)."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, FOLD, FOLD, c // FOLD**2).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h * FOLD, w * FOLD, c // FOLD**2)


def _conv(features: int, name: str, dtype: Any, stride: int = 1) -> nn.Conv:
    pad = ((1, 1), (1, 1))
    return nn.Conv(features, (3, 3), (stride, stride), padding=pad, dtype=dtype, name=name)


class Block(nn.Module):
    """Two 3x3 convolutions with a skip."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to the same shape."""
        h = nn.relu(_conv(x.shape[-1], "conv1", self.dtype)(nn.relu(x)))
        # The initial scale is small, because without norms it would grow with the number of blocks.
        init = nn.initializers.variance_scaling(0.1, "fan_in", "truncated_normal")
        h = nn.Conv(x.shape[-1], (3, 3), dtype=self.dtype, kernel_init=init, name="conv2")(h)
        return x + h


class Encoder(nn.Module):
    """Blocks at every resolution with strided convolutions between."""

    channels: Sequence[int]
    blocks: Sequence[int]
    out_channels: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (B, H, W, 3) to (B, H/f, W/f, out_channels)."""
        x = fold(x)
        for level, features in enumerate(self.channels):
            x = _conv(features, f"conv_{level}", self.dtype, stride=2 if level else 1)(x)
            for i in range(self.blocks[level]):
                x = Block(self.dtype, name=f"block_{level}_{i}")(x)
        return _conv(self.out_channels, "conv_out", self.dtype)(nn.relu(x))


class Decoder(nn.Module):
    """The encoder in reverse, with one more block at the finest resolution."""

    channels: Sequence[int]
    blocks: Sequence[int]
    dtype: Any

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        """Maps latents (B, h, w, c) to images (B, f*h, f*w, 3)."""
        x = z
        for level in reversed(range(len(self.channels))):
            if level < len(self.channels) - 1:
                x = upsample2x(x)
            x = _conv(self.channels[level], f"conv_{level}", self.dtype)(x)
            for i in range(self.blocks[level] + (level == 0)):
                x = Block(self.dtype, name=f"block_{level}_{i}")(x)
        return unfold(_conv(3 * FOLD**2, "conv_out", self.dtype)(nn.relu(x)))


class LightAutoencoder(nn.Module):
    """The light autoencoder, for example `LightAutoencoder(**size_arguments("small", f=8))`.

    Attributes:
      channels: Features at a half of the resolution, a quarter, ...; f = 2 ** len(channels).
      blocks: Number of residual blocks at each resolution.
      latent_channels: Number of channels of a latent.
      dtype: Computation type; parameters are float32.
    """

    channels: Sequence[int] = (32, 64, 128)
    blocks: Sequence[int] = (1, 2, 2)
    latent_channels: int = 16
    dtype: Any = jnp.float32

    @property
    def downsampling(self) -> int:
        """Downsampling factor f."""
        return FOLD * 2 ** (len(self.channels) - 1)

    def setup(self) -> None:
        """Makes the encoder and the decoder."""
        channels, blocks = tuple(self.channels), tuple(self.blocks)
        self.encoder = Encoder(channels, blocks, 2 * self.latent_channels, self.dtype)
        self.decoder = Decoder(channels, blocks, self.dtype)

    def encode(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Encodes images.

        Args:
          images: (B, H, W, 3) in [-1, 1].

        Returns:
          Mean and log-variance of the latents, each (B, H/f, W/f, c) float32.

        Raises:
          ValueError: H or W is not a multiple of f.
        """
        f = self.downsampling
        if images.shape[-3] % f or images.shape[-2] % f:
            raise ValueError(f"image sides must be multiples of {f}, got {images.shape}")
        moments = self.encoder(images.astype(self.dtype)).astype(jnp.float32)
        mean, logvar = jnp.split(moments, 2, axis=-1)
        return mean, jnp.clip(logvar + START_LOGVAR, -30.0, 20.0)

    def decode(self, latents: jax.Array) -> jax.Array:
        """Decodes latents (B, h, w, c) to images (B, f*h, f*w, 3), not clipped to [-1, 1]."""
        return self.decoder(latents.astype(self.dtype)).astype(jnp.float32)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Encodes and decodes images. Modules are initialised through this method."""
        return self.decode(self.encode(images)[0])
