"""Weight files: reading and writing safetensors, and mapping other projects' weights to ours.

Models do not know about files. Whatever is wrong with a file ends here in a `UserError` that names
the file and the tensors. Nothing is ever unpickled. Paths may be in a bucket (gs://).
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from etils import epath
from flax import traverse_util

from talkjax import files
from talkjax.errors import UserError
from talkjax.models import autoencoder, taesd, whisper

Params = dict[str, Any]
PARAMS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
_MAX_NAMED = 3  # wrong tensors that an error names; it counts the rest


def load_safetensors(
    path: str | os.PathLike, only: re.Pattern | None = None
) -> dict[str, np.ndarray]:
    """Reads the tensors of a safetensors file, floating-point ones as float32.

    Args:
      path: The file.
      only: Matches the beginning of the names of wanted tensors; None reads all.

    Raises:
      UserError: The file is missing, truncated, not safetensors, or holds NaN or infinity.
    """
    path = files.as_path(path)
    if not path.is_file():
        raise UserError(f"weights not found: {path}; check the path")
    try:
        raw = _load(path, only or re.compile(""))
    except safetensors.SafetensorError as error:
        reason = str(error).removeprefix("Error while deserializing header: ")
        raise UserError(
            f"{path} is truncated or not a safetensors file ({reason}); download it again"
        ) from error
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"cannot read {path}: {error}; check the file") from error
    tensors = {}
    for name, value in raw.items():
        # Not `np.issubdtype`: NumPy does not count bfloat16 as floating.
        if jnp.issubdtype(value.dtype, jnp.floating):
            value = value.astype(np.float32)
            if not np.isfinite(value).all():
                raise UserError(f"{path}: {name} holds NaN or infinity; download the file again")
        tensors[name] = value
    return tensors


def _load(path: epath.Path, only: re.Pattern) -> dict[str, np.ndarray]:
    if files.is_remote(path):
        tensors = safetensors.numpy.load(path.read_bytes())
        return {name: value for name, value in tensors.items() if only.match(name)}
    with safetensors.safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys() if only.match(name)}  # noqa: SIM118


# ---- other projects' files ----------------------------------------------------------------------


def taesd_params(encoder_file: str | os.PathLike, decoder_file: str | os.PathLike) -> Params:
    """Loads a pair of TAESD files (taesd, taef1, taef2, ...) for `talkjax.models.taesd.TAESD`.

    The layout follows from the tensors; `taesd.layout_of(params)` returns it.

    Args:
      encoder_file: Published `*_encoder.safetensors`.
      decoder_file: Published `*_decoder.safetensors`.

    Returns:
      {"encoder": ..., "decoder": ...}, float32 numpy.

    Raises:
      UserError: See `load_safetensors`; or a tensor is missing, unexpected or of another shape.
    """
    paths = {"encoder": encoder_file, "decoder": decoder_file}
    tensors = {part: load_safetensors(path) for part, path in paths.items()}
    head = tensors["encoder"].get("14.weight")
    if head is None or head.ndim != 4 or not head.size:
        raise UserError(
            f"{encoder_file} is not a TAESD encoder (14.weight is missing); give *_encoder"
        )
    if "19.weight" not in tensors["decoder"]:
        raise UserError(
            f"{decoder_file} is not a TAESD decoder (19.weight is missing); give *_decoder"
        )
    model = taesd.TAESD(
        latent_channels=head.shape[0],
        pool=any(".pool." in name for name in tensors["encoder"]),
        width=head.shape[1],
    )
    expected = abstract_params(model, jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32))
    return {
        part: _from_torch(tensors[part], expected[part], _taesd_name, path)
        for part, path in paths.items()
    }


def _taesd_name(path: tuple[str, ...]) -> str:
    """Returns the published name: ("layer_11", "pool_1", "scale") -> "11.pool.1.weight"."""
    modules = [name.removeprefix("layer_").replace("_", ".") for name in path[:-1]]
    return ".".join([*modules, _torch_leaf(path[-1])])


def autoencoder_kl_params(path: str | os.PathLike, groups: int = 32) -> Params:
    """Loads a diffusers `AutoencoderKL` file for `talkjax.models.autoencoder.AutoencoderKL`.

    Old and new names of attention layers are read (`query` ... `proj_attn`; `to_q` ... `to_out.0`).
    The layout follows from the tensors; `autoencoder.layout_of(params)` returns it.

    Args:
      path: For example `diffusion_pytorch_model.safetensors` of stabilityai/sd-vae-ft-mse.
      groups: Number of normalisation groups (`norm_num_groups` in the file's config).

    Returns:
      The parameter tree, float32 numpy.

    Raises:
      UserError: See `load_safetensors`; or a tensor is missing, unexpected or of another shape.
    """
    tensors = {_new_attention_name(k): v for k, v in load_safetensors(path).items()}
    channels, layers = [], 0
    block = "encoder.down_blocks.{}.resnets.{}.conv1.weight"
    while (kernel := tensors.get(block.format(len(channels), 0))) is not None:
        channels.append(kernel.shape[0] if kernel.ndim else 0)
    while block.format(0, layers) in tensors:
        layers += 1
    last = tensors.get("post_quant_conv.weight")
    known = channels and all(c > 0 and c % groups == 0 for c in channels)
    if not known or last is None or last.ndim != 4 or not last.size:
        ldm = any("down.0.block.0" in name for name in tensors)
        raise UserError(
            f"{path} is not in the diffusers AutoencoderKL layout"
            + (" but in the original latent-diffusion one" if ldm else "")
            + "; give the diffusion_pytorch_model.safetensors of a diffusers VAE"
        )
    model = autoencoder.AutoencoderKL(tuple(channels), layers, last.shape[0], groups)
    side = model.downsampling
    expected = abstract_params(model, jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32))
    return _from_torch(tensors, expected, _autoencoder_kl_name, path)


def _new_attention_name(name: str) -> str:
    old = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
    return re.sub(
        r"(\.attentions\.0\.)(query|key|value|proj_attn)\.", lambda m: m[1] + old[m[2]] + ".", name
    )


def _autoencoder_kl_name(path: tuple[str, ...]) -> str:
    """Returns the name in a diffusers file.

    ("encoder", "down_0_resnet_1", "norm1", "scale") gives
    "encoder.down_blocks.0.resnets.1.norm1.weight".
    """
    name = ".".join([*path[:-1], _torch_leaf(path[-1])])
    for pattern, torch_name in (
        (r"\b(down|up)_(\d+)_resnet_(\d+)", r"\1_blocks.\2.resnets.\3"),
        (r"\b(down|up)_(\d+)_(down|up)sample", r"\1_blocks.\2.\3samplers.0.conv"),
        (r"\bmid_resnet_(\d)", r"mid_block.resnets.\1"),
        (r"\bmid_attention", "mid_block.attentions.0"),
        (r"\bto_out\b", "to_out.0"),
    ):
        name = re.sub(pattern, torch_name, name)
    return name


def whisper_params(path: str | os.PathLike) -> tuple[whisper.WhisperConfig, Params]:
    """Loads the encoder of a Hugging Face Whisper file for `talkjax.models.whisper`.

    The sizes follow from the tensors. Names may begin with `model.encoder.` or `encoder.`; all
    other tensors, such as the decoder's, are not read. The positions must be Whisper's sinusoids,
    which the module computes.

    Args:
      path: For example `model.safetensors` of openai/whisper-base.

    Returns:
      The encoder's sizes and the parameter tree, float32 numpy.

    Raises:
      UserError: See `load_safetensors`; or a tensor is missing, unexpected or of another shape; or
        the positions are not sinusoids.
    """
    encoder = re.compile(r"(?:model\.)?encoder\.")
    tensors = {encoder.sub("", k, count=1): v for k, v in load_safetensors(path, encoder).items()}
    kernel, places = tensors.get("conv1.weight"), tensors.pop("embed_positions.weight", None)
    layers = len({m[0] for name in tensors if (m := re.match(r"layers\.\d+\.", name))})
    known = kernel is not None and kernel.ndim == 3 and places is not None and places.ndim == 2
    sized = known and layers and kernel.size and places.size
    if not sized or kernel.shape[0] % whisper.HEAD_WIDTH:
        raise UserError(
            f"{path} is not in the Hugging Face layout of Whisper; "
            "give the model.safetensors of a repository such as openai/whisper-base"
        )
    width, mels, _ = kernel.shape
    heads = width // whisper.HEAD_WIDTH
    config = whisper.WhisperConfig(mels, width, layers, heads, len(places))
    frame = jax.ShapeDtypeStruct((1, 2, mels), jnp.float32)
    expected = abstract_params(whisper.WhisperEncoder(config), frame)
    params = _from_torch(tensors, expected, _whisper_name, path)
    sinusoids = np.asarray(whisper.sinusoids(len(places), width))
    # The tolerance is that of bfloat16.
    if places.shape != sinusoids.shape or not np.allclose(places, sinusoids, rtol=0, atol=0.01):
        raise UserError(
            f"{path}: embed_positions.weight does not hold Whisper's sinusoids; "
            "use weights that were trained with them"
        )
    return config, params


def _whisper_name(path: tuple[str, ...]) -> str:
    """Returns the published name.

    ("layer_1", "q_proj", "kernel") gives "layers.1.self_attn.q_proj.weight".
    """
    name = ".".join([*path[:-1], _torch_leaf(path[-1])])
    name = re.sub(r"\b([qkv]|out)_proj\b", r"self_attn.\1_proj", name)
    return re.sub(r"\blayer_(\d+)", r"layers.\1", name)


def _torch_leaf(leaf: str) -> str:
    return {"kernel": "weight", "scale": "weight", "bias": "bias"}[leaf]


def _from_torch(
    tensors: Mapping[str, np.ndarray],
    expected: Mapping[str, Any],
    torch_name: Callable[[tuple[str, ...]], str],
    path: str | os.PathLike,
) -> Params:
    """Arranges PyTorch tensors as the parameter tree `expected`, kernels transposed for Flax.

    Convolutions are OIHW or OIW in PyTorch and HWIO or WIO in Flax, dense layers OI and IO.
    """
    flat = traverse_util.flatten_dict(expected)
    names = {key: torch_name(key) for key in flat}
    shapes = {names[key]: _torch_shape(leaf.shape) for key, leaf in flat.items()}
    check_tensors({name: t.shape for name, t in tensors.items()}, shapes, path)
    params = {}
    for key, name in names.items():
        value = tensors[name].astype(np.float32)
        value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
        params[key] = np.ascontiguousarray(value)
    return traverse_util.unflatten_dict(params)


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape[::-1]


# ---- our own released weights -------------------------------------------------------------------


def save_params(
    directory: str | os.PathLike,
    params: Mapping[str, Any],
    config: Mapping[str, Any],
    dtype: Any = None,
) -> None:
    """Writes `DIR/model.safetensors` (flat names "a/b/c") and `DIR/config.json`.

    Each file appears complete or not at all. The config is written last, so that a directory with
    a config has its weights.

    Args:
      directory: Directory to write to; it is created if it does not exist.
      params: Nested mapping of arrays.
      config: Plain data for JSON.
      dtype: Type in which floating-point tensors are stored, such as `jnp.float16`; None keeps
        theirs.

    Raises:
      UserError: The directory cannot be written, the disk is full, or a value does not fit into
        `dtype`.
    """
    flat = {}
    for name, value in traverse_util.flatten_dict(params, sep="/").items():
        value = np.asarray(value)
        if dtype is not None and jnp.issubdtype(value.dtype, jnp.floating):
            with np.errstate(over="ignore"):
                stored = value.astype(dtype)
            if np.isfinite(value).all() and not np.isfinite(stored).all():
                raise UserError(f"{name} does not fit into {jnp.dtype(dtype).name}; keep float32")
            value = stored
        # safetensors writes the memory of a transposed array as it lies, which would be wrong.
        flat[name] = np.ascontiguousarray(value).reshape(value.shape)
    text = files.json_text(dict(config), sort_keys=True)
    directory = files.as_path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write weights to {directory}: {error}") from error
    files.write_bytes(directory / PARAMS_FILE, safetensors.numpy.save(flat))
    files.write_text(directory / CONFIG_FILE, text)


def load_params(
    directory: str | os.PathLike, expected: Mapping[str, Any] | None = None
) -> tuple[Params, dict[str, Any]]:
    """Reads what `save_params` wrote.

    Args:
      directory: Directory with `model.safetensors` and `config.json`.
      expected: Nested tree of arrays or `jax.ShapeDtypeStruct` whose names and shapes must match.

    Returns:
      The parameters (nested NumPy arrays, floating-point ones as float32) and the config.

    Raises:
      UserError: See `load_safetensors`; or the config is missing or not a JSON object; or a tensor
        is missing, unexpected or of another shape.
    """
    directory = files.as_path(directory)
    remedy = "give a directory of released talkjax weights"
    config = files.read_json_object(directory / CONFIG_FILE, remedy)
    path = directory / PARAMS_FILE
    flat = load_safetensors(path)
    if expected is not None:
        shapes = traverse_util.flatten_dict(expected, sep="/")
        check_tensors(
            {name: t.shape for name, t in flat.items()},
            {name: tuple(leaf.shape) for name, leaf in shapes.items()},
            path,
        )
    for name in flat:
        parents = name.split("/")[:-1]
        if any("/".join(parents[: i + 1]) in flat for i in range(len(parents))):
            raise UserError(
                f"{path}: {name} lies inside another tensor; these are not talkjax weights"
            )
    return traverse_util.unflatten_dict(flat, sep="/"), config


# ---- checks -------------------------------------------------------------------------------------


def abstract_params(model: Any, *inputs: jax.ShapeDtypeStruct) -> Params:
    """Returns the shapes of a Linen module's parameters without computing anything."""
    return jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]


