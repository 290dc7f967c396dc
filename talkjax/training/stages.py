"""The training stages (arXiv 2408.05416, section 3.3) as pure functions of arrays.

`autoencoder`; `landmark`; `diffusion` (true landmarks, condition dropout); `joint` (predicted
landmarks, optimised end to end); and `sync`, the sync expert. Each has a module of its name.
`make_stage(config)` returns a `Stage`, which is all that the training loop knows.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from talkjax import networks
from talkjax.networks import Networks
from talkjax.training import (
    autoencoder_stage,
    diffusion_stage,
    joint_stage,
    landmark_stage,
    sync_stage,
)
from talkjax.training.stage import Stage

_MAKERS: dict[str, Callable[[Mapping[str, Any], Networks], Stage]] = {
    "autoencoder": autoencoder_stage.autoencoder_stage,
    "landmark": landmark_stage.landmark_stage,
    "diffusion": diffusion_stage.diffusion_stage,
    "joint": joint_stage.joint_stage,
}


def make_stage(config: Mapping[str, Any]) -> Stage:
    """Makes the stage that `config.stage` names.

    Raises:
      ValueError: The stage is unknown, or a field has no such value.
    """
    if config["stage"] == "sync":  # none of the networks below
        return sync_stage.make_sync_stage(config)
    nets = networks.make_networks(config)
    if config["stage"] not in _MAKERS:
        raise ValueError(f"no stage {config['stage']!r}; use one of {', '.join(_MAKERS)}, sync")
    stage = _MAKERS[config["stage"]](config, nets)
    compute_type = functools.partial(networks.compute_type, config["dtype"])
    return dataclasses.replace(stage, compute_type=compute_type)
