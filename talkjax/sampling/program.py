"""The compiled program for a batch of frames, used for sampling and for measuring its costs."""

from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from talkjax.networks import NUM_LANDMARKS, Networks
from talkjax.sampling import regions

_WARPED = 12  # reference images at least, where they are warped


def lower(
    networks: Networks,
    params: regions.Params,
    reference: Any,
    frames: int,
    batch_sharding: NamedSharding,
    replicated: NamedSharding,
    **settings: Any,
) -> jax.stages.Lowered:
    """Lowers (params, reference, shown, landmarks, key) -> regions, see `regions.generate_regions`.

    Args:
      networks: Networks of the parameters.
      params: Arrays or shapes, replicated over all devices.
      reference: `regions.Reference` of arrays or shapes.
      frames: Batch size B.
      batch_sharding: Sharding of the frames.
      replicated: Sharding of everything else.
      **settings: Keyword arguments of `regions.generate_regions`.
    """
    mesh = batch_sharding.mesh

    def generate(params, reference, shown, landmarks, key):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # for attention kernels
            return regions.generate_regions(
                params, networks, shown, landmarks, reference, key, **settings
            )

    def shape_of(sharding, shape, dtype=np.float32):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.jit(generate, out_shardings=batch_sharding).lower(
        params,
        jax.tree.map(lambda x: shape_of(replicated, x.shape, x.dtype), reference),
        shape_of(batch_sharding, (frames, *networks.image_size, 3)),
        shape_of(batch_sharding, (frames, NUM_LANDMARKS, 2)),
        shape_of(replicated, key.shape, key.dtype),
    )


def warps_references(networks: Networks, steps: int) -> bool:
    """Returns whether references are warped to the target's landmarks."""
    return steps == 0 or networks.fill == "warp"


def reference_count(networks: Networks, attended: int, steps: int) -> int:
    """Returns the number of reference images, of which the denoiser attends to `attended`."""
    return max(attended, _WARPED) if warps_references(networks, steps) else attended


def reference_shapes(
    networks: Networks, params: regions.Params, attended: int = 1
) -> regions.Reference:
    """Returns the shapes of encoded references, of which there are `attended`."""
    return jax.eval_shape(
        lambda p, images, points: regions.encode_reference(p, networks, images, points),
        params,
        jax.ShapeDtypeStruct((attended, *networks.image_size, 3), np.uint8),
        jax.ShapeDtypeStruct((attended, NUM_LANDMARKS, 2), np.float32),
    )
