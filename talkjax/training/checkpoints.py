"""Checkpoints of a run, and starting one stage from another's.

A run's directory holds `config.json` (what it was started with) and `checkpoints/STEP/`, each with
the items "state" (the whole TrainState) and "data" (the state of every process's iterator),
written in the background and complete or absent. `talkjax.runs` reads weights out of them.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util
from orbax.checkpoint import checkpoint_managers as policies

from talkjax import runs
from talkjax.errors import UserError
from talkjax.training import state as train_state
from talkjax.training.stage import Params

# Fields that may differ between a run and its resumption: they change how it is carried out, not
# what is computed. (Data that moved is still the same data.)
MAY_CHANGE = (
    "mesh", "log", "checkpoint", "eval", "max_skipped_in_a_row", "init_from",
    "autoencoder.weights", "data.dir", "data.latents",
    "data.memory_limit", "data.num_threads", "data.prefetch",
)  # fmt: skip


def check_config(workdir: str | os.PathLike, config: Any) -> None:
    """Refuses to continue a run under a config that would compute something else.

    Raises:
      UserError: names the fields that differ.
    """
    old, new = (
        traverse_util.flatten_dict(tree, sep=".", keep_empty_nodes=True)
        for tree in (runs.read_config(workdir), runs.plain_config(config))
    )

    def matters(name: str) -> bool:
        # A constant learning rate does not know the end: such a run may be prolonged.
        endless = new.get("optimizer.schedule") == "constant" and name == "steps"
        return not endless and not any(name == f or name.startswith(f + ".") for f in MAY_CHANGE)

    changed = [
        f"{name} was {old.get(name, 'absent')!r}, is {new.get(name, 'absent')!r}"
        for name in sorted(old.keys() | new.keys())
        if matters(name) and old.get(name, ...) != new.get(name, ...)
    ]
    if changed:
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise UserError(
            f"{workdir} holds a run with another config: {'; '.join(changed[:5])}{more}; "
            "restore those values or take another --workdir"
        )


# ---- save and restore ---------------------------------------------------------------------------


def open_manager(
    workdir: str | os.PathLike, keep_latest: int = 2, keep_best: int = 1
) -> ocp.CheckpointManager:
    """The manager of a run's checkpoints; close it when done.

    Args:
      workdir: the run's directory; in a run of several processes, one that all of them see.
      keep_latest: the newest checkpoints to keep.
      keep_best: those of lowest evaluation loss to keep besides.
    """

    def loss_of(metrics: Mapping[str, float]) -> float:
        return metrics["loss"]

    best = policies.BestN(
        get_metric_fn=loss_of, reverse=True, n=keep_best, keep_checkpoints_without_metrics=False
    )
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep_latest), best]),
        best_fn=loss_of,
        best_mode="min",
        cleanup_tmp_directories=True,
        enable_async_checkpointing=True,
    )
    return ocp.CheckpointManager(runs.checkpoint_directory(workdir), options=options)


def save(
    manager: ocp.CheckpointManager,
    step: int,
    state: train_state.TrainState,
    iterator: Any,
    metrics: Mapping[str, float] | None = None,
) -> None:
    """Saves a checkpoint in the background; nothing if the step has one.

    Args:
      manager: from `open_manager`.
      step: `state.step` on the host.
      state: copied off the devices before this returns, so that it can be donated.
      iterator: of this process; the last batch taken from it went into `state`.
      metrics: of an evaluation at this very step, {"loss": ...}.
    """
    if step in manager.all_steps():
        return
    items = ocp.args.Composite(
        state=ocp.args.StandardSave(state), data=grain.checkpoint.CheckpointSave(iterator)
    )
    manager.save(step, args=items, metrics=dict(metrics) if metrics else None, force=True)


@contextlib.contextmanager
def full_disk_explained(workdir: str | os.PathLike) -> Iterator[None]:
    """Turns whatever a full disk raises into a UserError.

    A save fails in the background and says so at the next one or when the manager is closed, in
    the words of the storage library; so the words are what is looked at.
    """
    try:
        yield
    except Exception as error:
        if "No space left" in str(error) or "Disk quota" in str(error):
            raise UserError(
                f"no space left in {workdir}; free some and start again: the run goes on from its "
                "newest complete checkpoint"
            ) from error
        raise


def restore(
    manager: ocp.CheckpointManager, step: int, abstract: train_state.TrainState, iterator: Any
) -> train_state.TrainState:
    """Restores a checkpoint, on whatever mesh `abstract` describes, and moves the iterator there.

    Args:
      manager: from `open_manager`.
      step: which checkpoint.
      abstract: tree of `jax.ShapeDtypeStruct` with shardings.
      iterator: of this process; set in place.

    Raises:
      UserError: the checkpoint is damaged, or the state of the data does not fit.
    """
    path = Path(manager.directory) / str(step)
    try:
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        state = manager.restore(step, args=items)["state"]
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise runs.damaged(path, error) from error
    # Position counts batches of the whole run, and is the same in every process: when their
    # number has changed, the first one's serves all.
    process, count = jax.process_index(), jax.process_count()
    own = path / "data" / f"process_{process}-of-{count}.json"
    files = [own] if own.exists() else sorted((path / "data").glob("process_0-of-*.json"))
    try:
        data = files[0].read_text()
        is_dataset = isinstance(iterator, grain.DatasetIterator)
        iterator.set_state(json.loads(data) if is_dataset else data.encode())
    except (ValueError, OSError, KeyError, TypeError, IndexError) as error:
        raise runs.damaged(path, error) from error
    return state


# ---- from one stage to the next -----------------------------------------------------------------


def warm_start(params: Params, sources: Mapping[str, str]) -> Params:
    """Replaces whole networks (top-level subtrees) of fresh parameters by earlier stages'.

    A network that one source trained and another merely carried along is taken from the former.

    Args:
      params: fresh ones, placed.
      sources: `config.init_from`: {stage name: directory, or ""}.

    Returns:
      The same tree in the same shardings; what no source has stays fresh.

    Raises:
      UserError: a source is missing, is of another stage, has nothing to give, or does not fit;
        two sources trained the same network.
    """
    sources = {name: path for name, path in sources.items() if path}
    if not sources:
        return params
    chosen: dict[str, tuple[bool, str, Params]] = {}
    for name, path in sources.items():
        source, config, trained = runs.load_weights(path)
        if (stage := config.get("stage", name)) != name:
            raise UserError(f"init_from.{name}={path} was trained as {stage!r}; check the path")
        shared = sorted(source.keys() & params.keys())
        if not shared:
            raise UserError(
                f"init_from.{name}={path} has {sorted(source)}, none of which is trained here "
                f"({sorted(params)}); leave it out"
            )
        for network in shared:
            was_trained, other, _ = chosen.get(network, (False, "", {}))
            if was_trained and network in trained:
                raise UserError(f"init_from: {other} and {path} both trained {network}; drop one")
            if network not in chosen or network in trained:
                chosen[network] = (network in trained, path, source[network])
    for network, (_, path, source) in chosen.items():
        params = insert(params, {network: source}, path)
    return params


def insert(params: Params, networks: Params, origin: str | os.PathLike) -> Params:
    """`params` with whole networks replaced, in the same shardings.

    Args:
      params: {network: tree}.
      networks: the replacements, numpy; a network that `params` does not have is left out.
      origin: what to call them in an error.

    Raises:
      UserError: tensors are missing, unexpected or of another shape.
    """
    from talkjax import weights

    result = dict(params)
    for network in networks.keys() & params.keys():
        old = traverse_util.flatten_dict(params[network], sep="/")
        new = traverse_util.flatten_dict(networks[network], sep="/")
        weights.check_tensors(
            {f"{network}/{k}": v.shape for k, v in new.items()},
            {f"{network}/{k}": v.shape for k, v in old.items()},
            origin,
        )
        placed = {name: _place(new[name], leaf) for name, leaf in old.items()}
        result[network] = traverse_util.unflatten_dict(placed, sep="/")
    return result


def _place(value: np.ndarray, like: jax.Array) -> jax.Array:
    value = np.asarray(value, like.dtype)
    return jax.make_array_from_callback(like.shape, like.sharding, lambda index: value[index])
