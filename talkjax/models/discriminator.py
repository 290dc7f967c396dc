"""A small patch discriminator (Isola et al., arXiv 1611.07004, section 3.2.2).

As in that paper, it is shown the generator's input as well. Where warped references fill in the
mask, it judges how the picture differs from them. On pictures alone, it was still guessing after
300 steps of 8 pairs.
"""

from typing import Any

import jax
from flax import linen as nn

_FEATURES = (32, 64, 128)
_GROUPS = 8
_GAIN = 2.0  # of differences, which are smaller than pictures


class PatchDiscriminator(nn.Module):
    """Judges overlapping patches of 38 px at a grid of one place for 8 x 8 px."""

    dtype: Any = jax.numpy.float32

    @nn.compact
    def __call__(self, images: jax.Array, guide: jax.Array | None = None) -> jax.Array:
        """Judges pictures.

        Args:
          images: (B, H, W, 3) in [-1, 1].
          guide: (B, H, W, 3) the same pictures with warped references in the mask.

        Returns:
          (B, H/8, W/8) logits, high where the images look real.
        """
        x = (images if guide is None else _GAIN * (images - guide)).astype(self.dtype)
        for number, features in enumerate(_FEATURES):
            x = nn.Conv(features, (4, 4), (2, 2), dtype=self.dtype, name=f"conv_{number}")(x)
            if number:
                x = nn.GroupNorm(_GROUPS, dtype=self.dtype, name=f"norm_{number}")(x)
            x = nn.leaky_relu(x, 0.2)
        x = nn.Conv(1, (3, 3), dtype=jax.numpy.float32, name="logits")(x.astype(jax.numpy.float32))
        return x[..., 0]
