"""Named random streams: the name is folded in, then the step; no key is ever carried along.

So a run that resumes at step N draws exactly what it would have drawn, and adding a stream
changes no other.
"""

import zlib

import jax
import numpy as np


def stream(key: jax.Array, name: str, step: jax.Array | int | None = None) -> jax.Array:
    """The key of stream `name`, at `step` if given."""
    key = jax.random.fold_in(key, np.uint32(zlib.crc32(name.encode())))
    return key if step is None else jax.random.fold_in(key, step)
