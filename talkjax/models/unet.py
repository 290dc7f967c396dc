"""The denoiser: a latent U-Net with TalkFormer blocks (arXiv 2408.05416, section 3.2).

What depends on the conditions alone is split off (`reference_context`, `motion_context`), so that
a sampler computes the first once a clip, the second once a frame, and neither in a step.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import linen as nn

from talkjax.models.layers2d import GroupNorm, upsample2x
from talkjax.models.reference_encoder import ReferenceEncoder
from talkjax.models.talkformer import Geometry, TalkFormer, TalkFormerConfig, geometry


def _products(primitive: Any, *_: Any, **parameters: Any) -> bool:
    """Saves what convolutions and dense layers give, not the weights of attention."""
    if primitive is jax.lax.dot_general_p:
        _, (batch, _) = parameters["dimension_numbers"]
        return not batch
    return primitive is jax.lax.conv_general_dilated_p


# What of the blocks of a U-Net the backward pass computes again. `none`: nothing, everything is
# kept. `products`: norms, activations and attention, while products with parameters are kept.
# `full`: all, only the input of each block is kept.
REMAT = {"none": None, "products": _products, "full": jax.checkpoint_policies.nothing_saveable}


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """Shape of the denoiser.

    Attributes:
      latent_channels: c.
      channels: features per resolution, finest first.
      blocks: ResNet blocks per resolution on the way down and on the way up.
      attention: whether each resolution has TalkFormer blocks; all of them by default.
      groups: of the group norms.
      talkformer: settings of the blocks.
      remat: what the backward pass computes again, see `REMAT`.
      skip_after_attention: Whether the last skip connection of a resolution leaves after its
        TalkFormer block (as in diffusers) or before it.
    """

    latent_channels: int
    channels: tuple[int, ...]
    talkformer: TalkFormerConfig
    blocks: int = 2
    attention: tuple[bool, ...] = ()
    groups: int = 16
    remat: str = "none"
    skip_after_attention: bool = False

    def attends(self, level: int) -> bool:
        """Whether resolution `level` has TalkFormer blocks."""
        return self.attention[level] if self.attention else True


@flax.struct.dataclass
class MotionContext:
    """Per-frame conditions, ready for every step: see `UNet.motion_context`."""

    landmarks: jax.Array
    geometry: dict[str, Geometry]
    blocks: dict[str, Any]


def timestep_embedding(timestep: jax.Array, features: int) -> jax.Array:
    """Sinusoids of (B,) timesteps: (B, features)."""
    half = features // 2
    frequency = jnp.exp(-jnp.log(10000.0) * jnp.arange(half, dtype=jnp.float32) / half)
    phase = timestep.astype(jnp.float32)[:, None] * frequency[None]
    return jnp.concatenate([jnp.cos(phase), jnp.sin(phase)], -1)


class TimedResnetBlock(nn.Module):
    """ResNet block whose second norm is scaled and shifted by the timestep's embedding."""

    features: int
    groups: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, time: jax.Array) -> jax.Array:
        h = nn.silu(GroupNorm(self.groups, dtype=self.dtype, name="norm1")(x))
        h = nn.Conv(self.features, (3, 3), dtype=self.dtype, name="conv1")(h)
        scale, shift = jnp.split(
            nn.Dense(2 * self.features, dtype=self.dtype, name="time")(nn.silu(time)), 2, -1
        )
        h = GroupNorm(self.groups, dtype=self.dtype, name="norm2")(h)
        h = nn.silu(h * (1 + scale[:, None, None]) + shift[:, None, None])
        zeros = nn.initializers.zeros
        h = nn.Conv(self.features, (3, 3), dtype=self.dtype, kernel_init=zeros, name="conv2")(h)
        if x.shape[-1] != self.features:
            x = nn.Conv(self.features, (1, 1), dtype=self.dtype, name="conv_shortcut")(x)
        return x + h


