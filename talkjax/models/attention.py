"""Multi-head attention in several implementations, with an optional bias by squared distance.

- `xla` is plain products and a softmax. It runs on every platform and also returns the weights.
- `cudnn` is cuDNN's fused attention, for GPUs in bfloat16 or float16.
- `pallas_tpu` is JAX's flash attention kernel in Pallas, for TPUs.

`xla` does what `jax.nn.dot_product_attention` does and adds the bias. That one cannot be lowered in
bfloat16 under strict dtype promotion (JAX 0.10 to 0.12).

The last two never hold the (N, M) weights in memory. They know nothing of distances and need not:
`-t |p - s|^2` is the inner product of `(2 t p, -t)` and `(s, |s|^2)` except for `-t |p|^2`, which
does not depend on the key and cancels in the softmax. The bias can therefore be a few more features
of queries and keys (`append_distance_features`), and any attention will do.
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from talkjax.models import positions

IMPLEMENTATIONS = ("xla", "cudnn", "pallas_tpu")
_PALLAS_BLOCK = 128  # the kernel's tiles; numbers of queries and keys must be multiples
_PALLAS_BIG_BLOCK = 512


@flax.struct.dataclass
class DistanceBias:
    """Adds `-temperature * |query - key|^2` to the logits of attention.

    Attributes:
      query: (B, N, 2) positions of the queries, in crop coordinates.
      key: (B, M, 2) positions of the keys.
      temperature: (H,) one per head.
    """

    query: jax.Array
    key: jax.Array
    temperature: jax.Array


def check_implementation(implementation: str, dtype: Any) -> None:
    """Checks the name of an implementation, and that it can compute in `dtype`.

    Raises:
      ValueError: The implementation is unknown or cannot compute in `dtype`.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"unknown attention implementation {implementation!r}; use one of {IMPLEMENTATIONS}"
        )
    if implementation == "cudnn" and jnp.dtype(dtype) not in (jnp.bfloat16, jnp.float16):
        raise ValueError(f"attention by cudnn requires bfloat16 or float16, not {dtype}")


def supported_implementation(implementation: str, dtype: Any, platform: str) -> str:
    """Returns the implementation, or `xla` if `platform` ("cpu", "gpu", "tpu") does not have it."""
    half = jnp.dtype(dtype) in (jnp.bfloat16, jnp.float16)
    supported = {"cudnn": platform in ("gpu", "cuda") and half, "pallas_tpu": platform == "tpu"}
    return implementation if supported.get(implementation) else "xla"


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: DistanceBias | None = None,
    implementation: str = "xla",
    mask: Any = None,
) -> tuple[jax.Array, jax.Array | None]:
    """Attends, with a float32 softmax.

    Args:
      query: (B, N, H, D), already scaled.
      key: (B, M, H, D).
      value: (B, M, H, V).
      bias: Bias of the logits, or None.
      implementation: One of `IMPLEMENTATIONS`. Where the tiles of `pallas_tpu` do not fit, because
        N or M is not a multiple of 128, `xla` is used instead. This is so on coarse grids, whose
        weights are small.
      mask: (N, M) bool, which query may attend to which key; None if all may. `xla` only.

    Returns:
      The result (B, N, H, V) and the float32 weights (B, H, N, M), or None in place of the weights
      if the implementation never holds them as a whole.
    """
    tiled = not any(x.shape[1] % _PALLAS_BLOCK for x in (query, key))
    fused = implementation != "xla" and (implementation != "pallas_tpu" or tiled)
    # In bfloat16, and so on TPUs, distances fuse into the softmax and cost less memory and traffic
    # than eighteen more features. CPUs, which compute in float32, do not fuse them, and are several
    # times faster with features.
    precision = None
    if bias is not None and (fused or query.dtype == jnp.float32):
        query, key = append_distance_features(query, key, bias)
        bias = None
        # The float32 features are products of temperatures, which reach thousands, and coordinates.
        precision = positions.COORDINATE_PRECISION if query.dtype == jnp.float32 else None
    if not fused:
        return _xla(query, key, value, bias, precision, mask)
    if mask is not None:
        raise ValueError(f"attention by {implementation} takes no mask")
    width = value.shape[-1]
    features = -(-max(query.shape[-1], width) // 8) * 8
    kernel = _cudnn if implementation == "cudnn" else _per_device(_pallas_tpu)
    out = kernel(_pad(query, features), _pad(key, features), _pad(value, features))
    return out[..., :width], None


def _xla(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: DistanceBias | None,
    precision: jax.lax.Precision | None,
    mask: Any = None,
) -> tuple[jax.Array, jax.Array]:
    # (B, H, N or M, features)
    query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))
    logits = jnp.matmul(
        query, key.swapaxes(2, 3), precision=precision, preferred_element_type=jnp.float32
    )
    if bias is not None:
        distance = positions.squared_distance(bias.query, bias.key)
        logits = logits - bias.temperature.reshape(1, -1, 1, 1) * distance[:, None]
    if mask is not None:
        logits = jnp.where(jnp.asarray(mask)[None, None], logits, -jnp.inf)
    weights = jax.nn.softmax(logits, axis=-1)
    return jnp.matmul(weights.astype(value.dtype), value).swapaxes(1, 2), weights


