"""Contact sheets: images of mouths side by side, with labels."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from talkjax import conventions
from talkjax.conventions import MOUTH_REGION
from talkjax.errors import UserError
from talkjax.media import crop
from talkjax.metrics import measure
from talkjax.metrics.measure import Measurement
from talkjax.pictures import write_png

COLUMNS = 8
_LABEL_WIDTH = 92  # pixels
_LINE_HEIGHT = 18  # pixels


def choose_frames(truth: Measurement, count: int = COLUMNS) -> list[int]:
    """Chooses frames to show: half of them the widest openings, the others spread over the clip.

    Returns:
      At most `count` frame numbers in order, all of frames with a face.
    """
    opening = conventions.mouth_opening(truth.landmarks)
    seen = np.flatnonzero(np.isfinite(opening))
    if len(seen) <= count:
        return [int(i) for i in seen]
    apart = max(1, len(opening) // (2 * count))
    chosen: list[int] = []
    for index in seen[np.argsort(-opening[seen], kind="stable")]:
        if len(chosen) == count // 2:
            break
        if all(abs(index - other) > apart for other in chosen):
            chosen.append(int(index))
    spread = seen[np.linspace(0, len(seen) - 1, 4 * count).round().astype(int)]
    # Each of the others is the frame that is farthest from all chosen so far.
    while len(chosen) < count:
        chosen.append(int(max(spread, key=lambda i: min([abs(i - c) for c in chosen] or [i]))))
    return sorted(set(chosen))


def draw_contact_sheet(
    videos: Mapping[str, str | os.PathLike],
    truth: Measurement,
    measured: Mapping[str, Measurement],
    size: int,
) -> np.ndarray:
    """Draws one row of mouth crops per video, at the truth's positions and times.

    Args:
      videos: {label: file}; the truth comes first.
      truth: Measurement of the truth.
      measured: {label: measurement} of all videos.
      size: Side of a crop in pixels.

    Returns:
      (height, width, 3) uint8.
    """
    chosen = choose_frames(truth)
    y0, x0, y1, x1 = MOUTH_REGION.pixels(size)
    height, width = y1 - y0, x1 - x0
    sheet = np.full(
        (_LINE_HEIGHT + len(videos) * (height + 2), _LABEL_WIDTH + len(chosen) * (width + 2), 3),
        255,
        np.uint8,
    )
    for column, number in enumerate(chosen):
        left = _LABEL_WIDTH + column * (width + 2)
        put_text(sheet, f"{truth.times[number]:.2f} s", left + 2, _LINE_HEIGHT - 5)
    original = next(iter(videos.values()))
    for row, (label, path) in enumerate(videos.items()):
        top = _LINE_HEIGHT + row * (height + 2)
        put_text(sheet, label, 2, top + 14)
        pairs = {
            k: v for k, v in measure.match_frames(truth, measured[label]).items() if k in chosen
        }
        with contextlib.closing(measure.read_frame_pairs(original, path, pairs)) as stream:
            for number, _, frame in stream:
                image = crop.warp_crop(frame, truth.transforms[number], size)
                left = _LABEL_WIDTH + chosen.index(number) * (width + 2)
                sheet[top : top + height, left : left + width] = MOUTH_REGION.cut(image)
    return sheet


def write_sheet(folder: str | os.PathLike, name: str, images: Sequence[np.ndarray]) -> Path:
    """Stacks images, writes them as one PNG and returns its path."""
    path = Path(folder) / f"{name}.png"
    try:
        write_png(path, stack_images(images))
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror or error}); choose another --sheets"
        ) from error
    return path


def stack_images(images: Sequence[np.ndarray]) -> np.ndarray:
    """Stacks images of any widths vertically; white fills the space beside narrow ones."""
    width = max(image.shape[1] for image in images)
    padded = [
        np.pad(i, [(0, 0), (0, width - i.shape[1]), (0, 0)], constant_values=255) for i in images
    ]
    return np.concatenate(padded)


def put_text(image: np.ndarray, text: str, x: int, y: int, color=(60, 60, 60)) -> None:
    """Writes text on an image in place; (x, y) is the left end of the base line."""
    plain = text.encode("ascii", "replace").decode()  # OpenCV's fonts have no other characters
    cv2.putText(image, plain, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.4, color, 1, cv2.LINE_AA)
