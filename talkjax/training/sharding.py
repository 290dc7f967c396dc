"""The device mesh, and which parameter lies where on it.

Mesh axes are ("data", "fsdp"). A batch is split over both; parameters, optimiser state and moving
averages are split over "fsdp" or copied, as ordered rules say: the first pattern found in
a parameter's path decides. A parameter that no rule matches, or that its rule cannot split, is an
error that names it: a guess would cost memory or time unseen.
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from talkjax.errors import UserError

AXES = ("data", "fsdp")
TACTICS = ("replicate", "fsdp")
BATCH = PartitionSpec(AXES)  # the leading axis over every device

Rules = Sequence[tuple[str, str]]


def make_mesh(data: int = -1, fsdp: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """A ("data", "fsdp") mesh over all devices.

    Args:
      data: devices along "data"; -1 takes what "fsdp" leaves.
      fsdp: devices along "fsdp"; -1 takes what "data" leaves.
      devices: default all, in an order that suits the interconnect.

    Raises:
      UserError: the two do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    if data == -1 and fsdp > 0:
        data = count // fsdp
    elif fsdp == -1 and data > 0:
        fsdp = count // data
    if data < 1 or fsdp < 1 or data * fsdp != count:
        raise UserError(
            f"mesh.data x mesh.fsdp must give the {count} devices there are; "
            f"set --config.mesh.data=-1 and --config.mesh.fsdp to a divisor of {count}"
        )
    # Auto axes: explicit ones, jax.make_mesh's default, refuse convolutions.
    return Mesh(device_grid(data, fsdp, devices), AXES, axis_types=(AxisType.Auto,) * 2)


def device_grid(data: int, fsdp: int, devices: Sequence[Any]) -> np.ndarray:
    """(data, fsdp) devices in an order that suits the interconnect.

    Slices are joined by a slower network than the one inside of them: "data", whose traffic is one
    sum of gradients a step, goes across them, "fsdp" never does.

    Raises:
      UserError: the slices do not divide "data".
    """
    slices = len({getattr(device, "slice_index", 0) or 0 for device in devices})
    if slices == 1:
        return mesh_utils.create_device_mesh((data, fsdp), devices, allow_split_physical_axes=True)
    if data % slices:
        raise UserError(
            f"mesh.data={data} does not go over {slices} slices; it must be a multiple of them, "
            "and mesh.fsdp a divisor of one slice's devices"
        )
    return mesh_utils.create_hybrid_device_mesh(
        (data // slices, fsdp), (slices, 1), devices, allow_split_physical_axes=True
    )


def param_specs(params: Any, mesh: Mesh, rules: Rules, min_size: int = 2**16) -> Any:
    """PartitionSpecs for a tree of parameters.

    Args:
      params: tree of arrays or `jax.ShapeDtypeStruct`.
      mesh: from `make_mesh`.
      rules: ordered (pattern, tactic) pairs. "replicate" copies; "fsdp" splits the longest axis
        that "fsdp" divides (of equal ones the last).
      min_size: parameters with fewer elements are copied under "fsdp": moving them costs more
        than they take.

    Returns:
      The same tree of PartitionSpecs.

    Raises:
      UserError: a parameter matches no rule, or none of its axes can be divided; a rule names
        an unknown tactic.
    """
    for pattern, tactic in rules:
        if tactic not in TACTICS:
            raise UserError(
                f"mesh.rules: unknown tactic {tactic!r} for {pattern!r}; use one of {TACTICS}"
            )
    shards = mesh.shape["fsdp"]

    def spec(path: Any, leaf: Any) -> PartitionSpec:
        name = path_name(path)
        tactic = next((tactic for pattern, tactic in rules if re.search(pattern, name)), None)
        if tactic is None:
            raise UserError(f"no rule in mesh.rules matches parameter {name}; add one")
        if tactic == "replicate" or shards == 1 or np.prod(leaf.shape, dtype=np.int64) < min_size:
            return PartitionSpec()
        divisible = [i for i, size in enumerate(leaf.shape) if size % shards == 0]
        if not divisible:
            raise UserError(
                f"parameter {name} {tuple(leaf.shape)} has no axis that mesh.fsdp={shards} "
                "divides; change mesh.fsdp or add a rule ('pattern', 'replicate') before"
            )
        axis = max(divisible, key=lambda i: (leaf.shape[i], i))
        return PartitionSpec(*["fsdp" if i == axis else None for i in range(axis + 1)])

    return jax.tree_util.tree_map_with_path(spec, params)


def named(mesh: Mesh, specs: Any) -> Any:
    """A tree of PartitionSpecs as NamedShardings."""
    return jax.tree.map(
        lambda spec: NamedSharding(mesh, spec),
        specs,
        is_leaf=lambda x: isinstance(x, PartitionSpec),
    )


def path_name(path: Any) -> str:
    """A jax key path as "denoiser/down_0/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of every array of a batch."""
    return NamedSharding(mesh, BATCH)


def on_mesh(mesh: Mesh, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` for `jax.jit`, traced under `mesh`: what kernels split their rows over."""

    @functools.wraps(function)
    def traced(*args: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args)

    return traced


def check_batch_size(batch_size: int, mesh: Mesh, accumulation: int = 1) -> None:
    """Checks that a global batch splits evenly.

    Raises:
      UserError: it does not split over the devices, the processes or the microbatches.
    """
    parts = mesh.size * accumulation
    if batch_size < 1 or batch_size % parts:
        raise UserError(
            f"batch_size={batch_size} must be a multiple of {parts} ({mesh.size} devices x "
            f"{accumulation} microbatches); change --config.batch_size"
        )


def place_batch(batch: dict[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    """This process's rows of a batch as global arrays, each row on its device."""
    return {
        name: jax.make_array_from_process_local_data(sharding, np.asarray(value))
        for name, value in batch.items()
    }
