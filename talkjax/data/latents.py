"""The latent cache on disk: layout, reading and normalisation. `cache_latents.py` writes it.

    DIR/latents.json              region, mask, crop size, stride, encoder, mean and std, clips
    DIR/SPLIT.target.npy          (rows, h, w, c) float16, the encoded region
    DIR/SPLIT.masked.npy          (rows, h, w, c) float16, the same, masked before encoding
    DIR/SPLIT.frames.npy          (rows,) int32, which frame of its clip a row is

The rows of one clip are consecutive and in the order of time; clips are in the order of the shards.
"""

import json
import os
import pathlib

import numpy as np

from talkjax.errors import UserError

INDEX = "latents.json"


def default_directory(data_dir: str | os.PathLike) -> pathlib.Path:
    """Where latents lie unless told otherwise: beside the shards, which may be packed anew."""
    return pathlib.Path(data_dir) / "latents"


def read_index(directory: str | os.PathLike) -> dict:
    """The parsed `latents.json`, or UserError if there is none."""
    path = pathlib.Path(directory) / INDEX
    if not path.is_file():
        raise UserError(
            f"no cached latents in {directory}; make them with `python -m "
            "data_pipelines.cache_latents --data=SHARDS --encoder=FILE`, or train on pixels"
        )
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); run cache_latents again") from error


class LatentCache:
    """Reads one split's latents. Memory-mapped, so it costs what is read; can be pickled.

    Attributes:
      shape: (h, w, c) of one latent.
      mean, std: (c,) float32, of the train split's targets; what `target` and `masked` are
        normalised with.
    """

    def __init__(self, directory: str | os.PathLike, split: str):
        index = read_index(directory)
        if split not in index["splits"]:
            raise UserError(
                f"{directory} has no latents of split {split!r}; run cache_latents with "
                f"--splits={','.join([*index['splits'], split])}"
            )
        self.directory, self.split = pathlib.Path(directory), split
        self.region, self.mask = tuple(index["region"]), tuple(index["mask"])
        self.mean = np.asarray(index["mean"], np.float32)
        self.std = np.asarray(index["std"], np.float32)
        self.clip_ids = [clip_id for clip_id, _ in index["splits"][split]]
        counts = np.array([count for _, count in index["splits"][split]], np.int64)
        self._ends = np.cumsum(counts)
        self._counts = counts
        self._open()
        if len(self._target) != counts.sum():
            raise UserError(f"{directory}: {split} is incomplete; run cache_latents again")
        self.shape = self._target.shape[1:]

    def _open(self) -> None:
        try:
            target, masked, frames = (
                np.load(self.directory / f"{self.split}.{name}.npy", mmap_mode="r")
                for name in ("target", "masked", "frames")
            )
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.directory}: latents cannot be read ({error}); run cache_latents again"
            ) from error
        self._target, self._masked, self._frames = target, masked, frames

    def __getstate__(self):
        return {k: v for k, v in vars(self).items() if k not in ("_target", "_masked", "_frames")}

    def __setstate__(self, state):
        vars(self).update(state)
        self._open()

    def frames(self, position: int, clip_id: str) -> np.ndarray:
        """Which frames of the clip at shard position `position` are cached, (n,) int32."""
        if position >= len(self.clip_ids) or self.clip_ids[position] != clip_id:
            raise UserError(
                f"the latents in {self.directory} were made from other shards (clip {clip_id!r} "
                "is not where it was); run cache_latents again"
            )
        end = self._ends[position]
        return self._frames[end - self._counts[position] : end]

    def _normalised(self, rows: np.ndarray) -> np.ndarray:
        return (rows.astype(np.float32) - self.mean) / self.std

    def target(self, position: int, which: np.ndarray) -> np.ndarray:
        """Normalised latents (k, h, w, c) float32 of the `which`-th cached frames of a clip."""
        first = self._ends[position] - self._counts[position]
        return self._normalised(self._target[first + which])

    def masked(self, position: int, which: np.ndarray) -> np.ndarray:
        """As `target`, of the masked images."""
        first = self._ends[position] - self._counts[position]
        return self._normalised(self._masked[first + which])