def _cudnn(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    return jax.nn.dot_product_attention(query, key, value, scale=1.0, implementation="cudnn")


def _pallas_tpu(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    from jax.experimental.pallas.ops.tpu import flash_attention as flash

    def block(count: int) -> int:
        return _PALLAS_BLOCK if count % _PALLAS_BIG_BLOCK else _PALLAS_BIG_BLOCK

    q, k = block(query.shape[1]), block(key.shape[1])
    small = _PALLAS_BLOCK  # the backward pass holds statistics for a block of keys in memory
    blocks = flash.BlockSizes(
        block_q=q, block_k_major=k, block_k=k, block_b=1,
        block_q_major_dkv=q, block_k_major_dkv=small, block_k_dkv=small, block_q_dkv=q,
        block_k_major_dq=small, block_k_dq=small, block_q_dq=q,
    )  # fmt: skip
    by_head = (x.swapaxes(1, 2) for x in (query, key, value))
    with jax.numpy_dtype_promotion("standard"):  # the kernel mixes types
        return flash.flash_attention(*by_head, block_sizes=blocks).swapaxes(1, 2)


def _per_device(attention: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Runs a kernel on each device's part of the batch, because XLA cannot partition it.

    The mesh is the one that `jax.set_mesh` or the caller's trace provides. All its axes split the
    batch.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return attention
    batch = PartitionSpec(mesh.axis_names)
    return jax.shard_map(attention, in_specs=batch, out_specs=batch, check_vma=False)


def _pad(x: jax.Array, features: int) -> jax.Array:
    return jnp.pad(x, ((0, 0),) * (x.ndim - 1) + ((0, features - x.shape[-1]),))


# ---- the bias as features -----------------------------------------------------------------------


def append_distance_features(
    query: jax.Array, key: jax.Array, bias: DistanceBias
) -> tuple[jax.Array, jax.Array]:
    """Appends features to queries and keys whose inner product is the bias, but for a constant.

    In float32 there are three. Temperatures reach thousands, so the eight bits of bfloat16 would
    leave errors of whole units. In such a type every factor is therefore split into a sum of three,
    and the six largest of their nine products are kept, which gives the precision of float32.

    Args:
      query: (B, N, H, D).
      key: (B, M, H, D).
      bias: The bias that the features express.

    Returns:
      (B, N, H, D + F) and (B, M, H, D + F), where F is 3 in float32 and 18 in a shorter type.
    """
    heads = query.shape[2]
    # Coordinates are taken from the crop's centre, where squares are small.
    query_position, key_position = bias.query - 0.5, bias.key - 0.5
    temperature = bias.temperature.reshape(1, 1, heads, 1)
    left = jnp.concatenate([2 * query_position, -jnp.ones_like(query_position[..., :1])], -1)
    # (B, N, H, 3)
    left = temperature * left[:, :, None]
    right = jnp.concatenate([key_position, jnp.square(key_position).sum(-1, keepdims=True)], -1)
    # (B, M, H, 3)
    right = jnp.broadcast_to(right[:, :, None], (*right.shape[:2], heads, 3))
    count = 1 if query.dtype == jnp.float32 else 3
    a, b = _split_sum(left, query.dtype, count), _split_sum(right, key.dtype, count)
    pairs = [(i, j) for i in range(count) for j in range(count) if i + j < count]
    query = jnp.concatenate([query, *(a[i] for i, _ in pairs)], -1)
    return query, jnp.concatenate([key, *(b[j] for _, j in pairs)], -1)


def _split_sum(x: jax.Array, dtype: Any, count: int) -> list[jax.Array]:
    """Splits a float32 array into `count` arrays of `dtype` whose sum it is."""
    parts = []
    for _ in range(count):
        # Without reduce_precision the compiler may drop a conversion to `dtype` and back.
        kind = jnp.finfo(dtype)
        part = jax.lax.reduce_precision(x, kind.nexp, kind.nmant)
        parts.append(part.astype(dtype))
        x = x - part
    return parts
