"""Preparing a template for streaming: detection, references and poses, once and for all.

The same functions as in `pipeline` do the work. An avatar is one shot of one person: of a template
with cuts, it is the scene in which the face is seen longest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from tqdm import tqdm

from talkjax import media
from talkjax.conventions import MEL_FLOOR, MEL_WINDOW, NUM_MELS, TICKS_PER_SECOND
from talkjax.errors import UserError
from talkjax.files import PathLike
from talkjax.media import occlusion
from talkjax.media.appearance import Look
from talkjax.media.detection import Detector, detect_faces
from talkjax.media.overlay import Overlay
from talkjax.media.video import VideoFrame
from talkjax.sampling import avatar, face_choice, pasting, pipeline
from talkjax.sampling.completion import ContentTrack, PoseTrack
from talkjax.sampling.faces import FaceTable
from talkjax.sampling.options import Options
from talkjax.sampling.person import Person, find_person
from talkjax.sampling.speech import TemplateSound
from talkjax.sampling.template import Template, open_template

if TYPE_CHECKING:
    from talkjax.sampling.sampler import Sampler

SUFFIX = ".safetensors"
MAX_SECONDS = 600.0
_SLACK_S = 1e-3  # a frame that begins this much after a tick is shown at the tick
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 95)
_FULL_COLOUR = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)


def prepare_avatar(
    template: PathLike,
    out: PathLike,
    *,
    sampler: Sampler | None = None,
    options: Options | None = None,
    seconds: float = 30.0,
    lossless: bool = False,
    detector: Detector | None = None,
    progress: bool = False,
) -> str:
    """Writes all that streaming needs of a template into one file.

    The file belongs to the sampler's checkpoint. It holds pictures of the person: keep it as you
    keep the footage.

    Args:
      template: A video, or a photograph.
      out: The file, which must end in .safetensors.
      sampler: The checkpoint that will stream it; the bundled one if None.
      options: `face`, `first_pass`, `reference_sound` and `keep_occlusions` are used.
      seconds: How much of the template is used, from its beginning. It is played back and forth.
        A minute of 1280x720 takes some 300 MB on disk.
      lossless: Whether pictures are kept without loss; otherwise as JPEG of quality 95.
      detector: Face detector that replaces `FaceMesh`.
      progress: Whether to show a progress bar on stderr.

    Returns:
      The path of the file.

    Raises:
      UserError: The template cannot be read or shows no face, `out` cannot be written, or an option
        is out of range.
    """
    media.check_packages()
    out = os.fspath(out)
    check(out, seconds)
    if sampler is None:
        from talkjax.sampling.sampler import Sampler

        sampler = Sampler.from_pretrained()
    options = options or Options()
    options.check(sampler.networks.schedule.steps)
    # Without a denoiser most references are needed; with one, the first of them are the same.
    options = dataclasses.replace(options, steps=0)
    opened = open_template(template, None)
    with contextlib.ExitStack() as stack:
        if detector is None:
            detector = stack.enter_context(pipeline.make_detector(options.face))
        path = face_choice.find_path(
            options.face, opened, None if opened.endless else template, detector, seconds
        )
        frames = tqdm(_until(opened, seconds), unit="frame", disable=not progress, leave=False)
        table = FaceTable(
            detect_faces(iter(frames), detector),
            opened.fps,
            options.face if path is None else "largest",
            path=path,
            first_seconds=options.first_pass,
        )
        shown, scene = _choose_frames(table, opened)
    tensors, info = _describe(sampler, opened, template, table, scene, shown, options, lossless)
    avatar.save(out, tensors, sampler.fingerprint, info)
    return out


def check(out: str, seconds: float) -> None:
    """Checks arguments of `prepare_avatar`; raises `UserError` if one cannot be used."""
    if not out.lower().endswith(SUFFIX):
        raise UserError(f"out={out}: an avatar must end in {SUFFIX}")
    if not os.path.isdir(os.path.dirname(out) or "."):
        raise UserError(f"out={out}: its directory does not exist; create it first")
    if not 0 < seconds <= MAX_SECONDS:
        raise UserError(f"seconds={seconds} is out of range; give up to {MAX_SECONDS:g}")


def _until(template: Template, seconds: float) -> Iterator[VideoFrame]:
    first = None
    for frame in template.frames():
        first = frame.time if first is None else first
        if frame.time - first >= seconds:
            return
        yield frame


def _choose_frames(table: FaceTable, template: Template) -> tuple[list[int], int]:
    """Returns the numbers of the template's frames 25 times a second, and their scene."""
    count = next(index for index in itertools.count() if table.time(index) is None)
    faces = np.array([table.face(index) is not None for index in range(count)], bool)
    scenes = np.array([table.scene(index) for index in range(count)], int)
    if not faces.any() or not table.has_face():
        raise UserError(
            f"{template.name}: no face was found in it; give a template that shows a face from "
            "the front, at least 60 pixels wide"
        )
    scene = int(np.bincount(scenes[faces]).argmax())
    first, last = table.scene_frames(scene)
    times = np.array([table.time(index) for index in range(first, last + 1)])
    ticks = int((times[-1] - times[0]) * TICKS_PER_SECOND + _SLACK_S) + 1
    at = times[0] + np.arange(ticks) / TICKS_PER_SECOND
    return [int(first + k) for k in np.searchsorted(times, at + _SLACK_S, "right") - 1], scene


