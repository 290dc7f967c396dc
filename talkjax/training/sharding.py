"""The device mesh and the sharding of parameters.

Mesh axes are ("data", "fsdp"). A batch is sharded over both. Parameters, optimizer state and moving
averages are sharded over "fsdp" or replicated, as ordered rules say: the first pattern that a
parameter's path contains decides. A parameter that no rule matches, or that its rule cannot
shard, is an error that names it, because a guess would cost memory or time unnoticed.
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from talkjax.errors import UserError

AXES = ("data", "fsdp")
TACTICS = ("replicate", "fsdp")
BATCH = PartitionSpec(AXES)  # the leading axis over every device

Rules = Sequence[tuple[str, str]]


def make_mesh(data: int = -1, fsdp: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """Makes a ("data", "fsdp") mesh over all devices.

    Args:
      data: Number of devices along "data"; -1 takes those that "fsdp" leaves.
      fsdp: Number of devices along "fsdp"; -1 takes those that "data" leaves.
      devices: Devices; all of them by default, in an order that suits the interconnect.

    Raises:
      UserError: The two do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    if data == -1 and fsdp > 0:
        data = count // fsdp
    elif fsdp == -1 and data > 0:
        fsdp = count // data
    if data < 1 or fsdp < 1 or data * fsdp != count:
        raise UserError(
            f"mesh.data x mesh.fsdp must equal the number of devices, {count} devices; "
            f"set --config.mesh.data=-1 and --config.mesh.fsdp to a divisor of {count}"
        )
    # Auto axes, because convolutions do not support explicit ones, the default of jax.make_mesh.
    return Mesh(device_grid(data, fsdp, devices), AXES, axis_types=(AxisType.Auto,) * 2)


def device_grid(data: int, fsdp: int, devices: Sequence[Any]) -> np.ndarray:
    """Arranges devices as (data, fsdp), in an order that suits the interconnect.

    The network between slices is slower than the one inside them. So "data", whose traffic is one
    sum of gradients per step, spans slices, and "fsdp" never does.

    Raises:
      UserError: The number of slices does not divide "data".
    """
    slices = len({getattr(device, "slice_index", 0) or 0 for device in devices})
    if slices == 1:
        return mesh_utils.create_device_mesh((data, fsdp), devices, allow_split_physical_axes=True)
    if data % slices:
        raise UserError(
            f"mesh.data={data} cannot span {slices} slices; it must be a multiple of their number, "
            "and mesh.fsdp a divisor of one slice's devices"
        )
    return mesh_utils.create_hybrid_device_mesh(
        (data // slices, fsdp), (slices, 1), devices, allow_split_physical_axes=True
    )


def param_specs(params: Any, mesh: Mesh, rules: Rules, min_size: int = 2**16) -> Any:
    """Returns the PartitionSpecs of a tree of parameters.

    Args:
      params: Tree of arrays or `jax.ShapeDtypeStruct`.
      mesh: Mesh from `make_mesh`.
      rules: Ordered pairs (pattern, tactic). "replicate" replicates; "fsdp" shards the longest axis
        that "fsdp" divides (the last one of several).
      min_size: Parameters with fewer elements are replicated under "fsdp" too, because moving them
        costs more than storing them.

    Returns:
      The same tree of PartitionSpecs.

    Raises:
      UserError: A parameter matches no rule or has no axis that can be divided, or a rule names an
        unknown tactic.
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
    """Converts a tree of PartitionSpecs to NamedShardings."""
    return jax.tree.map(
        lambda spec: NamedSharding(mesh, spec),
        specs,
        is_leaf=lambda x: isinstance(x, PartitionSpec),
    )


def gather(params: Any, shardings: Any, compute_type: Callable[[str], Any] | None) -> Any:
    """Gathers sharded parameters, in the type that their layers compute in.

    Left to itself, the compiler gathers parameters too, but activations instead wherever these are
    smaller on one device, and shards others like the parameters.

    Args:
      params: Tree of parameters. What is not sharded is returned as it is.
      shardings: Their NamedShardings.
      compute_type: `Stage.compute_type`.

    Returns:
      The same tree, replicated. Its gradient is sharded like `params`, in their own type.
    """

    def whole(path: Any, leaf: jax.Array, where: NamedSharding) -> jax.Array:
        if where.is_fully_replicated:
            return leaf
        dtype = compute_type(path_name(path)) if compute_type else leaf.dtype
        return _gather(leaf, where, dtype)

    return jax.tree_util.tree_map_with_path(whole, params, shardings)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gather(x: jax.Array, where: NamedSharding, dtype: Any) -> jax.Array:
    x = jax.lax.with_sharding_constraint(x.astype(dtype), where)
    return jax.lax.with_sharding_constraint(x, NamedSharding(where.mesh, PartitionSpec()))


def _gather_forward(x: jax.Array, where: NamedSharding, dtype: Any) -> tuple[jax.Array, tuple]:
    return _gather(x, where, dtype), ()


def _gather_backward(where: NamedSharding, dtype: Any, _: tuple, g: jax.Array) -> tuple[jax.Array]:
    # The compiler sums over devices; this sum is scattered and not replicated.
    return (jax.lax.with_sharding_constraint(g, where).astype(jnp.float32),)


_gather.defvjp(_gather_forward, _gather_backward)


def path_name(path: Any) -> str:
    """Formats a JAX key path as "denoiser/down_0/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of every array of a batch."""
    return NamedSharding(mesh, BATCH)


def on_mesh(mesh: Mesh, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a function for `jax.jit` so that it is traced under `mesh`, which kernels look up."""

    @functools.wraps(function)
    def traced(*args: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args)

    return traced


def check_batch_size(batch_size: int, mesh: Mesh, accumulation: int = 1) -> None:
    """Checks that a global batch splits evenly.

    Raises:
      UserError: It does not split over the devices and the microbatches.
    """
    parts = mesh.size * accumulation
    if batch_size < 1 or batch_size % parts:
        raise UserError(
            f"batch_size={batch_size} must be a multiple of {parts} ({mesh.size} devices x "
            f"{accumulation} microbatches); change --config.batch_size"
        )


def place_batch(batch: dict[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    """Places this process's part of a batch on its devices, as global arrays."""
    return {
        name: jax.make_array_from_process_local_data(sharding, np.asarray(value))
        for name, value in batch.items()
    }
