"""Multi-scale features of the reference image (arXiv 2408.05416, section 3.2)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from talkjax.models.autoencoder import ResnetBlock


class ReferenceEncoder(nn.Module):
    """Encodes the reference as one map of features per resolution of the U-Net.

    Attributes:
      channels: Features at each resolution, finest first, as in the U-Net.
      blocks: Number of ResNet blocks per resolution.
      groups: Number of groups of the group normalisations.
      dtype: Computation type; parameters are float32.
    """

    channels: tuple[int, ...]
    blocks: int = 1
    groups: int = 16
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, latent: jax.Array) -> list[jax.Array]:
        """Maps a normalised latent (B, h, w, c) to [(B, h / 2^s, w / 2^s, channels[s])]."""
        x = nn.Conv(self.channels[0], (3, 3), dtype=self.dtype, name="conv_in")(
            latent.astype(self.dtype)
        )
        features = []
        for level, channels in enumerate(self.channels):
            if level:
                x = nn.Conv(channels, (3, 3), (2, 2), dtype=self.dtype, name=f"down_{level}")(x)
            for block in range(self.blocks):
                x = ResnetBlock(channels, self.groups, self.dtype, name=f"block_{level}_{block}")(x)
            features.append(x)
        return features
