"""Multi-head attention by named implementation, with a learned preference for what is near.

- `xla`: plain products and a softmax, everywhere; the one that also gives the weights.
- `cudnn`: cuDNN's fused attention, on GPUs in bfloat16 or float16.
- `pallas_tpu`: JAX's flash attention kernel in Pallas, on TPUs.

The last two never hold the (N, M) weights in memory. They know no distances, and need to know none:
`-t |p - s|^2` is, up to `-t |p|^2`, which a softmax over `s` ignores, the inner product of
`(2 t p, -t)` and `(s, |s|^2)`. So nearness travels as a few more features of query and key
(`with_places`), and any attention will do.
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from talkjax.models import positions

IMPLEMENTATIONS = ("xla", "cudnn", "pallas_tpu")
_PALLAS_BLOCK = 128  # its tiles; positions have to be a multiple
_PALLAS_BIG_BLOCK = 512


@flax.struct.dataclass
class Nearness:
    """Adds `-temperature * |query - key|^2` to the logits.

    Attributes:
      query: (B, N, 2) where the queries are, crop coordinates.
      key: (B, M, 2) where the keys are.
      temperature: (H,) of each head.
    """

    query: jax.Array
    key: jax.Array
    temperature: jax.Array


def check(implementation: str, dtype: Any) -> None:
    """Checks a name, and that it computes in `dtype`.

    Raises:
      ValueError: it does not.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"no attention implementation {implementation!r}; use one of {IMPLEMENTATIONS}"
        )
    if implementation == "cudnn" and jnp.dtype(dtype) not in (jnp.bfloat16, jnp.float16):
        raise ValueError(f"attention by cudnn computes in bfloat16 or float16, not in {dtype}")


def portable(implementation: str, dtype: Any, platform: str) -> str:
    """The implementation, or `xla` where `platform` ("cpu", "gpu", "tpu") does not have it."""
    half = jnp.dtype(dtype) in (jnp.bfloat16, jnp.float16)
    there = {"cudnn": platform in ("gpu", "cuda") and half, "pallas_tpu": platform == "tpu"}
    return implementation if there.get(implementation) else "xla"


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    nearness: Nearness | None,
    implementation: str = "xla",
) -> tuple[jax.Array, jax.Array | None]:
    """Attends; the softmax is float32.

    Args:
      query: (B, N, H, D), scaled.
      key: (B, M, H, D). value: (B, M, H, V).
      nearness: or None.
      implementation: see above. `pallas_tpu` leaves what its tiles do not fit to `xla`: N or M that
        are no multiples of 128, as on the coarse grids, whose weights are small.

    Returns:
      ((B, N, H, V), (B, H, N, M) float32 weights, or None where they are never there as a whole).
    """
    tiled = not any(x.shape[1] % _PALLAS_BLOCK for x in (query, key))
    fused = implementation != "xla" and (implementation != "pallas_tpu" or tiled)
    # In bfloat16, so on TPUs, distances fuse into the softmax and cost less memory and traffic than
    # eighteen more features. CPUs, which compute in float32, do not fuse them, and are several
    # times faster with features.
    if nearness is not None and (fused or query.dtype == jnp.float32):
        query, key = with_places(query, key, nearness)
        nearness = None
    if not fused:
        return _xla(query, key, value, nearness)
    width = value.shape[-1]
    features = -(-max(query.shape[-1], width) // 8) * 8
    kernel = _cudnn if implementation == "cudnn" else _over_devices(_pallas_tpu)
    out = kernel(_pad(query, features), _pad(key, features), _pad(value, features))
    return out[..., :width], None


def _xla(
    query: jax.Array, key: jax.Array, value: jax.Array, nearness: Nearness | None
) -> tuple[jax.Array, jax.Array]:
    query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))  # (B, H, N or M, ...)
    logits = jnp.matmul(query, key.swapaxes(2, 3), preferred_element_type=jnp.float32)
    if nearness is not None:
        distance = positions.squared_distance(nearness.query, nearness.key)
        logits = logits - nearness.temperature.reshape(1, -1, 1, 1) * distance[:, None]
    weights = jax.nn.softmax(logits, axis=-1)
    return jnp.matmul(weights.astype(value.dtype), value).swapaxes(1, 2), weights


