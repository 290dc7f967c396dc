"""Converts published SyncNet weights (safetensors, PyTorch's names) to `SyncExpert` parameters."""

import os

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from talkjax import weights
from talkjax.errors import UserError
from talkjax.models.sync_expert import COEFFICIENTS, FRAMES, STEPS, SyncExpert

SIDE = 224  # pixels of the published network's images
_CONVOLUTIONS = (
    0,
    4,
    8,
    11,
    14,
    18,
)  # indices in netcnnaud and netcnnlip; a normalisation follows each
_DENSE = {"fc_0": 0, "fc_norm": 1, "fc_1": 3}
_PARTS = {"audio": "aud", "lips": "lip"}
_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_AUDIO_WIDTH = 64  # width of the published first convolution


def torch_name(path: tuple[str, str]) -> str:
    """Returns PyTorch's name, "netcnnlip.9.running_mean" for ("lips_norm_2", "mean")."""
    module, leaf = path
    part, _, layer = module.partition("_")
    leaf = _LEAVES.get(leaf, leaf)
    if layer in _DENSE:
        return f"netfc{_PARTS[part]}.{_DENSE[layer]}.{leaf}"
    kind, _, number = layer.partition("_")
    place = _CONVOLUTIONS[int(number)] + (kind == "norm")
    return f"netcnn{_PARTS[part]}.{place}.{leaf}"


def load_syncnet(
    path: str | os.PathLike, size: tuple[int, int] = (SIDE, SIDE)
) -> tuple[SyncExpert, weights.Params]:
    """Loads a SyncNet of the published layout, of any width.

    Args:
      path: safetensors file with the names of syncnet_python's model, including the BatchNorm
        statistics.
      size: Height and width in pixels of the images that its last convolution fits.

    Returns:
      The network and its parameters as float32 numpy arrays.

    Raises:
      UserError: The file is missing or damaged, or a tensor is missing, unexpected or mis-shaped.
    """
    tensors = {
        name: value
        for name, value in weights.load_safetensors(path).items()
        if not name.endswith("num_batches_tracked")
    }
    first, last = tensors.get("netcnnaud.0.weight"), tensors.get("netfcaud.3.weight")
    if first is None or last is None or first.ndim != 4 or last.ndim != 2:
        raise UserError(
            f"{path} is not a SyncNet (no netcnnaud.0.weight, netfcaud.3.weight); give its "
            "converted weights, or an exported directory of the stage sync"
        )
    model = SyncExpert(width=first.shape[0] / _AUDIO_WIDTH, embedding=last.shape[0])
    shapes = jax.eval_shape(
        model.init,
        jax.random.key(0),
        jax.ShapeDtypeStruct((1, FRAMES, *size, 3), jnp.float32),
        jax.ShapeDtypeStruct((1, 1, COEFFICIENTS, STEPS, 1), jnp.float32),
    )["params"]
    flat = traverse_util.flatten_dict(shapes)
    expected = {torch_name(key): _torch_shape(key[0], leaf.shape) for key, leaf in flat.items()}
    weights.check_tensors({name: t.shape for name, t in tensors.items()}, expected, path)
    params = {
        key: _to_ours(tensors[torch_name(key)], leaf.shape).astype(np.float32)
        for key, leaf in flat.items()
    }
    return model, traverse_util.unflatten_dict(params)


def _torch_shape(module: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns a parameter's shape in PyTorch, where all convolutions of the lips have 3 axes."""
    if len(shape) == 4 and module.startswith("lips"):
        shape = (1, *shape)
    return (shape[-1], shape[-2], *shape[:-2]) if len(shape) > 1 else shape


def _to_ours(tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Moves output and input features to the end, and drops a time axis of length 1."""
    if tensor.ndim > 1:
        tensor = np.moveaxis(tensor, (1, 0), (-2, -1))
    return np.ascontiguousarray(tensor).reshape(shape)
