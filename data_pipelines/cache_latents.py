"""Encodes region crops once, so that training never runs the autoencoder's encoder.

    python -m data_pipelines.cache_latents --data=SHARDS --encoder=taef2_encoder.safetensors

writes what `talkjax.data.latents` describes, beside the shards. Every kept frame is encoded
twice: as it is, and with the mask's rectangle set to mid-grey *before* encoding, so that nothing of
the mouth reaches the masked latent. Progress is kept a chunk at a time: a run that was killed goes
on where it stopped, and what is complete is not done again.
"""

import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from absl import app, flags, logging
from tqdm import tqdm

from talkjax import files
from talkjax.commands import run_main
from talkjax.conventions import Box, mask_region, to_float
from talkjax.data import latents, records, windows
from talkjax.errors import UserError

Encode = Callable[[np.ndarray], np.ndarray]
_CHUNK_BATCHES = 4  # batches between two notes of progress


def select_frames(record: records.ClipRecord, stride: int) -> np.ndarray:
    """Every `stride`-th of the frames with a face, (n,) int32."""
    return np.flatnonzero(record.face_found)[::stride].astype(np.int32)


def cache_split(
    reader: records.ShardReader,
    encode: Encode,
    encoder_id: str,
    directory: str | os.PathLike,
    *,
    region: Box,
    mask: Box,
    stride: int = 1,
    batch: int = 32,
) -> dict:
    """Encodes one split, or what is left of it.

    Args:
      reader: the split's shards.
      encode: (batch, H, W, 3) float32 in [-1, 1] -> (batch, h, w, c); every call has this shape.
      encoder_id: tells one encoder from another; part of what decides whether old work counts.
      directory: the cache.
      region, mask: unit-square boxes (y0, x0, y1, x1).
      stride: keeps every so-manieth frame that has a face.
      batch: images a call.

    Returns:
      The split's entry for `latents.json`: clips [(id, rows)], fingerprint, crop_size, shape,
      and `encoded`, the number of rows that this call did.
    """
    directory, split = pathlib.Path(directory), reader.split
    kept, clip_ids, digest = [], [], hashlib.sha256()
    for i in range(len(reader)):
        record = reader.read(i, with_frames=False)
        kept.append(select_frames(record, stride))
        clip_ids.append(record.clip_id)
        digest.update(record.clip_id.encode() + record.transforms.tobytes() + kept[-1].tobytes())
    rows = sum(map(len, kept))
    if not rows:
        raise UserError(f"split {split!r} has no frame with a face; leave it out of --splits")
    crop_size = windows.decode_jpeg(reader.read(0).frames[0]).shape[0]
    settings = [encoder_id, list(region), list(mask), crop_size, stride, digest.hexdigest()]
    fingerprint = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
    entry = {
        "clips": [[c, len(k)] for c, k in zip(clip_ids, kept, strict=True)],
        "fingerprint": fingerprint,
        "crop_size": crop_size,
    }
    finals = [directory / f"{split}.{name}.npy" for name in ("target", "masked", "frames")]
    if _finished(directory, split) == fingerprint and all(p.is_file() for p in finals):
        return entry | {"encoded": 0, "shape": list(np.load(finals[0], mmap_mode="r").shape[1:])}

    parts = [p.with_name(f".{p.name}.part") for p in finals]
    progress_path = directory / f".{split}.progress.json"
    done, arrays = _resume(progress_path, fingerprint, parts[:2], rows)
    if arrays is None:
        y0, x0, y1, x1 = region.pixels(crop_size)
        shape = np.asarray(encode(np.zeros((batch, y1 - y0, x1 - x0, 3), np.float32))).shape[1:]
        progress_path.unlink(missing_ok=True)
        done, arrays = 0, [_new_memmap(p, (rows, *shape)) for p in parts[:2]]

    before = done
    with tqdm(total=rows, initial=done, desc=f"encoding {split}", unit="frame") as bar:
        images: list[np.ndarray] = []
        for image in _region_images(reader, kept, region, done):
            images.append(image)
            if len(images) == _CHUNK_BATCHES * batch or done + len(images) == rows:
                pixels = to_float(np.stack(images))
                stop = done + len(images)
                masked = mask_region(pixels, region, mask, crop_size)
                for array, inputs in zip(arrays, (pixels, masked), strict=True):
                    array[done:stop] = _encode_all(encode, inputs, batch)
                    array.flush()
                bar.update(stop - done)
                done, images = stop, []
                files.write_json(progress_path, {"fingerprint": fingerprint, "rows": done})

    frames = np.concatenate(kept)
    with open(parts[2], "wb") as file:
        np.save(file, frames)
    shape = list(arrays[0].shape[1:])
    del arrays  # closes the maps before their files are renamed
    for part, final in zip(parts, finals, strict=True):
        os.replace(part, final)
    progress_path.unlink()
    return entry | {"encoded": done - before, "shape": shape}


