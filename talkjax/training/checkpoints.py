"""Checkpoints of a run, and starting one stage from another's.

A run's directory holds `config.json` (the configuration it was started with) and
`checkpoints/STEP/`, each with the items "state" (the whole TrainState), "data" (the state of every
process's iterator) and "fingerprint" (of the state, because storage verifies no checksums). They
are written in the background and are complete or absent. `talkjax.runs` reads weights from them. A
checkpoint that can no longer be restored is renamed `STEP.damaged`, so that it is kept and its step
can be saved again.
"""

import contextlib
import dataclasses
import json
import os
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as policies

from talkjax import files, runs
from talkjax.configuration import with_defaults
from talkjax.errors import UserError
from talkjax.training import state as train_state
from talkjax.training.stage import Params

# Fields that may differ between a run and its resumption: they change how it is carried out, not
# what is computed. (Data that have moved are still the same data.)
MAY_CHANGE = (
    "mesh", "log", "checkpoint", "eval", "max_skipped_in_a_row", "init_from",
    "autoencoder.weights", "autoencoder.remat", "landmark.whisper_weights", "denoiser.remat",
    "denoiser.talkformer.implementation", "data.dir", "data.latents",
    "data.drop_landmarks", "data.memory_limit",  # of earlier versions
    "data.max_damaged", "data.num_threads", "data.prefetch",
)  # fmt: skip


def check_config(workdir: str | os.PathLike, config: Any) -> None:
    """Refuses to continue a run with a configuration that would compute something else.

    Fields that a newer version added have their defaults in an older run.

    Raises:
      UserError: Names the fields that differ.
    """
    saved = with_defaults(runs.read_config(workdir))
    old, new = (
        traverse_util.flatten_dict(runs.plain_config(c), sep=".", keep_empty_nodes=True)
        for c in (saved, config)
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
            f"{workdir} holds a run with another configuration: {'; '.join(changed[:5])}{more}; "
            "restore those values or use another workdir"
        )


# ---- save and restore ---------------------------------------------------------------------------


def open_manager(
    workdir: str | os.PathLike,
    keep_latest: int = 2,
    keep_best: int = 1,
    losses: Mapping[int, float] | None = None,
) -> ocp.CheckpointManager:
    """Opens the manager of a run's checkpoints, which must be closed.

    Args:
      workdir: The run's directory; with several processes, one that all of them see.
      keep_latest: How many of the newest checkpoints are kept.
      keep_best: How many of those with the lowest loss are kept besides.
      losses: {step: evaluation loss}. The caller may add to it later.
    """
    kept = policies.AnyPreservationPolicy(
        [policies.LatestN(keep_latest), _LowestLoss({} if losses is None else losses, keep_best)]
    )
    options = ocp.CheckpointManagerOptions(
        preservation_policy=kept, cleanup_tmp_directories=True, enable_async_checkpointing=True
    )
    manager = ocp.CheckpointManager(runs.checkpoint_directory(workdir), options=options)
    _remove_superseded(manager, kept)
    return manager


@dataclasses.dataclass(frozen=True)
class _LowestLoss(policies.PreservationPolicy):
    """Preserves the checkpoints with the lowest evaluation loss.

    Orbax's own `BestN` needs the loss when a checkpoint is saved, but a run saves first, so that
    an evaluation that fails costs no steps.
    """

    losses: Mapping[int, float]
    count: int

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: policies.PreservationContext
    ) -> list[bool]:
        del context
        steps = [info.step for info in checkpoints if info.step in self.losses]
        best = sorted(steps, key=lambda step: (self.losses[step], step))[: self.count]
        return [info.step in best for info in checkpoints]


def _remove_superseded(manager: ocp.CheckpointManager, kept: policies.PreservationPolicy) -> None:
    """Removes what remains where a run was killed between a save and the removal that follows."""
    found = [types.SimpleNamespace(step=step) for step in sorted(manager.all_steps())]
    flags = kept.should_preserve(found, context=policies.PreservationContext())
    superseded = [info.step for info, keep in zip(found, flags, strict=True) if not keep]
    if _in_all_processes(True):  # every process has listed the checkpoints
        for step in superseded:
            manager.delete(step)


