"""Turns one video file into clip records: landmarks, leak-safe crops and log-mels.

This module knows nothing of folders, caches or processes; `clip_cache` calls it.
"""

import dataclasses
import os
from collections.abc import Sequence

import cv2
import numpy as np

from talkjax import conventions, head_pose
from talkjax.conventions import (
    MEL_FLOOR,
    MELS_PER_SECOND,
    MELS_PER_TICK,
    SAMPLE_RATE,
    TICKS_PER_SECOND,
)
from talkjax.data import records
from talkjax.errors import UserError
from talkjax.media import audio, crop, detection, tracking
from talkjax.media.video import VideoReader

from .cut import CutReader, PixelBox, cut_wave

VERSION = 2  # part of every cache key; increase it when records change
_MPEG = {".mp4", ".m4v", ".mov", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".vob", ".3gp"}
VIDEO_SUFFIXES = frozenset(_MPEG | {".mkv", ".webm", ".avi", ".flv", ".wmv", ".ogv", ".mxf"})
_BUFFER_BYTES = 256 << 20  # of decoded frames between the two passes; longer clips decode twice
_SHORTEST_BREAK = 0.1  # seconds between two frames that may end a part
_MEL_TAIL = 4  # further mel frames in the window of the last tick, besides its own four


@dataclasses.dataclass(frozen=True)
class ExtractOptions:
    """Settings of the extraction.

    Attributes:
      crop_size: Side of the crops in pixels.
      min_seconds: Shorter parts are left out.
      max_seconds: Longer parts are split evenly.
      face: The face to follow, see `talkjax.media.tracking.parse_face`.
      max_faces: Number of faces to detect in a frame; 1 is slightly faster and enough for footage
        of one person.
      max_gap_seconds: Longest time from one measured face to the next that is interpolated, and
        longest time between two frames. A longer gap ends the part.
      jpeg_quality: JPEG quality of the stored crops (4:4:4).
    """

    crop_size: int = 128
    min_seconds: float = 1.0
    max_seconds: float = 20.0
    face: str = "largest"
    max_faces: int = 3
    max_gap_seconds: float = 0.2
    jpeg_quality: int = 95