class UNet(nn.Module):
    """Denoises a latent given the masked target, its landmarks and a reference."""

    config: UNetConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        cfg, dtype = self.config, self.dtype
        block, talk = TimedResnetBlock, TalkFormer
        if policy := REMAT[cfg.remat]:
            block, talk = nn.remat(block, policy=policy), nn.remat(talk, policy=policy)
        levels = range(len(cfg.channels))

        def resnet(level: int) -> nn.Module:
            return block(cfg.channels[level], cfg.groups, dtype=dtype)

        self.time_in = nn.Dense(4 * cfg.channels[0], dtype=dtype)
        self.time_out = nn.Dense(4 * cfg.channels[0], dtype=dtype)
        self.conv_in = nn.Conv(cfg.channels[0], (3, 3), dtype=dtype)
        self.reference_encoder = ReferenceEncoder(cfg.channels, 1, cfg.groups, dtype=dtype)
        self.down_blocks = [[resnet(s) for _ in range(cfg.blocks)] for s in levels]
        self.downsample = [
            nn.Conv(cfg.channels[s], (3, 3), (2, 2), dtype=dtype) for s in levels[1:]
        ]
        self.middle = [resnet(levels[-1]) for _ in range(2)]
        self.up_blocks = [[resnet(s) for _ in range(cfg.blocks)] for s in levels]
        self.upsample = [nn.Conv(cfg.channels[s], (3, 3), dtype=dtype) for s in levels[:-1]]
        self.talk = {
            name: talk(cfg.talkformer, cfg.channels[level], dtype=dtype)
            for name, level in self._talk_names()
        }
        self.norm_out = GroupNorm(cfg.groups, dtype=dtype)
        self.conv_out = nn.Conv(
            cfg.latent_channels, (3, 3), kernel_init=nn.initializers.zeros, dtype=jnp.float32
        )

    def _talk_names(self) -> list[tuple[str, int]]:
        cfg = self.config
        names = []
        for level in range(len(cfg.channels)):
            if cfg.attends(level):
                names += [(f"down_{level}", level), (f"up_{level}", level)]
        return [*names, ("middle", len(cfg.channels) - 1)]

    def _reference_shapes(self, height: int, width: int) -> dict[int, tuple[int, int]]:
        return {s: (height >> s, width >> s) for s in range(len(self.config.channels))}

    def reference_context(self, latent: jax.Array, landmarks: jax.Array) -> dict[str, Any]:
        """What every block needs of the reference; computed once a clip.

        Args:
          latent: (B, h, w, c) normalised.
          landmarks: (B, K, 2) crop coordinates.

        Returns:
          Keys and values by block; B may be 1 for a batch of frames that share the reference.
        """
        features = self.reference_encoder(latent)
        keep = jnp.ones((latent.shape[0],), bool)
        own = {
            s: geometry(self.config.talkformer, *f.shape[1:3], landmarks, landmarks, keep)
            for s, f in enumerate(features)
        }
        return {
            name: self.talk[name].reference_context(features[level], landmarks, own[level])
            for name, level in self._talk_names()
        }

    def motion_context(
        self,
        landmarks: jax.Array,
        reference_landmarks: jax.Array,
        keep_landmarks: jax.Array,
        size: tuple[int, int],
    ) -> MotionContext:
        """What every block needs of the target's landmarks; computed once a frame.

        Args:
          landmarks: (B, K, 2) of the target frames.
          reference_landmarks: (B, K, 2).
          keep_landmarks: (B,) bool.
          size: (h, w) of the latent.
        """
        cfg = self.config
        geometries = {
            str(s): geometry(cfg.talkformer, *shape, landmarks, reference_landmarks, keep_landmarks)
            for s, shape in self._reference_shapes(*size).items()
        }
        blocks = {name: self.talk[name].motion_context(landmarks) for name, _ in self._talk_names()}
        return MotionContext(landmarks, geometries, blocks)

    def denoise(
        self,
        noisy: jax.Array,
        timestep: jax.Array,
        masked: jax.Array,
        mask: jax.Array,
        motion: MotionContext,
        reference: dict[str, Any],
        keep_landmarks: jax.Array,
        keep_reference: jax.Array,
    ) -> jax.Array:
        """One evaluation of the network.

        Args:
          noisy: (B, h, w, c) z_t.
          timestep: (B,) in [0, 1000).
          masked: (B, h, w, c) latent of the masked target.
          mask: (h, w) 1 where the target is hidden.
          motion: of `motion_context`.
          reference: of `reference_context`.
          keep_landmarks, keep_reference: (B,) bool; a dropped condition is replaced by a learned
            null.

        Returns:
          (B, h, w, c) float32: noise or velocity, as trained.
        """
        cfg, dtype = self.config, self.dtype
        time = timestep_embedding(timestep, cfg.channels[0]).astype(dtype)
        time = self.time_out(nn.silu(self.time_in(time)))
        hidden = jnp.broadcast_to(mask[None, :, :, None], (*noisy.shape[:3], 1))
        x = jnp.concatenate([noisy, masked, hidden], -1).astype(dtype)

        def talk(name: str, x: jax.Array, level: int) -> jax.Array:
            if not cfg.attends(level) and name != "middle":
                return x
            return self.talk[name](
                x,
                motion.blocks[name],
                reference[name],
                motion.landmarks,
                motion.geometry[str(level)],
                keep_landmarks,
                keep_reference,
            )

        x = self.conv_in(x)
        skips = []
        for level, blocks in enumerate(self.down_blocks):
            if level:
                x = self.downsample[level - 1](x)
            for block in blocks:
                x = block(x, time)
                skips.append(x)
            x = talk(f"down_{level}", x, level)
            if cfg.skip_after_attention:
                skips[-1] = x
        x = self.middle[0](x, time)
        x = talk("middle", x, len(cfg.channels) - 1)
        x = self.middle[1](x, time)
        for level in reversed(range(len(cfg.channels))):
            for block in self.up_blocks[level]:
                x = block(jnp.concatenate([x, skips.pop()], -1), time)
            x = talk(f"up_{level}", x, level)
            if level:
                x = self.upsample[level - 1](upsample2x(x))
        x = nn.silu(self.norm_out(x))
        return self.conv_out(x.astype(jnp.float32))

    def __call__(
        self,
        noisy: jax.Array,
        timestep: jax.Array,
        masked: jax.Array,
        mask: jax.Array,
        landmarks: jax.Array,
        reference_latent: jax.Array,
        reference_landmarks: jax.Array,
        keep_landmarks: jax.Array,
        keep_reference: jax.Array,
    ) -> jax.Array:
        """Contexts and one evaluation, as training does; arguments as above."""
        motion = self.motion_context(
            landmarks, reference_landmarks, keep_landmarks, noisy.shape[1:3]
        )
        reference = self.reference_context(reference_latent, reference_landmarks)
        return self.denoise(
            noisy, timestep, masked, mask, motion, reference, keep_landmarks, keep_reference
        )