def _cudnn(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    return jax.nn.dot_product_attention(query, key, value, scale=1.0, implementation="cudnn")


def _pallas_tpu(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    from jax.experimental.pallas.ops.tpu import flash_attention as flash

    def block(positions: int) -> int:
        return _PALLAS_BLOCK if positions % _PALLAS_BIG_BLOCK else _PALLAS_BIG_BLOCK

    q, k = block(query.shape[1]), block(key.shape[1])
    small = _PALLAS_BLOCK  # backward, statistics are spread over a block of keys, in memory
    blocks = flash.BlockSizes(
        block_q=q, block_k_major=k, block_k=k, block_b=1,
        block_q_major_dkv=q, block_k_major_dkv=small, block_k_dkv=small, block_q_dkv=q,
        block_k_major_dq=small, block_k_dq=small, block_q_dq=q,
    )  # fmt: skip
    by_head = (x.swapaxes(1, 2) for x in (query, key, value))
    with jax.numpy_dtype_promotion("standard"):  # the kernel mixes types
        return flash.flash_attention(*by_head, block_sizes=blocks).swapaxes(1, 2)


def _over_devices(attention: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Runs a kernel that the partitioner cannot see into on each device's own rows.

    The mesh is the one that `jax.set_mesh` or the caller's trace provides; rows lie over all of it.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return attention
    rows = PartitionSpec(mesh.axis_names)
    return jax.shard_map(attention, in_specs=rows, out_specs=rows, check_vma=False)


def _pad(x: jax.Array, features: int) -> jax.Array:
    return jnp.pad(x, ((0, 0),) * (x.ndim - 1) + ((0, features - x.shape[-1]),))


# ---- nearness as features -----------------------------------------------------------------------


def with_places(
    query: jax.Array, key: jax.Array, nearness: Nearness
) -> tuple[jax.Array, jax.Array]:
    """Appends features to query and key whose inner product is the nearness, but for a constant.

    Three of each in float32. Temperatures reach thousands, so that the eight bits of bfloat16 would
    be off by whole units: there every factor is taken apart into three, and of their nine products
    the six that matter are kept, which comes to float32's precision.

    Args:
      query: (B, N, H, D). key: (B, M, H, D).
      nearness: see there.

    Returns:
      (B, N, H, D + F) and (B, M, H, D + F); F is 3, or 18 in a shorter type.
    """
    heads = query.shape[2]
    # About the crop's centre, where squares are small.
    here, there = nearness.query - 0.5, nearness.key - 0.5
    temperature = nearness.temperature.reshape(1, 1, heads, 1)
    left = jnp.concatenate([2 * here, -jnp.ones_like(here[..., :1])], -1)
    left = temperature * left[:, :, None]  # (B, N, H, 3)
    right = jnp.concatenate([there, jnp.square(there).sum(-1, keepdims=True)], -1)
    right = jnp.broadcast_to(right[:, :, None], (*right.shape[:2], heads, 3))
    count = 1 if query.dtype == jnp.float32 else 3
    a, b = _parts(left, query.dtype, count), _parts(right, key.dtype, count)
    pairs = [(i, j) for i in range(count) for j in range(count) if i + j < count]
    query = jnp.concatenate([query, *(a[i] for i, _ in pairs)], -1)
    return query, jnp.concatenate([key, *(b[j] for _, j in pairs)], -1)


def _parts(x: jax.Array, dtype: Any, count: int) -> list[jax.Array]:
    """So many arrays of `dtype` whose sum is the float32 `x`."""
    parts = []
    for _ in range(count):
        # reduce_precision, or the compiler may take the rounding there and back for nothing
        kind = jnp.finfo(dtype)
        part = jax.lax.reduce_precision(x, kind.nexp, kind.nmant)
        parts.append(part.astype(dtype))
        x = x - part
    return parts
