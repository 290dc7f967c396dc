"""Random access to the clips in shards, part by part; `storage` describes the files."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from talkjax import files
from talkjax.conventions import TICKS_PER_SECOND
from talkjax.data import records, storage, windows
from talkjax.data.record_files import RecordFiles
from talkjax.data.records import ClipRecord, DamagedRecordError
from talkjax.data.storage import INDEX, INFO, REMEDY
from talkjax.errors import UserError


class _Part:
    """The records of one part of a split, as bytes."""

    def __init__(self, folder: epath.Path, split: str, count: int):
        self.folder = folder
        lengths = storage.shard_lengths(folder).get(split, [])
        self.paths = storage.list_shards(folder, split)
        if not self.paths:
            raise UserError(f"the shards of split {split!r} are missing in {folder}")
        self.records = RecordFiles(self.paths, lengths, REMEDY)
        for what, expected in ((INFO, sum(lengths)), (INDEX, count)):
            if len(self.records) != expected:
                raise UserError(
                    f"{folder} has {len(self.records)} records of split {split!r} where {what} "
                    f"says {expected}; {REMEDY}"
                )


class ShardReader:
    """Random access to the clips of one split.

    Threads may share a reader, and it can be pickled. Used in a `with` statement, it closes its
    files at the end; a later `read` opens them again.

    Args:
      data_dir: Folder that `data_pipelines.prepare` wrote, local or in a bucket.
      split: Name of the split.
      parts: The parts of records that are read, of `records.PARTS`; others are not opened.

    Attributes:
      clip_ids: Ids of the clips.
      ticks, frames, usable: (C,) int64, see `storage.read_index`.
      crop_size: Side of the pictures in pixels, 0 if there are none.
      group: Number of pictures in a record.
      fingerprint: Identity of the clips.

    Raises:
      UserError: There is no such split, or its files are missing, damaged or do not agree.
    """

    def __init__(self, data_dir: files.PathLike, split: str, parts: Sequence[str] = records.PARTS):
        self.directory, self.split = storage.find_dataset(data_dir), split
        splits = storage.shard_lengths(self.directory)
        if split not in splits:
            raise UserError(
                f"{self.directory} has no split {split!r}; it has {', '.join(sorted(splits))}"
            )
        index = storage.read_index(self.directory)
        self.crop_size, self.fingerprint = index["crop_size"], index["fingerprint"]
        self.clip_ids: list[str] = index["clips"].get(split, [])
        columns = (index[name].get(split, []) for name in ("ticks", "frames", "usable"))
        self.ticks, self.frames, self.usable = (np.asarray(c, np.int64) for c in columns)
        count = len(self.clip_ids)
        if {len(self.ticks), len(self.frames), len(self.usable)} != {count}:
            raise UserError(f"{self.directory / INDEX}: its lists do not agree; {REMEDY}")
        self.group = index["group"]
        groups = records.count_groups(self.frames, self.group)
        self._first_group = np.cumsum(groups) - groups
        counts = {"clips": count, "frames": count, "pictures": int(groups.sum())}
        folders = {part: storage.part_folder(self.directory, part) for part in parts}
        self._parts = {part: _Part(folders[part], split, counts[part]) for part in parts}

    def __len__(self) -> int:
        return len(self.clip_ids)

    def __enter__(self) -> "ShardReader":
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files."""
        for part in self._parts.values():
            part.records.close()

    def paths(self, part: str = "clips") -> list[epath.Path]:
        """Returns the files of a part."""
        return self._parts[part].paths

    def clip(self, position: int, mel_offset: int = 0) -> "StoredClip":
        """Returns the clip at `position` in [0, len), of which nothing is read yet."""
        return StoredClip(self, position, mel_offset)

    def read(self, position: int, with_frames: bool = True) -> ClipRecord:
        """Reads all of a clip; `with_frames=False` leaves the JPEGs out.

        Raises:
          DamagedRecordError: A record cannot be used. The message names the file and the place in
            it.
        """
        clip = self.clip(position)
        return ClipRecord(
            clip_id=clip.clip_id,
            frames=tuple(clip.pictures(range(clip.num_frames))) if with_frames else None,
            **self.read_part("clips", position),
            **self.read_part("frames", position),
        )

    def scan(self) -> Iterator[ClipRecord]:
        """Reads all clips in order, without their pictures."""
        return (self.read(i, with_frames=False) for i in range(len(self)))

    def read_part(self, part: str, position: int) -> dict[str, Any]:
        """Reads the part `clips` or `frames` of a clip; see `records.decode_part`."""
        length = int((self.ticks if part == "clips" else self.frames)[position])
        return self._read(part, position, position, length, records.decode_part)

    def read_pictures(self, position: int, group: int) -> tuple[bytes, ...]:
        """Reads the JPEGs of the `group`-th frames of a clip, `self.group` at a time."""
        length = min(self.group, int(self.frames[position]) - group * self.group)
        place = int(self._first_group[position]) + group

        def decode(part: str, *args: Any) -> tuple[bytes, ...]:
            return records.decode_pictures(*args)

        return self._read("pictures", place, position, length, decode)

    def _read(self, part: str, place: int, position: int, length: int, decode: Any) -> Any:
        opened = self._parts[part].records
        try:
            return decode(part, opened[place], self.clip_ids[position], length)
        except (RuntimeError, UserError) as error:  # the C++ reader raises bare RuntimeErrors
            raise DamagedRecordError(
                f"{opened.name_of(place)}: {files.one_line(error, 300)}"
            ) from error

    def frame_index(self) -> storage.FrameIndex:
        """Reads time and use of all frames of the split."""
        return storage.read_frame_index(self.directory, self.split, self.frames)


