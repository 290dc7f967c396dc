"""A contact sheet of a corpus."""

import os
import pathlib

import cv2
import numpy as np

from talkjax import files
from talkjax.errors import UserError
from talkjax.media.video import VideoReader


def write_contact_sheet(out: str | os.PathLike, path: str | os.PathLike, count: int = 40) -> None:
    """Writes a PNG with a frame of each of `count` clips, spread evenly over a corpus.

    Raises:
      UserError: The corpus holds no clip, or the file cannot be written.
    """
    videos = sorted(pathlib.Path(out).glob("t*/*.mp4"))
    if not videos:
        raise UserError(f"{out} holds no clips")
    chosen = np.unique(np.linspace(0, len(videos) - 1, min(count, len(videos))).round().astype(int))
    tiles = []
    for number, video in enumerate(videos[i] for i in chosen):
        last = 20 + 7 * (number % 5)
        for frame in VideoReader(video):
            image = frame.rgb
            if frame.index == last:
                break
        tiles.append(image)
    columns = min(8, len(tiles))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    _, encoded = cv2.imencode(".png", cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))
    files.write_bytes(path, encoded.tobytes())
