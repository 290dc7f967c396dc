"""The KL-regularised convolutional autoencoder, in Stable Diffusion's layout.

This is the first learned part of the method (arXiv 2408.05416): it encodes images as the latents in
which the diffusion runs, and decodes them. The layout is that of diffusers' `AutoencoderKL`, so
`stabilityai/sd-vae-ft-mse` loads unchanged (`talkjax.weights.autoencoder_kl_params`). One class
downsamples by any factor f = 2 ** (len(channels) - 1). The paper does not publish its sizes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from talkjax.models import attention
from talkjax.models.layers import GroupNorm, upsample2x

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"channels": (32, 64, 128, 128), "layers": 1, "latent_channels": 4},
    "base": {"channels": (128, 256, 512, 512), "layers": 2, "latent_channels": 4},
}
# Stable Diffusion multiplies latents of its `base` weights by this factor. As a normalisation per
# channel, that is a mean of 0 and a standard deviation of 1 / SD_SCALING.
SD_SCALING = 0.18215


def size_arguments(name: str, f: int = 8) -> dict[str, Any]:
    """Returns constructor arguments of `AutoencoderKL` for a named size.

    Args:
      name: A key of `SIZES`.
      f: Downsampling factor, 4 or 8.

    Raises:
      ValueError: The name or the factor is unknown.
    """
    if name not in SIZES or f not in (4, 8):
        raise ValueError(
            f"unknown autoencoder size {name!r} with f={f}; use one of {sorted(SIZES)} and f=4 or 8"
        )
    channels = SIZES[name]["channels"][: 1 + int(math.log2(f))]
    return {**SIZES[name], "channels": channels}


def _conv3(features: int, name: str, dtype: Any) -> nn.Conv:
    return nn.Conv(features, (3, 3), padding=((1, 1), (1, 1)), dtype=dtype, name=name)


class ResnetBlock(nn.Module):
    """Twice norm, SiLU and convolution, with a skip (a 1x1 convolution if the channels change)."""

    features: int
    groups: int = 32
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to (B, H, W, features)."""
        h = nn.silu(GroupNorm(self.groups, dtype=self.dtype, name="norm1")(x))
        h = _conv3(self.features, "conv1", self.dtype)(h)
        h = nn.silu(GroupNorm(self.groups, dtype=self.dtype, name="norm2")(h))
        h = _conv3(self.features, "conv2", self.dtype)(h)
        if x.shape[-1] != self.features:
            x = nn.Conv(self.features, (1, 1), dtype=self.dtype, name="conv_shortcut")(x)
        return x + h


class AttentionBlock(nn.Module):
    """Residual self-attention over all positions, with one head."""

    groups: int = 32
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to the same shape."""
        b, h, w, c = x.shape
        tokens = GroupNorm(self.groups, dtype=self.dtype, name="group_norm")(x)
        tokens = tokens.reshape(b, h * w, c)
        # (B, H * W, 1, C), one head
        query, key, value = (
            nn.Dense(c, dtype=self.dtype, name=name)(tokens)[:, :, None]
            for name in ("to_q", "to_k", "to_v")
        )
        tokens, _ = attention.attend(query * c**-0.5, key, value)
        tokens = nn.Dense(c, dtype=self.dtype, name="to_out")(tokens[:, :, 0])
        return x + tokens.reshape(x.shape)


class _Coder(nn.Module):
    """Base class of the encoder and the decoder."""

    channels: Sequence[int]
    layers: int
    out_channels: int
    groups: int
    dtype: Any
    remat: bool

    def _resnet(self, features: int, name: str) -> nn.Module:
        block = nn.remat(ResnetBlock) if self.remat else ResnetBlock
        return block(features, self.groups, self.dtype, name=name)

    def _middle(self, x: jax.Array) -> jax.Array:
        x = self._resnet(self.channels[-1], "mid_resnet_0")(x)
        x = AttentionBlock(self.groups, self.dtype, name="mid_attention")(x)
        return self._resnet(self.channels[-1], "mid_resnet_1")(x)

    def _head(self, x: jax.Array) -> jax.Array:
        x = nn.silu(GroupNorm(self.groups, dtype=self.dtype, name="conv_norm_out")(x))
        return _conv3(self.out_channels, "conv_out", self.dtype)(x)


class Encoder(_Coder):
    """`layers` ResNet blocks per resolution, with strided convolutions between resolutions."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (B, H, W, 3) to moments (B, H/f, W/f, 2c)."""
        x = _conv3(self.channels[0], "conv_in", self.dtype)(x)
        for i, features in enumerate(self.channels):
            for j in range(self.layers):
                x = self._resnet(features, f"down_{i}_resnet_{j}")(x)
            if i < len(self.channels) - 1:
                # Stable Diffusion pads one row and one column at the end only.
                x = nn.Conv(
                    features, (3, 3), (2, 2), padding=((0, 1), (0, 1)), dtype=self.dtype,
                    name=f"down_{i}_downsample",
                )(x)  # fmt: skip
        return self._head(self._middle(x))


