"""The latent cache on disk: layout, reading and normalization. `cache_latents.py` writes it.

    DIR/latents.json              region, mask, crop size, stride, encoder, mean and std, clips
    DIR/SPLIT.target.npy          (N, h, w, c) float16, the encoded region
    DIR/SPLIT.masked.npy          (N, h, w, c) float16, the same, masked before encoding
    DIR/SPLIT.frames.npy          (N,) int32, the frame of its clip that each entry shows

The entries of one clip are consecutive and in the order of time; clips are in the order of the
shards. DIR may be in a bucket (`talkjax.data.remote`).
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath

from talkjax import files
from talkjax.data import remote
from talkjax.errors import UserError

INDEX = "latents.json"


def default_directory(data_dir: str | os.PathLike) -> epath.Path:
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


def read_index(directory: str | os.PathLike) -> dict:
    """Reads `latents.json`.

    Raises:
      UserError: The file is missing or damaged.
    """
    path = files.as_path(directory) / INDEX
    with remote.bucket_errors(path):
        if path.exists():
            return files.read_json_object(path, "run cache_latents again")
    raise UserError(
        f"{directory} holds no cached latents; make them with `python -m "
        "data_pipelines.cache_latents --data=SHARDS --encoder=FILE`, or train on pixels"
    )


class LatentCache:
    """Reads the latents of one split. They are memory-mapped; the object can be pickled.

    Attributes:
      shape: (h, w, c) of one latent.
      mean, std: (c,) float32 statistics of the train split's targets, with which `target` and
        `masked` are normalized.
    """

    def __init__(self, directory: str | os.PathLike, split: str):
        index = read_index(directory)
        if split not in index["splits"]:
            raise UserError(
                f"{directory} has no latents of split {split!r}; run cache_latents with "
                f"--splits={','.join([*index['splits'], split])}"
            )
        self.directory, self.split = files.as_path(directory), split
        self.region, self.mask = tuple(index["region"]), tuple(index["mask"])
        self.mean = np.asarray(index["mean"], np.float32)
        self.std = np.asarray(index["std"], np.float32)
        self.clip_ids = [clip_id for clip_id, _ in index["splits"][split]]
        counts = np.array([count for _, count in index["splits"][split]], np.int64)
        self._ends = np.cumsum(counts)
        self._counts = counts
        names = ("target", "masked", "frames")
        self._paths = remote.local_copies([self.directory / f"{split}.{n}.npy" for n in names])
        self._open()
        if len(self._target) != counts.sum():
            raise UserError(f"{directory}: {split} is incomplete; run cache_latents again")
        self.shape = self._target.shape[1:]

    def _open(self) -> None:
        try:
            target, masked, frames = (np.load(path, mmap_mode="r") for path in self._paths)
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
        """Returns which frames of a clip are cached, (n,) int32.

        Args:
          position: Position of the clip in its split.
          clip_id: The clip's id, which must be the one that the latents were made from.
        """
        if position >= len(self.clip_ids) or self.clip_ids[position] != clip_id:
            raise UserError(
                f"the latents in {self.directory} were made from other shards (clip {clip_id!r} "
                "is not at its position); run cache_latents again"
            )
        end = self._ends[position]
        return self._frames[end - self._counts[position] : end]

    def _normalized(self, latents: np.ndarray) -> np.ndarray:
        return (latents.astype(np.float32) - self.mean) / self.std

    def target(self, position: int, which: np.ndarray) -> np.ndarray:
        """Returns normalized latents of the `which`-th cached frames, (k, h, w, c) float32."""
        first = self._ends[position] - self._counts[position]
        return self._normalized(self._target[first + which])

    def masked(self, position: int, which: np.ndarray) -> np.ndarray:
        """Returns the same of the masked images."""
        first = self._ends[position] - self._counts[position]
        return self._normalized(self._masked[first + which])