def save(
    manager: ocp.CheckpointManager,
    step: int,
    state: train_state.TrainState,
    iterator: Any,
) -> None:
    """Saves a checkpoint in the background; does nothing if the step has one.

    Args:
      manager: Manager from `open_manager`.
      step: `state.step` on the host.
      state: Training state. It is copied off the devices before this returns, so that it can be
        donated.
      iterator: This process's iterator; the last batch taken from it went into `state`.
    """
    if step in manager.all_steps():
        return
    items = ocp.args.Composite(
        state=ocp.args.StandardSave(state),
        data=grain.checkpoint.CheckpointSave(iterator),
        fingerprint=ocp.args.JsonSave(fingerprint(state)),
    )
    manager.save(step, args=items, force=True)


@jax.jit
def _sums_of_bits(leaves: list[jax.Array]) -> list[jax.Array]:
    def mixed(x: jax.Array) -> jax.Array:
        # MurmurHash3's final mix is one to one, so that no single change goes unnoticed.
        x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
        x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
        return x ^ (x >> 16)

    def sum_of_bits(x: jax.Array) -> jax.Array:
        words = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}"))
        position, stride = jnp.zeros(x.shape, jnp.uint32), 1
        for axis, size in enumerate(x.shape):
            index = jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
            position, stride = position + index * np.uint32(stride), stride * size % 2**32
        # The position is mixed in because a permuted array is a different one.
        return jnp.sum(mixed(words.astype(jnp.uint32) + mixed(position)), dtype=jnp.uint32)

    return [sum_of_bits(x) for x in leaves]


def fingerprint(state: train_state.TrainState) -> dict[str, int]:
    """Returns a 32-bit sum of every array's bits by its path; it is the same on every mesh."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    sums = jax.device_get(_sums_of_bits([leaf for _, leaf in leaves]))
    return {jax.tree_util.keystr(path): int(x) for (path, _), x in zip(leaves, sums, strict=True)}


@contextlib.contextmanager
def full_disk_explained(workdir: str | os.PathLike) -> Iterator[None]:
    """Turns exceptions of a full disk or a directory that cannot be written into a UserError.

    A save fails in the background and raises at the next one, or when the manager is closed, with
    the message of the storage library, so this looks at the message.
    """
    try:
        yield
    except Exception as error:
        if "No space left" in str(error) or "Disk quota" in str(error):
            raise UserError(
                f"no space left in {workdir}; free some and start again: the run resumes from its "
                "newest complete checkpoint"
            ) from error
        if isinstance(error, OSError) and str(error.filename).startswith(str(workdir)):
            raise UserError(
                f"{error.filename}: {error.strerror}; make it writable or choose another workdir"
            ) from error
        raise


def restore_newest(
    manager: ocp.CheckpointManager,
    abstract: train_state.TrainState,
    iterator: Any,
    warn: Callable[[str], Any],
) -> train_state.TrainState | None:
    """Restores the newest checkpoint that is not damaged, and renames newer, damaged ones.

    Args:
      manager: Manager from `open_manager`.
      abstract: Tree of `jax.ShapeDtypeStruct` with shardings.
      iterator: This process's iterator; its position is restored in place.
      warn: Called with one line about each damaged checkpoint.

    Returns:
      The state, or None if there is no checkpoint at all.

    Raises:
      UserError: There are checkpoints, but none can be restored. None is renamed then, because it
        is more likely that something else is wrong than that all are damaged.
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
        _in_all_processes(True)  # the renaming is done
        manager.reload()
    return state


def _in_all_processes(here: bool) -> bool:
    """Returns whether `here` is true in every process, after waiting for all of them."""
    return bool(np.all(multihost_utils.process_allgather(np.asarray(here))))


