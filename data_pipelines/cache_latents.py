r"""Encodes region crops once, so that training never runs the autoencoder's encoder.

    python -m data_pipelines.cache_latents --data=SHARDS --encoder=taef2_encoder.safetensors
    python -m data_pipelines.cache_latents --data=SHARDS --encoder=RUN --stride=3
    python -m data_pipelines.cache_latents --data=SHARDS --encoder=sd-vae-ft-mse.safetensors \
      --config=configs/base_256.py --shard=3/16

Writes the files that `talkjax.data.latents` describes. Every selected frame is encoded twice:
unchanged, and with the mask's rectangle set to mid-gray *before* encoding, so that the masked
latent holds nothing of the mouth. To resume an interrupted run, run the same command again; shards
that are complete are not encoded again. `--shard=I/N` does the I-th of N parts of the work, on as
many machines that see DATA and OUT; whichever completes the last shard writes the index.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

from absl import logging
from tqdm import tqdm

from talkjax import commands, configuration, files
from talkjax.conventions import Box
from talkjax.data import latents, storage
from talkjax.data.stored_clips import ShardReader
from talkjax.errors import UserError

from . import latent_shards
from .encoder import Encode, load_encoder
from .flag_errors import flag_errors


def cache_latents(
    data_dir: files.PathLike,
    encode: Encode,
    encoder_id: str,
    splits: Sequence[str],
    directory: files.PathLike | None = None,
    *,
    region: Box,
    mask: Box,
    stride: int = 1,
    dtype: str = "float16",
    batch: int = 32,
    shard: tuple[int, int] = (0, 1),
) -> dict[str, Any]:
    """Encodes splits, or a part of the work, and writes `latents.json` when all of it is done.

    Args:
      data_dir: Folder that `data_pipelines.prepare` wrote, local or in a bucket.
      encode: Maps (batch, H, W, 3) float32 in [-1, 1] to (batch, h, w, c). All calls have this
        shape.
      encoder_id: Identity of the encoder, see `latents.encoder_id`.
      splits: Names of the splits. The statistics are those of `train`.
      directory: Folder of the latents, local or in a bucket. Latents of other settings in it are
        replaced when the new ones are complete.
      region, mask: Boxes (y0, x0, y1, x1) in the unit square.
      stride: Every `stride`-th usable frame is encoded.
      dtype: Type of the stored numbers, a key of `latents.DTYPES`.
      batch: Images per call.
      shard: (index, count), the part of the work to do.

    Returns:
      The contents of `latents.json`, or {} while shards are missing; and `encoded`, `damaged` and
      `missing`, the number of frames that this call encoded, the number of all whose pictures are
      damaged, and the number of shards that other calls still have to make.

    Raises:
      UserError: A split does not exist, `train` is missing, or the directory cannot be written.
    """
    directory = files.as_path(directory or latents.default_directory(data_dir))
    settings = latents.Settings(
        encoder_id, tuple(region), tuple(mask), storage.read_index(data_dir)["crop_size"], stride,
        dtype,
    )  # fmt: skip
    earlier = _read_earlier(directory, settings)
    if "train" not in splits and "train" not in earlier.get("splits", {}):
        raise UserError("splits lacks train, which gives the normalization; add it")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{directory} cannot be written ({error}); choose another --out") from error
    readers = {split: ShardReader(data_dir, split, ("frames", "pictures")) for split in splits}
    plans = {split: latent_shards.plan(r, settings, directory) for split, r in readers.items()}
    work = [(part, readers[split]) for split, parts in plans.items() for part in parts]
    work = [item for item in work[shard[0] :: shard[1]] if item[0].facts() is None]
    encoded = 0
    with tqdm(total=sum(p.rows for p, _ in work), desc="encoding", unit="frame") as bar:
        for part, reader in work:
            facts = latent_shards.write(part, reader, encode, settings, batch, bar)
            encoded += facts["rows"] - facts["damaged"]
    for reader in readers.values():
        reader.close()
    facts = {split: [part.facts() for part in parts] for split, parts in plans.items()}
    done = {"encoded": encoded, "missing": sum(found.count(None) for found in facts.values())}
    done["damaged"] = sum(f["damaged"] for found in facts.values() for f in found if f)
    if done["missing"]:
        return done
    index = earlier | {"version": latents.VERSION} | dataclasses.asdict(settings)
    index["splits"] = dict(earlier.get("splits", {}))
    for split, parts in plans.items():
        index["splits"][split] = {
            "fingerprint": settings.fingerprint(readers[split]),
            "rows": sum(part.rows for part in parts),
            "files": [[part.path.name, part.rows] for part in parts],
        }
    if "train" in facts:
        index |= latent_shards.statistics(facts["train"])
    files.write_json(directory / latents.INDEX, index)
    for split, parts in plans.items():
        latent_shards.remove_replaced(directory, split, [part.path.name for part in parts])
    return index | done


def _read_earlier(directory: files.PathLike, settings: latents.Settings) -> dict[str, Any]:
    """Returns the index of latents of the same settings in a folder, or {}."""
    path = files.as_path(directory) / latents.INDEX
    if not path.exists():
        return {}
    found = files.read_json_object(path, "remove it")
    if found.get("version") != latents.VERSION:
        return {}
    index = latents.read_index(directory)
    return index if latents.Settings.of_index(index) == settings else {}


def parse_box(text: str) -> Box:
    """Parses y0,x0,y1,x1 in the unit square; the `type=` of a flag."""
    try:
        y0, x0, y1, x1 = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not four numbers y0,x0,y1,x1") from None
    if not (0 <= y0 < y1 <= 1 and 0 <= x0 < x1 <= 1):
        raise argparse.ArgumentTypeError(f"{text!r} is not a box inside the unit square")
    return Box(y0, x0, y1, x1)


def parse_shard(text: str) -> tuple[int, int]:
    """Parses I/N with 0 <= I < N; the `type=` of a flag."""
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with I from 0 to N - 1")
    return int(index), int(count)


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
    add(
        "--config", metavar="FILE[:ARGUMENT]",
        help="configuration that the latents are for, such as configs/base_256.py; "
        "--config.field=value changes a field (default: that of the encoder's folder)",
    )  # fmt: skip
    add(
        "--out", metavar="DIR",
        help="folder for the latents, local or in a bucket (default: DATA/latents)",
    )  # fmt: skip
    add(
        "--splits", type=commands.comma_separated, metavar="NAMES",
        help="splits to encode, separated by commas (default: all)",
    )  # fmt: skip
    add(
        "--shard", type=parse_shard, default=(0, 1), metavar="I/N",
        help="do the I-th of N parts of the work, from 0/N to N-1/N (default: all of it)",
    )  # fmt: skip
    add(
        "--stride", type=commands.bounded(int, 1), default=1, metavar="N",
        help="encode every N-th frame with a face (default: %(default)s)",
    )  # fmt: skip
    add(
        "--dtype", choices=list(latents.DTYPES), default="float16",
        help="type of the stored numbers: float16 and bfloat16 take half the bytes of float32; "
        "float16 is more precise, bfloat16 holds any size (default: %(default)s)",
    )  # fmt: skip
    add(
        "--batch", type=commands.bounded(int, 1), default=32, metavar="N",
        help="number of images per call of the encoder (default: %(default)s)",
    )  # fmt: skip
    for name, what in (
        ("region", "part of the crop to encode"),
        ("mask", "part of the crop to hide in masked latents"),
    ):
        add(
            f"--{name}", type=parse_box, metavar="Y0,X0,Y1,X1",
            help=f"{what}, in the unit square (default: that of the configuration)",
        )  # fmt: skip
    return parser


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    parser = make_parser()
    flags, overrides = parser.parse_known_args(argv)
    if overrides and not flags.config:
        parser.error(f"unrecognized arguments: {' '.join(overrides)}")
    config = configuration.load(flags.config, overrides) if flags.config else None
    with flag_errors():
        found = storage.read_index(flags.data)  # before loading weights, which takes seconds
        if config is not None and config.crop_size != found["crop_size"]:
            raise UserError(
                f"{flags.data} has crops of {found['crop_size']} px, --config={flags.config} has "
                f"crop_size={config.crop_size}; prepare the data with --crop_size="
                f"{config.crop_size}, or give the configuration that is trained"
            )
        directory = flags.out or latents.default_directory(flags.data)
        logging.set_verbosity(logging.WARNING)  # JAX would list the accelerators it did not find
        splits = flags.splits or list(storage.list_splits(flags.data))
        encoder = load_encoder(flags.encoder, flags.decoder)
        boxes = encoder if config is None else config
        done = cache_latents(
            flags.data, encoder.encode, encoder.identity, splits, directory,
            region=flags.region or Box(*boxes.region), mask=flags.mask or Box(*boxes.mask),
            stride=flags.stride, dtype=flags.dtype, batch=flags.batch, shard=flags.shard,
        )  # fmt: skip
    damaged = f", {done['damaged']} damaged and left out" if done["damaged"] else ""
    if done["missing"]:
        print(
            f"{done['encoded']} frames newly encoded{damaged}; {done['missing']} shards in "
            f"{directory} are still missing: run the other parts of --shard, or without it"
        )
        return
    counts = ", ".join(f"{name} {entry['rows']}" for name, entry in done["splits"].items())
    print(
        f"latents {tuple(done['latent_shape'])} in {directory}: {counts} frames "
        f"({done['encoded']} newly encoded{damaged})"
    )


def run() -> None:
    """Runs the command on the program's arguments and exits."""
    commands.run(main)


if __name__ == "__main__":
    run()
