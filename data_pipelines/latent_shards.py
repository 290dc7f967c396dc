"""Writes shards of cached latents, each complete or not at all; `talkjax.data.latents` reads them.

Which frames a shard holds follows from the prepared shards alone, so any number of processes can
divide them. A shard is finished when the file of its facts lies beside it.
"""

import contextlib
import dataclasses
import itertools
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from absl import logging
from etils import epath
from tqdm import tqdm

from talkjax import files
from talkjax.conventions import Box, mask_region, to_float
from talkjax.data import latents, record_files, remote, windows
from talkjax.data.records import DamagedRecordError
from talkjax.data.stored_clips import ShardReader, StoredClip
from talkjax.errors import UserError

from .encoder import Encode

SHARD_ROWS = 1000  # frames of a shard, or more of a split with more than 200 such shards
_CHUNK_BATCHES = 4  # batches that are encoded at a time
_SUFFIX = ".array_record"


@dataclasses.dataclass(frozen=True)
class LatentShard:
    """The latents of some consecutive clips of a split.

    Attributes:
      path: The file.
      clips: Positions of the clips.
      first: Place of the first record in the split.
      rows: Number of records.
    """

    path: epath.Path
    clips: range
    first: int
    rows: int

    @property
    def facts_path(self) -> epath.Path:
        """The file of the shard's facts, which is written when the shard is complete."""
        return self.path.with_name(self.path.name.removesuffix(_SUFFIX) + ".json")

    def facts(self) -> dict[str, Any] | None:
        """Returns what `write` returned, or None if the shard is not finished or is damaged."""
        with remote.bucket_errors(self.path):
            if not (self.facts_path.exists() and self.path.exists()):
                return None
            facts = files.read_json_object(self.facts_path, "remove it")
            return facts if self.path.stat().length == facts.get("bytes") else None


