"""Reads what a training run or an export holds: its configuration and its newest weights.

A run's directory holds `config.json` and `checkpoints/STEP/`, which `talkjax.training.checkpoints`
writes. An export holds `config.json` and `model.safetensors`.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from flax import traverse_util

from talkjax import files
from talkjax.configuration import with_defaults
from talkjax.errors import UserError

Params = dict[str, Any]
CONFIG_FILE = "config.json"
DIRECTORY = "checkpoints"

# Orbax warns when a single item of a checkpoint is read, which is intended here.
logging.get_absl_logger().addFilter(
    lambda record: "Metadata file does not exist" not in str(record.msg)
)


def checkpoint_directory(workdir: str | os.PathLike) -> epath.Path:
    """Returns the directory of a run's checkpoints, absolute as Orbax requires it."""
    return files.absolute(workdir) / DIRECTORY


def plain_config(config: Any) -> dict[str, Any]:
    """Converts a configuration (ConfigDict or mapping) to plain JSON data."""
    as_dict = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return json.loads(json.dumps(as_dict))


def write_config(workdir: str | os.PathLike, config: Any) -> None:
    """Writes `config.json` into a run's directory, complete or not at all."""
    directory = files.as_path(workdir)
    directory.mkdir(parents=True, exist_ok=True)
    files.write_json(directory / CONFIG_FILE, plain_config(config), sort_keys=True)


def read_config(workdir: str | os.PathLike) -> dict[str, Any]:
    """Reads a run's `config.json`.

    Raises:
      UserError: It does not exist or is damaged.
    """
    path = files.as_path(workdir) / CONFIG_FILE
    return files.read_json_object(path, "give the directory of a training run")


def load_run(workdir: str | os.PathLike, step: int | None = None) -> tuple[Params, list[str], int]:
    """Reads the averaged parameters of one of a run's checkpoints.

    Args:
      workdir: The run's directory.
      step: Step of the checkpoint; None for the newest.

    Returns:
      Parameters as float32 numpy, the names of the networks that were trained, and the step.

    Raises:
      UserError: There is no checkpoint, or it is damaged.
    """
    directory = checkpoint_directory(workdir)
    steps = [int(p.name) for p in directory.glob("*") if p.name.isdigit()]
    if not steps:
        raise UserError(f"{workdir} has no checkpoint yet; train first")
    step = max(steps) if step is None else step
    path = directory / str(step) / "state"
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            # Where the metadata is lost this is `dict(None)`, a TypeError.
            saved = dict(getattr(checkpointer.metadata(path).item_metadata, "tree", None))
            # Only the weights: the optimiser's state is twice as large.
            wanted = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
                {part: saved[part] for part in ("params", "ema")},
            )
            kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
            trees = checkpointer.restore(
                path,
                args=ocp.args.PyTreeRestore(item=wanted, restore_args=kinds, partial_restore=True),
            )
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise damaged(path.parent, error) from error
    flat = [traverse_util.flatten_dict(trees[part], sep="/") for part in ("params", "ema")]
    params = traverse_util.unflatten_dict(flat[0] | flat[1], sep="/")
    return params, sorted(trees["ema"]), step


def without_paths(config: dict[str, Any]) -> dict[str, Any]:
    """Returns a configuration without the paths of the machine that it was used on."""
    blank = {"data": {"dir": "", "latents": "", "sound_offsets": ""}, "eval": {"dir": ""}}
    blank["autoencoder"] = {"weights": ["", ""]}
    blank["landmark"] = {"whisper_weights": ""}
    blank["init_from"] = dict.fromkeys(config.get("init_from", {}), "")
    for part, fields in blank.items():
        if part in config:
            config = {**config, part: {**config[part], **fields}}
    return config


def load_weights(path: str | os.PathLike) -> tuple[Params, dict[str, Any], list[str]]:
    """Reads the weights of a training run or of an export.

    Args:
      path: Directory of either.

    Returns:
      Parameters as float32 numpy; the configuration, in which `networks` records for each network
      the "stage" and the "steps" it was trained for, or that it was "frozen" there; and the names
      of the trained networks.

    Raises:
      UserError: It is neither, or damaged.
    """
    folder = files.as_path(path)
    if (folder / DIRECTORY).is_dir():
        params, trained, step = load_run(path)
        config = with_defaults(read_config(path))
        records = {name: {"stage": config["stage"], "frozen": True} for name in params}
        records |= {name: {"stage": config["stage"], "steps": step} for name in trained}
        return params, {**config, "networks": records}, trained
    from talkjax import weights  # needs safetensors, which training itself does not

    if not (folder / weights.PARAMS_FILE).exists():
        raise UserError(
            f"{path} holds neither {DIRECTORY}/ nor {weights.PARAMS_FILE}; give the directory of a "
            "training run or of an export"
        )
    params, config = weights.load_params(path)
    if "networks" not in config:  # written by an earlier version
        names, steps = config.pop("trained", list(params)), config.pop("trained_steps", None)
        config["networks"] = {n: {"stage": config.get("stage"), "steps": steps} for n in names}
    trained = [name for name, record in config["networks"].items() if not record.get("frozen")]
    return params, with_defaults(config), trained


def landmark_parts(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the subtrees of parameters that predicting landmarks needs.

    Args:
      config: A configuration from `load_weights`, whose fields may be wrong.
    """
    landmark = config["landmark"]
    heard = isinstance(landmark, Mapping) and landmark.get("audio") == "whisper"
    return ("landmark", "speech") if heard else ("landmark",)


def damaged(path: files.PathLike, error: Exception) -> UserError:
    """Returns the error that names a checkpoint which cannot be read."""
    return UserError(
        f"checkpoint {path} cannot be restored ({files.one_line(error)}); delete it to resume from "
        "the one before"
    )