class StoredClip:
    """A clip in shards. It has the attributes of `ClipRecord`, and reads what is asked for, once.

    Args:
      reader: The reader, with the parts that will be asked for.
      position: Position of the clip in its split.
      mel_offset: Mel frames of 10 ms by which the sound is later than the picture. It is moved.

    Reading raises `DamagedRecordError` if a record cannot be used.
    """

    def __init__(self, reader: ShardReader, position: int, mel_offset: int = 0):
        self._reader, self.position, self._mel_offset = reader, position, mel_offset
        self.clip_id = reader.clip_ids[position]
        self.num_ticks, self.num_frames = int(reader.ticks[position]), int(reader.frames[position])

    @functools.cached_property
    def _sound(self) -> dict[str, Any]:
        return self._reader.read_part("clips", self.position)

    @functools.cached_property
    def _frames(self) -> dict[str, Any]:
        return self._reader.read_part("frames", self.position)

    @property
    def landmarks(self) -> np.ndarray:
        """(T, 131, 2) float32 landmarks at the ticks."""
        return self._sound["landmarks"]

    @functools.cached_property
    def mel(self) -> np.ndarray:
        """(M, 80) float32 log-mel."""
        return windows.move_mel(self._sound["mel"], -self._mel_offset)

    @property
    def timestamps(self) -> np.ndarray:
        """(N,) float32 times of the frames in seconds."""
        return self._frames["timestamps"]

    @property
    def frame_landmarks(self) -> np.ndarray:
        """(N, 131, 2) float32 landmarks of the frames."""
        return self._frames["frame_landmarks"]

    @property
    def face_found(self) -> np.ndarray:
        """(N,) bool; False where the landmarks were interpolated."""
        return self._frames["face_found"]

    @functools.cached_property
    def frame_ticks(self) -> np.ndarray:
        """(N,) float64 times of the frames in ticks."""
        return self.timestamps.astype(np.float64) * TICKS_PER_SECOND

    @property
    def usable(self) -> np.ndarray:
        """(N,) bool, whether a frame has a face and lies on the landmark clock."""
        return windows.usable_frames(self.frame_ticks, self.face_found, self.num_ticks)

    def pictures(self, frames: Sequence[int] | np.ndarray) -> list[bytes]:
        """Reads the JPEGs of some frames."""
        size = self._reader.group
        groups = {int(frame) // size for frame in frames}
        found = {g: self._reader.read_pictures(self.position, g) for g in groups}
        return [found[int(f) // size][int(f) % size] for f in frames]
