"""The sampling pipeline as the model that an evaluation measures."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from talkjax.media.detection import Detector
from talkjax.sampling import checkpoint
from talkjax.sampling.sampler import Options, Sampler


class SamplerGenerator:
    """A `talkjax.metrics.videos.Generator` that samples from a checkpoint.

    Attributes:
      identity, crop_size, region: See `talkjax.metrics.videos.Generator`.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        identity: dict[str, Any],
        options: Options,
        detector: Detector,
        devices: Sequence[Any] | None = None,
    ) -> None:
        """Loads a checkpoint.

        Args:
          directory: Exported checkpoint, or directory of a training run.
          identity: Plain data that identifies the weights and the code.
          options: Sampling options; they become part of the identity.
          detector: Face detector for the templates.
          devices: Devices to sample on; by default all of this process.

        Raises:
          UserError: See `talkjax.sampling.checkpoint.load`.
        """
        params, config, networks = checkpoint.load(directory)
        self._sampler = Sampler(params, config, networks, devices)
        options.check(networks.schedule.steps)
        self.options = dataclasses.replace(options, steps=self._sampler.steps_of(options))
        self._detector = detector
        self.identity = identity | {"options": dataclasses.asdict(self.options)}
        self.crop_size = networks.crop_size
        self.region = self._sampler.region

        def autoencode(params: Any, images: jax.Array) -> jax.Array:
            latents = networks.encode(params, images.astype(jnp.float32) / 127.5 - 1.0)
            return (networks.decode(params, latents) + 1.0) * 127.5

        self._params = jax.device_put(params["autoencoder"])
        self._autoencode = jax.jit(autoencode)

    def generate(self, *, video, audio, out) -> None:  # noqa: D102
        self._sampler.generate(
            video=video, audio=audio, out=out, options=self.options, detector=self._detector
        )

    def autoencode(self, regions: np.ndarray) -> np.ndarray:  # noqa: D102
        return np.asarray(self._autoencode(self._params, jnp.asarray(regions)))
