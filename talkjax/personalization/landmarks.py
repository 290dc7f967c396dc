"""Adapts a landmark network to how one person speaks."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from talkjax import configuration, runs
from talkjax.errors import UserError
from talkjax.training import checkpoints, input, loop, metrics, stages

_MOST_STEPS = 2000
_EVERY = 50  # steps from one evaluation to the next
_PATIENCE = 4  # evaluations without improvement


def adapt(checkpoint: Path, shards: Path, workdir: Path, seconds: float) -> Path | None:
    """Trains the landmark network of a checkpoint further, on prepared footage.

    Training ends when the loss on the held-out split no longer improves, or when the time is over.
    A call that was interrupted is resumed.

    Args:
      checkpoint: Folder of the checkpoint that training starts from, which stays as it is.
      shards: Folder with the splits "train" and "test".
      workdir: Directory of the training run.
      seconds: Longest duration of the training, without compilation.

    Returns:
      An export of the network at its best, or None if training was stopped before it was measured.

    Raises:
      UserError: The checkpoint has no landmark network, or the disk is full.
    """
    config = FrozenConfigDict(make_config(checkpoint, shards))
    stopped = loop.train(
        config,
        workdir,
        stages.make_stage(config),
        input.make_datasets(config),
        lambda: checkpoints.load_sources(config.init_from),
        end_when_best(seconds),
    )
    if stopped:
        raise UserError("stopped by SIGTERM; give the same command again to go on")
    losses = metrics.evaluation_losses(workdir / metrics.FILE)
    kept = {int(path.name) for path in runs.checkpoint_directory(workdir).glob("[0-9]*")}
    losses = {step: loss for step, loss in losses.items() if step in kept}
    if not losses:
        return None
    return _export(workdir, min(losses, key=lambda step: (losses[step], step)))


def make_config(checkpoint: Path, shards: Path) -> ConfigDict:
    """Returns the configuration of the training: that of the checkpoint's landmark network."""
    _, saved, _ = runs.load_weights(checkpoint)
    own = saved["networks"].get("landmark", {}).get("config", saved)  # of another run than the rest
    config = ConfigDict(_known(configuration.with_defaults(own), configuration.default_config()))
    config.stage, config.steps, config.batch_size = "landmark", _MOST_STEPS, 32
    config.init_from.update(dict.fromkeys(config.init_from, "") | {"landmark": str(checkpoint)})
    config.optimizer.update(
        {"learning_rate": 1e-4, "schedule": "constant", "warmup_steps": 20, "accumulation": 1}
    )
    config.ema_decay = 0.98
    config.data.update(
        {"dir": str(shards), "weights": (), "latents": "", "sound_offsets": "", "num_workers": 0}
    )
    config.mesh.update({"data": -1, "fsdp": 1})
    config.log.every = config.checkpoint.every = config.eval.every = _EVERY
    config.checkpoint.update({"keep_latest": 1, "keep_best": 1})
    config.eval.update({"batches": 8, "dir": ""})
    return config


def _known(config: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Drops fields of earlier versions."""
    out = {name: value for name, value in config.items() if name in fields}
    nested = [name for name in out if isinstance(fields[name], ConfigDict)]
    return out | {name: _known(out[name], fields[name]) for name in nested}


def end_when_best(seconds: float) -> Callable[[Mapping[int, float]], bool]:
    """Returns a `should_stop` of `loop.train` for a limited time without improvement."""
    begun: list[float] = []

    def should_stop(losses: Mapping[int, float]) -> bool:
        begun.append(time.monotonic())
        del begun[1:]
        if time.monotonic() - begun[0] > seconds:
            return True
        in_order = [losses[step] for step in sorted(losses)]
        best = in_order.index(min(in_order)) if in_order else 0
        return len(in_order) - best > _PATIENCE

    return should_stop


def _export(workdir: Path, step: int) -> Path:
    """Writes the averaged weights of one step of a run as a checkpoint of the landmark network."""
    from talkjax import weights

    out = workdir / "best"
    params, _, _ = runs.load_run(workdir, step)
    config = runs.read_config(workdir)
    config["networks"] = {name: {"stage": "landmark", "steps": step} for name in params}
    weights.save_params(out, params, runs.without_paths(config))
    return out
