"""From template and speech files to a video file, in constant memory.

One pass reads the template ahead to detect faces (`faces`), another decodes its pictures in
ping-pong order (`template`), and the speech track streams beside them (`speech`, `completion`).
Frames with a face go through one compiled function in batches of a fixed shape. The function works
on one batch while the previous one is pasted and encoded, and it is compiled while the first faces
are detected.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from talkjax.conventions import SAMPLE_RATE, TICKS_PER_SECOND, mask_region, to_float
from talkjax.errors import UserError
from talkjax.files import PathLike
from talkjax.media import audio as audio_file
from talkjax.media import composite, crop, occlusion, tracking
from talkjax.media.appearance import FaceAppearance, Look, share_inside
from talkjax.media.facemesh import FaceMesh
from talkjax.media.pingpong import pingpong_clock
from talkjax.sampling import reference as reference_frames
from talkjax.sampling import regions
from talkjax.sampling.background import Prefetcher, TaskQueue
from talkjax.sampling.batches import FrameBatcher, FrameInputs
from talkjax.sampling.completion import ContentTrack, PoseTrack
from talkjax.sampling.faces import (
    Detector,
    Face,
    FaceTable,
    detect_faces,
    normalize_candidates,
)
from talkjax.sampling.options import Options
from talkjax.sampling.speech import MelStream
from talkjax.sampling.summary import Summary
from talkjax.sampling.template import Template, open_template

if TYPE_CHECKING:
    from talkjax.sampling.sampler import FrameCallback, Sampler

_SLACK_S = 1e-3  # a frame that would begin this close to the end of the speech is left out
_DETECT_AHEAD = 4  # frames whose faces are detected ahead of time
_MAX_UNWRITTEN = 8  # frames that wait to be encoded


def generate_video(
    sampler: Sampler,
    video: PathLike | None,
    image: PathLike | None,
    audio: PathLike,
    out: PathLike,
    options: Options,
    detector: Detector | None,
    progress: bool,
    callback: FrameCallback | None,
) -> Summary:
    """Generates one video; see `Sampler.generate`, which checks the options."""
    start = time.monotonic()
    template = open_template(video, image, options.pixel_cache)
    for path in (video, image, audio):
        if path is not None and os.path.exists(out) and os.path.samefile(path, out):
            raise UserError(f"out={os.fsdecode(out)} is an input as well; give another output")
    speech = MelStream(audio)
    summary = Summary(os.fsdecode(out), *template.size, template.fps)
    summary.audio_seconds = speech.seconds
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(
            template.writer(out, audio=audio, crf=options.crf, lossless=options.lossless)
        )
        summary.audio_copied = writer.audio_copied
        if detector is None:
            detector = stack.enter_context(make_detector(options.face))
        bar = stack.enter_context(_progress_bar(speech.seconds * template.fps, progress))
        # Threads are entered last, so that they end before what they use is closed. Compiling and
        # loading the mel filterbank take long; they run while faces are detected in another
        # process.
        compiler, loader = (stack.enter_context(TaskQueue(1)) for _ in range(2))
        compiled = compiler.submit(sampler.compile, options)
        loader.submit(audio_file.log_mel, np.zeros(SAMPLE_RATE, np.float32))
        detections = stack.enter_context(
            Prefetcher(detect_faces(template.frames(), detector), _DETECT_AHEAD)
        )
        table = FaceTable(detections, template.fps, options.face)
        encoder = stack.enter_context(TaskQueue(_MAX_UNWRITTEN))
        clip = _Clip(sampler, template, table, speech, options, summary)
        # A template that is driven by its own speech keeps its own times, which belong to it.
        own_speech = video is not None and os.path.samefile(video, audio)
        start_time = None if own_speech else 0.0
        for at, frame in clip.frames(start_time, compiled.result, callback):
            encoder.submit(writer.write, frame, at)
            bar.update()
        encoder.finish()
    summary.template_damaged = template.truncated()
    summary.seconds = time.monotonic() - start
    summary.frames_per_second = summary.frames / summary.seconds
    return summary


class _Person(NamedTuple):
    """What the first seconds of the template show of the person.

    Attributes:
      reference: The encoded reference image.
      shape: (74, 2) pose points at rest.
      pose: (74, 2) pose points in the reference image, crop coordinates.
      landmarks: (R, 131, 2) landmarks of reference frames, crop coordinates.
      appearance: What frames are compared with.
    """

    reference: regions.Reference
    shape: np.ndarray
    pose: np.ndarray
    landmarks: np.ndarray
    appearance: FaceAppearance


class _Clip:
    """The output of one run, frame by frame."""

    def __init__(
        self,
        sampler: Sampler,
        template: Template,
        table: FaceTable,
        speech: MelStream,
        options: Options,
        summary: Summary,
    ) -> None:
        self._sampler, self._options, self._summary = sampler, options, summary
        self._template, self._table, self._speech = template, table, speech

    def frames(
        self, start: float | None, compiled: Callable[[], Any], callback: FrameCallback | None
    ) -> Iterator[tuple[float, np.ndarray]]:
        """Yields (seconds, (H, W, 3) uint8) of the output's frames.

        Args:
          start: Time of the first frame, see `pingpong_clock`.
          compiled: Returns the result of `Sampler.compile`, waiting for it if necessary.
          callback: See `Sampler.generate`.
        """
        person = self._find_person()
        content = self._content_track(person, start)
        key = self._sampler.make_key(self._options.seed)

        def generate(masked: np.ndarray, landmarks: np.ndarray) -> jax.Array:
            with self._summary.phase("compiling"):  # the part that is not finished yet
                function = compiled()
            return self._sampler.generate_batch(function, person.reference, masked, landmarks, key)

        size = self._sampler.batch_size(self._options)
        batcher = FrameBatcher(generate, size, self._paste, self._summary)
        pictures = self._template.pingpong()
        for at, index in self._clock(start):
            frame = next(pictures)
            if frame.index != index:
                raise UserError(
                    f"{self._template.name}: decodes differently each time or was changed during "
                    "the run; convert it to an intact mp4 first"
                )
            inputs, occluded = None, False
            face = self._table.face(index)
            if face is not None:
                with self._summary.phase("landmarks"):
                    landmarks = np.concatenate([face.pose(person.shape), content.at(at)])
                masked, look = self._cut_masked(frame.rgb, face, person.appearance)
                occluded = occlusion.hides_mouth(look.cover)
                if look.present and not occluded:
                    inputs = FrameInputs(face, masked, landmarks, look)
            if callback:
                callback(at, face, None if inputs is None else inputs.landmarks)
            yield from batcher.add(at, frame.rgb, inputs, occluded)
        yield from batcher.flush()

    def _find_person(self) -> _Person:
        """Detects the first faces and encodes the reference."""
        sampler, template = self._sampler, self._template
        with self._summary.phase("first faces"):
            candidates = self._table.first_pass(self._options.first_pass)
        if not candidates:
            raise UserError(
                f"{template.name}: no face was found in it; give a template that shows a face from "
                "the front, at least 60 pixels wide"
            )
        place = reference_frames.choose_image(candidates, template.size, sampler.region)
        thumbnails = [c.thumbnail for c in candidates if c.thumbnail is not None]
        if not self._options.keep_occlusions:
            thumbnails = []
        candidates, shape = normalize_candidates(candidates)
        chosen = candidates[place]
        self._summary.reference_frame = chosen.index
        with self._summary.phase("reference"):
            whole = reference_frames.cut_crop(template, chosen, sampler.networks.crop_size)
            overlay = None
            if self._options.keep_occlusions:
                overlay = reference_frames.find_overlay(template, candidates, sampler.mask)
            if overlay is not None:
                whole = overlay.erase(whole, chosen.face.transform)
            appearance = FaceAppearance(whole, thumbnails, overlay)
            image = sampler.region.cut(appearance.reference).copy()
            reference = sampler.encode_reference(image, chosen.landmarks)
        landmarks = reference_frames.choose_landmarks(candidates, sampler.references)
        return _Person(reference, shape, chosen.face.pose(shape), landmarks, appearance)

    def _content_track(self, person: _Person, start: float | None) -> ContentTrack:
        """Starts to predict the lips and jaw from the speech and the poses of the output."""
        sampler, speech = self._sampler, self._speech
        faces = ((at, self._table.face(index)) for at, index in self._clock(start))
        poses = ((at, None if face is None else face.pose(person.shape)) for at, face in faces)
        batch_seconds = sampler.batch_size(self._options) / self._template.fps
        return ContentTrack(
            lambda mel, pose: sampler.complete_content(mel, pose, person.landmarks),
            speech.windows,
            PoseTrack(poses, person.pose),
            speech.ticks,
            sampler.window,
            ahead=math.ceil(batch_seconds * TICKS_PER_SECOND) + 1,
        )

    def _clock(self, start: float | None) -> Iterator[tuple[float, int]]:
        return pingpong_clock(
            self._table.time,
            interval=1 / self._template.fps,
            end=self._speech.seconds - _SLACK_S,
            start=start,
        )

    def _cut_masked(
        self, rgb: np.ndarray, face: Face, appearance: FaceAppearance
    ) -> tuple[np.ndarray, Look]:
        """Cuts a frame's region out, in the reference's light, and hides the mouth.

        Returns:
          (H, W, 3) float32, and what is special about the frame.
        """
        sampler = self._sampler
        size = sampler.networks.crop_size
        whole = crop.warp_crop(rgb, face.transform, size)
        look = appearance.look(whole, share_inside(face.transform, rgb.shape))
        if look.overlay is not None:
            whole = look.overlay.erase(whole, face.transform)
        region = sampler.region.cut(appearance.clear(whole, look))
        return mask_region(to_float(region), sampler.region, sampler.mask, size), look

    def _paste(
        self, rgb: np.ndarray, region: np.ndarray, face: Face, look: Look | None
    ) -> np.ndarray:
        sampler = self._sampler
        return composite.paste(rgb, region, face.transform, sampler.region, sampler.mask, look=look)


def make_detector(face: str | int) -> FaceMesh:
    """Creates a detector, a context manager, of as many faces as `Options.face` needs."""
    parsed = tracking.parse_face(face)
    return FaceMesh(max_faces=max(4, parsed + 1) if isinstance(parsed, int) else 4)


def _progress_bar(frames: float, visible: bool) -> tqdm:
    interval = 0.2 if os.isatty(2) else 5.0
    return tqdm(total=math.ceil(frames), unit="frame", disable=not visible, mininterval=interval)