class Decoder(_Coder):
    """`layers` + 1 ResNet blocks per resolution, with upsampling and a convolution between."""

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        """Maps latents (B, h, w, c) to images (B, f*h, f*w, 3)."""
        x = self._middle(_conv3(self.channels[-1], "conv_in", self.dtype)(z))
        for i, features in enumerate(reversed(self.channels)):
            for j in range(self.layers + 1):
                x = self._resnet(features, f"up_{i}_resnet_{j}")(x)
            if i < len(self.channels) - 1:
                x = _conv3(features, f"up_{i}_upsample", self.dtype)(upsample2x(x))
        return self._head(x)


class AutoencoderKL(nn.Module):
    """The autoencoder, for example `AutoencoderKL(**size_arguments("tiny", f=8))`.

    Attributes:
      channels: Features at each resolution, finest first; f = 2 ** (len(channels) - 1).
      layers: Number of ResNet blocks per resolution of the encoder; the decoder has one more.
      latent_channels: Number of channels of a latent.
      groups: Number of groups of the group norms, which must divide every entry of `channels`.
      dtype: Computation type; parameters are float32.
      remat: Whether the backward pass recomputes the activations of blocks instead of storing them.
    """

    channels: Sequence[int] = (128, 256, 512, 512)
    layers: int = 2
    latent_channels: int = 4
    groups: int = 32
    dtype: Any = jnp.float32
    remat: bool = False

    @property
    def downsampling(self) -> int:
        """Downsampling factor f."""
        return 2 ** (len(self.channels) - 1)

    def setup(self) -> None:
        """Makes the encoder, the decoder and the 1x1 convolutions between them."""
        shared = (self.groups, self.dtype, self.remat)
        channels = tuple(self.channels)
        self.encoder = Encoder(channels, self.layers, 2 * self.latent_channels, *shared)
        self.decoder = Decoder(channels, self.layers, 3, *shared)
        self.quant_conv = nn.Conv(2 * self.latent_channels, (1, 1), dtype=self.dtype)
        self.post_quant_conv = nn.Conv(self.latent_channels, (1, 1), dtype=self.dtype)

    def encode(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Encodes images.

        Args:
          images: (B, H, W, 3) in [-1, 1].

        Returns:
          Mean and log-variance of the latents, each (B, H/f, W/f, c) float32.

        Raises:
          ValueError: H or W is not a multiple of f.
        """
        if images.shape[-3] % self.downsampling or images.shape[-2] % self.downsampling:
            raise ValueError(
                f"image sides must be multiples of {self.downsampling}, got {images.shape}"
            )
        moments = self.quant_conv(self.encoder(images.astype(self.dtype))).astype(jnp.float32)
        mean, logvar = jnp.split(moments, 2, axis=-1)
        return mean, jnp.clip(logvar, -30.0, 20.0)

    def decode(self, latents: jax.Array) -> jax.Array:
        """Decodes latents (B, h, w, c) to images (B, f*h, f*w, 3), not clipped to [-1, 1]."""
        z = self.post_quant_conv(latents.astype(self.dtype))
        return self.decoder(z).astype(jnp.float32)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Encodes and decodes images. Modules are initialised through this method."""
        return self.decode(self.encode(images)[0])


def sample_latent(key: jax.Array, mean: jax.Array, logvar: jax.Array) -> jax.Array:
    """Samples the posterior N(mean, exp(logvar)), which gives an array of the same shape."""
    noise = jax.random.normal(key, mean.shape, mean.dtype)
    return mean + jnp.exp(0.5 * logvar) * noise


def kl_divergence(mean: jax.Array, logvar: jax.Array) -> jax.Array:
    """Computes the KL divergence of the posterior from N(0, 1), (B,) nats per image."""
    terms = jnp.square(mean) + jnp.exp(logvar) - 1.0 - logvar
    return 0.5 * terms.sum(axis=tuple(range(1, mean.ndim)))


def layout_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the constructor arguments, except `groups`, that a parameter tree was made with."""
    encoder = params["encoder"]
    channels = []
    while (block := encoder.get(f"down_{len(channels)}_resnet_0")) is not None:
        channels.append(int(block["conv1"]["kernel"].shape[-1]))
    layers = sum(name.startswith("down_0_resnet_") for name in encoder)
    latent_channels = int(params["post_quant_conv"]["kernel"].shape[-1])
    return {"channels": tuple(channels), "layers": layers, "latent_channels": latent_channels}
