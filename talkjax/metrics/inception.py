"""The Inception-v3 of Fréchet Inception distances, in JAX.

This is the network of 2015-12-05 as in pytorch-fid (src/pytorch_fid/inception.py). It differs from
torchvision's: averages leave out the padding, and the last block takes a maximum instead of an
average. The weights are a safetensors file in PyTorch's layout (`Mixed_5b.branch1x1.conv.weight`
and so on, without `fc`); the tensors determine the widths.
"""

import os
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from talkjax import weights
from talkjax.errors import UserError

FIRST = "Conv2d_1a_3x3.conv.weight"
SIDE = 299  # pixels of the images that the network was trained on
_EPSILON = 1e-3
_ROW, _COLUMN = (1, 7), (7, 1)

Params = dict[str, jax.Array]


class _Operations(Protocol):
    """The layers that the network consists of; `x` is an array, or only its width."""

    def conv(self, name: str, x: Any, kernel: int | tuple[int, int], *, stride: int, same: bool):
        """Applies a convolution, normalisation and ReLU; `same` keeps the size."""

    def maximum(self, x: Any, stride: int):
        """Takes the 3 x 3 maximum; stride 1 keeps the size."""

    def average(self, x: Any):
        """Takes the 3 x 3 average without the padding."""

    def join(self, *parts: Any):
        """Concatenates along the channels."""


def _trunk(op: _Operations, x: Any) -> Any:
    """Applies everything before the last average."""

    def conv(name, x, kernel, stride=1, same=True):
        return op.conv(name, x, kernel, stride=stride, same=same and stride == 1)

    def chain(name, x, *kernels, stride=1, same=True):
        """Applies convolutions name_1, name_2, ...; the stride is that of the last one."""
        for number, kernel in enumerate(kernels, 1):
            last = stride if number == len(kernels) else 1
            x = conv(f"{name}_{number}", x, kernel, last, same)
        return x

    def pooled(name, x, pool=op.average):
        return conv(f"{name}.branch_pool", pool(x), 1)

    def fork(name, x):
        return [conv(f"{name}a", x, (1, 3)), conv(f"{name}b", x, (3, 1))]

    x = conv("Conv2d_1a_3x3", x, 3, stride=2)
    x = conv("Conv2d_2a_3x3", x, 3, same=False)
    x = op.maximum(conv("Conv2d_2b_3x3", x, 3), 2)
    x = conv("Conv2d_4a_3x3", conv("Conv2d_3b_1x1", x, 1), 3, same=False)
    x = op.maximum(x, 2)
    for name in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        x = op.join(
            conv(f"{name}.branch1x1", x, 1),
            chain(f"{name}.branch5x5", x, 1, 5),
            chain(f"{name}.branch3x3dbl", x, 1, 3, 3),
            pooled(name, x),
        )
    name = "Mixed_6a"
    x = op.join(
        conv(f"{name}.branch3x3", x, 3, stride=2),
        chain(f"{name}.branch3x3dbl", x, 1, 3, 3, stride=2),
        op.maximum(x, 2),
    )
    for name in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        x = op.join(
            conv(f"{name}.branch1x1", x, 1),
            chain(f"{name}.branch7x7", x, 1, _ROW, _COLUMN),
            chain(f"{name}.branch7x7dbl", x, 1, _COLUMN, _ROW, _COLUMN, _ROW),
            pooled(name, x),
        )
    name = "Mixed_7a"
    x = op.join(
        chain(f"{name}.branch3x3", x, 1, 3, stride=2),
        chain(f"{name}.branch7x7x3", x, 1, _ROW, _COLUMN, 3, stride=2),
        op.maximum(x, 2),
    )
    for name, pool in (("Mixed_7b", op.average), ("Mixed_7c", lambda x: op.maximum(x, 1))):
        x = op.join(
            conv(f"{name}.branch1x1", x, 1),
            *fork(f"{name}.branch3x3_2", conv(f"{name}.branch3x3_1", x, 1)),
            *fork(f"{name}.branch3x3dbl_3", chain(f"{name}.branch3x3dbl", x, 1, 3)),
            pooled(name, x, pool),
        )
    return x


# ---- shapes -------------------------------------------------------------------------------------