def _finished(directory: pathlib.Path, split: str) -> str | None:
    if not (directory / latents.INDEX).is_file():
        return None
    return latents.read_index(directory).get("fingerprints", {}).get(split)


def _new_memmap(path: pathlib.Path, shape: tuple[int, ...]) -> np.memmap:
    return np.lib.format.open_memmap(path, "w+", np.float16, shape)


def _resume(progress_path, fingerprint: str, parts: Sequence[pathlib.Path], rows: int):
    """(rows done, open maps) of an interrupted run with the same settings, or (0, None)."""
    try:
        progress = json.loads(progress_path.read_text())
        if progress["fingerprint"] != fingerprint:
            return 0, None
        arrays = [np.load(path, mmap_mode="r+") for path in parts]
    except (OSError, ValueError, KeyError):
        return 0, None
    return (progress["rows"], arrays) if len(arrays[0]) == rows else (0, None)


def _region_images(reader, kept: Sequence[np.ndarray], region: Box, skip: int) -> Iterator:
    """Yields the (H, W, 3) uint8 regions of all kept frames from row `skip` on."""
    for position, frames in enumerate(kept):
        if skip >= len(frames):
            skip -= len(frames)
            continue
        record = reader.read(position)
        for frame in frames[skip:]:
            yield region.cut(windows.decode_jpeg(record.frames[frame]))
        skip = 0


def _encode_all(encode: Encode, images: np.ndarray, batch: int) -> np.ndarray:
    """Encodes any number of images in calls of one size; the last is filled up with zeros."""
    out = []
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        filled = np.pad(part, [(0, batch - len(part))] + [(0, 0)] * 3)
        out.append(np.asarray(encode(filled))[: len(part)])
    out = np.concatenate(out).astype(np.float32)
    if not np.isfinite(out).all() or np.abs(out).max() > np.finfo(np.float16).max:
        raise UserError("the encoder gave latents that are not finite; check its weights")
    return out


def channel_statistics(path: str | os.PathLike) -> tuple[list[float], list[float]]:
    """Per-channel mean and standard deviation of a cached (rows, h, w, c) file."""
    values = np.load(path, mmap_mode="r")
    total = np.zeros(values.shape[-1])
    squares = np.zeros(values.shape[-1])
    for start in range(0, len(values), 256):
        chunk = values[start : start + 256].astype(np.float64).reshape(-1, values.shape[-1])
        total += chunk.sum(0)
        squares += (chunk**2).sum(0)
    count = values.size // values.shape[-1]
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return mean.tolist(), np.maximum(std, 1e-6).tolist()


def cache_latents(
    data_dir: str | os.PathLike,
    encode: Encode,
    encoder_id: str,
    splits: Sequence[str],
    directory: str | os.PathLike | None = None,
    *,
    region: Box,
    mask: Box,
    stride: int = 1,
    batch: int = 32,
) -> dict:
    """Encodes splits and writes `latents.json`; see `cache_split` for the arguments.

    The statistics are those of split `train`, which is encoded first.

    Returns:
      The contents of `latents.json` plus `encoded`: rows encoded by this call.

    Raises:
      UserError: unknown split, no `train` yet, or the directory cannot be written.
    """
    directory = pathlib.Path(directory or latents.default_directory(data_dir))
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {directory} ({error}); choose another --out") from error
    settings = {
        "encoder": encoder_id,
        "region": list(region),
        "mask": list(mask),
        "stride": stride,
    }
    index = latents.read_index(directory) if (directory / latents.INDEX).is_file() else {}
    if {k: index.get(k) for k in settings} != settings:
        index = {}
    if "train" not in splits and "train" not in index.get("splits", {}):
        raise UserError("the train split gives the normalisation; name it first in --splits")
    encoded = 0
    for split in sorted(splits, key=lambda name: name != "train"):
        entry = cache_split(
            records.ShardReader(data_dir, split), encode, encoder_id, directory,
            region=region, mask=mask, stride=stride, batch=batch,
        )  # fmt: skip
        encoded += entry["encoded"]
        index |= settings | {"crop_size": entry["crop_size"], "latent_shape": entry["shape"]}
        index["splits"] = index.get("splits", {}) | {split: entry["clips"]}
        index["fingerprints"] = index.get("fingerprints", {}) | {split: entry["fingerprint"]}
        if split == "train" and (entry["encoded"] or "mean" not in index):
            index["mean"], index["std"] = channel_statistics(directory / "train.target.npy")
        files.write_json(directory / latents.INDEX, index)
    return index | {"encoded": encoded}


