"""Pictures to look at: contact sheets of mouths, and plots of opening curves."""

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
_LABEL = 92  # px
_LINE = 18
_COLOURS = ((0, 0, 0), (214, 39, 40), (31, 119, 180), (44, 160, 44), (148, 103, 189))


def choose_frames(truth: Measurement, count: int = COLUMNS) -> list[int]:
    """Frames worth a look: half of them the widest openings, half spread over the clip.

    Returns:
      Frame numbers in order, at most `count`, all with a face.
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
    # The spread ones are those farthest from all chosen so far.
    while len(chosen) < count:
        chosen.append(int(max(spread, key=lambda i: min([abs(i - c) for c in chosen] or [i]))))
    return sorted(set(chosen))


def contact_sheet(
    videos: Mapping[str, str | os.PathLike],
    truth: Measurement,
    measured: Mapping[str, Measurement],
    size: int,
) -> np.ndarray:
    """One row of mouth crops for each video, at the truth's places and times.

    Args:
      videos: {label: file}, the truth first.
      truth: of the first.
      measured: {label: measurement} of all.
      size: px of a crop's side.

    Returns:
      (height, width, 3) uint8.
    """
    chosen = choose_frames(truth)
    y0, x0, y1, x1 = MOUTH_REGION.pixels(size)
    height, width = y1 - y0, x1 - x0
    sheet = np.full(
        (_LINE + len(videos) * (height + 2), _LABEL + len(chosen) * (width + 2), 3), 255, np.uint8
    )
    for column, number in enumerate(chosen):
        left = _LABEL + column * (width + 2)
        put_text(sheet, f"{truth.times[number]:.2f} s", left + 2, _LINE - 5)
    original = next(iter(videos.values()))
    for row, (label, path) in enumerate(videos.items()):
        top = _LINE + row * (height + 2)
        put_text(sheet, label, 2, top + 14)
        pairs = {k: v for k, v in measure.matches(truth, measured[label]).items() if k in chosen}
        for number, _, picture in measure.paired_frames(original, path, pairs):
            image = crop.warp_crop(picture, truth.transforms[number], size)
            left = _LABEL + chosen.index(number) * (width + 2)
            sheet[top : top + height, left : left + width] = MOUTH_REGION.cut(image)
    return sheet


def plot(curves: Mapping[str, np.ndarray], title: str = "", width: int = 900) -> np.ndarray:
    """Opening curves over time.

    Args:
      curves: {label: (ticks,) openings}; NaN leaves a gap.
      title: written on top.
      width: px of the picture.

    Returns:
      (height, width, 3) uint8.
    """
    height, left, top, bottom = 300, 50, 40, 270
    image = np.full((height, width, 3), 255, np.uint8)
    finite = [c[np.isfinite(c)] for c in curves.values()]
    peak = max([float(c.max()) for c in finite if len(c)] or [0.0])
    peak = max(0.05, float(np.ceil(peak * 20) / 20))
    ticks = max([len(c) for c in curves.values()] or [1])
    per_tick = (width - left - 15) / max(ticks - 1, 1)
    for step in range(5):
        y = round(bottom - (bottom - top) * step / 4)
        cv2.line(image, (left, y), (width - 15, y), (225, 225, 225), 1)
        put_text(image, f"{peak * step / 4:.2f}", 6, y + 4)
    every = max(1, round(ticks / 25 / 10))
    for second in range(0, int((ticks - 1) / 25) + 1, every):
        x = round(left + second * 25 * per_tick)
        cv2.line(image, (x, bottom), (x, bottom + 4), (120, 120, 120), 1)
        put_text(image, f"{second} s", x - 6, bottom + 18)
    put_text(image, title, left, 14)
    for number, (label, curve) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        put_text(image, label, left + 110 * number, 32, colour)
        points = np.stack(
            [left + np.arange(len(curve)) * per_tick, bottom - (bottom - top) * curve / peak], -1
        )
        good = np.isfinite(points).all(1)
        for run in np.split(np.arange(len(curve)), np.flatnonzero(~good)):
            line = points[run[good[run]]]
            if len(line):
                fixed = np.round(line * 16).astype(np.int32)
                cv2.polylines(image, [fixed], False, colour, 2, cv2.LINE_AA, 4)
    return image


def write(folder: str | os.PathLike, name: str, images: Sequence[np.ndarray]) -> Path:
    """Stacks pictures and writes them as one PNG: its path."""
    path = Path(folder) / f"{name}.png"
    try:
        write_png(path, stack(images))
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror}); choose another --sheets"
        ) from error
    return path


def stack(images: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures of any widths on top of each other, white beside the narrow ones."""
    width = max(image.shape[1] for image in images)
    padded = [
        np.pad(i, [(0, 0), (0, width - i.shape[1]), (0, 0)], constant_values=255) for i in images
    ]
    return np.concatenate(padded)


def put_text(image: np.ndarray, text: str, x: int, y: int, colour=(60, 60, 60)) -> None:
    """Writes on an image, in place; (x, y) is where the base line begins."""
    plain = text.encode("ascii", "replace").decode()  # OpenCV's fonts have no more
    cv2.putText(image, plain, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)