def check_tensors(
    found: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[int, ...]],
    path: str | os.PathLike,
) -> None:
    """Compares names and shapes.

    Raises:
      UserError: They differ; the message names missing, unexpected and mis-shaped tensors.
    """
    missing = sorted(expected.keys() - found.keys(), key=_natural)
    unexpected = sorted(found.keys() - expected.keys(), key=_natural)
    wrong = sorted(
        (n for n in expected.keys() & found.keys() if tuple(found[n]) != tuple(expected[n])),
        key=_natural,
    )
    problems = []
    if missing:
        problems.append(f"missing {_listed(missing)}")
    if unexpected:
        problems.append(f"unexpected {_listed(unexpected)}")
    if wrong:
        shapes = [f"{n} {tuple(found[n])} instead of {tuple(expected[n])}" for n in wrong]
        problems.append(f"wrong shape {_listed(shapes)}")
    if problems:
        raise UserError(
            f"{path} does not fit the model: {'; '.join(problems)}; "
            "use weights made for this configuration"
        )


def _natural(name: str) -> list[tuple[int, str]]:
    """Returns a sort key that puts "2.x" before "10.x"."""
    return [(int(part) if part.isdigit() else -1, part) for part in re.split(r"(\d+)", name)]


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = len(names) - _MAX_NAMED
    return ", ".join(names[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
