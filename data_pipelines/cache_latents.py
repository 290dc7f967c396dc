"""Encodes region crops once, so that training never runs the autoencoder's encoder.

    python -m data_pipelines.cache_latents --data=SHARDS --encoder=taef2_encoder.safetensors
    python -m data_pipelines.cache_latents --data=SHARDS --encoder=RUN --stride=3

Writes the files that `talkjax.data.latents` describes. Every selected frame is encoded twice:
unchanged, and with the mask's rectangle set to mid-gray *before* encoding, so that the masked
latent holds nothing of the mouth. To resume an interrupted run, run the same command again; what is
complete is not encoded again.
"""

import argparse
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from absl import logging
from tqdm import tqdm

from talkjax import commands, files
from talkjax.conventions import MASK, MOUTH_REGION, Box, mask_region, to_float
from talkjax.data import latents, storage, windows
from talkjax.data.stored_clips import ShardReader
from talkjax.errors import UserError

from .encoder import Encode, load_encoder
from .flag_errors import flag_errors

_CHUNK_BATCHES = 4  # batches between two records of progress


def select_frames(face_found: np.ndarray, stride: int) -> np.ndarray:
    """Returns every `stride`-th of the frames with a face, (n,) int32."""
    return np.flatnonzero(face_found)[::stride].astype(np.int32)


def cache_split(
    reader: ShardReader,
    encode: Encode,
    encoder_id: str,
    directory: str | os.PathLike,
    *,
    region: Box,
    mask: Box,
    stride: int = 1,
    batch: int = 32,
) -> dict:
    """Encodes one split, or the rest of it after an interruption.

    Args:
      reader: Reader of the split's shards.
      encode: Maps (batch, H, W, 3) float32 in [-1, 1] to (batch, h, w, c). All calls have this
        shape.
      encoder_id: Identity of the encoder, see `latents.encoder_id`. Latents of another encoder are
        replaced.
      directory: Folder of the cache.
      region, mask: Boxes (y0, x0, y1, x1) in the unit square.
      stride: Every `stride`-th frame with a face is encoded.
      batch: Images per call.

    Returns:
      The split's entry for `latents.json`: clips [(id, number of frames)], fingerprint, crop_size,
      shape, and `encoded`, the number of frames that this call encoded.
    """
    directory, split = pathlib.Path(directory), reader.split
    kept, clip_ids, digest = [], [], hashlib.sha256()
    for i in range(len(reader)):
        clip = reader.read_part("frames", i)
        kept.append(select_frames(clip["face_found"], stride))
        clip_ids.append(reader.clip_ids[i])
        digest.update(clip_ids[-1].encode() + clip["transforms"].tobytes() + kept[-1].tobytes())
    rows = sum(map(len, kept))
    if not rows:
        raise UserError(f"split {split!r} has no frame with a face; leave it out of splits")
    crop_size = reader.crop_size
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
    """Returns (rows done, open maps) of an interrupted run of these settings, or (0, None)."""
    try:
        progress = json.loads(progress_path.read_text())
        if progress["fingerprint"] != fingerprint:
            return 0, None
        arrays = [np.load(path, mmap_mode="r+") for path in parts]
    except (OSError, ValueError, KeyError):
        return 0, None
    return (progress["rows"], arrays) if len(arrays[0]) == rows else (0, None)


def _region_images(reader, kept: Sequence[np.ndarray], region: Box, skip: int) -> Iterator:
    """Yields the (H, W, 3) uint8 regions of all selected frames from row `skip` on."""
    for position, frames in enumerate(kept):
        if skip >= len(frames):
            skip -= len(frames)
            continue
        for picture in reader.clip(position).pictures(frames[skip:]):
            yield region.cut(windows.decode_jpeg(picture))
        skip = 0


