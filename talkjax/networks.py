"""Makes Flax modules from a configuration.

This is the one place where fields of a configuration become constructor arguments. Training and
sampling make their networks here, so the `config.json` of a checkpoint is enough to make the
modules that its weights fit.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from talkjax.conventions import (
    LIPS_SLICE,
    NUM_LANDMARKS,
    NUM_MELS,
    Box,
    latent_mask,
    masked_slices,
    to_float,
)
from talkjax.diffusion import schedules
from talkjax.models import (
    attention,
    autoencoder,
    landmark_completion,
    light_autoencoder,
    speech_features,
    taesd,
    talkformer,
    unet,
    warp,
    whisper,
)
from talkjax.models.landmark_completion import References

FILLS = ("grey", "warp")
# Parameters that their layer converts to the computation type before it uses them, and the layers
# among theirs that compute in float32 whatever that type is. Norms and other networks do, too.
_CONVERTED = re.compile(
    r"^(autoencoder|denoiser|landmark|speech)/(.*/)?(kernel|index|modality|order|position)$"
)
_FLOAT32 = re.compile(r"^(denoiser/conv_out|landmark/offsets)/")


@dataclasses.dataclass(frozen=True)
class Networks:
    """The learned parts of the method and the constants that they share.

    Parameters are a dictionary with the subtrees "autoencoder", "denoiser" and "landmark", and
    "speech" if there is a speech encoder. That one is never trained.

    Attributes:
      autoencoder: An `AutoencoderKL`, `LightAutoencoder` or `TAESD`.
      denoiser: The denoiser, a `UNet`.
      landmark: The landmark network, a `LandmarkCompletion`.
      speech: The speech encoder that the landmark network hears through, or None if it hears
        log-mel windows.
      schedule: Noise schedule.
      prediction: Prediction type of the denoiser, "eps" or "v".
      region: Part of the crop that images show, in crop coordinates.
      hidden: Rows and columns of the region that the mask hides.
      fill: What the denoiser is shown there: "grey", or "warp", the references warped to the
        target's landmarks.
      residual_scale: 0 if latents are diffused; else their difference from those of the filled-in
        image is, divided by this.
      mask: (h, w) float32, 1 in the latent cells that the pixel mask touches.
      latent_mean: (c,) float32 mean that the normalisation of latents subtracts, or None if it is
        not known, as before an autoencoder is trained.
      latent_std: (c,) float32 standard deviation that the normalisation divides by, or None.
      image_size: Height and width of the region in pixels.
      crop_size: Side of the whole crop in pixels.
      latent_shape: Shape (h, w, c) of a latent.
    """

    autoencoder: nn.Module
    denoiser: unet.UNet
    landmark: landmark_completion.LandmarkCompletion
    speech: whisper.WhisperEncoder | None
    schedule: schedules.Schedule
    prediction: str
    region: Box
    hidden: tuple[slice, slice]
    fill: str
    residual_scale: float
    mask: np.ndarray
    latent_mean: np.ndarray | None
    latent_std: np.ndarray | None
    image_size: tuple[int, int]
    crop_size: int
    latent_shape: tuple[int, int, int]

    def encode(self, params: Any, images: jax.Array) -> jax.Array:
        """Encodes images of the region as normalised latents.

        Args:
          params: Parameters of the autoencoder.
          images: (..., H, W, 3), uint8 or float in [-1, 1].

        Returns:
          (..., h, w, c) float32.

        Raises:
          ValueError: The statistics of latents are not known.
        """
        images = to_float(images) if images.dtype == jnp.uint8 else images
        lead = images.shape[:-3]
        x = images.reshape(-1, *images.shape[-3:])
        z = self.autoencoder.apply({"params": params}, x, method="encode")
        z = z[0] if isinstance(z, tuple) else z
        mean, std = self._statistics()
        z = (z - mean) / std
        return z.reshape(*lead, *z.shape[1:])

    def fill_in(
        self, target: jax.Array, landmarks: jax.Array, images: jax.Array, references: jax.Array
    ) -> jax.Array:
        """Replaces what the mask hides by what the denoiser is shown there.

        Args:
          target: (B, H, W, 3) regions in [-1, 1]; what the mask hides does not count.
          landmarks: (B, 131, 2) landmarks of the target.
          images: (B or 1, R, H, W, 3) reference images in [-1, 1].
          references: (B or 1, R, 131, 2) their landmarks.

        Returns:
          (B, H, W, 3): mid-grey in the mask, or the warped references.
        """
        if self.fill == "warp":
            return self.warp_into_mask(target, landmarks, images, references)
        return self.hide(target)

    def hide(self, target: jax.Array) -> jax.Array:
        """Makes what the mask hides of (B, H, W, 3) regions mid-grey."""
        rows, columns = self.hidden
        return target.at[:, rows, columns].set(0.0)

    def warp_into_mask(
        self, target: jax.Array, landmarks: jax.Array, images: jax.Array, references: jax.Array
    ) -> jax.Array:
        """Replaces what the mask hides by the warped references; as `fill_in`, for any `fill`."""
        rows, columns = self.hidden
        field = self.warp_field(landmarks, references)
        guess = warp.warp_references(images, field, self.region, self.hidden)
        return target.at[:, rows, columns].set(guess)

    def warp_field(self, landmarks: jax.Array, references: jax.Array) -> warp.Field:
        """Computes how `fill_in` warps the references; its arguments are the same."""
        return warp.make_field(references, landmarks, self.region, self.image_size, LIPS_SLICE)

    def to_state(self, latents: jax.Array, masked: jax.Array) -> jax.Array:
        """Converts latents to what is diffused.

        Args:
          latents: (B, h, w, c) normalised latents of images.
          masked: (B, h, w, c) those of the same images filled in by `fill_in`.

        Returns:
          (B, h, w, c): the latents, or their scaled difference from the filled-in image's. A
          difference of 0 is the warp itself, so that the denoiser only learns to correct it.
        """
        return (latents - masked) / self.residual_scale if self.residual_scale else latents

    def to_latents(self, state: jax.Array, masked: jax.Array) -> jax.Array:
        """Converts what is diffused to latents; the inverse of `to_state`."""
        return masked + self.residual_scale * state if self.residual_scale else state

    def decode(self, params: Any, latents: jax.Array, guide: jax.Array | None = None) -> jax.Array:
        """Decodes normalised latents.

        Args:
          params: Parameters of the autoencoder.
          latents: (B, h, w, c).
          guide: (B, H, W, 3) what `fill_in` returned, for a guided autoencoder; None is grey.

        Returns:
          Images (B, H, W, 3) float32 in [-1, 1].

        Raises:
          ValueError: The statistics of latents are not known.
        """
        mean, std = self._statistics()
        inputs = [latents * std + mean]
        if getattr(self.autoencoder, "guided", False):
            inputs.append(guide)
        images = self.autoencoder.apply({"params": params}, *inputs, method="decode")
        return jnp.clip(images, -1.0, 1.0)

    def hear(
        self, params: Any, mel: jax.Array, references: References
    ) -> tuple[jax.Array, References]:
        """Computes what the landmark network takes as sound: features, if it takes any.

        Args:
          params: Parameters with the subtree "speech", if there is a speech encoder.
          mel: (B, n, 16, 80) log-mel windows of n ticks in a row.
          references: Faces with log-mel windows, each of which is heard alone.

        Returns:
          The sound of the ticks and the references, both with (..., width) features in place of
          windows; without a speech encoder, as they were.
        """
        if self.speech is None:
            return mel, references
        alone = references.mel.reshape(-1, 1, *references.mel.shape[2:])
        sound, about = (
            speech_features.tick_features(self.speech, params["speech"], windows)
            for windows in (mel, alone)
        )
        return sound, references._replace(mel=about.reshape(*references.mel.shape[:2], -1))

    def complete(
        self,
        params: Any,
        mel: jax.Array,
        pose: jax.Array,
        references: References,
        dropout: jax.Array | None = None,
    ) -> jax.Array:
        """Predicts content landmarks; see `LandmarkCompletion`.

        Args:
          params: Parameters with the subtree "landmark", and "speech" if there is a speech encoder.
          mel: (B, past + T + future, 16, 80) log-mel windows.
          pose: (B, T, 74, 2) pose landmarks, crop coordinates.
          references: Faces with log-mel windows.
          dropout: Random key of dropout in training, or None.

        Returns:
          (B, T, 57, 2) float32 crop coordinates.
        """
        sound, references = self.hear(params, mel, references)
        return self.landmark.apply(
            {"params": params["landmark"]},
            sound,
            pose,
            references,
            train=dropout is not None,
            rngs=None if dropout is None else {"dropout": dropout},
        )

    def init_landmark(
        self, key: jax.Array, mel: jax.Array, pose: jax.Array, references: References
    ) -> dict[str, Any]:
        """Initialises the subtrees that `complete` needs; its other arguments are the same."""
        params = {}
        if self.speech is not None:  # at random, in the place of pretrained weights
            frames = jnp.zeros((1, 2, self.speech.config.mels))
            params["speech"] = self.speech.init(key, frames)["params"]
        sound, references = self.hear(params, mel, references)
        return params | {"landmark": self.landmark.init(key, sound, pose, references)["params"]}

    def _statistics(self) -> tuple[jax.Array, jax.Array]:
        """Returns mean and standard deviation of latents, (1, 1, 1, c) each."""
        if self.latent_mean is None or self.latent_std is None:
            raise ValueError(
                "autoencoder.latent_mean and latent_std are not set; set them, or use "
                "talkjax.training.input.with_latent_statistics"
            )
        return tuple(jnp.asarray(x)[None, None, None] for x in (self.latent_mean, self.latent_std))


def compute_type(dtype: str, path: str) -> Any:
    """Returns the type that a layer converts its parameter to before it uses it.

    Args:
      dtype: `config.dtype`.
      path: Path of the parameter, such as "denoiser/conv_in/kernel".
    """
    converted = _CONVERTED.search(path) and not _FLOAT32.match(path)
    return jnp.dtype(dtype if converted else jnp.float32)


def make_networks(config: Mapping[str, Any]) -> Networks:
    """Makes the networks of a configuration.

    Args:
      config: All fields of `talkjax.configuration.default_config`; `with_defaults` completes the
        `config.json` of an earlier version.

    Raises:
      ValueError: Sizes do not fit each other, or a name is unknown.
    """
    dtype = jnp.dtype(config["dtype"])
    ae = make_autoencoder(config["autoencoder"], dtype)
    size, factor, channels = config["crop_size"], ae.downsampling, ae.latent_channels
    region, mask = Box(*config["region"]), Box(*config["mask"])
    y0, x0, y1, x1 = region.pixels(size)
    height, width = y1 - y0, x1 - x0
    step = factor * 2 ** (len(config["denoiser"]["channels"]) - 1)
    if height % step or width % step:
        raise ValueError(f"the region is {height} x {width} px; both must be multiples of {step}")
    cells = latent_mask(region, mask, size, factor)
    fill = config["denoiser"]["fill"]
    if fill not in FILLS:
        raise ValueError(f"unknown denoiser.fill {fill!r}; use one of {', '.join(FILLS)}")
    diffusion = config["diffusion"]
    schedules.prediction_type(diffusion["prediction"])  # checks the name
    if diffusion["residual_scale"] and fill == "grey":
        raise ValueError("diffusion.residual_scale requires denoiser.fill='warp'")
    return Networks(
        autoencoder=ae,
        denoiser=_make_denoiser(config["denoiser"], region, channels, dtype),
        landmark=_make_landmark(config["landmark"], dtype),
        speech=_make_speech(config["landmark"], dtype),
        schedule=schedules.make_schedule(diffusion["schedule"], diffusion["steps"]),
        prediction=diffusion["prediction"],
        region=region,
        hidden=masked_slices(region, mask, size),
        fill=fill,
        residual_scale=diffusion["residual_scale"],
        mask=cells,
        latent_mean=_statistics(config["autoencoder"]["latent_mean"], channels),
        latent_std=_statistics(config["autoencoder"]["latent_std"], channels),
        image_size=(height, width),
        crop_size=size,
        latent_shape=(*cells.shape, channels),
    )


def _make_landmark(config: Mapping[str, Any], dtype: Any) -> landmark_completion.LandmarkCompletion:
    own = {name: x for name, x in config.items() if name not in ("whisper", "whisper_weights")}
    sizes = landmark_completion.LandmarkConfig(**own)
    return landmark_completion.LandmarkCompletion(sizes, dtype=dtype)


def _make_speech(config: Mapping[str, Any], dtype: Any) -> whisper.WhisperEncoder | None:
    if config.get("audio") != "whisper":
        return None
    sizes = whisper.WhisperConfig.named(config["whisper"])
    if sizes.mels != NUM_MELS:
        raise ValueError(
            f"landmark.whisper={config['whisper']!r} hears {sizes.mels} bins; use a size of "
            f"{NUM_MELS} bins"
        )
    return whisper.WhisperEncoder(sizes, dtype=dtype)


def _make_denoiser(
    config: Mapping[str, Any], region: Box, latent_channels: int, dtype: Any
) -> unet.UNet:
    if config["remat"] not in unet.REMAT:
        raise ValueError(f"unknown remat {config['remat']!r}; use one of {', '.join(unet.REMAT)}")
    talk = talkformer.TalkFormerConfig(
        region=region, landmarks=NUM_LANDMARKS, **config["talkformer"]
    )
    attention.check_implementation(talk.implementation, dtype)
    unet_config = unet.UNetConfig(
        latent_channels=latent_channels,
        channels=tuple(config["channels"]),
        talkformer=talk,
        blocks=config["blocks"],
        attention=tuple(config["attention"]),
        groups=config["groups"],
        remat=config["remat"],
        skip_after_attention=config["skip_after_attention"],
        lip_shape=config["lip_shape"],
    )
    return unet.UNet(unet_config, dtype=dtype)


def make_autoencoder(config: Mapping[str, Any], dtype: Any = jnp.float32) -> nn.Module:
    """Makes the autoencoder that a configuration's field `autoencoder` describes.

    Raises:
      ValueError: The kind or the size is unknown.
    """
    kind, size = config["kind"], config["size"]
    shared = {"dtype": dtype, "remat": config["remat"]}
    if kind == "taesd":
        return taesd.TAESD(**taesd.LAYOUTS[config["layout"]], **shared)
    if kind == "kl":
        return autoencoder.AutoencoderKL(**autoencoder.size_arguments(size, config["f"]), **shared)
    if kind == "light":
        arguments = light_autoencoder.size_arguments(size, config["f"])
        return light_autoencoder.LightAutoencoder(**arguments, guided=config["guided"], dtype=dtype)
    raise ValueError(f"unknown kind of autoencoder {kind!r}; use 'kl', 'light' or 'taesd'")


def _statistics(values: Any, channels: int) -> np.ndarray | None:
    if not len(values):
        return None
    values = np.asarray(tuple(values), np.float32)
    if values.shape not in ((1,), (channels,)):
        raise ValueError(
            f"latent statistics have {values.size} channels, but the autoencoder has {channels}"
        )
    return np.broadcast_to(values, (channels,)).copy()