class _Widths:
    """Follows the widths through the network and records the shapes that fit them."""

    def __init__(self, found: dict[str, tuple[int, ...]]):
        self.found = found
        self.shapes: dict[str, tuple[int, ...]] = {}

    def conv(self, name, x, kernel, *, stride, same):
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        found = self.found.get(f"{name}.conv.weight") or (0,)
        self.shapes[f"{name}.conv.weight"] = (found[0], x, *sides)
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            self.shapes[f"{name}.bn.{leaf}"] = found[:1]
        return found[0]

    def maximum(self, x, stride):
        return x

    def average(self, x):
        return x

    def join(self, *parts):
        return sum(parts)


def shapes(found: dict[str, tuple[int, ...]]) -> tuple[dict[str, tuple[int, ...]], int]:
    """Returns the tensors that a file must hold, and the number of features.

    Args:
      found: Name and shape of every tensor in the file; only the widths are used.

    Returns:
      Name and shape of every tensor in PyTorch's layout (OIHW), and the width of the output (2048
      in the published network).
    """
    widths = _Widths(found)
    out = _trunk(widths, 3)
    return widths.shapes, out


# ---- computation --------------------------------------------------------------------------------


def load(path: str | os.PathLike) -> tuple[Params, int]:
    """Reads and checks the weights, and folds the normalisation into the convolutions.

    Returns:
      Kernels (HWIO) and biases by name, and the number of features.

    Raises:
      UserError: The file is missing or damaged, or a tensor does not fit.
    """
    tensors = weights.load_safetensors(path)
    found = {name: value.shape for name, value in tensors.items()}
    expected, width = shapes(found)
    weights.check_tensors(found, expected, path)
    variances = [v for k, v in tensors.items() if k.endswith(".running_var")]
    if any(not v.size or (v < 0).any() for v in variances):
        raise UserError(f"{path} holds impossible variances; convert the published file again")
    params = {}
    for name in sorted(n.removesuffix(".conv.weight") for n in found if n.endswith("conv.weight")):
        scale, shift, mean, variance = (
            tensors[f"{name}.bn.{leaf}"].astype(np.float64)
            for leaf in ("weight", "bias", "running_mean", "running_var")
        )
        scale = scale / np.sqrt(variance + _EPSILON)
        kernel = tensors[f"{name}.conv.weight"].transpose(2, 3, 1, 0) * scale
        params[f"{name}/kernel"] = jnp.asarray(kernel.astype(np.float32))
        params[f"{name}/bias"] = jnp.asarray((shift - mean * scale).astype(np.float32))
    return params, width


class _Arrays:
    """The layers on (B, H, W, C) arrays."""

    def __init__(self, params: Params):
        self.params = params

    def conv(self, name, x, kernel, *, stride, same):
        kernel = self.params[f"{name}/kernel"]
        pads = [((k - 1) // 2,) * 2 if same else (0, 0) for k in kernel.shape[:2]]
        x = jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=jax.lax.Precision.HIGHEST,
        )  # fmt: skip
        return jax.nn.relu(x + self.params[f"{name}/bias"].reshape(1, 1, 1, -1))

    def maximum(self, x, stride):
        return _window(x, -jnp.inf, jax.lax.max, stride)

    def average(self, x):
        ones = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
        return _window(x, 0.0, jax.lax.add, 1) / _window(ones, 0.0, jax.lax.add, 1)

    def join(self, *parts):
        return jnp.concatenate(parts, -1)


def _window(x: jax.Array, start: float, function: Any, stride: int) -> jax.Array:
    pad = (1, 1) if stride == 1 else (0, 0)
    pads = [(0, 0), pad, pad, (0, 0)]
    return jax.lax.reduce_window(x, start, function, (1, 3, 3, 1), (1, stride, stride, 1), pads)


@jax.jit
def resize(images: jax.Array) -> jax.Array:
    """Resizes (B, H, W, 3) to (B, 299, 299, 3): bilinear, not antialiased, as in pytorch-fid."""
    shape = (images.shape[0], SIDE, SIDE, images.shape[3])
    return jax.image.resize(images, shape, "linear", antialias=False)


@jax.jit
def pool3(params: Params, images: jax.Array) -> jax.Array:
    """Returns the features of (B, 299, 299, 3) images in [-1, 1]: (B, D) float32."""
    return _trunk(_Arrays(params), images).mean((1, 2))
