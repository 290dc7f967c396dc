"""What shards and cached latents hold, for comparison with a config before training starts."""

import os
from typing import Any

from talkjax.data import latents as latents_lib
from talkjax.data import records, windows


def describe(
    data_dir: str | os.PathLike, latents: str | os.PathLike | None = None
) -> dict[str, Any]:
    """Describes prepared data and reads at most one record of it.

    Args:
      data_dir: Folder that `data_pipelines.prepare` wrote, local or in a bucket.
      latents: Folder of cached latents; None or "" if there are none.

    Returns:
      A dict of
        crop_size: side of the shards' crops in pixels; None for speech without pictures,
        clips: number of clips by split,
        latents: None, or a dict of `region` and `mask` (y0, x0, y1, x1), `crop_size` in pixels,
          `latent_shape` (h, w, c), `stride`, `encoder` (see `latents.encoder_id`), and `mean` and
          `std` by channel.

    Raises:
      UserError: There are no shards or no latents, or they are damaged.
    """
    clips = records.list_splits(data_dir)
    return {
        "crop_size": _crop_size(data_dir, clips),
        "clips": clips,
        "latents": _describe_latents(latents) if latents else None,
    }


def _crop_size(data_dir: str | os.PathLike, clips: dict[str, int]) -> int | None:
    recorded = records.read_index(data_dir).get("crop_size")
    if recorded is not None:
        return recorded or None  # 0 means that there are no pictures
    split = min(clips, key=lambda name: clips[name])
    with records.ShardReader(data_dir, split) as reader:
        picture = reader.first_readable().frames[0]
    return windows.decode_jpeg(picture).shape[0] if picture else None


def _describe_latents(directory: str | os.PathLike) -> dict[str, Any]:
    index = latents_lib.read_index(directory)
    tuples = ("region", "mask", "latent_shape", "mean", "std")
    out = {name: tuple(index[name]) for name in tuples}
    return out | {name: index[name] for name in ("crop_size", "stride", "encoder")}
