"""From a config to Flax modules: the one place where config fields become constructor arguments.

Training and sampling build their networks here, so a checkpoint's `config.json` is enough to make
the modules that its weights fit.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from talkjax.conventions import NUM_LANDMARKS, Box, latent_mask, to_float
from talkjax.diffusion import schedules
from talkjax.models import (
    attention,
    autoencoder,
    landmark_completion,
    light_autoencoder,
    taesd,
    talkformer,
    unet,
)


@dataclasses.dataclass(frozen=True)
class Networks:
    """The learned parts and what ties them together.

    Attributes:
      autoencoder: `AutoencoderKL`, `LightAutoencoder` or `TAESD`; parameters under "autoencoder".
      denoiser: `UNet`; parameters under "denoiser".
      landmark: `LandmarkCompletion`; parameters under "landmark".
      schedule: the noise schedule.
      prediction: "eps" or "v".
      region: (y0, x0, y1, x1) of the crop that images show.
      mask: (h, w) float32, 1 in latent cells that the pixel mask touches.
      latent_mean, latent_std: (c,) float32 of the normalisation of latents.
      image_size: (H, W) px of the region.
      crop_size: px of the whole crop.
      latent_shape: (h, w, c).
    """

    autoencoder: nn.Module
    denoiser: unet.UNet
    landmark: landmark_completion.LandmarkCompletion
    schedule: schedules.Schedule
    prediction: str
    region: Box
    mask: np.ndarray
    latent_mean: np.ndarray
    latent_std: np.ndarray
    image_size: tuple[int, int]
    crop_size: int
    latent_shape: tuple[int, int, int]

    def encode(self, params: Any, images: jax.Array) -> jax.Array:
        """Region crops (..., H, W, 3), uint8 or float in [-1, 1], to normalised latents.

        Returns:
          (..., h, w, c) float32.
        """
        images = to_float(images) if images.dtype == jnp.uint8 else images
        lead = images.shape[:-3]
        x = images.reshape(-1, *images.shape[-3:])
        z = self.autoencoder.apply({"params": params}, x, method="encode")
        z = z[0] if isinstance(z, tuple) else z
        z = (z - _as_row(self.latent_mean, 4)) / _as_row(self.latent_std, 4)
        return z.reshape(*lead, *z.shape[1:])

    def decode(self, params: Any, latents: jax.Array) -> jax.Array:
        """(B, h, w, c) normalised latents to (B, H, W, 3) float32 in [-1, 1]."""
        z = latents * _as_row(self.latent_std, 4) + _as_row(self.latent_mean, 4)
        images = self.autoencoder.apply({"params": params}, z, method="decode")
        return jnp.clip(images, -1.0, 1.0)

    # The three methods of `UNet` whose arguments are described there.

    def reference_context(self, params: Any, latent: jax.Array, landmarks: jax.Array) -> Any:
        """What the denoiser needs of a reference; `params` are the denoiser's."""
        return self.denoiser.apply(
            {"params": params}, latent, landmarks, method="reference_context"
        )

    def motion_context(
        self,
        params: Any,
        landmarks: jax.Array,
        reference_landmarks: jax.Array,
        keep_landmarks: jax.Array,
    ) -> unet.MotionContext:
        """What the denoiser needs of the target's landmarks; `params` are the denoiser's."""
        return self.denoiser.apply(
            {"params": params},
            landmarks,
            reference_landmarks,
            keep_landmarks,
            self.latent_shape[:2],
            method="motion_context",
        )

    def denoise(
        self,
        params: Any,
        noisy: jax.Array,
        timestep: jax.Array,
        masked: jax.Array,
        motion: unet.MotionContext,
        reference: Any,
        keep_landmarks: jax.Array,
        keep_reference: jax.Array,
    ) -> jax.Array:
        """One evaluation of the denoiser under this config's mask: (B, h, w, c)."""
        return self.denoiser.apply(
            {"params": params},
            noisy,
            timestep,
            masked,
            jnp.asarray(self.mask),
            motion,
            reference,
            keep_landmarks,
            keep_reference,
            method="denoise",
        )


