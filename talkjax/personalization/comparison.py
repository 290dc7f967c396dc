"""Compares a checkpoint before and after the adaptation, on footage that was held out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from talkjax import head_pose
from talkjax.conventions import SAMPLE_RATE
from talkjax.data import records
from talkjax.data.stored_clips import ShardReader
from talkjax.media import audio, video, video_writer
from talkjax.media.facemesh import FaceMesh
from talkjax.media.turned_faces import TurnedFaces
from talkjax.metrics import (
    baselines,
    evaluator,
    landmarks,
    packages,
    report,
    sheets,
    workspace,
)
from talkjax.metrics.generator import SamplerGenerator
from talkjax.metrics.videos import EvaluationClip
from talkjax.sampling.options import Options

SHEET = "before_after.png"
_LANDMARK_METRICS = ("l1", "l1_static", "opening_correlation", "articulation", "silence_leak")
_MARGINS = (-0.6, 1.6)  # crop coordinates: what a face detector needs to see around the face
_SIDE = 720  # pixels of the videos that are compared, at most
_VIDEO_METRICS = ("lmd", "psnr", "opening_correlation", "articulation")


def compare_landmarks(
    checkpoints: Mapping[str, Path], shards: Path
) -> dict[str, dict[str, float | None]]:
    """Measures the landmark networks of some checkpoints on the held-out split.

    Returns:
      {name of the checkpoint: {metric of `talkjax.metrics.landmarks`: mean over clips}}.
    """
    reader, out = ShardReader(shards, "test", ("clips", "frames")), {}
    held_out = list(reader.scan())
    for name, folder in checkpoints.items():
        predict, config = landmarks.load_predictor(folder)
        result = landmarks.evaluate_landmarks(
            predict,
            held_out,
            window=config["data"]["window"],
            references=config["data"]["references"],
            context=(config["landmark"]["past"], config["landmark"]["future"]),
        )
        means = {metric: result["metrics"][metric]["mean"] for metric in _LANDMARK_METRICS}
        out[name] = report.replace_non_finite(means)
    return out


def compare_videos(
    checkpoints: Mapping[str, Path], piece: Any, offset_ms: float, out: Path
) -> dict[str, dict[str, float | None]]:
    """Generates the videos of a held-out piece and measures them, and draws them beside the truth.

    Args:
      checkpoints: {name: folder}.
      piece: A piece of `data_pipelines.one_person`.
      offset_ms: How much later its sound is than its picture.
      out: Folder for `before_after.png`, and for the videos in `compared/`.

    Returns:
      {name of the checkpoint: {metric of `talkjax.metrics.protocol`: value}}.
    """
    packages.require(*packages.EVAL_MODULES)
    folder = out / "compared"
    folder.mkdir(parents=True, exist_ok=True)
    clip = EvaluationClip("truth", folder / "truth.mp4")
    cut(piece, offset_ms, clip.path)
    numbers, files, measured = {}, {}, {}
    with TurnedFaces(FaceMesh(max_faces=4)) as detector:
        for name, checkpoint in checkpoints.items():
            options = Options(keep_occlusions=False, reference_sound=False)
            pinned = {
                "checkpoint": workspace.hash_checkpoint(checkpoint),
                "code": workspace.hash_code(),
            }
            generator = SamplerGenerator(checkpoint, pinned, options, detector)
            settings = evaluator.EvaluationSettings(rows=("model",))
            result = evaluator.evaluate_model([clip], generator, detector, folder, settings)
            scores = result.scores["model"][clip.name].numbers
            numbers[name] = {metric: scores.get(metric) for metric in _VIDEO_METRICS}
            path = result.videos.prepare("model", clip, clip).path
            files |= {"truth": clip.path, name: path}
            measured |= {"truth": result.videos.measure_original(clip)}
            measured[name] = result.videos.measure(path)
        size = 192
        image = sheets.draw_contact_sheet(files, measured["truth"], measured, size)
        sheets.write_sheet(out, Path(SHEET).stem, [image])
    return numbers


def cut(piece: Any, offset_ms: float, out: Path) -> None:
    """Writes a piece as a video of its own: the face's surroundings, at most 720 px of them.

    Args:
      piece: A piece of `data_pipelines.one_person`.
      offset_ms: How much later its sound is than its picture, which is corrected.
      out: Video to write; its sound is written beside it.
    """
    reader, end = video.VideoReader(piece.video), piece.start + piece.seconds
    wave = audio.load_audio(piece.video)
    begin = round((piece.start + offset_ms / 1000) * SAMPLE_RATE)
    count = round(piece.seconds * SAMPLE_RATE)
    padded = np.pad(wave[max(begin, 0) :], (max(-begin, 0), count))
    sound = out.with_suffix(".wav")
    baselines.write_wav(sound, padded[:count])
    record = records.load_npz(piece.record)
    box = face_surroundings(record.transforms, reader.info.height, reader.info.width)
    shape = box[0].stop - box[0].start, box[1].stop - box[1].start
    factor = min(1.0, _SIDE / max(shape))
    height, width = (2 * round(side * factor / 2) for side in shape)
    with video_writer.VideoWriter(out, width, height, reader.info.fps, audio=sound) as writer:
        for time, frame in reader.decoded():
            if time >= end:
                break
            if time >= piece.start:
                image = reader.to_rgb(frame)[box]
                if image.shape[:2] != (height, width):
                    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
                writer.write(image, time - piece.start)


def face_surroundings(transforms: np.ndarray, height: int, width: int) -> tuple[slice, slice]:
    """Returns the rows and columns of a picture in which a face and some space around it stay.

    Args:
      transforms: (N, 2, 3) from pixels of the frames to crop coordinates.
      height, width: Size of the frames.
    """
    corners = np.array([(x, y, 1) for x in _MARGINS for y in _MARGINS])
    points = np.concatenate([corners @ each.T for each in head_pose.invert(transforms)])
    low = np.clip(np.floor(points.min(0)).astype(int), 0, (width - 2, height - 2))
    high = np.clip(np.ceil(points.max(0)).astype(int), low + 2, (width, height))
    return slice(low[1], high[1]), slice(low[0], high[0])