def _encode_all(encode: Encode, images: np.ndarray, batch: int) -> np.ndarray:
    """Encodes any number of images in calls of one size; the last call is padded with zeros."""
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
    """Returns the mean and standard deviation of each channel of a cached (N, h, w, c) file."""
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
      The contents of `latents.json` and `encoded`, the number of frames that this call encoded.

    Raises:
      UserError: A split does not exist, `train` is missing, or the directory cannot be written.
    """
    directory = directory or latents.default_directory(data_dir)
    check_local(directory)
    directory = pathlib.Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{directory} cannot be written ({error}); choose another --out") from error
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
        raise UserError("splits lacks train, which gives the normalization; add it")
    encoded = 0
    for split in sorted(splits, key=lambda name: name != "train"):
        with ShardReader(data_dir, split, ("frames", "pictures")) as reader:
            entry = cache_split(
                reader, encode, encoder_id, directory,
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


def check_local(directory: str | os.PathLike) -> None:
    """Raises UserError if a folder to write to is in a bucket: latents are written as maps."""
    if files.is_remote(directory):
        raise UserError(f"out={directory} is in a bucket; write to a local folder and copy it")


def parse_box(text: str) -> Box:
    """Parses y0,x0,y1,x1 in the unit square; the `type=` of a flag."""
    try:
        y0, x0, y1, x1 = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not four numbers y0,x0,y1,x1") from None
    if not (0 <= y0 < y1 <= 1 and 0 <= x0 < x1 <= 1):
        raise argparse.ArgumentTypeError(f"{text!r} is not a box inside the unit square")
    return Box(y0, x0, y1, x1)


def make_parser() -> commands.Parser:
    """Returns the parser of the command's flags."""
    parser = commands.Parser(__doc__, prog="python -m data_pipelines.cache_latents")
    add = parser.add_argument
    add(
        "--data", required=True, metavar="DIR",
        help="folder that data_pipelines.prepare wrote, local or in a bucket",
    )  # fmt: skip
    add(
        "--encoder", required=True, metavar="PATH",
        help="autoencoder weights: a safetensors file (TAESD encoder or AutoencoderKL), or the "
        "folder of a training run or an export that holds an autoencoder",
    )  # fmt: skip
    add(
        "--decoder", metavar="FILE",
        help="TAESD decoder (default: the encoder's name with `decoder` in place of `encoder`)",
    )  # fmt: skip
    add("--out", metavar="DIR", help="local folder for the latents (default: DATA/latents)")
    add(
        "--splits", type=commands.comma_separated, metavar="NAMES",
        help="splits to encode, separated by commas (default: all)",
    )  # fmt: skip
    add(
        "--stride", type=commands.bounded(int, 1), default=1, metavar="N",
        help="encode every N-th frame with a face (default: %(default)s)",
    )  # fmt: skip
    add(
        "--batch", type=commands.bounded(int, 1), default=32, metavar="N",
        help="number of images per call of the encoder (default: %(default)s)",
    )  # fmt: skip
    for name, what, box in (
        ("region", "part of the crop to encode", MOUTH_REGION),
        ("mask", "part of the crop to hide in masked latents", MASK),
    ):
        numbers = ",".join(f"{number:g}" for number in box)
        add(
            f"--{name}", type=parse_box, metavar="Y0,X0,Y1,X1",
            help=f"{what}, in the unit square (default: that of the encoder's config, or {numbers} "
            "if the encoder is a file)",
        )  # fmt: skip
    return parser


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    flags = make_parser().parse_args(argv)
    with flag_errors():
        storage.find_dataset(flags.data)  # before loading weights, which takes seconds
        directory = flags.out or latents.default_directory(flags.data)
        check_local(directory)
        logging.set_verbosity(logging.WARNING)  # JAX would list the accelerators it did not find
        splits = flags.splits or list(storage.list_splits(flags.data))
        encoder = load_encoder(flags.encoder, flags.decoder)
        index = cache_latents(
            flags.data, encoder.encode, encoder.identity, splits, directory,
            region=flags.region or encoder.region, mask=flags.mask or encoder.mask,
            stride=flags.stride, batch=flags.batch,
        )  # fmt: skip
    counts = {name: sum(n for _, n in clips) for name, clips in index["splits"].items()}
    print(
        f"latents {tuple(index['latent_shape'])} in {directory}: "
        + ", ".join(f"{name} {count}" for name, count in counts.items())
        + f" frames ({index['encoded']} newly encoded)"
    )


def run() -> None:
    """Runs the command on the program's arguments and exits."""
    commands.run(main)


if __name__ == "__main__":
    run()
