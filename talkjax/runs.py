"""What a training run leaves behind, for whoever reads it: config, newest weights, their release.

A run's directory holds `config.json` and `checkpoints/STEP/` (which `talkjax.training.checkpoints`
writes); an export holds `config.json` and `model.safetensors`.
"""

import json
import os
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from flax import traverse_util

from talkjax import files
from talkjax.errors import UserError

Params = dict[str, Any]
CONFIG_FILE = "config.json"
DIRECTORY = "checkpoints"

# What Orbax warns of though it is as it should be: a save that no evaluation goes with, and an item
# of a checkpoint read by itself.
_NO_CAUSE = ("tracked_metric", "Metadata file does not exist")
logging.get_absl_logger().addFilter(
    lambda record: not any(words in str(record.msg) for words in _NO_CAUSE)
)


def checkpoint_directory(workdir: str | os.PathLike) -> epath.Path:
    """Where a run's checkpoints are; Orbax wants it absolute."""
    return files.absolute(workdir) / DIRECTORY


def plain_config(config: Any) -> dict[str, Any]:
    """A config (ConfigDict or mapping) as plain JSON data."""
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
      UserError: there is none, or it is damaged.
    """
    path = files.as_path(workdir) / CONFIG_FILE
    return files.read_json_object(path, "give the directory of a training run")


def load_run(workdir: str | os.PathLike) -> tuple[Params, list[str], int]:
    """The averaged parameters of a run's newest checkpoint.

    Returns:
      Parameters as float32 numpy, the names of the networks that were trained, the step.

    Raises:
      UserError: there is no checkpoint, or it is damaged.
    """
    directory = checkpoint_directory(workdir)
    steps = [int(p.name) for p in directory.glob("*") if p.name.isdigit()]
    if not steps:
        raise UserError(f"{workdir} holds no checkpoint yet; train there first")
    path = directory / str(max(steps)) / "state"
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
    return params, sorted(trees["ema"]), max(steps)


def export(workdir: str | os.PathLike, out: str | os.PathLike, dtype: str = "float32") -> None:
    """Writes the averaged weights of a run's newest checkpoint as safetensors + config.json.

    Args:
      workdir: of the run.
      out: directory for them.
      dtype: float32, or float16 for a file of half the size; read back, they are float32 again.

    Raises:
      UserError: as `load_run` and `talkjax.weights.save_params`.
    """
    from talkjax import weights  # needs safetensors, which training itself does not

    config = without_paths(read_config(workdir))
    params, trained, step = load_run(workdir)
    config = {**config, "trained": trained, "trained_steps": step}
    weights.save_params(out, params, config, np.dtype(dtype))


def without_paths(config: dict[str, Any]) -> dict[str, Any]:
    """A config without what names files of the machine it was trained on."""
    blank = {"data": {"dir": "", "latents": ""}, "eval": {"dir": ""}}
    blank["autoencoder"] = {"weights": ["", ""]}
    blank["init_from"] = dict.fromkeys(config.get("init_from", {}), "")
    for part, fields in blank.items():
        if part in config:
            config = {**config, part: {**config[part], **fields}}
    return config


def load_weights(path: str | os.PathLike) -> tuple[Params, dict[str, Any], list[str]]:
    """Weights from a run's directory or from an export: (params, config, trained networks).

    Raises:
      UserError: it is neither, or damaged.
    """
    if (files.as_path(path) / DIRECTORY).is_dir():
        params, trained, _ = load_run(path)
        return params, read_config(path), trained
    from talkjax import weights

    if not (files.as_path(path) / weights.PARAMS_FILE).exists():
        raise UserError(
            f"{path} holds neither {DIRECTORY}/ nor {weights.PARAMS_FILE}; "
            "give a training --workdir or an --export directory"
        )
    params, config = weights.load_params(path)
    return params, config, list(config.get("trained", params))


def damaged(path: files.PathLike, error: Exception) -> UserError:
    """The error that names a checkpoint which could not be read."""
    return UserError(
        f"checkpoint {path} cannot be restored ({files.one_line(error)}); delete it to go on from "
        "the one before"
    )