def load_encoder(path: str | os.PathLike, decoder: str | None = None) -> tuple[Encode, str]:
    """Makes an encode function from weights.

    Args:
      path: a run of `train.py` or its export, a diffusers AutoencoderKL file, or a TAESD encoder
        file.
      decoder: the TAESD decoder that belongs to it; by default the same name with "decoder".

    Returns:
      encode ((B, H, W, 3) in [-1, 1] -> (B, h, w, c) numpy; the mean where there is a
      distribution) and an id made from the weights.
    """
    import jax

    model, params = _load_autoencoder(pathlib.Path(path), decoder)
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves({k: v for k, v in params.items() if "decoder" not in k}):
        digest.update(np.ascontiguousarray(leaf).tobytes())

    @jax.jit
    def apply(params, images):
        out = model.apply({"params": params}, images, method=type(model).encode)
        return out[0] if isinstance(out, tuple) else out

    params = jax.device_put(params)
    return lambda images: np.asarray(apply(params, images)), digest.hexdigest()


def _load_autoencoder(path: pathlib.Path, decoder: str | None) -> tuple[Any, Any]:
    """The Flax module that the weights in `path` belong to, and its parameters."""
    from talkjax import networks, runs, weights
    from talkjax.models import autoencoder, taesd

    if path.is_dir():
        params, config, _ = runs.load_weights(path)
        if "autoencoder" in params:
            return networks.make_autoencoder(config["autoencoder"]), params["autoencoder"]
    elif path.name.endswith("encoder.safetensors"):
        mate = path.with_name(path.name.replace("encoder", "decoder"))
        params, config = weights.taesd_params(path, decoder or mate), {}
    else:
        params, config = weights.autoencoder_kl_params(path), {}
    if "layer_14" in params.get("encoder", {}):
        return taesd.TAESD(**taesd.layout_of(params)), params
    if "quant_conv" in params:
        groups = config.get("groups", 32)
        return autoencoder.AutoencoderKL(**autoencoder.layout_of(params), groups=groups), params
    raise UserError(f"{path} holds no autoencoder that is known here; give one that is")


def _floats(name: str, values: Sequence[str]) -> Box:
    try:
        y0, x0, y1, x1 = map(float, values)
    except ValueError:
        raise UserError(f"--{name} wants four numbers y0,x0,y1,x1") from None
    if not (0 <= y0 < y1 <= 1 and 0 <= x0 < x1 <= 1):
        raise UserError(f"--{name}={','.join(values)} is no box inside of the unit square")
    return Box(y0, x0, y1, x1)


def main(argv: Sequence[str], values: flags.FlagValues) -> None:
    """The command; `values` are the flags of `define_flags`."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; options are written --name=value")
    if not values.data or not values.encoder:
        raise UserError("say what to encode and with what: --data=SHARDS --encoder=FILE")
    if values.stride < 1 or values.batch < 1:
        raise UserError("--stride and --batch must be at least 1")
    region, mask = _floats("region", values.region), _floats("mask", values.mask)
    records.find_dataset(values.data)  # before seconds go into loading weights
    logging.set_verbosity(logging.WARNING)  # JAX tells of every accelerator that is not there
    splits = values.splits or list(records.list_splits(values.data))
    encode, encoder_id = load_encoder(values.encoder, values.decoder)
    index = cache_latents(
        values.data, encode, encoder_id, splits, values.out,
        region=region, mask=mask, stride=values.stride, batch=values.batch,
    )  # fmt: skip
    rows = {name: sum(n for _, n in clips) for name, clips in index["splits"].items()}
    print(
        f"latents {tuple(index['latent_shape'])} in "
        f"{values.out or latents.default_directory(values.data)}: "
        + ", ".join(f"{name} {count}" for name, count in rows.items())
        + f" frames ({index['encoded']} newly encoded)"
    )


def define_flags() -> flags.FlagValues:
    """The command's flags, which exist only when it runs: other commands have some alike."""
    flags.DEFINE_string("data", None, "Folder that data_pipelines.prepare wrote.")
    flags.DEFINE_string("encoder", None, "Autoencoder weights: a file or a talkjax folder.")
    flags.DEFINE_string("decoder", None, "TAESD decoder file, if not beside the encoder.")
    flags.DEFINE_string("out", None, "Folder of the latents; beside the shards by default.")
    flags.DEFINE_list("splits", None, "Splits to encode; all by default.")
    flags.DEFINE_integer("stride", 1, "Encode every so-manieth frame.")
    flags.DEFINE_integer("batch", 32, "Images a call of the encoder.")
    flags.DEFINE_list("region", ["0.375", "0.0625", "1", "0.9375"], "Unit-square y0,x0,y1,x1.")
    flags.DEFINE_list("mask", ["0.4375", "0.125", "0.9375", "0.875"], "Unit-square y0,x0,y1,x1.")
    return flags.FLAGS


if __name__ == "__main__":
    flag_values = define_flags()
    app.run(functools.partial(run_main, functools.partial(main, values=flag_values)))
