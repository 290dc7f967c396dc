"""Cached latents on disk: their layout, and random access to them. `cache_latents` writes them.

    DIR/latents.json                          what the latents are, and the shards of each split
    DIR/SPLIT-NAME-00000-of-00004.array_record
    DIR/SPLIT-NAME-00000-of-00004.json        what the statistics need to know of that shard

A split's latents are those of every `stride`-th of the usable frames of each clip, in the order of
the prepared shards. So the index of the shards tells where the latents of a frame lie, and neither
a list of frames nor a latent is kept in memory. A record has the latents of one frame:

    8 bytes of the split's fingerprint, 8 bytes of the record's place in the split (little endian),
    (2, h, w, c) numbers: the encoded region, and the same of the region that was masked before

A fingerprint depends on the encoder, region, mask, crop size, stride and type, and on the clips. It
is a part of the files' names (NAME), so latents of other settings never get into a data set. DIR
may be in a bucket (`talkjax.data.remote`).
"""

import dataclasses
import hashlib
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from talkjax import files
from talkjax.data import record_files, remote
from talkjax.data.records import DamagedRecordError
from talkjax.data.stored_clips import ShardReader
from talkjax.errors import UserError

INDEX = "latents.json"
VERSION = 2
DTYPES = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
}
REMEDY = "run the same data_pipelines.cache_latents again, which makes what is missing"
_KEY = struct.Struct("<8sQ")
_ENTRIES = ("mean", "std", "latent_shape", "splits")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What latents depend on besides the clips.

    Attributes:
      encoder: Identity of the encoder, see `encoder_id`.
      region: Part of the crop that was encoded, (y0, x0, y1, x1) in the unit square.
      mask: Part of the crop that was hidden in masked latents.
      crop_size: Side of the crops in pixels.
      stride: Every `stride`-th usable frame has latents.
      dtype: Type of the stored numbers, a key of `DTYPES`.
    """

    encoder: str
    region: tuple[float, float, float, float]
    mask: tuple[float, float, float, float]
    crop_size: int
    stride: int = 1
    dtype: str = "float16"

    @classmethod
    def of_index(cls, index: Mapping[str, Any]) -> "Settings":
        """Returns those that `read_index` found."""
        values = {field.name: index[field.name] for field in dataclasses.fields(cls)}
        boxes = {name: tuple(values[name]) for name in ("region", "mask")}
        return cls(**values | boxes)

    def fingerprint(self, reader: ShardReader) -> str:
        """Identifies the latents of a split, as a hexadecimal SHA-256 digest."""
        lists = (list(map(int, values)) for values in (reader.frames, reader.usable))
        clips = [reader.split, reader.fingerprint, reader.clip_ids, *lists]
        text = json.dumps([dataclasses.asdict(self), clips], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def default_directory(data_dir: files.PathLike) -> epath.Path:
    """Returns where latents are by default: beside the shards, which may be packed again."""
    return files.as_path(data_dir) / "latents"


def encoder_id(params: Mapping[str, Any]) -> str:
    """Identifies an encoder by its weights.

    Args:
      params: Parameters of an autoencoder, nested dicts of NumPy or JAX arrays. What belongs to
        the decoder does not count, because cached latents do not depend on it.

    Returns:
      A hexadecimal SHA-256 digest.
    """
    digest = hashlib.sha256()
    for leaf in _leaves({name: part for name, part in params.items() if "decoder" not in name}):
        digest.update(np.ascontiguousarray(leaf, np.float32).tobytes())
    return digest.hexdigest()


def _leaves(tree: Any) -> Iterator[Any]:
    """Yields the arrays of nested dicts in the order of their names, as `jax.tree.leaves` does."""
    if not isinstance(tree, Mapping):
        yield tree
        return
    for name in sorted(tree):
        yield from _leaves(tree[name])


def select_frames(usable: np.ndarray, stride: int) -> np.ndarray:
    """Returns the frames of a clip that have latents: every `stride`-th of (N,) usable ones."""
    return np.flatnonzero(usable)[::stride]


def count_rows(usable: np.ndarray, stride: int) -> np.ndarray:
    """Returns how many frames have latents of clips with (C,) so many usable ones."""
    return -(-usable // stride)


def encode_record(fingerprint: str, place: int, values: np.ndarray) -> bytes:
    """Makes a record of the (2, h, w, c) latents of a frame."""
    return _KEY.pack(bytes.fromhex(fingerprint)[:8], place) + values.tobytes()


def decode_record(
    raw: bytes, fingerprint: str, place: int, shape: Sequence[int], dtype: np.dtype
) -> np.ndarray:
    """Returns the (2, h, w, c) latents of a record.

    Raises:
      UserError: The record belongs to another frame or to other latents, or is not complete.
    """
    if raw[: _KEY.size] != _KEY.pack(bytes.fromhex(fingerprint)[:8], place):
        raise UserError("it belongs to other latents")
    if len(raw) == _KEY.size:
        raise UserError("its picture was damaged when the latents were made")
    try:
        return np.frombuffer(raw, dtype, offset=_KEY.size).reshape(2, *shape)
    except ValueError as error:
        raise UserError(f"it does not hold latents of shape {tuple(shape)}") from error


def read_index(directory: files.PathLike) -> dict[str, Any]:
    """Reads `latents.json`.

    Returns:
      A dict of
        version: that of the layout,
        the fields of `Settings`,
        latent_shape: [h, w, c],
        mean, std: statistics of the train split's latents, by channel,
        splits: by name a dict of `fingerprint`, `rows` and `files`, a list of [name, records].

    Raises:
      UserError: The file is missing, damaged or of another version.
    """
    path, remedy = files.as_path(directory) / INDEX, "run data_pipelines.cache_latents again"
    with remote.bucket_errors(path):
        if not path.exists():
            raise UserError(
                f"{directory} holds no cached latents; make them with `python -m "
                "data_pipelines.cache_latents --data=SHARDS --encoder=FILE` (every part of it, if "
                "it is divided), or train on pixels"
            )
        index = files.read_json_object(path, remedy)
    if (found := index.get("version", 1)) != VERSION:
        raise UserError(
            f"{directory} has latents of version {found}, not {VERSION}; make new ones with "
            f"`{_command(directory, index)}`"
            if found == 1
            else f"{path} has version {found!r}, not {VERSION}; update talkjax or {remedy}"
        )
    fields = [field.name for field in dataclasses.fields(Settings)]
    if missing := [name for name in (*fields, *_ENTRIES) if name not in index]:
        raise UserError(f"{path} lacks {', '.join(missing)}; {remedy}")
    if index["dtype"] not in DTYPES:
        raise UserError(f"{path} has numbers of type {index['dtype']!r}; update talkjax")
    return index


def _command(directory: files.PathLike, index: Mapping[str, Any]) -> str:
    """Returns the command that makes latents like those of an index of version 1."""
    boxes = [
        f" --{name}={','.join(f'{number:g}' for number in index[name])}"
        for name in ("region", "mask")
        if isinstance(index.get(name), list)
    ]
    return (
        f"python -m data_pipelines.cache_latents --data=SHARDS --encoder=ENCODER --out={directory}"
        f"{''.join(boxes)} --stride={index.get('stride', 1)}"
    )


class LatentCache:
    """Random access to the latents of one split. Threads may share it, and it can be pickled.

    Args:
      directory: Folder that `data_pipelines.cache_latents` wrote, local or in a bucket.
      reader: The shards whose frames the latents show; its split is that of the latents.

    Attributes:
      shape: (h, w, c) of one latent.
      region: Part of the crop that they show.
      mean, std: (c,) float32 statistics of the train split, with which latents are normalized.

    Raises:
      UserError: There are no latents of this split, they were made from other clips, or a file is
        missing or damaged.
    """

    def __init__(self, directory: files.PathLike, reader: ShardReader):
        index, split = read_index(directory), reader.split
        if split not in index["splits"]:
            raise UserError(
                f"{directory} has no latents of split {split!r}; run cache_latents with "
                f"--splits={','.join([*index['splits'], split])}"
            )
        settings, entry = Settings.of_index(index), index["splits"][split]
        self._fingerprint = entry["fingerprint"]
        if settings.fingerprint(reader) != self._fingerprint:
            raise UserError(
                f"the latents of split {split!r} in {directory} were made from other shards than "
                f"{reader.directory}; run data_pipelines.cache_latents again"
            )
        self.region, self._stride = settings.region, settings.stride
        self.shape, self._dtype = tuple(index["latent_shape"]), DTYPES[settings.dtype]
        self.mean, self.std = (np.asarray(index[name], np.float32) for name in ("mean", "std"))
        rows = count_rows(reader.usable, self._stride)
        self._first = np.cumsum(rows) - rows
        names, lengths = zip(*entry["files"], strict=True)
        paths = [files.as_path(directory) / name for name in names]
        for path in paths:
            if not files.is_remote(path) and not path.exists():
                raise UserError(f"the latents' shard {path} is missing; {REMEDY}")
        self._records = record_files.RecordFiles(paths, lengths, REMEDY)
        if not len(self._records) == sum(lengths) == rows.sum():
            raise UserError(
                f"{directory} has latents of {len(self._records)} frames of split {split!r} where "
                f"the shards need {rows.sum()}; {REMEDY}"
            )

    def frames(self, usable: np.ndarray) -> np.ndarray:
        """Returns which frames of a clip have latents, (n,) int64, from its (N,) usable ones."""
        return select_frames(usable, self._stride)

    def read(self, position: int, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Reads normalized latents.

        Args:
          position: Position of the clip in its split.
          rows: (k,) numbers of frames among those with latents.

        Returns:
          (2, k, h, w, c) float32 latents of the regions, and of the masked regions.

        Raises:
          DamagedRecordError: A record cannot be used. The message names the file and the place.
        """
        found = {int(row): self._decode(int(self._first[position]) + int(row)) for row in rows}
        stored = np.stack([found[int(row)] for row in rows], axis=1)
        return (stored.astype(np.float32) - self.mean) / self.std

    def _decode(self, place: int) -> np.ndarray:
        try:
            raw = self._records[place]
            return decode_record(raw, self._fingerprint, place, self.shape, self._dtype)
        except (RuntimeError, UserError) as error:  # the C++ reader raises bare RuntimeErrors
            raise DamagedRecordError(
                f"{self._records.name_of(place)}: {files.one_line(error, 300)}"
            ) from error
