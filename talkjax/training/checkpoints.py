"""Checkpoints of a run, and starting one stage from another's.

A run's directory holds `config.json` (what it was started with) and `checkpoints/STEP/`, each with
the items "state" (the whole TrainState), "data" (the state of every process's iterator) and
"fingerprint" (of the state: storage checks no sums), written in the background and complete or
absent. `talkjax.runs` reads weights out of them. One that cannot be restored any more is renamed
`STEP.damaged`: it is kept for whoever can use it, and its step may be saved again.
"""

import contextlib
import json
import os
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import traverse_util
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as policies

from talkjax import files, runs
from talkjax.errors import UserError
from talkjax.training import state as train_state
from talkjax.training.stage import Params

# Fields that may differ between a run and its resumption: they change how it is carried out, not
# what is computed. (Data that moved is still the same data.)
MAY_CHANGE = (
    "mesh", "log", "checkpoint", "eval", "max_skipped_in_a_row", "init_from",
    "autoencoder.weights", "autoencoder.remat", "denoiser.remat",
    "denoiser.talkformer.implementation", "data.dir", "data.latents",
    "data.max_damaged", "data.memory_limit", "data.num_threads", "data.prefetch",
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

    directory = runs.checkpoint_directory(workdir)
    _set_damaged_scores_aside(directory)
    best = policies.BestN(
        get_metric_fn=loss_of, reverse=True, n=keep_best, keep_checkpoints_without_metrics=False
    )
    kept = policies.AnyPreservationPolicy([policies.LatestN(keep_latest), best])
    options = ocp.CheckpointManagerOptions(
        preservation_policy=kept,
        best_fn=loss_of,
        best_mode="min",
        cleanup_tmp_directories=True,
        enable_async_checkpointing=True,
    )
    manager = ocp.CheckpointManager(directory, options=options)
    _remove_superseded(manager, kept)
    return manager


def _remove_superseded(manager: ocp.CheckpointManager, kept: policies.PreservationPolicy) -> None:
    """Removes what is left where a run was killed between a save and what follows from it."""
    found = [
        types.SimpleNamespace(step=step, metrics=manager.metrics(step))
        for step in sorted(manager.all_steps())
    ]
    flags = kept.should_preserve(found, context=policies.PreservationContext())
    superseded = [info.step for info, keep in zip(found, flags, strict=True) if not keep]
    if _in_all_processes(True):  # all have looked
        for step in superseded:
            manager.delete(step)


def _set_damaged_scores_aside(directory: epath.Path) -> None:
    """Orbax could not open any checkpoint beside one whose evaluation cannot be read."""
    for scores in directory.glob("*/metrics/metrics"):
        try:
            json.loads(scores.read_text())
        except (ValueError, OSError):
            with contextlib.suppress(FileNotFoundError):  # another process was first
                scores.parent.rename(scores.parent.with_name("metrics.damaged"))


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
        state=ocp.args.StandardSave(state),
        data=grain.checkpoint.CheckpointSave(iterator),
        fingerprint=ocp.args.JsonSave(fingerprint(state)),
    )
    manager.save(step, args=items, metrics=dict(metrics) if metrics else None, force=True)


@jax.jit
def _sums_of_bits(leaves: list[jax.Array]) -> list[jax.Array]:
    def mixed(x: jax.Array) -> jax.Array:
        # MurmurHash3's final mix: one to one, so that no single change goes unseen.
        x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
        x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
        return x ^ (x >> 16)

    def sum_of_bits(x: jax.Array) -> jax.Array:
        words = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}"))
        position, stride = jnp.zeros(x.shape, jnp.uint32), 1
        for axis, size in enumerate(x.shape):
            index = jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
            position, stride = position + index * np.uint32(stride), stride * size % 2**32
        # An array whose parts have changed places is another one.
        return jnp.sum(mixed(words.astype(jnp.uint32) + mixed(position)), dtype=jnp.uint32)

    return [sum_of_bits(x) for x in leaves]


def fingerprint(state: train_state.TrainState) -> dict[str, int]:
    """A 32-bit sum of every array's bits, by its path; the same on every mesh."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    sums = jax.device_get(_sums_of_bits([leaf for _, leaf in leaves]))
    return {jax.tree_util.keystr(path): int(x) for (path, _), x in zip(leaves, sums, strict=True)}


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


def restore_newest(
    manager: ocp.CheckpointManager,
    abstract: train_state.TrainState,
    iterator: Any,
    warn: Callable[[str], Any],
) -> train_state.TrainState | None:
    """Restores the newest checkpoint that is not damaged, and sets newer, damaged ones aside.

    Args:
      manager: from `open_manager`.
      abstract: tree of `jax.ShapeDtypeStruct` with shardings.
      iterator: of this process; set in place.
      warn: told, in one line, which were damaged and where the run goes on.

    Returns:
      The state; None if there is no checkpoint at all.

    Raises:
      UserError: there are some, but none can be restored. Then none is renamed: more likely than
        that all are damaged, something else is wrong.
    """
    damaged: dict[int, str] = {}
    for step in sorted(manager.all_steps(), reverse=True):
        state, reason = None, "another process could not read it"
        try:
            state = restore(manager, step, abstract, iterator)
        except UserError as error:
            reason = str(error)
        if _in_all_processes(state is not None):
            break
        damaged[step] = reason
    else:
        if not damaged:
            return None
        raise UserError(
            f"none of the {len(damaged)} checkpoints in {manager.directory} can be restored; the "
            f"newest: {damaged[max(damaged)]}"
        )
    for bad, reason in damaged.items():
        path = files.as_path(manager.directory) / str(bad)
        aside = path.with_name(f"{bad}.damaged")
        for number in range(2, 100):
            if aside.exists():
                aside = path.with_name(f"{bad}.damaged{number}")
        if jax.process_index() == 0:
            path.rename(aside)
        what = reason.rpartition("; ")[0] or reason  # without the remedy
        warn(f"{what}; kept as {aside.name}, going on from step {step}")
    if damaged:
        _in_all_processes(True)  # renamed, for all to see
        manager.reload()
    return state


def _in_all_processes(here: bool) -> bool:
    """Whether it is so in every process; waits for them."""
    return bool(np.all(multihost_utils.process_allgather(np.asarray(here))))


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
    path = files.as_path(manager.directory) / str(step)
    try:
        items = {"state": ocp.args.StandardRestore(abstract)}
        if (path / "fingerprint").exists():  # older checkpoints have none
            items["fingerprint"] = ocp.args.JsonRestore()
        restored = manager.restore(step, args=ocp.args.Composite(**items))
        state = restored["state"]
        if restored.get("fingerprint", found := fingerprint(state)) != found:
            raise ValueError("its arrays are not those that were saved")
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise runs.damaged(path, error) from error
    # Position counts batches of the whole run, and is the same in every process: when their
    # number has changed, the first one's serves all.
    process, count = jax.process_index(), jax.process_count()
    own = path / "data" / f"process_{process}-of-{count}.json"
    states = [own] if own.exists() else sorted((path / "data").glob("process_0-of-*.json"))
    try:
        data = states[0].read_text()
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