def build(config: Mapping[str, Any]) -> Networks:
    """Networks of a config (the fields of `configs/base.py`).

    Raises:
      ValueError: sizes that do not fit each other, an unknown name.
    """
    compute = jnp.dtype(config["dtype"])
    ae = build_autoencoder(config["autoencoder"], compute)
    size, factor, channels = config["crop_size"], ae.downsampling, ae.latent_channels
    region, mask = Box(*config["region"]), Box(*config["mask"])
    y0, x0, y1, x1 = region.pixels(size)
    height, width = y1 - y0, x1 - x0
    net = config["denoiser"]
    step = factor * 2 ** (len(net["channels"]) - 1)
    if height % step or width % step:
        raise ValueError(f"the region is {height}x{width} px; both must be multiples of {step}")
    cells = latent_mask(region, mask, size, factor)

    if net["remat"] not in unet.REMAT:
        raise ValueError(f"no remat {net['remat']!r}; use one of {', '.join(unet.REMAT)}")
    talk = talkformer.TalkFormerConfig(
        region=region,
        landmarks=NUM_LANDMARKS,
        **{k: v for k, v in net["talkformer"].items()},
    )
    attention.check(talk.implementation, compute)
    unet_config = unet.UNetConfig(
        latent_channels=channels,
        channels=tuple(net["channels"]),
        talkformer=talk,
        blocks=net["blocks"],
        attention=tuple(net["attention"]),
        groups=net["groups"],
        remat=net["remat"],
        # Configs from before this field took the skips before the attention.
        skip_after_attention=net.get("skip_after_attention", False),
    )
    diffusion = config["diffusion"]
    return Networks(
        autoencoder=ae,
        denoiser=unet.UNet(unet_config, dtype=compute),
        landmark=landmark_completion.LandmarkCompletion(
            landmark_completion.LandmarkConfig(**dict(config["landmark"])), dtype=compute
        ),
        schedule=schedules.make_schedule(diffusion["schedule"], diffusion["steps"]),
        prediction=diffusion["prediction"],
        region=region,
        mask=cells,
        latent_mean=_statistics(config["autoencoder"]["latent_mean"], channels, 0.0),
        latent_std=_statistics(config["autoencoder"]["latent_std"], channels, 1.0),
        image_size=(height, width),
        crop_size=size,
        latent_shape=(*cells.shape, channels),
    )


def build_autoencoder(config: Mapping[str, Any], dtype: Any = jnp.float32) -> nn.Module:
    """The autoencoder of a config's field `autoencoder`.

    Raises:
      ValueError: an unknown kind or size.
    """
    kind, size = config["kind"], config["size"]
    shared = {"dtype": dtype, "remat": config.get("remat", False)}
    if kind == "taesd":
        return taesd.TAESD(**taesd.LAYOUTS[config["layout"]], **shared)
    if kind == "kl":
        return autoencoder.AutoencoderKL(**autoencoder.size(size, config["f"]), **shared)
    if kind == "light":
        arguments = light_autoencoder.size(size, config["f"])
        return light_autoencoder.LightAutoencoder(**arguments, dtype=dtype)
    raise ValueError(f"no autoencoder of kind {kind!r}; use 'kl', 'light' or 'taesd'")


def _statistics(values: Any, channels: int, default: float) -> np.ndarray:
    values = np.asarray(tuple(values) or (default,), np.float32)
    if values.shape not in ((1,), (channels,)):
        raise ValueError(f"latent statistics have {values.size} channels, the model {channels}")
    return np.broadcast_to(values, (channels,)).copy()


def _as_row(values: np.ndarray, ndim: int) -> jax.Array:
    return jnp.asarray(values).reshape((1,) * (ndim - 1) + (-1,))