def restore(
    manager: ocp.CheckpointManager, step: int, abstract: train_state.TrainState, iterator: Any
) -> train_state.TrainState:
    """Restores a checkpoint on the mesh that `abstract` describes, and the iterator's position.

    Args:
      manager: Manager from `open_manager`.
      step: Step of the checkpoint.
      abstract: Tree of `jax.ShapeDtypeStruct` with shardings.
      iterator: This process's iterator; its position is restored in place.

    Raises:
      UserError: The checkpoint is damaged, or the state of the data does not fit.
    """
    path = files.as_path(manager.directory) / str(step)
    try:
        items = {"state": ocp.args.StandardRestore(abstract)}
        if (path / "fingerprint").exists():  # older checkpoints have none
            items["fingerprint"] = ocp.args.JsonRestore()
        restored = manager.restore(step, args=ocp.args.Composite(**items))
        state = restored["state"]
        if restored.get("fingerprint", found := fingerprint(state)) != found:
            raise ValueError("its arrays differ from those that were saved")
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise runs.damaged(path, error) from error
    # The position counts batches of the whole run and is the same in every process. When the
    # number of processes has changed, all take the first one's.
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

# Networks that a field of `config.init_from` takes from its source: it must have the first, and
# may have the others. Later fields are more specific, and win.
_TAKEN = {
    "joint": ("denoiser", "landmark", "speech", "autoencoder", "lip_regressor", "discriminator"),
    "diffusion": ("denoiser", "autoencoder", "lip_regressor", "discriminator"),
    "landmark": ("landmark", "speech"),
    "autoencoder": ("autoencoder",),
    "sync": ("sync",),
}


# Fields that change what a denoiser's parameters mean but not their names and shapes.
_MEANING = (
    ("denoiser", "groups"), ("denoiser", "skip_after_attention"), ("diffusion", "residual_scale"),
)  # fmt: skip


def load_sources(sources: Mapping[str, str], own: Mapping[str, Any] | None = None) -> Params:
    """Loads the networks that a run starts from.

    Args:
      sources: `config.init_from`: {field: directory of a run or of an export, or ""}.
      own: Configuration of the run, which the denoiser of a source must fit, or None.

    Returns:
      {network: params}, numpy.

    Raises:
      UserError: A source does not exist, is damaged, lacks the network that its field names, or has
        a denoiser whose parameters mean something else.
    """
    networks: Params = {}
    for field, taken in _TAKEN.items():
        if not (path := sources.get(field, "")):
            continue
        found, config, _ = runs.load_weights(path)
        if taken[0] not in found:
            raise UserError(
                f"init_from.{field}={path} has no network {taken[0]!r} (it has "
                f"{', '.join(sorted(found))}); use the field init_from.NAME of a network it has"
            )
        for part, name in _MEANING if own is not None and "denoiser" in taken else ():
            theirs, ours = config[part][name], own[part][name]
            if theirs != ours:
                raise UserError(
                    f"init_from.{field}={path} has {part}.{name}={theirs}, and this run {ours}; "
                    f"set --config.{part}.{name} to the same value"
                )
        networks |= {name: found[name] for name in taken if name in found}
    return networks


# Parameters that an option adds. They begin with 0 and so change nothing at first: a run with the
# option can start from a network without it.
_ADDED = ("denoiser/lip_shape_in/",)


def insert(params: Params, networks: Params, origin: str | os.PathLike) -> Params:
    """Replaces whole networks of placed parameters, in the same shardings.

    Args:
      params: {network: tree}.
      networks: {network: tree} of replacements, numpy. Those that `params` does not have are
        ignored.
      origin: What an error calls the replacements.

    Raises:
      UserError: Tensors are missing, unexpected or of another shape. What `_ADDED` lists may be
        missing.
    """
    from talkjax import weights

    result = dict(params)
    for network in networks.keys() & params.keys():
        old = traverse_util.flatten_dict(params[network], sep="/")
        new = traverse_util.flatten_dict(networks[network], sep="/")
        kept = {k for k in old.keys() - new.keys() if f"{network}/{k}".startswith(_ADDED)}
        weights.check_tensors(
            {f"{network}/{k}": v.shape for k, v in new.items()},
            {f"{network}/{k}": v.shape for k, v in old.items() if k not in kept},
            origin,
        )
        placed = {
            name: leaf if name in kept else _place(new[name], leaf) for name, leaf in old.items()
        }
        result[network] = traverse_util.unflatten_dict(placed, sep="/")
    return result


def _place(value: np.ndarray, like: jax.Array) -> jax.Array:
    value = np.asarray(value, like.dtype)
    return jax.make_array_from_callback(like.shape, like.sharding, lambda index: value[index])
