"""Loading a checkpoint: an export (`talkjax.export`) or the newest state of a training run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import errors as flax_errors
from flax import traverse_util

from talkjax import files, networks, runs, weights
from talkjax.errors import UserError
from talkjax.models import attention
from talkjax.sampling import regions

_CONFIG_ERRORS = (
    TypeError, ValueError, AttributeError, ArithmeticError, IndexError, AssertionError,
    MemoryError, flax_errors.FlaxError,
)  # fmt: skip


def load(
    directory: str | os.PathLike, dtype: str | None = None
) -> tuple[regions.Params, dict[str, Any], networks.Networks]:
    """Loads the networks of an export or of a training run.

    Args:
      directory: Folder that `talkjax.export` wrote, or the directory of a training run, of which
        the averaged weights of the newest checkpoint are used; local or in a bucket.
      dtype: Type of the computation, for example "bfloat16". The default is the config's, but
        float32 on CPUs, which only emulate bfloat16.

    Returns:
      The parameters (NumPy), the config and its networks. Fields that an old config lacks have
      their defaults.

    Raises:
      UserError: The folder does not exist, a file is damaged, the config is not one of talkjax or
        does not match the weights, or a network is missing.
    """
    params, config, _ = runs.load_weights(directory)
    parts = ("autoencoder", "denoiser", *runs.landmark_parts(config))
    missing = [part for part in parts if part not in params]
    if missing:
        stage = config.get("stage", "unknown")
        raise UserError(
            f"{directory} (stage {stage}) lacks the networks {', '.join(missing)}; combine two "
            "runs with `python -m talkjax.export --landmark=RUN --diffusion=RUN --out=DIR`"
        )
    params = {part: params[part] for part in parts}
    if dtype is None and jax.default_backend() == "cpu":
        dtype = "float32"
    nets, expected = build_networks(_adapt(config, dtype), directory)
    found_shapes, expected_shapes = (
        {
            name: tuple(leaf.shape)
            for name, leaf in traverse_util.flatten_dict(tree, sep="/").items()
        }
        for tree in (params, expected)
    )
    weights.check_tensors(found_shapes, expected_shapes, directory)
    return params, config, nets


def _adapt(config: Mapping[str, Any], dtype: str | None) -> Mapping[str, Any]:
    """Changes the type of the computation, and the attention to one that this platform has."""
    if dtype is not None:
        config = {**config, "dtype": dtype}
    with contextlib.suppress(KeyError, TypeError):  # `make_networks` reports what is wrong
        denoiser = config["denoiser"]
        talk = denoiser["talkformer"]
        own = attention.supported_implementation(
            talk["implementation"], config["dtype"], jax.default_backend()
        )
        config = {**config, "denoiser": {**denoiser, "talkformer": {**talk, "implementation": own}}}
    return config


def build_networks(
    config: Mapping[str, Any], directory: str | os.PathLike
) -> tuple[networks.Networks, regions.Params]:
    """Builds the networks of a checkpoint's config.

    Args:
      config: Contents of its `config.json`.
      directory: Folder of the checkpoint, for error messages.

    Returns:
      The networks, and the shapes of their parameters.

    Raises:
      UserError: A field is missing or wrong.
    """
    try:
        for name in ("window", "references", "image_references"):
            if not 1 <= int(config["data"][name]) <= 10_000:
                raise ValueError(f"data.{name} = {config['data'][name]}")
        for name, least in (("steps", 0), ("image_steps", -1)):
            if not least <= int(config["sampling"][name]) <= int(config["diffusion"]["steps"]):
                raise ValueError(f"sampling.{name} = {config['sampling'][name]}")
        nets = networks.make_networks(config)
        return nets, regions.expected_params(nets)
    except KeyError as error:
        reason = f"it has no field {error}"
    except _CONFIG_ERRORS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    path = files.as_path(directory) / weights.CONFIG_FILE
    raise UserError(
        f"{path} is not a config that talkjax can use ({reason}); "
        "export the weights again with this version"
    )


def fingerprint(params: regions.Params, config: Mapping[str, Any]) -> str:
    """Returns what tells checkpoints apart: 16 hexadecimal digits of a SHA-256.

    Args:
      params: The parameters, whose names, shapes and values count.
      config: Their config, in which the paths of machines do not count.
    """
    digest = hashlib.sha256(
        json.dumps(runs.without_paths(dict(config)), sort_keys=True, default=str).encode()
    )
    for name, leaf in sorted(traverse_util.flatten_dict(params, sep="/").items()):
        value = np.ascontiguousarray(leaf)
        digest.update(f"{name} {value.dtype} {value.shape}".encode())
        digest.update(value.reshape(-1).view(np.uint8))
    return digest.hexdigest()[:16]
