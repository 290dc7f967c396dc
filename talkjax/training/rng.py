"""Named random streams: the name is folded into the key, then the step; no key is carried along.

So a run that resumes at step N draws exactly what it would have drawn, and a new stream changes no
other.
"""

import zlib

import jax
import numpy as np


def stream(key: jax.Array, name: str, step: jax.Array | int | None = None) -> jax.Array:
    """Returns the key of the stream `name`, at `step` if it is given."""
    key = jax.random.fold_in(key, np.uint32(zlib.crc32(name.encode())))
    return key if step is None else jax.random.fold_in(key, step)
