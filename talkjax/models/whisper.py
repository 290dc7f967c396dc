"""The speech encoder of Whisper, which published weights can fill.

This is the encoder of Radford et al. 2022 (arXiv 2212.04356, section 2.2): two convolutions over a
log-mel spectrogram, sinusoidal positions and a Transformer with the norms before its parts. The
decoder, which writes text, is left out. `talkjax.media.whisper_mel` computes the spectrogram and
`talkjax.weights.whisper_params` loads the weights.

Whisper was trained on windows of 30 s, whose rest was filled with silence. A shorter window takes
the first positions.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from talkjax.models import attention
from talkjax.models.layers import LayerNorm

HEAD_WIDTH = 64  # of every published encoder
_LONGEST_PERIOD = 10_000.0  # of the sinusoids, in frames / 2 pi
_EPSILON = 1e-5  # PyTorch's, which the weights were trained with; Flax's is 1e-6


@dataclasses.dataclass(frozen=True)
class WhisperConfig:
    """Sizes of the encoder. The defaults are those of `tiny`.

    Attributes:
      mels: Number of mel bins.
      width: Width of a token.
      layers: Number of Transformer layers.
      heads: Number of attention heads.
      max_positions: Largest number of frames in the output; the published 1500 are 30 s.
    """

    mels: int = 80
    width: int = 384
    layers: int = 4
    heads: int = 6
    max_positions: int = 1500

    @classmethod
    def named(cls, name: str) -> "WhisperConfig":
        """Returns published sizes, such as `WhisperConfig.named("small")`.

        Raises:
          ValueError: The name is not in `SIZES`.
        """
        if name not in SIZES:
            raise ValueError(f"unknown Whisper size {name!r}; use one of {', '.join(SIZES)}")
        return SIZES[name]


# Models for English alone ("tiny.en") have the same sizes, and large-v3-turbo has large-v3's
# encoder. The earlier large models have its sizes with 80 bins.
SIZES = {
    "tiny": WhisperConfig(),
    "base": WhisperConfig(width=512, layers=6, heads=8),
    "small": WhisperConfig(width=768, layers=12, heads=12),
    "medium": WhisperConfig(width=1024, layers=24, heads=16),
    "large-v3": WhisperConfig(mels=128, width=1280, layers=32, heads=20),
}


def sinusoids(length: int, width: int) -> jax.Array:
    """Returns the positions (length, width) float32: sines, then cosines, of geometric periods."""
    step = np.float32(math.log(_LONGEST_PERIOD) / (width // 2 - 1))
    exponents = -step * np.arange(width // 2, dtype=np.float32)
    # The published table was computed in float32, whose rounding shifts the phases of late
    # positions by up to 1e-4. This code rounds at the same places, so most phases are the same.
    rates = np.exp(exponents.astype(np.float64)).astype(np.float32)
    phase = jnp.arange(length, dtype=jnp.float32)[:, None] * rates[None]
    return jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], -1)


class WhisperLayer(nn.Module):
    """Self-attention and feed-forward, each with the norm before it.

    Attributes:
      heads: Number of attention heads.
      dtype: Computation type; parameters are float32.
      implementation: One of `attention.IMPLEMENTATIONS`.
    """

    heads: int
    dtype: Any = jnp.float32
    implementation: str = "xla"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps tokens (B, T, C) to tokens of the same shape."""
        width = x.shape[-1]

        def dense(name: str, features: int = width, bias: bool = True) -> nn.Dense:
            return nn.Dense(features, use_bias=bias, dtype=self.dtype, name=name)

        def norm(name: str) -> LayerNorm:
            return LayerNorm(epsilon=_EPSILON, dtype=self.dtype, name=name)

        h = norm("self_attn_layer_norm")(x)
        by_head = (*x.shape[:2], self.heads, width // self.heads)
        # A bias of the keys would shift all logits of a query alike, which a softmax ignores.
        q = dense("q_proj")(h).reshape(by_head)
        k = dense("k_proj", bias=False)(h).reshape(by_head)
        v = dense("v_proj")(h).reshape(by_head)
        h, _ = attention.attend(q * by_head[-1] ** -0.5, k, v, implementation=self.implementation)
        x = x + dense("out_proj")(h.reshape(x.shape))
        h = norm("final_layer_norm")(x)
        h = nn.gelu(dense("fc1", 4 * width)(h), approximate=False)
        return x + dense("fc2")(h)


class WhisperEncoder(nn.Module):
    """Encodes log-mel spectrograms as tokens of 20 ms.

    Attributes:
      config: Sizes.
      dtype: Computation type; parameters are float32.
      average: Whether the result is the mean of all layers' outputs instead of the last one's. The
        final norm is applied to either.
      implementation: One of `attention.IMPLEMENTATIONS`.
      remat: Whether the backward pass recomputes the activations of layers instead of storing them.
    """

    config: WhisperConfig
    dtype: Any = jnp.float32
    average: bool = False
    implementation: str = "xla"
    remat: bool = False

    @nn.compact
    def __call__(self, mel: jax.Array) -> jax.Array:
        """Encodes spectrograms.

        Args:
          mel: (B, M, mels) log-mel at 100 Hz as `talkjax.media.whisper_mel` computes it, M at most
            twice `max_positions`.

        Returns:
          (B, ceil(M / 2), width) at 50 Hz, of type `dtype`. Token t is centred at t / 50 s, as mel
          frame 2 t is.

        Raises:
          ValueError: M is too large, or the number of bins is not `mels`.
        """
        cfg, dtype = self.config, self.dtype
        if mel.shape[-1] != cfg.mels or mel.shape[1] > 2 * cfg.max_positions:
            raise ValueError(
                f"the encoder takes (B, M, {cfg.mels}) log-mel with M <= {2 * cfg.max_positions}, "
                f"got {mel.shape}"
            )

        def conv(name: str, stride: int) -> nn.Conv:
            # torch pads a strided convolution symmetrically, and padding="SAME" does not.
            return nn.Conv(cfg.width, (3,), (stride,), ((1, 1),), dtype=dtype, name=name)

        x = nn.gelu(conv("conv1", 1)(mel.astype(dtype)), approximate=False)
        x = nn.gelu(conv("conv2", 2)(x), approximate=False)
        x = x + sinusoids(x.shape[1], cfg.width).astype(dtype)[None]
        layer = nn.remat(WhisperLayer) if self.remat else WhisperLayer
        outputs = []
        for i in range(cfg.layers):
            x = layer(cfg.heads, dtype, self.implementation, name=f"layer_{i}")(x)
            outputs.append(x)
        if self.average:
            x = (sum(out.astype(jnp.float32) for out in outputs) / cfg.layers).astype(dtype)
        return LayerNorm(epsilon=_EPSILON, dtype=dtype, name="layer_norm")(x)
