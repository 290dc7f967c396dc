"""The compiled program of a batch of frames, shared by the sampler and whoever wants its costs."""

from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from talkjax.networks import NUM_LANDMARKS, Networks
from talkjax.sampling import regions


def lower(
    networks: Networks,
    params: regions.Params,
    reference: Any,
    frames: int,
    rows: NamedSharding,
    everywhere: NamedSharding,
    **settings: Any,
) -> jax.stages.Lowered:
    """Lowers (params, reference, masked, landmarks, key) -> (frames, H, W, 3) uint8.

    Args:
      networks: of the params' config.
      params: arrays or shapes, on all devices.
      reference: `regions.Reference` of arrays or shapes.
      frames: B.
      rows: sharding of the frames.
      everywhere: of all the rest.
      **settings: of `regions.generate_regions`.
    """
    mesh = rows.mesh

    def generate(params, reference, masked, landmarks, key):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # for attention kernels
            return regions.generate_regions(
                params, networks, masked, landmarks, reference, key, **settings
            )

    def like(sharding, shape, dtype=np.float32):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.jit(generate, out_shardings=rows).lower(
        params,
        jax.tree.map(lambda x: like(everywhere, x.shape, x.dtype), reference),
        like(rows, (frames, *networks.image_size, 3)),
        like(rows, (frames, NUM_LANDMARKS, 2)),
        like(everywhere, key.shape, key.dtype),
    )


def reference_shapes(networks: Networks, params: regions.Params) -> regions.Reference:
    """Shapes of a prepared reference."""
    return jax.eval_shape(
        lambda p, image, points: regions.encode_reference(p, networks, image, points),
        params,
        jax.ShapeDtypeStruct((*networks.image_size, 3), np.uint8),
        jax.ShapeDtypeStruct((NUM_LANDMARKS, 2), np.float32),
    )
