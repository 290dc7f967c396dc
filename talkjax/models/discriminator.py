"""A small patch discriminator (Isola et al., arXiv 1611.07004, section 3.2.2)."""

from typing import Any

import jax
from flax import linen as nn

_FEATURES = (32, 64, 128)


class PatchDiscriminator(nn.Module):
    """Judges overlapping patches of 38 px at a grid of one place for 8 x 8 px."""

    dtype: Any = jax.numpy.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps (B, H, W, 3) in [-1, 1] to logits (B, H/8, W/8), high where images look real."""
        x = images.astype(self.dtype)
        for number, features in enumerate(_FEATURES):
            x = nn.Conv(features, (4, 4), (2, 2), dtype=self.dtype, name=f"conv_{number}")(x)
            x = nn.leaky_relu(x, 0.2)
        x = nn.Conv(1, (3, 3), dtype=jax.numpy.float32, name="logits")(x.astype(jax.numpy.float32))
        return x[..., 0]
