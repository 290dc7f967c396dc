"""What shards and cached latents hold, for comparison with a config before training starts."""

import os
from typing import Any

from talkjax.data import latents as latents_lib
from talkjax.data import storage


def describe(
    data_dir: str | os.PathLike, latents: str | os.PathLike | None = None
) -> dict[str, Any]:
    """Describes prepared data, of which only the index is read.

    Args:
      data_dir: Folder that `data_pipelines.prepare` wrote, local or in a bucket.
      latents: Folder of cached latents; None or "" if there are none.

    Returns:
      A dict of
        crop_size: side of the shards' crops in pixels; None for speech without pictures,
        clips: number of clips by split,
        latents: None, or a dict of `region` and `mask` (y0, x0, y1, x1), `crop_size` in pixels,
          `latent_shape` (h, w, c), `stride`, `dtype`, `encoder` (see `latents.encoder_id`), and
          `mean` and `std` by channel.

    Raises:
      UserError: There are no shards or no latents, or they are damaged.
    """
    return {
        "crop_size": storage.read_index(data_dir)["crop_size"] or None,
        "clips": storage.list_splits(data_dir),
        "latents": _describe_latents(latents) if latents else None,
    }


def _describe_latents(directory: str | os.PathLike) -> dict[str, Any]:
    index = latents_lib.read_index(directory)
    tuples = ("region", "mask", "latent_shape", "mean", "std")
    out = {name: tuple(index[name]) for name in tuples}
    return out | {name: index[name] for name in ("crop_size", "stride", "dtype", "encoder")}
