"""The denoiser: a latent U-Net with TalkFormer blocks (arXiv 2408.05416, section 3.2).

What depends on the conditions alone is computed by methods of its own (`UNet.reference_context`,
`UNet.motion_context`), so that a sampler calls the first once per clip, the second once per frame,
and neither in a denoising step.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import linen as nn

from talkjax.models import lip_shape
from talkjax.models.layers import GroupNorm, upsample2x
from talkjax.models.reference_encoder import ReferenceEncoder
from talkjax.models.talkformer import Geometry, TalkFormer, TalkFormerConfig, geometry


def _products(primitive: Any, *_: Any, **parameters: Any) -> bool:
    """Saves the outputs of convolutions and dense layers, but not attention weights."""
    if primitive is jax.lax.dot_general_p:
        _, (batch, _) = parameters["dimension_numbers"]
        return not batch
    return primitive is jax.lax.conv_general_dilated_p


# Rematerialisation policies, applied to each block. `none` stores every intermediate result for the
# backward pass. `products` stores the results of products with parameters and recomputes norms,
# activations and attention. `full` stores only the inputs of a block and recomputes the rest.
REMAT = {"none": None, "products": _products, "full": jax.checkpoint_policies.nothing_saveable}


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """Sizes and options of the denoiser.

    Attributes:
      latent_channels: Number of channels of a latent.
      channels: Features at each resolution, finest first.
      talkformer: Options of the TalkFormer blocks.
      blocks: Number of ResNet blocks per resolution, in the encoder and in the decoder.
      attention: Whether each resolution has TalkFormer blocks. Empty means that all have them.
      groups: Number of groups of the group normalisations.
      remat: Rematerialisation policy, a key of `REMAT`.
      skip_after_attention: Whether the last skip connection of a resolution carries the output of
        its TalkFormer block, as in diffusers, or the output of the ResNet block before it.
      lip_shape: Whether the network is also shown `lip_shape.draw_lips` of the target's landmarks.
    """

    latent_channels: int
    channels: tuple[int, ...]
    talkformer: TalkFormerConfig
    blocks: int = 2
    attention: tuple[bool, ...] = ()
    groups: int = 16
    remat: str = "none"
    skip_after_attention: bool = False
    lip_shape: bool = False

    def attends(self, level: int) -> bool:
        """Returns whether resolution `level` has TalkFormer blocks."""
        return self.attention[level] if self.attention else True


@flax.struct.dataclass
class MotionContext:
    """What the blocks need of the target's landmarks; see `UNet.motion_context`.

    Attributes:
      landmarks: (B, K, 2) in crop coordinates.
      geometry: Geometry by resolution ("0" is the finest).
      blocks: Keys and values by TalkFormer block.
      lips: (B, h, w, C) the lips' shape, embedded for the finest resolution; None if it is not
        shown.
    """

    landmarks: jax.Array
    geometry: dict[str, Geometry]
    blocks: dict[str, Any]
    lips: jax.Array | None


@flax.struct.dataclass
class Conditions:
    """Everything that the denoiser is given besides the noisy latent and the timestep.

    Attributes:
      masked: (B, h, w, c) normalised latent of the target with its mask filled in, see
        `talkjax.networks.Networks.fill_in`.
      mask: (h, w) float32, 1 where the target is hidden.
      motion: Result of `UNet.motion_context`.
      reference: Result of `UNet.reference_context`. Its batch may be 1, for frames that share the
        reference.
      keep_landmarks: (B,) bool. Where False, learned null vectors replace the landmarks.
      keep_reference: (B,) bool. Where False, learned null vectors replace the reference.
    """

    masked: jax.Array
    mask: jax.Array
    motion: MotionContext
    reference: dict[str, Any]
    keep_landmarks: jax.Array
    keep_reference: jax.Array


def timestep_embedding(timestep: jax.Array, features: int) -> jax.Array:
    """Embeds (B,) timesteps as sinusoids: (B, features)."""
    half = features // 2
    frequency = jnp.exp(-jnp.log(10000.0) * jnp.arange(half, dtype=jnp.float32) / half)
    phase = timestep.astype(jnp.float32)[:, None] * frequency[None]
    return jnp.concatenate([jnp.cos(phase), jnp.sin(phase)], -1)


class TimedResnetBlock(nn.Module):
    """A ResNet block whose second norm is scaled and shifted by the timestep embedding."""

    features: int
    groups: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, time: jax.Array) -> jax.Array:
        """Maps (B, h, w, C) and the embedding (B, E) to (B, h, w, features)."""
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
    """Denoises a latent given the masked target, the target's landmarks and reference images."""

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
        if cfg.lip_shape:
            zeros = nn.initializers.zeros
            self.lip_shape_in = nn.Conv(
                cfg.channels[0], (3, 3), use_bias=False, kernel_init=zeros, dtype=dtype
            )
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

    def reference_context(self, latents: jax.Array, landmarks: jax.Array) -> dict[str, Any]:
        """Computes what every block needs of the reference images, once per clip.

        Args:
          latents: (B, R, h, w, c) normalised latents of the R reference images.
          landmarks: (B, R, K, 2) landmarks of the reference images, in crop coordinates.

        Returns:
          A `talkformer.ReferenceContext` by TalkFormer block.
        """
        batch, count = latents.shape[:2]
        # All references follow in one batch, and are located by their places in the first.
        features = self.reference_encoder(latents.reshape(-1, *latents.shape[2:]))
        own = landmarks.reshape(-1, *landmarks.shape[2:])
        first = jnp.repeat(landmarks[:, 0], count, axis=0)
        keep = jnp.ones((batch * count,), bool)
        geometries = {
            s: geometry(self.config.talkformer, *f.shape[1:3], own, first, keep)
            for s, f in enumerate(features)
        }
        features = [f.reshape(batch, count, -1, f.shape[-1]) for f in features]
        return {
            name: self.talk[name].reference_context(features[level], landmarks, geometries[level])
            for name, level in self._talk_names()
        }

    def motion_context(
        self,
        landmarks: jax.Array,
        reference_landmarks: jax.Array,
        keep_landmarks: jax.Array,
        size: tuple[int, int],
    ) -> MotionContext:
        """Computes what every block needs of the target's landmarks, once per frame.

        Args:
          landmarks: (B, K, 2) landmarks of the target frames, in crop coordinates.
          reference_landmarks: (B, K, 2) landmarks of the first reference image.
          keep_landmarks: (B,) bool; see `Conditions`.
          size: Height and width (h, w) of the latent.
        """
        cfg = self.config
        geometries = {
            str(s): geometry(cfg.talkformer, *shape, landmarks, reference_landmarks, keep_landmarks)
            for s, shape in self._reference_shapes(*size).items()
        }
        blocks = {name: self.talk[name].motion_context(landmarks) for name, _ in self._talk_names()}
        lips = None
        if cfg.lip_shape:
            drawn = lip_shape.draw_lips(landmarks, size, cfg.talkformer.region)
            keep = keep_landmarks.astype(drawn.dtype)[:, None, None, None]
            lips = self.lip_shape_in((drawn * keep).astype(self.dtype))
        return MotionContext(landmarks, geometries, blocks, lips)

    def conditions(
        self,
        masked: jax.Array,
        mask: jax.Array,
        landmarks: jax.Array,
        reference_latents: jax.Array,
        reference_landmarks: jax.Array,
        keep_landmarks: jax.Array,
        keep_reference: jax.Array,
    ) -> Conditions:
        """Computes both contexts of a batch in which every frame has its own references.

        The arguments are those of `motion_context` and `reference_context` and the fields of
        `Conditions`; landmarks and latents of references are (B, R, ...).
        """
        motion = self.motion_context(
            landmarks, reference_landmarks[:, 0], keep_landmarks, masked.shape[1:3]
        )
        reference = self.reference_context(reference_latents, reference_landmarks)
        return Conditions(masked, mask, motion, reference, keep_landmarks, keep_reference)

    def denoise(self, noisy: jax.Array, timestep: jax.Array, conditions: Conditions) -> jax.Array:
        """Evaluates the network once.

        Args:
          noisy: (B, h, w, c) noisy latent z_t.
          timestep: (B,) timesteps in [0, 1000).
          conditions: Everything else that the network is given.

        Returns:
          (B, h, w, c) float32 prediction of the noise or of the velocity, as trained.
        """
        cfg, dtype = self.config, self.dtype
        time = timestep_embedding(timestep, cfg.channels[0]).astype(dtype)
        time = self.time_out(nn.silu(self.time_in(time)))
        # (B, h, w, 1)
        hidden = jnp.broadcast_to(conditions.mask[None, :, :, None], (*noisy.shape[:3], 1))
        x = jnp.concatenate([noisy, conditions.masked, hidden], -1).astype(dtype)

        def talk(name: str, x: jax.Array, level: int) -> jax.Array:
            if not cfg.attends(level) and name != "middle":
                return x
            motion = conditions.motion
            return self.talk[name](
                x,
                motion.blocks[name],
                conditions.reference[name],
                motion.landmarks,
                motion.geometry[str(level)],
                conditions.keep_landmarks,
                conditions.keep_reference,
            )

        x = self.conv_in(x)
        if conditions.motion.lips is not None:
            x = x + conditions.motion.lips
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
        reference_latents: jax.Array,
        reference_landmarks: jax.Array,
        keep_landmarks: jax.Array,
        keep_reference: jax.Array,
    ) -> jax.Array:
        """Computes both contexts and evaluates the network once.

        Modules are initialised through this method. The arguments are those of `denoise` and
        `conditions`.
        """
        conditions = self.conditions(
            masked, mask, landmarks, reference_latents, reference_landmarks, keep_landmarks,
            keep_reference,
        )  # fmt: skip
        return self.denoise(noisy, timestep, conditions)
