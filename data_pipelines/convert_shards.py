"""Converts shards of version 1 to the records of today, without decoding a video again.

    python -m data_pipelines.convert_shards --data=OLD --out=NEW

NEW then holds the same clips in the same order and splits, and OLD stays as it is. NEW may be OLD:
the new shards then take the place of the old ones when all are written. Cached latents stay valid;
give their folder with `--config.data.latents`, or copy it into NEW.

A record of version 1 is a whole clip with all of its pictures, and keeps the pose as it was
measured. The steady pose is computed here, once.
"""

import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from etils import epath
from tqdm import tqdm

from talkjax import commands, files
from talkjax.data import examples, records, remote, storage, windows
from talkjax.errors import UserError

from . import packing
from .flag_errors import flag_errors
from .preparation import Packing

_REMEDY = "prepare the data again"
_BESIDE = ("manifest.jsonl", "summary.json", "speech.json")  # files of preparation, for people


class OldShards:
    """Records of version 1, a `shards.Source`: a clip is `PATH#ROW`, a row of a shard.

    Args:
      bar: Progress bar, which advances with every clip.
    """

    def __init__(self, bar: tqdm):
        self._bar = bar

    def size(self, clip: str) -> int:
        """Returns the average size of the shard's records."""
        path, _, _ = clip.rpartition("#")
        return os.path.getsize(path) // max(1, len(_open(path)))

    def load(self, clip: str) -> records.ClipRecord:
        """Reads a record.

        Raises:
          DamagedRecordError: It is damaged.
        """
        path, _, row = clip.rpartition("#")
        self._bar.update()
        try:
            return records.check_record(_decode(_open(path)[int(row)]))
        except (RuntimeError, UserError, ValueError, IndexError, KeyError) as error:
            raise records.DamagedRecordError(
                f"record {row} of {path}: {files.one_line(error, 300)}"
            ) from error


@functools.lru_cache(maxsize=4)
def _open(path: str) -> Any:
    import grain

    return grain.sources.ArrayRecordDataSource([path])


def _decode(raw: bytes) -> records.ClipRecord:
    shapes = records.FLOAT_SHAPES
    keys = {"clip_id", "source_fps", "frames", *records.ARRAY_KEYS}
    values = examples.parse_example(raw, keys)
    return records.ClipRecord(
        clip_id=values["clip_id"][0].decode(),
        source_fps=float(values["source_fps"][0]),
        face_found=values["face_found"],
        frames=values["frames"],
        **{key: values[key].reshape(-1, *tail) for key, tail in shapes.items()},
    )


def convert(data_dir: str | os.PathLike, out: str | os.PathLike) -> dict[str, int]:
    """Converts shards. Damaged records are named in the log and left out.

    Args:
      data_dir: Folder with shards of version 1, local or in a bucket.
      out: Folder for the new shards, which may be the same.

    Returns:
      The number of clips by split.

    Raises:
      UserError: There are no shards of version 1, none of a split's records can be read, or `out`
        cannot be written.
    """
    old = storage.find_dataset(data_dir, version=1)
    info = files.read_json_object(old / storage.INFO, _REMEDY)
    clips = {
        split: _list_clips(old, split, lengths)
        for split, lengths in storage.shard_lengths(old).items()
    }
    metadata = old / "metadata.json"
    lists = files.read_json_object(metadata, _REMEDY).get("lists_sha256", {})
    packing.claim(out, info["name"])
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with tqdm(total=sum(map(len, clips.values())), desc="converting", unit="clip") as bar:
        contents = Packing(clips, _read_old_index(old, clips))
        packing.pack(out, contents, info["name"], lists, source=OldShards(bar))
    for name in _BESIDE:
        beside = files.as_path(data_dir) / name
        if beside.exists() and not (out / name).exists():
            files.write_bytes(out / name, beside.read_bytes())
    return storage.list_splits(out)


def _list_clips(old: epath.Path, split: str, lengths: Sequence[int]) -> list[str]:
    paths = storage.list_shards(old, split)
    if len(paths) != len(lengths):
        raise UserError(
            f"{old} has {len(paths)} of the {len(lengths)} shards of split {split!r}; {_REMEDY}"
        )
    paths = remote.local_copies(paths)
    for path, count in zip(paths, lengths, strict=True):
        try:
            found = len(_open(os.fspath(path)))
        except Exception as error:  # the C++ reader raises bare RuntimeErrors and more
            raise UserError(
                f"the shard {path} cannot be read ({files.one_line(error, 300)}); {_REMEDY}"
            ) from error
        if found != count:
            raise UserError(
                f"{path} has {found} records where {storage.INFO} says {count}; {_REMEDY}"
            )
    rows = zip(paths, lengths, strict=True)
    return [f"{path}#{row}" for path, count in rows for row in range(count)]


def _read_old_index(old: epath.Path, clips: dict[str, list[str]]) -> dict[str, Any]:
    path = old / storage.INDEX
    index = files.read_json_object(path, _REMEDY) if path.exists() else {}
    if "crop_size" not in index:  # the earliest shards
        with tqdm(disable=True) as bar:
            picture = (OldShards(bar).load(next(iter(clips.values()))[0]).frames or (b"",))[0]
        index["crop_size"] = windows.decode_jpeg(picture).shape[0] if picture else 0
    return {"fingerprint": index.get("fingerprint", ""), "crop_size": index["crop_size"]}


def make_parser() -> commands.Parser:
    """Returns the parser of the command's flags."""
    parser = commands.Parser(__doc__, prog="python -m data_pipelines.convert_shards")
    add = parser.add_argument
    add(
        "--data",
        required=True,
        metavar="OLD",
        help="folder with shards of version 1, local or in a bucket",
    )
    add("--out", required=True, metavar="NEW", help="local folder for the new ones; may be OLD")
    return parser


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    flags = make_parser().parse_args(argv)
    with flag_errors():
        try:
            counts = convert(flags.data, flags.out)
        except OSError as error:
            raise UserError(
                f"{flags.out} cannot be written ({error.strerror or error}); make room there or "
                "choose another --out"
            ) from error
    print(f"{flags.out}: " + ", ".join(f"{name} {count} clips" for name, count in counts.items()))


def run() -> None:
    """Runs the command on the program's arguments and exits."""
    commands.run(main)


if __name__ == "__main__":
    run()