def plan(
    reader: ShardReader, settings: latents.Settings, directory: files.PathLike
) -> list[LatentShard]:
    """Divides the clips of a split among shards of about equally many frames.

    Raises:
      UserError: The split has no frame that can be used.
    """
    rows = latents.count_rows(reader.usable, settings.stride)
    ends = np.cumsum(rows)
    if not len(ends) or not ends[-1]:
        raise UserError(f"split {reader.split!r} has no frame with a face; leave it out of splits")
    size = max(SHARD_ROWS, -(-int(ends[-1]) // record_files.MOST_FILES))
    starts = np.flatnonzero(np.diff((ends - rows) // size, prepend=-1))
    stops = [*starts[1:], len(rows)]
    stem = f"{reader.split}-{settings.fingerprint(reader)[:12]}"
    name = "{}-{:05d}-of-{:05d}" + _SUFFIX
    return [
        LatentShard(
            files.as_path(directory) / name.format(stem, number, len(starts)),
            range(int(start), int(stop)),
            int(ends[start] - rows[start]),
            int(rows[start:stop].sum()),
        )
        for number, (start, stop) in enumerate(zip(starts, stops, strict=True))
    ]


def write(
    shard: LatentShard,
    reader: ShardReader,
    encode: Encode,
    settings: latents.Settings,
    batch: int,
    bar: tqdm,
) -> dict[str, Any]:
    """Encodes and writes one shard.

    A frame whose picture is damaged is named in the log and gets an empty record, which the loader
    treats as damaged.

    Args:
      shard: The shard.
      reader: Reader of the split, with the parts `frames` and `pictures`.
      encode: Maps (batch, H, W, 3) float32 in [-1, 1] to (batch, h, w, c). All calls have this
        shape.
      settings: See `latents.Settings`.
      batch: Images per call.
      bar: Progress bar, which advances with every frame.

    Returns:
      The shard's facts: `rows`, `damaged` rows, `bytes`, `latent_shape`, and `sum` and `squares` of
      the regions' latents by channel.
    """
    dtype, fingerprint = latents.DTYPES[settings.dtype], settings.fingerprint(reader)
    pictures = _region_pictures(reader, shard.clips, settings)
    sums, damaged, shape, place = np.zeros((2, 1)), 0, [0, 0, 0], shard.first
    with _replacing_by_local(shard.path) as path:
        with contextlib.closing(_Writer(path)) as writer:
            while chunk := list(itertools.islice(pictures, _CHUNK_BATCHES * batch)):
                found = [picture for picture in chunk if picture is not None]
                encoded = iter(_encode_both(encode, found, settings, batch, dtype))
                for picture in chunk:
                    values = np.zeros(0) if picture is None else next(encoded)
                    writer.write(latents.encode_record(fingerprint, place, values))
                    place += 1
                    if picture is None:
                        damaged += 1
                        continue
                    shape = values.shape[1:]
                    cells = values[0].reshape(-1, shape[-1]).astype(np.float64)
                    sums = sums + np.stack([cells.sum(0), (cells**2).sum(0)])
                bar.update(len(chunk))
        if place - shard.first != shard.rows:
            raise UserError(
                f"{shard.path}: the clips have {place - shard.first} frames where the index says "
                f"{shard.rows}; prepare the data again"
            )
        size = os.path.getsize(path)
    facts = {"rows": shard.rows, "damaged": damaged, "bytes": size, "latent_shape": list(shape)}
    facts |= {"sum": sums[0].tolist(), "squares": sums[1].tolist()}
    files.write_json(shard.facts_path, facts)
    return facts


class _Writer:
    """Writes records to a local file. Its errors, such as a full disk, are `files.WriteError`s."""

    def __init__(self, path: str):
        from array_record.python import array_record_module

        self._path = path
        with self._errors():
            self._writer = array_record_module.ArrayRecordWriter(path, record_files.WRITER_OPTIONS)

    def write(self, record: bytes) -> None:
        with self._errors():
            self._writer.write(record)

    def close(self) -> None:
        with self._errors():
            self._writer.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # the C++ writer raises no other
            raise files.WriteError(
                f"{self._path} cannot be written ({files.one_line(error)}); make room there or "
                "choose another --out (finished shards are kept)"
            ) from error


@contextlib.contextmanager
def _replacing_by_local(path: epath.Path) -> Iterator[str]:
    """Yields the name of a local file, which becomes `path` when the body succeeds."""
    with files.replacing(path) as temporary:
        if not files.is_remote(path):
            yield os.fspath(temporary)
            return
        with tempfile.TemporaryDirectory() as folder:
            local = pathlib.Path(folder) / path.name
            yield os.fspath(local)
            with local.open("rb") as source, temporary.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)


def _region_pictures(
    reader: ShardReader, clips: range, settings: latents.Settings
) -> Iterator[np.ndarray | None]:
    """Yields the (H, W, 3) uint8 regions of all selected frames; None where one is damaged."""
    region = Box(*settings.region)
    for position in clips:
        clip = reader.clip(position)
        usable = _or_none(lambda clip: clip.usable, clip)
        if usable is None:
            yield from [None] * int(latents.count_rows(reader.usable[position], settings.stride))
            continue
        chosen = latents.select_frames(usable, settings.stride)
        for _, group in itertools.groupby(chosen, lambda frame: frame // reader.group):
            frames = list(group)
            jpegs = _or_none(clip.pictures, frames) or [None] * len(frames)
            for frame, jpeg in zip(frames, jpegs, strict=True):
                yield None if jpeg is None else _or_none(_decode, clip, frame, jpeg, region)


def _decode(clip: StoredClip, frame: int, jpeg: bytes, region: Box) -> np.ndarray:
    try:
        return region.cut(windows.decode_jpeg(jpeg))
    except (ValueError, OSError) as error:
        raise DamagedRecordError(f"clip {clip.clip_id!r}: frame {frame}: {error}") from error


def _or_none(read: Callable[..., Any], *args: Any) -> Any:
    """Returns what `read` returns, or None after naming what is damaged in the log."""
    try:
        return read(*args)
    except DamagedRecordError as error:
        logging.warning("%s; left out", error)
        return None


def _encode_both(
    encode: Encode,
    pictures: Sequence[np.ndarray],
    settings: latents.Settings,
    batch: int,
    dtype: np.dtype,
) -> np.ndarray:
    """Returns (n, 2, h, w, c) latents of regions and masked regions."""
    if not pictures:
        return np.zeros((0, 2, 0, 0, 0), dtype)
    whole = to_float(np.stack(pictures))
    masked = mask_region(whole, Box(*settings.region), Box(*settings.mask), settings.crop_size)
    both = [_encode_all(encode, images, batch) for images in (whole, masked)]
    out = np.stack(both, axis=1).astype(np.float32)
    with np.errstate(over="ignore"):
        stored = out.astype(dtype)
    if not np.isfinite(stored.astype(np.float32)).all():
        raise UserError(
            f"the encoder returned latents that are not finite as {dtype}; check its weights"
        )
    return stored


def _encode_all(encode: Encode, images: np.ndarray, batch: int) -> np.ndarray:
    """Encodes any number of images in calls of one size; the last call is padded with zeros."""
    out = []
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        filled = np.pad(part, [(0, batch - len(part))] + [(0, 0)] * 3)
        out.append(np.asarray(encode(filled))[: len(part)])
    return np.concatenate(out)


def statistics(facts: Sequence[dict[str, Any]]) -> dict[str, list]:
    """Returns `latent_shape`, and `mean` and `std` by channel, from the facts of all shards.

    Raises:
      UserError: All pictures are damaged.
    """
    facts = [found for found in facts if found["damaged"] < found["rows"]]
    if not facts:
        raise UserError("no picture of split 'train' can be read; prepare the data again")
    height, width, _ = facts[0]["latent_shape"]
    cells = sum(f["rows"] - f["damaged"] for f in facts) * height * width
    total, squares = (np.sum([f[name] for f in facts], axis=0) for name in ("sum", "squares"))
    mean = total / cells
    std = np.maximum(np.sqrt(np.maximum(squares / cells - mean**2, 0)), 1e-6)
    return {"latent_shape": facts[0]["latent_shape"], "mean": mean.tolist(), "std": std.tolist()}


def remove_replaced(directory: epath.Path, split: str, kept: Sequence[str]) -> None:
    """Removes a finished split's leftovers: half-written files, and latents of other settings."""
    stems = {name.removesuffix(_SUFFIX) for name in kept}
    pattern = re.compile(rf"\.?({re.escape(split)}-[0-9a-f]{{12}}-\d{{5}}-of-\d{{5}})(\..*)")
    version_1 = {f"{split}.{name}.npy" for name in ("target", "masked", "frames")}
    with remote.bucket_errors(directory):
        for path in list(directory.iterdir()):
            found = pattern.fullmatch(path.name)
            current = found and found[1] in stems and found[2] in (_SUFFIX, ".json")
            if (found and not current) or path.name in version_1:
                path.unlink(missing_ok=True)
