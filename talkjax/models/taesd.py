"""TAESD: a tiny deterministic autoencoder with f=8 and the KL autoencoder's interface.

This is the architecture of madebyollin/taesd (MIT). Three published layouts differ only in the
number of latent channels and in an extra branch of the blocks at the lowest resolution:

    taesd   4 channels (Stable Diffusion)
    taef1  16 channels (FLUX.1)
    taef2  32 channels and `pool` branches (FLUX.2)

TAESD itself works on images in [0, 1]; the interface of this module is talkjax's [-1, 1]. It is not
part of the paper (arXiv 2408.05416), whose autoencoder is `talkjax.models.autoencoder`.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from talkjax.models.layers import GroupNorm, upsample2x

LAYOUTS: dict[str, dict[str, Any]] = {
    "taesd": {"latent_channels": 4, "pool": False},
    "taef1": {"latent_channels": 16, "pool": False},
    "taef2": {"latent_channels": 32, "pool": True},
}
# Modules are named after their position in the published torch `Sequential` (`layer_7`), so that
# weights map by a rule and errors can name a key as it stands in the file.
_ENCODER_STAGES = (2, 6, 10)  # positions of strided convolutions, each followed by three blocks
_DECODER_STAGES = (3, 8, 13)  # positions of three blocks, followed by upsampling and a convolution


def _conv(
    features: int, name: str, dtype: Any, kernel: int = 3, stride: int = 1, bias: bool = True
):
    # torch pads a strided convolution symmetrically, and padding="SAME" does not.
    pad = kernel // 2
    return nn.Conv(
        features, (kernel, kernel), (stride, stride), padding=((pad, pad), (pad, pad)),
        use_bias=bias, dtype=dtype, name=name,
    )  # fmt: skip


class Block(nn.Module):
    """Three 3x3 convolutions with a skip; `pool` adds a normalised 1x1 branch before them."""

    features: int
    pool: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, features) to the same shape."""
        if self.pool:
            h = _conv(4 * self.features, "pool_0", self.dtype, kernel=1, bias=False)(x)
            h = GroupNorm(4, epsilon=1e-5, dtype=self.dtype, name="pool_1")(h)
            x = x + _conv(self.features, "pool_3", self.dtype, kernel=1, bias=False)(nn.relu(h))
        h = nn.relu(_conv(self.features, "conv_0", self.dtype)(x))
        h = nn.relu(_conv(self.features, "conv_2", self.dtype)(h))
        return nn.relu(_conv(self.features, "conv_4", self.dtype)(h) + x)


class Encoder(nn.Module):
    """One block, then three times a strided convolution and three blocks."""

    latent_channels: int
    width: int
    pool: bool
    dtype: Any
    remat: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (B, H, W, 3) in [0, 1] to (B, H/8, W/8, latent_channels)."""
        block = nn.remat(Block) if self.remat else Block
        x = _conv(self.width, "layer_0", self.dtype)(x)
        x = block(self.width, dtype=self.dtype, name="layer_1")(x)
        for start in _ENCODER_STAGES:
            x = _conv(self.width, f"layer_{start}", self.dtype, stride=2, bias=False)(x)
            pool = self.pool and start == _ENCODER_STAGES[-1]
            for i in range(start + 1, start + 4):
                x = block(self.width, pool, self.dtype, name=f"layer_{i}")(x)
        return _conv(self.latent_channels, "layer_14", self.dtype)(x)


class Decoder(nn.Module):
    """Three times three blocks, upsampling and a convolution, then one block."""

    width: int
    pool: bool
    dtype: Any
    remat: bool

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        """Maps latents (B, h, w, latent_channels) to (B, 8h, 8w, 3), nominally in [0, 1]."""
        block = nn.remat(Block) if self.remat else Block
        x = jnp.tanh(z / 3.0) * 3.0
        x = nn.relu(_conv(self.width, "layer_1", self.dtype)(x))
        for start in _DECODER_STAGES:
            pool = self.pool and start == _DECODER_STAGES[0]
            for i in range(start, start + 3):
                x = block(self.width, pool, self.dtype, name=f"layer_{i}")(x)
            x = _conv(self.width, f"layer_{start + 4}", self.dtype, bias=False)(upsample2x(x))
        x = block(self.width, dtype=self.dtype, name="layer_18")(x)
        return _conv(3, "layer_19", self.dtype)(x)


class TAESD(nn.Module):
    """The tiny autoencoder: `TAESD(**LAYOUTS["taef2"])` or `TAESD(**layout_of(params))`.

    Attributes:
      latent_channels: Number of channels of a latent.
      pool: Whether the blocks at the lowest resolution have the `pool` branch.
      width: Number of channels of every hidden layer, 64 in all published weights.
      dtype: Computation type; parameters are float32.
      remat: Whether the backward pass recomputes the activations of blocks instead of storing them.
    """

    latent_channels: int = 4
    pool: bool = False
    width: int = 64
    dtype: Any = jnp.float32
    remat: bool = False

    downsampling = 8

    def setup(self) -> None:
        """Makes the encoder and the decoder."""
        self.encoder = Encoder(self.latent_channels, self.width, self.pool, self.dtype, self.remat)
        self.decoder = Decoder(self.width, self.pool, self.dtype, self.remat)

    def encode(self, images: jax.Array) -> jax.Array:
        """Encodes images (B, H, W, 3) in [-1, 1] as latents (B, H/8, W/8, c) float32.

        Raises:
          ValueError: H or W is not a multiple of 8.
        """
        if images.shape[-3] % 8 or images.shape[-2] % 8:
            raise ValueError(f"image sides must be multiples of 8, got {images.shape}")
        x = (images.astype(self.dtype) + 1.0) * 0.5
        return self.encoder(x).astype(jnp.float32)

    def decode(self, latents: jax.Array) -> jax.Array:
        """Decodes latents (B, h, w, c) to images (B, 8h, 8w, 3), not clipped to [-1, 1]."""
        x = self.decoder(latents.astype(self.dtype))
        return x.astype(jnp.float32) * 2.0 - 1.0

    def __call__(self, images: jax.Array) -> jax.Array:
        """Encodes and decodes images. Modules are initialised through this method."""
        return self.decode(self.encode(images))


def layout_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the constructor arguments that a parameter tree was made with."""
    encoder = params["encoder"]
    width, latent_channels = encoder["layer_14"]["kernel"].shape[-2:]
    return {
        "latent_channels": int(latent_channels),
        "pool": "pool_0" in encoder["layer_11"],
        "width": int(width),
    }
