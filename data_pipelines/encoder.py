"""Loads the encoder of an autoencoder from weights of any known kind."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from talkjax import configuration, files
from talkjax.conventions import Box
from talkjax.data import latents
from talkjax.errors import UserError

Encode = Callable[[np.ndarray], np.ndarray]


class LoadedEncoder(NamedTuple):
    """An encoder that is ready for use.

    Attributes:
      encode: Maps (B, H, W, 3) images in [-1, 1] to (B, h, w, c) latents, the mean if there is a
        distribution.
      identity: See `talkjax.data.latents.encoder_id`.
      region, mask: Boxes of the config that came with the weights, or of the default one.
    """

    encode: Encode
    identity: str
    region: Box
    mask: Box


def load_encoder(path: str | os.PathLike, decoder: str | None = None) -> LoadedEncoder:
    """Loads an encoder.

    Args:
      path: A folder that holds an autoencoder (a training run or an export of any stage), a
        diffusers AutoencoderKL file, or a TAESD encoder file.
      decoder: The TAESD decoder; by default the file with "decoder" in place of "encoder".

    Raises:
      UserError: There is no known autoencoder, or it is damaged.
    """
    import jax

    model, params, config = _load_autoencoder(files.as_path(path), decoder)

    @jax.jit
    def apply(params, images):
        out = model.apply({"params": params}, images, method=type(model).encode)
        return out[0] if isinstance(out, tuple) else out

    def encode(images: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(apply(params, images))
        except ValueError as error:  # its factor does not divide the size
            raise UserError(
                f"the encoder does not take images of {images.shape[1]} x {images.shape[2]} px "
                f"({files.one_line(error)}); choose another region or crop size"
            ) from error

    identity = latents.encoder_id(params)
    params = jax.device_put(params)
    defaults = configuration.default_config()
    return LoadedEncoder(
        encode,
        identity,
        Box(*config.get("region", defaults.region)),
        Box(*config.get("mask", defaults.mask)),
    )


def _load_autoencoder(path: Any, decoder: str | None) -> tuple[Any, Any, dict[str, Any]]:
    """Returns the Flax module that the weights belong to, its parameters, and their config."""
    from talkjax import networks, runs, weights
    from talkjax.models import autoencoder, taesd

    config = {}
    if path.is_dir():
        params, config, _ = runs.load_weights(path)
        if "autoencoder" in params:
            module = networks.make_autoencoder(config["autoencoder"])
            return module, params["autoencoder"], config
    elif path.name.endswith("encoder.safetensors"):
        mate = path.with_name(path.name.replace("encoder", "decoder"))
        params = weights.taesd_params(path, decoder or mate)
    else:
        params = weights.autoencoder_kl_params(path)
    if "layer_14" in params.get("encoder", {}):
        return taesd.TAESD(**taesd.layout_of(params)), params, config
    if "quant_conv" in params:
        layout = autoencoder.layout_of(params)
        groups = config.get("groups", 32)
        return autoencoder.AutoencoderKL(**layout, groups=groups), params, config
    raise UserError(f"{path} holds no known autoencoder; give weights that do")