def _describe(
    sampler: Sampler,
    template: Template,
    path: PathLike,
    table: FaceTable,
    scene: int,
    shown: list[int],
    options: Options,
    lossless: bool,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Computes the arrays and fields of `avatar.save`."""
    heard = options.reference_sound and sampler.networks.landmark.config.reference_sound
    sound = TemplateSound(path if heard and not template.endless else None)
    candidates = table.first_faces(scene)
    person = find_person(sampler, candidates, template.frames(), template.size, sound, options)
    poses, last = [], person.pose
    for index in shown:
        face = table.face(index)
        last = last if face is None else face.pose(person.shape)
        poses.append(last)
    still = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    found = [table.face(index) for index in shown]
    tensors: dict[str, np.ndarray] = {
        "poses": np.stack(poses),
        "rest": _at_rest(sampler, person, poses),
        "transforms": np.stack([still if face is None else face.transform for face in found]),
        "images": person.images,
        "sharp_images": person.sharp_images,
        "image_landmarks": person.image_landmarks,
        "reference_landmarks": person.references.landmarks,
        "reference_mel": person.references.mel,
        "reference_heard": person.references.heard,
    }
    pictures, overlay = _read_pictures(sampler, template, table, shown, person, lossless)
    width, height = template.size
    info = {
        "name": template.name,
        "frames": len(shown),
        "references": len(person.images),
        "width": width,
        "height": height,
        "photograph": template.endless,
        "widest": person.widest,
        "overlay_top": 0 if overlay is None else overlay.corner[0],
        "overlay_left": 0 if overlay is None else overlay.corner[1],
    }
    weight = np.zeros((0, 0), np.float32) if overlay is None else overlay.weight
    return tensors | pictures | {"overlay": weight}, info


def _at_rest(sampler: Sampler, person: Person, poses: list[np.ndarray]) -> np.ndarray:
    """Predicts the mouth of every frame where nothing is said: (N, 57, 2)."""
    track = ContentTrack(
        lambda mel, pose: sampler.complete_content(mel, pose, person.references),
        lambda first, count: np.full((count, MEL_WINDOW, NUM_MELS), MEL_FLOOR, np.float32),
        PoseTrack(((k / TICKS_PER_SECOND, pose) for k, pose in enumerate(poses)), person.pose),
        len(poses),
        sampler.window,
        context=sampler.context,
    )
    return np.stack([track.at(k / TICKS_PER_SECOND) for k in range(len(poses))])


def _read_pictures(
    sampler: Sampler,
    template: Template,
    table: FaceTable,
    shown: list[int],
    person: Person,
    lossless: bool,
) -> tuple[dict[str, np.ndarray], Overlay | None]:
    """Reads the frames once more and finds out what is special about each."""
    encoded, looks, regions, usable = [], [], [], []
    empty = np.zeros((*sampler.networks.image_size, 3), np.uint8)
    reading = template.frames()
    frame = None
    for index in shown:
        if frame is None or frame.index != index:
            frame = next((each for each in reading if each.index == index), None)
        if frame is None:
            raise UserError(f"{template.name}: was changed while it was read; try again")
        face = table.face(index)
        region, look = empty, None
        if face is not None:
            region, look = pasting.cut_region(sampler, frame.rgb, face.transform, person.appearance)
            region = np.clip(np.rint(region), 0, 255).astype(np.uint8)
        regions.append(region)
        looks.append(look)
        usable.append(look is not None and look.present and not occlusion.hides_mouth(look.cover))
        encoded.append(_encode(frame.rgb, lossless))
    return {
        "pictures": np.concatenate(encoded),
        "picture_ends": np.cumsum([len(each) for each in encoded]),
        "regions": np.stack(regions),
        "usable": np.array(usable),
        **_pack_looks(looks),
    }, next((look.overlay for look in looks if look is not None), None)


def _pack_looks(looks: list[Look | None]) -> dict[str, np.ndarray]:
    light, toning, cover_of, covers = [], [], [], []
    for look in looks:
        cover_of.append(-1)
        if look is None:
            light.append(np.array([[1.0] * 3, [0.0] * 3]))
            toning.append(np.array([0.0] * 6 + [1.0, 1.0]))
            continue
        light.append(np.stack(look.light))
        toning.append(np.r_[look.toning.curve.ravel(), look.toning.colour, look.toning.freedom])
        if look.cover is not None:
            cover_of[-1] = len(covers)
            covers.append(look.cover)
    none = np.zeros((0, avatar.THUMBNAIL, avatar.THUMBNAIL), np.float32)
    return {
        "light": np.stack(light),
        "toning": np.stack(toning),
        "cover_of": np.array(cover_of),
        "covers": np.stack(covers) if covers else none,
    }


def _encode(rgb: np.ndarray, lossless: bool) -> np.ndarray:
    """Compresses a picture: (n,) uint8."""
    options = (cv2.IMWRITE_PNG_COMPRESSION, 1) if lossless else _JPEG + _FULL_COLOUR
    done, data = cv2.imencode(".png" if lossless else ".jpg", rgb[..., ::-1], options)
    if not done:
        raise ValueError(f"a picture of {rgb.shape} cannot be encoded")
    return data.ravel()
