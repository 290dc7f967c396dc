"""Parameters for tests, from shapes alone: compiling `init` takes longer than most tests."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def random_like(shapes: Any, seed: int = 0) -> Any:
    """A tree of arrays as `shapes` describes: random also where training starts from zero."""
    rng = np.random.default_rng(seed)

    def leaf(path: tuple, shape: Any) -> np.ndarray:
        if path[-1].key == "scale":
            return np.ones(shape.shape, np.float32)
        fan = max(1, int(np.prod(shape.shape[:-1])))
        return (rng.normal(size=shape.shape) / np.sqrt(fan)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def random_for(init: Callable[..., Any], *arguments: Any, seed: int = 0, **named: Any) -> Any:
    """Random parameters as `init(key, ...)` would make them."""
    return random_like(jax.eval_shape(init, jax.random.key(0), *arguments, **named), seed)
