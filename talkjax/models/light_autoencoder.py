"""A light KL-regularised autoencoder that a few CPU cores can train from scratch.

It has the interface of `talkjax.models.autoencoder` and a sixth of the arithmetic of its tiny size.
Pixels are folded 2x2 or 4x4 into channels, so nothing runs at full resolution. Residual blocks have
no norms, as in TAESD, so nothing depends on the image as a whole, and it can be trained on patches.
Smaller maps have more features. It takes the place of the autoencoder of the paper
(arXiv 2408.05416), which does not publish its sizes.

The decoder of a guided autoencoder is also shown a picture, the guide, and predicts the difference
from it. The idea is that of asymmetric autoencoders (Zhu et al., arXiv 2306.04632), whose decoders
see the masked image. Here the guide shows a first guess in the mask too
(`talkjax.networks.Networks.fill_in`), of which it carries the texture that latents have no room
for.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from talkjax.models.layers import upsample2x

# `fold` is the side in pixels of what one position of the finest map stands for.
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"fold": 2, "channels": (8, 8, 16), "blocks": (1, 1, 1), "latent_channels": 4},
    "small": {"fold": 2, "channels": (32, 64, 128), "blocks": (1, 2, 2), "latent_channels": 16},
    "medium": {"fold": 4, "channels": (48, 96, 128), "blocks": (1, 2, 2), "latent_channels": 48},
}
# Log-variance of an untrained encoder. Without norms its means begin near 0. Under noise of
# variance 1 they would carry no information, and training would stay there (posterior collapse).
START_LOGVAR = -6.0


def size_arguments(name: str, f: int = 8) -> dict[str, Any]:
    """Returns constructor arguments of `LightAutoencoder` for a named size.

    Args:
      name: A key of `SIZES`.
      f: Downsampling factor: 4 or 8, for "medium" 8 or 16.

    Raises:
      ValueError: The name is unknown, or the size does not have the factor.
    """
    sizes = SIZES.get(name)
    factors = [sizes["fold"] * 2, sizes["fold"] * 4] if sizes else []
    if f not in factors:
        raise ValueError(
            f"unknown light autoencoder size {name!r} with f={f}; use one of {sorted(SIZES)} and "
            "f=4 or 8 (medium: 8 or 16)"
        )
    levels = factors.index(f) + 2
    return {**sizes, **{k: sizes[k][:levels] for k in ("channels", "blocks")}}


def fold(x: jax.Array, side: int = 2) -> jax.Array:
    """Moves space to depth: (B, H, W, C) -> (B, H / side, W / side, side^2 C)."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // side, side, w // side, side, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h // side, w // side, side * side * c)


def unfold(x: jax.Array, side: int = 2) -> jax.Array:
    """Moves depth to space, the inverse of `fold`: (B, h, w, side^2 C) -> (B, ..., C)."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, side, side, c // side**2).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h * side, w * side, c // side**2)


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

    fold: int
    channels: Sequence[int]
    blocks: Sequence[int]
    out_channels: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (B, H, W, 3) to (B, H/f, W/f, out_channels)."""
        x = fold(x, self.fold)
        for level, features in enumerate(self.channels):
            x = _conv(features, f"conv_{level}", self.dtype, stride=2 if level else 1)(x)
            for i in range(self.blocks[level]):
                x = Block(self.dtype, name=f"block_{level}_{i}")(x)
        return _conv(self.out_channels, "conv_out", self.dtype)(nn.relu(x))


class Decoder(nn.Module):
    """The encoder in reverse, with one more block at the finest resolution."""

    fold: int
    channels: Sequence[int]
    blocks: Sequence[int]
    dtype: Any

    @nn.compact
    def __call__(self, z: jax.Array, guide: jax.Array | None = None) -> jax.Array:
        """Maps latents (B, h, w, c), and guides (B, f*h, f*w, 3), to images of that size."""
        x = z
        for level in reversed(range(len(self.channels))):
            if level < len(self.channels) - 1:
                x = upsample2x(x)
            x = _conv(self.channels[level], f"conv_{level}", self.dtype)(x)
            if level == 0 and guide is not None:
                x += _conv(self.channels[0], "conv_guide", self.dtype)(fold(guide, self.fold))
            for i in range(self.blocks[level] + (level == 0)):
                x = Block(self.dtype, name=f"block_{level}_{i}")(x)
        x = unfold(_conv(3 * self.fold**2, "conv_out", self.dtype)(nn.relu(x)), self.fold)
        return x if guide is None else x + guide


class LightAutoencoder(nn.Module):
    """The light autoencoder, for example `LightAutoencoder(**size_arguments("small", f=8))`.

    Attributes:
      fold: Side of the squares of pixels that become channels.
      channels: Features at 1 / fold of the resolution, at half of that, and so on.
      blocks: Number of residual blocks at each resolution.
      latent_channels: Number of channels of a latent.
      guided: Whether the decoder is shown a guide.
      dtype: Computation type; parameters are float32.
    """

    fold: int = 2
    channels: Sequence[int] = (32, 64, 128)
    blocks: Sequence[int] = (1, 2, 2)
    latent_channels: int = 16
    guided: bool = False
    dtype: Any = jnp.float32

    @property
    def downsampling(self) -> int:
        """Downsampling factor f."""
        return self.fold * 2 ** (len(self.channels) - 1)

    def setup(self) -> None:
        """Makes the encoder and the decoder."""
        channels, blocks = tuple(self.channels), tuple(self.blocks)
        self.encoder = Encoder(self.fold, channels, blocks, 2 * self.latent_channels, self.dtype)
        self.decoder = Decoder(self.fold, channels, blocks, self.dtype)

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

    def decode(self, latents: jax.Array, guide: jax.Array | None = None) -> jax.Array:
        """Decodes latents.

        Args:
          latents: (B, h, w, c).
          guide: (B, f*h, f*w, 3) picture that a guided decoder sees, in [-1, 1]; None is grey. An
            autoencoder that is not guided ignores it.

        Returns:
          Images (B, f*h, f*w, 3), not clipped to [-1, 1].
        """
        if not self.guided:
            guide = None
        elif guide is None:
            batch, h, w, _ = latents.shape
            guide = jnp.zeros((batch, h * self.downsampling, w * self.downsampling, 3))
        latents, guide = (None if x is None else x.astype(self.dtype) for x in (latents, guide))
        return self.decoder(latents, guide).astype(jnp.float32)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Encodes and decodes images. Modules are initialised through this method."""
        return self.decode(self.encode(images)[0])
