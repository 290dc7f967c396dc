"""LPIPS with the SqueezeNet 1.1 trunk (Zhang et al., arXiv 1801.03924, v0.1), in JAX.

The weights are a safetensors file in the layout of PyTorch: `squeezenet.features.*` and
`lin.linK.model.1.weight`.
"""

import functools
import os
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from talkjax import weights

_SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
_SCALE = np.array([0.458, 0.448, 0.450], np.float32)
# Index in `features` -> (input width, squeezed width, width of either expansion).
_FIRES = {3: (64, 16, 64), 4: (128, 16, 64), 6: (128, 32, 128), 7: (256, 32, 128)} | {
    9: (256, 48, 192), 10: (384, 48, 192), 11: (384, 64, 256), 12: (512, 64, 256)
}  # fmt: skip
_POOLS = (2, 5, 8)
_TAPS = (1, 4, 7, 9, 10, 11, 12)  # indices of the layers whose outputs are compared
_WIDTHS = (64, 128, 256, 384, 384, 512, 512)
BATCH = 16

Params = dict[str, jax.Array]


def shapes() -> dict[str, tuple[int, ...]]:
    """Returns the name and shape of every tensor that is needed, in PyTorch's layout (OIHW)."""
    out = {"squeezenet.features.0.weight": (64, 3, 3, 3), "squeezenet.features.0.bias": (64,)}
    for number, (inputs, squeezed, expanded) in _FIRES.items():
        sizes = {
            "squeeze": (squeezed, inputs, 1, 1),
            "expand1x1": (expanded, squeezed, 1, 1),
            "expand3x3": (expanded, squeezed, 3, 3),
        }
        for part, size in sizes.items():
            out[f"squeezenet.features.{number}.{part}.weight"] = size
            out[f"squeezenet.features.{number}.{part}.bias"] = size[:1]
    for tap, width in enumerate(_WIDTHS):
        out[f"lin.lin{tap}.model.1.weight"] = (1, width, 1, 1)
    return out


def load(path: str | os.PathLike) -> Params:
    """Reads and checks the weights; a classifier head in the file is ignored.

    Raises:
      UserError: The file is missing or damaged, or a tensor does not fit.
    """
    tensors = weights.load_safetensors(path)
    tensors = {k: v for k, v in tensors.items() if not k.startswith("squeezenet.classifier.")}
    weights.check_tensors({k: v.shape for k, v in tensors.items()}, shapes(), path)
    return {k: jnp.asarray(v) for k, v in tensors.items()}


def _conv(params: Params, name: str, x: jax.Array, stride: int = 1, padding: int = 0) -> jax.Array:
    x = jax.lax.conv_general_dilated(
        x,
        params[f"{name}.weight"],
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "OIHW", "NHWC"),
    )
    return jax.nn.relu(x + params[f"{name}.bias"].reshape(1, 1, 1, -1))


def _pool(x: jax.Array) -> jax.Array:
    """Computes the 3 x 3 maximum with stride 2, as PyTorch does with `ceil_mode=True`."""
    pads = [(0, 0)] + [(0, (size - 3) % 2) for size in x.shape[1:3]] + [(0, 0)]
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), pads)


def features(params: Params, images: jax.Array) -> list[jax.Array]:
    """Returns the seven compared feature maps of (B, H, W, 3) in [-1, 1], channels last."""
    row = (1, 1, 1, 3)
    x = (images - jnp.asarray(_SHIFT).reshape(row)) / jnp.asarray(_SCALE).reshape(row)
    x = _conv(params, "squeezenet.features.0", x, stride=2)
    out = [x]
    for number in range(2, 13):
        if number in _POOLS:
            x = _pool(x)
        elif number in _FIRES:
            name = f"squeezenet.features.{number}"
            x = _conv(params, f"{name}.squeeze", x)
            wide = [
                _conv(params, f"{name}.expand1x1", x),
                _conv(params, f"{name}.expand3x3", x, padding=1),
            ]
            x = jnp.concatenate(wide, -1)
        if number in _TAPS:
            out.append(x)
    return out


@jax.jit
def distance(params: Params, a: jax.Array, b: jax.Array) -> jax.Array:
    """Computes LPIPS of (B, H, W, 3) images in [-1, 1], at least 32 pixels a side: (B,)."""
    total = jnp.zeros(a.shape[:1])
    for tap, (x, y) in enumerate(zip(features(params, a), features(params, b), strict=True)):
        x, y = (z / (jnp.sqrt(jnp.square(z).sum(-1, keepdims=True)) + 1e-10) for z in (x, y))
        weight = params[f"lin.lin{tap}.model.1.weight"].reshape(1, 1, 1, -1)
        total += (jnp.square(x - y) * weight).sum(-1).mean((1, 2))
    return total


def load_metric(path: str | os.PathLike) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Loads weights as a function of two (N, H, W, 3) uint8 arrays that returns (N,) distances."""
    return functools.partial(_distances, load(path))


def _distances(params: Params, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    out = []
    for start in range(0, len(a), BATCH):
        pair = [x[start : start + BATCH] for x in (a, b)]
        count = len(pair[0])
        filled = [np.pad(x, [(0, BATCH - count)] + [(0, 0)] * 3) for x in pair]
        floats = [jnp.asarray(x.astype(np.float32) / 127.5 - 1.0) for x in filled]
        out.append(np.asarray(distance(params, *floats))[:count])
    return np.concatenate(out) if out else np.zeros(0, np.float32)
