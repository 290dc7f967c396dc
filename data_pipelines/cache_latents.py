"""Encodes region crops once, so that training never runs the autoencoder's encoder.

    python -m data_pipelines.cache_latents --data=SHARDS --encoder=taef2_encoder.safetensors

writes the files that `talkjax.data.latents` describes, by default beside the shards. Every kept
frame is encoded twice: as it is, and with the mask's rectangle set to mid-grey *before* encoding,
so that nothing of the mouth reaches the masked latent. Progress is saved in chunks: a run that was
killed resumes where it stopped, and nothing is encoded twice.
"""

import argparse
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import numpy as np
from absl import logging
from tqdm import tqdm

from talkjax import commands, files
from talkjax.conventions import MASK, MOUTH_REGION, Box, mask_region, to_float
from talkjax.data import latents, records, windows
from talkjax.errors import UserError

Encode = Callable[[np.ndarray], np.ndarray]
_CHUNK_BATCHES = 4  # batches between two saves of the progress


def select_frames(record: records.ClipRecord, stride: int) -> np.ndarray:
    """Returns every `stride`-th of the frames with a face, (n,) int32."""
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
    """Encodes one split, or what remains of it.

    Args:
      reader: Shards of the split.
      encode: (batch, H, W, 3) float32 in [-1, 1] -> (batch, h, w, c); every call has this shape.
      encoder_id: Identifies the encoder. Latents of another one are encoded again.
      directory: Folder of the latents.
      region, mask: Boxes in the unit square.
      stride: Every `stride`-th frame with a face is kept.
      batch: Images per call.

    Returns:
      The split's entry for `latents.json`: clips [(id, rows)], fingerprint, crop_size, shape, and
      `encoded`, the number of rows that this call encoded.
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
    del arrays  # closes the memory maps before their files are renamed
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
    """Returns (rows done, memory maps) of an interrupted run with these settings, or (0, None)."""
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
    """Encodes any number of images in calls of one size; the last one is padded with zeros."""
    out = []
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        filled = np.pad(part, [(0, batch - len(part))] + [(0, 0)] * 3)
        out.append(np.asarray(encode(filled))[: len(part)])
    out = np.concatenate(out).astype(np.float32)
    if not np.isfinite(out).all() or np.abs(out).max() > np.finfo(np.float16).max:
        raise UserError("the encoder returned latents that are not finite; check its weights")
    return out


def channel_statistics(path: str | os.PathLike) -> tuple[list[float], list[float]]:
    """Computes mean and standard deviation per channel of a cached (rows, h, w, c) file."""
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

    The statistics are those of the split `train`, which is encoded first.

    Returns:
      The contents of `latents.json` plus `encoded`, the number of rows that this call encoded.

    Raises:
      UserError: A split is unknown, `train` is missing, or the directory cannot be written.
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
        raise UserError("the split train is needed for the statistics; name it first in --splits")
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
      path: A training run or an export, a diffusers AutoencoderKL file, or a TAESD encoder file.
      decoder: The TAESD decoder file; by default the encoder's name with "decoder".

    Returns:
      The function (B, H, W, 3) in [-1, 1] -> (B, h, w, c), NumPy, which gives the mean where the
      encoder predicts a distribution; and the encoder's id (`latents.encoder_id`).
    """
    import jax

    model, params = _load_autoencoder(pathlib.Path(path), decoder)

    @jax.jit
    def apply(params, images):
        out = model.apply({"params": params}, images, method=type(model).encode)
        return out[0] if isinstance(out, tuple) else out

    placed = jax.device_put(params)
    return lambda images: np.asarray(apply(placed, images)), latents.encoder_id(params)


def _load_autoencoder(path: pathlib.Path, decoder: str | None) -> tuple[Any, Any]:
    """Returns the Flax module of the weights in `path`, and its parameters."""
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
    raise UserError(
        f"{path} holds no autoencoder that talkjax knows; give one of the kinds light, kl or taesd"
    )


def _boxes(path: str | os.PathLike) -> tuple[Box, Box]:
    """Region and mask that an encoder's folder was trained for; for files, the defaults."""
    path = files.as_path(path)
    if not path.is_dir():
        return MOUTH_REGION, MASK
    config = files.read_json_object(path / "config.json", "give a talkjax run or export")
    return Box(*config.get("region", MOUTH_REGION)), Box(*config.get("mask", MASK))


def _box(text: str) -> Box:
    """Reads y0,x0,y1,x1 of a box in the unit square."""
    try:
        y0, x0, y1, x1 = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not four numbers y0,x0,y1,x1") from None
    if not (0 <= y0 < y1 <= 1 and 0 <= x0 < x1 <= 1):
        raise argparse.ArgumentTypeError(f"{text} is not a box inside the unit square")
    return Box(y0, x0, y1, x1)


def make_parser() -> commands.Parser:
    """Returns the parser of the command line."""
    parser = commands.Parser(__doc__, prog="python -m data_pipelines.cache_latents")
    add = parser.add_argument
    add("--data", required=True, metavar="SHARDS", help="folder that data_pipelines.prepare wrote")
    add(
        "--encoder",
        required=True,
        metavar="PATH",
        help="autoencoder: a training run or an export, a diffusers AutoencoderKL file, or a TAESD "
        "encoder file",
    )
    add("--decoder", metavar="FILE", help="TAESD decoder file, if it is not beside the encoder")
    add("--out", metavar="DIR", help="folder of the latents (default: SHARDS/latents)")
    add(
        "--splits",
        type=commands.comma_separated,
        metavar="NAMES",
        help="comma-separated splits to encode (default: all)",
    )
    add(
        "--stride",
        type=commands.bounded(int, 1),
        default=1,
        metavar="N",
        help="encode every N-th frame with a face (default: %(default)s)",
    )
    add(
        "--batch",
        type=commands.bounded(int, 1),
        default=32,
        metavar="N",
        help="images per call of the encoder (default: %(default)s)",
    )
    for name, what in (("region", "that the image models see"), ("mask", "that they fill in")):
        add(
            f"--{name}",
            type=_box,
            metavar="Y0,X0,Y1,X1",
            help=f"part of the crop {what}, in the unit square (default: that of the encoder's "
            "configuration, else that of configs/demo_128.py)",
        )
    return parser


def main(argv: Sequence[str]) -> None:
    """Runs the command line `argv`, without the program's name."""
    given = make_parser().parse_args(argv)
    out = given.out or latents.default_directory(given.data)
    for path in (given.data, out):
        if files.is_remote(path):
            raise UserError(f"{path} is in a bucket; write to a local folder and copy it there")
    records.find_dataset(given.data)  # before seconds are spent on loading weights
    logging.set_verbosity(logging.WARNING)  # JAX reports every accelerator that is absent
    region, mask = _boxes(given.encoder)
    splits = given.splits or list(records.list_splits(given.data))
    encode, encoder = load_encoder(given.encoder, given.decoder)
    index = cache_latents(
        given.data, encode, encoder, splits, out,
        region=given.region or region, mask=given.mask or mask,
        stride=given.stride, batch=given.batch,
    )  # fmt: skip
    rows = {name: sum(n for _, n in clips) for name, clips in index["splits"].items()}
    print(
        f"latents {tuple(index['latent_shape'])} in {out}: "
        + ", ".join(f"{name} {count}" for name, count in rows.items())
        + f" frames ({index['encoded']} newly encoded)"
    )


def run() -> NoReturn:
    """Runs the command."""
    commands.run(main)


if __name__ == "__main__":
    run()