class LeftOutError(Exception):
    """A video yields no clip; `reason` is a word for statistics, `detail` explains it."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclasses.dataclass(frozen=True)
class Extraction:
    """The result of one video.

    Attributes:
      clips: Records in order, at least one.
      starts: Times in the video, or in its interval, at which the records' clocks start, in
        seconds.
      frames: Number of decoded frames.
      frames_without_face: Number of frames in which no face was found.
      dropped: (reason, seconds) of each part that was left out.
      truncated: Whether the file ended early or had damaged pictures.
    """

    clips: list[records.ClipRecord]
    starts: list[float]
    frames: int
    frames_without_face: int
    dropped: list[tuple[str, float]]
    truncated: bool


def extract_video(
    path: str | os.PathLike,
    clip_id: str,
    mesh,
    options: ExtractOptions,
    *,
    audio_path: str | os.PathLike | None = None,
    interval: tuple[float, float] | None = None,
    box: PixelBox | None = None,
) -> Extraction:
    """Extracts the clips of one video.

    A video is split where a scene begins, where the face is missing for too long, and where a part
    is longer than `max_seconds`. If there are several parts, "#0", "#1", ... is added to the ids.

    Args:
      path: The video file.
      clip_id: Id of the video.
      mesh: A `FaceMesh` or `TurnedFaces` of `talkjax.media`; its tracking is reset.
      options: See `ExtractOptions`.
      audio_path: A file with the sound; by default the video's own.
      interval: (start, end) in seconds, or None for the whole video.
      box: Part of the picture, or None for all of it.

    Raises:
      LeftOutError: No part of the video can be used.
    """
    reader, wave = _open(path, audio_path)
    if interval:
        wave = cut_wave(wave, interval)
    if interval or box:
        reader = CutReader(reader, interval, box)
    track, buffered = _track(reader, mesh, options)
    times, mesh_points, found = track.times, track.landmarks, track.found
    if not found.any():
        raise LeftOutError("no_face", f"none in {len(times)} frames")
    runs = track.runs(max(options.max_gap_seconds, _SHORTEST_BREAK))
    lost = not np.isfinite(mesh_points).all()
    audio_end = len(wave) / SAMPLE_RATE
    parts, dropped = [], []
    for frames in runs:
        for part in _chunks(frames, times, options.max_seconds):
            part = part[(times[part] >= 0) & (times[part] <= audio_end)]
            seconds = _seconds(times[part])
            if seconds + 1e-6 < options.min_seconds:
                why = "cut" if track.cuts.any() else "face_lost" if lost else "too_short"
                dropped.append((why, seconds))
            else:
                parts.append(part)
    if not parts:
        reason = dropped[0][0]
        longest = max(seconds for _, seconds in dropped)
        if reason == "too_short" and audio_end < options.min_seconds <= _seconds(times):
            reason = "audio_too_short"
        damage = "; the file is damaged or cut short" if reader.truncated else ""
        raise LeftOutError(reason, f"the longest part has {longest:.2f} s{damage}")

    transforms = [
        head_pose.fit_transforms(mesh_points[part], times[part], track.drifts[part])
        for part in parts
    ]
    jpegs = _crops(reader, buffered, parts, transforms, options)
    mel = audio.log_mel(wave)
    clips = []
    for number, part in enumerate(parts):
        name = clip_id if len(parts) == 1 else f"{clip_id}#{number}"
        clips.append(
            make_record(
                name, times[part], mesh_points[part], transforms[number], found[part],
                jpegs[number], mel, audio_end, reader.info.fps,
            )
        )  # fmt: skip
    return Extraction(
        clips=clips,
        starts=[_clock_zero(times[part]) for part in parts],
        frames=len(times),
        frames_without_face=int((~found).sum()),
        dropped=dropped,
        truncated=reader.truncated,
    )


def _open(
    path: str | os.PathLike, audio_path: str | os.PathLike | None
) -> tuple[VideoReader, np.ndarray]:
    try:
        reader = VideoReader(path)
    except UserError as error:
        raise LeftOutError("unreadable", str(error)) from error
    if audio_path is None and not reader.info.has_audio:
        raise LeftOutError("no_audio", "it has no audio stream")
    try:
        wave = audio.load_audio(audio_path or path)
    except UserError as error:
        raise LeftOutError("bad_audio", str(error)) from error
    return reader, wave


def _track(
    reader: VideoReader | CutReader, mesh, options: ExtractOptions
) -> tuple[tracking.Track, list[np.ndarray] | None]:
    """First pass: returns the tracked face and, if they are not too many, the frames."""
    buffered, size = [], 0

    def frames():
        nonlocal size
        for frame in reader:
            size += frame.rgb.nbytes
            if size <= _BUFFER_BYTES:
                buffered.append(frame.rgb)
            else:
                buffered.clear()
            yield frame

    try:
        track = tracking.track_clip(
            detection.detect_faces(frames(), mesh),
            face=options.face,
            max_gap=options.max_gap_seconds,
        )
    except UserError as error:
        reason = "face_choice" if str(error).lstrip("-").startswith("face") else "unreadable"
        raise LeftOutError(reason, str(error)) from error
    return track, buffered if len(buffered) == len(track.times) else None


def _seconds(times: np.ndarray) -> float:
    """Returns the duration of frames; the last one counts with the average interval."""
    if len(times) < 2:
        return 0.0
    return float((times[-1] - times[0]) * len(times) / (len(times) - 1))


def _chunks(frames: np.ndarray, times: np.ndarray, max_seconds: float) -> list[np.ndarray]:
    count = max(1, int(np.ceil(_seconds(times[frames]) / max_seconds - 1e-6)))
    return np.array_split(frames, count)


def _crops(reader, buffered, parts, transforms, options) -> list[list[bytes]]:
    """Second pass: returns the encoded crops of every part."""
    place = {int(f): (p, i) for p, part in enumerate(parts) for i, f in enumerate(part)}
    flags = [cv2.IMWRITE_JPEG_QUALITY, options.jpeg_quality]
    flags += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    out = [[] for _ in parts]
    again = enumerate(buffered) if buffered is not None else ((f.index, f.rgb) for f in reader)
    for index, rgb in again:
        if index in place:
            part, row = place[index]
            image = crop.warp_crop(rgb, transforms[part][row], options.crop_size)
            ok, data = cv2.imencode(".jpg", image[..., ::-1], flags)
            if not ok:
                raise LeftOutError("error", f"frame {index} cannot be encoded")
            out[part].append(data.tobytes())
    return out


def make_record(
    clip_id: str,
    times: np.ndarray,
    points: np.ndarray,
    transforms: np.ndarray,
    found: np.ndarray,
    jpegs: Sequence[bytes],
    mel: np.ndarray,
    audio_end: float,
    fps: float,
) -> records.ClipRecord:
    """Makes the record of one part, with clocks that start at a mel frame near its first picture.

    Args:
      clip_id: Id of the record.
      times: (N,) times of the frames in seconds.
      points: (N, 468 or more, 2 or 3) FaceMesh points in pixels.
      transforms: (N, 2, 3), see `head_pose.fit_transforms`.
      found: (N,) bool, False where the points were interpolated.
      jpegs: N encoded crops.
      mel: (M, 80) log-mel of the whole source.
      audio_end: Duration of the whole source's sound in seconds.
      fps: Frame rate of the source.
    """
    landmarks = head_pose.apply_transforms(conventions.select(points), transforms)
    zero = _clock_zero(times)
    first_mel = round(zero * MELS_PER_SECOND)
    last = min(times[-1], audio_end) - zero
    ticks = int(np.floor(last * TICKS_PER_SECOND + 1e-3)) + 1
    stop = first_mel + MELS_PER_TICK * ticks
    span = mel[first_mel : stop + _MEL_TAIL]
    missing = MELS_PER_TICK * ticks - len(span)
    if missing > 0:
        silence = np.float32(MEL_FLOOR)
        span = np.pad(span, ((0, missing), (0, 0)), constant_values=silence)
    clock = zero + np.arange(ticks) / TICKS_PER_SECOND
    return records.check_record(
        records.ClipRecord(
            clip_id=clip_id,
            timestamps=(times - zero).astype(np.float32),
            frame_landmarks=landmarks.astype(np.float32),
            transforms=transforms.astype(np.float32),
            face_found=found,
            landmarks=interpolate(landmarks, times, clock).astype(np.float32),
            mel=span,
            source_fps=float(fps),
            frames=tuple(jpegs),
        )
    )


def _clock_zero(times: np.ndarray) -> float:
    """Returns the time of the mel frame nearest to the first picture, in seconds."""
    return round(times[0] * MELS_PER_SECOND) / MELS_PER_SECOND


def interpolate(values: np.ndarray, times: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Interpolates (N, ...) samples linearly at (M,) times; the ends are held."""
    if len(times) == 1:
        return np.repeat(values, len(at), 0)
    right = np.clip(np.searchsorted(times, at), 1, len(times) - 1)
    weight = (at - times[right - 1]) / (times[right] - times[right - 1])
    weight = np.clip(weight, 0.0, 1.0).reshape(-1, *[1] * (values.ndim - 1))
    return values[right - 1] * (1 - weight) + values[right] * weight


def safe_id(relative_path: str) -> str:
    """Returns a path as valid UTF-8, whatever bytes its name has."""
    return os.fsencode(relative_path.replace(os.sep, "/")).decode("utf-8", "backslashreplace")


def is_video(name: str) -> bool:
    """Returns whether a file name looks like a video."""
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES
