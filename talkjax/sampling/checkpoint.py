"""Loading a released checkpoint: `model.safetensors` and the `config.json` that explains it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from flax import errors as flax_errors
from flax import traverse_util

from talkjax import networks, weights
from talkjax.errors import UserError
from talkjax.models import attention
from talkjax.sampling import regions

PARTS = ("autoencoder", "denoiser", "landmark")
_CONFIG_ERRORS = (
    TypeError, ValueError, AttributeError, ArithmeticError, IndexError, AssertionError,
    MemoryError, flax_errors.FlaxError,
)  # fmt: skip


def load(
    directory: str | os.PathLike, dtype: str | None = None
) -> tuple[regions.Params, dict[str, Any], networks.Networks]:
    """Reads an exported checkpoint.

    Args:
      directory: what `train.py --export` wrote.
      dtype: type of the computation; by default the config's, but float32 on CPUs, which only
        imitate bfloat16.

    Returns:
      The parameters (numpy), the config and its networks.

    Raises:
      UserError: it is no such directory; a file is damaged; the config is not one of talkjax, or
        not the one of these weights; a network is missing.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(f"--checkpoint={directory}: not a directory; give one that --export wrote")
    if not (directory / weights.PARAMS_FILE).exists() and (directory / "checkpoints").is_dir():
        raise UserError(
            f"{directory} is a training run; release its weights first: "
            f"train.py --workdir={directory} --export=DIR"
        )
    params, config = weights.load_params(directory)
    missing = [part for part in PARTS if part not in params]
    if missing:
        stage = config.get("stage", "unknown")
        raise UserError(
            f"{directory} (stage {stage}) lacks the networks {', '.join(missing)}; "
            "give an export of the stage joint"
        )
    params = {part: params[part] for part in PARTS}
    if dtype is None and jax.default_backend() == "cpu":
        dtype = "float32"
    nets, expected = build(_as_here(config, dtype), directory)
    found, wanted = (
        {name: tuple(leaf.shape) for name, leaf in traverse_util.flatten_dict(t, sep="/").items()}
        for t in (params, expected)
    )
    weights.check_tensors(found, wanted, directory / weights.PARAMS_FILE)
    return params, config, nets


def _as_here(config: Mapping[str, Any], dtype: str | None) -> Mapping[str, Any]:
    """The config with another type of computation, and attention as this platform has it."""
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


def build(
    config: Mapping[str, Any], directory: str | os.PathLike
) -> tuple[networks.Networks, regions.Params]:
    """The networks of a checkpoint's config, and the shapes of their parameters.

    Raises:
      UserError: a field is missing or wrong.
    """
    try:
        for name in ("window", "references"):
            if not 1 <= int(config["data"][name]) <= 10_000:
                raise ValueError(f"data.{name} = {config['data'][name]}")
        nets = networks.make_networks(config)
        return nets, regions.expected_params(nets)
    except KeyError as error:
        reason = f"it has no field {error}"
    except _CONFIG_ERRORS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    raise UserError(
        f"{Path(directory) / weights.CONFIG_FILE} is not a config that talkjax can use ({reason}); "
        "export the weights again with this version"
    )
