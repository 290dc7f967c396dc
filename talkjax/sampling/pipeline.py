"""From template and speech files to a video file, in constant memory.

One pass reads the template ahead to detect faces (`faces`), another decodes its pictures in
ping-pong order (`template`), and the speech track streams beside them (`speech`, `completion`).
Frames with a face go through one compiled function in batches of a fixed shape. The function works
on one batch while the previous one is pasted and encoded, and it is compiled while the first faces
are detected.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from talkjax.conventions import SAMPLE_RATE, TICKS_PER_SECOND
from talkjax.errors import UserError
from talkjax.files import PathLike
from talkjax.media import audio as audio_file
from talkjax.media import occlusion, outline, playback
from talkjax.media.detection import Detector, detect_faces
from talkjax.media.facemesh import FaceMesh
from talkjax.media.mark import Mark
from talkjax.media.turned_faces import TurnedFaces
from talkjax.sampling import face_choice, generation, label, pasting, regions
from talkjax.sampling.background import Prefetcher, TaskQueue
from talkjax.sampling.batches import FrameBatcher, FrameInputs
from talkjax.sampling.completion import ContentTrack, MelBuffer, PoseTrack
from talkjax.sampling.faces import FaceTable
from talkjax.sampling.generation import Generated
from talkjax.sampling.options import Options
from talkjax.sampling.person import Person, find_person
from talkjax.sampling.speech import MelStream, TemplateSound
from talkjax.sampling.summary import Summary
from talkjax.sampling.template import Template, open_template

if TYPE_CHECKING:
    from talkjax.media.video import VideoFrame
    from talkjax.sampling.sampler import FrameCallback, Sampler

_SLACK_S = 1e-3  # a frame that would begin this close to the end of the speech is left out
_DETECT_AHEAD = 4  # frames whose faces are detected ahead of time
_MAX_UNWRITTEN = 8  # frames that wait to be encoded
_MAX_ENCODED = 16  # encoded references that are kept


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
    template = open_template(video, image, options.pixel_cache, options.sync_mode)
    options = dataclasses.replace(options, steps=sampler.steps_of(options, template.endless))
    for path in (video, image, audio):
        if path is not None and os.path.exists(out) and os.path.samefile(path, out):
            raise UserError(f"out={os.fsdecode(out)} is an input as well; give another output")
    signature = label.open_signature(options, out, image if video is None else video)
    if template.endless:
        video = None  # a photograph, which has no sound
    speech = MelStream(audio, options.audio_track)
    fps = playback.filled_rate(template.fps)
    summary = Summary(os.fsdecode(out), *template.size, fps)
    summary.audio_seconds = speech.seconds
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(
            template.writer(
                out,
                audio=audio,
                audio_codec=options.audio_codec,
                audio_track=options.audio_track,
                crf=options.crf,
                lossless=options.lossless,
                cut_audio=options.sync_mode == "cut_off",
                metadata=label.metadata(sampler.fingerprint) if options.metadata else None,
                finish=signature and (lambda path: signature.sign(path, sampler.fingerprint)),
            )
        )
        mark = Mark(options.mark, *template.size)
        summary.describe_audio(writer.audio)
        summary.width, summary.height = writer.size
        summary.notes += template.notes() + writer.notes()
        if detector is None:
            detector = stack.enter_context(make_detector(options.face))
        bar = stack.enter_context(_progress_bar(speech.seconds * fps, progress))
        # Threads are entered last, so that they end before what they use is closed. Compiling and
        # loading the mel filterbank take long; they run while faces are detected in another
        # process.
        compiler, loader = (stack.enter_context(TaskQueue(1)) for _ in range(2))
        compiled = compiler.submit(sampler.compile, options)
        loader.submit(audio_file.log_mel, np.zeros(SAMPLE_RATE, np.float32))
        until = speech.seconds + options.first_pass
        path = face_choice.find_path(options.face, template, video, detector, until)
        detections = stack.enter_context(
            Prefetcher(detect_faces(template.frames(), detector), _DETECT_AHEAD)
        )
        table = FaceTable(
            detections,
            template.fps,
            options.face if path is None else "largest",
            path=path,
            first_seconds=options.first_pass,
        )
        encoder = stack.enter_context(TaskQueue(_MAX_UNWRITTEN))
        clip = _Clip(sampler, template, table, speech, options, summary, video)
        # A template that is driven by its own speech keeps its own times, which belong to it.
        own_speech = video is not None and os.path.samefile(video, audio)
        start_time = None if own_speech else 0.0
        first = None
        for at, frame in clip.frames(start_time, compiled.result, callback):
            first = at if first is None else first
            encoder.submit(writer.write, mark.draw(frame), at)
            bar.update()
        encoder.finish()
    if first is not None and summary.frames > 1:
        average = (summary.frames - 1) / (at - first)
        if abs(average - fps) > 0.01 * fps:  # a variable rate, of which pauses were filled
            summary.fps = average
    summary.scenes = clip.scenes()
    seconds = at + 1 / fps
    if options.sync_mode == "cut_off" and speech.seconds > seconds + 1 / fps:
        summary.notes.append(
            f"the output ends with the template, after {seconds:.2f} s of {speech.seconds:.2f} s "
            "of speech"
        )
    if isinstance(detector, TurnedFaces):
        summary.notes += detector.notes()
    if signature is not None:
        summary.notes.append(f"signed with C2PA Content Credentials by {signature.name}")
    summary.template_damaged = template.truncated()
    summary.seconds = time.monotonic() - start
    summary.frames_per_second = summary.frames / summary.seconds
    return summary


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
        video: PathLike | None,
    ) -> None:
        self._sampler, self._options, self._summary = sampler, options, summary
        self._template, self._table, self._speech = template, table, speech
        self._mel = MelBuffer(speech.windows, sampler.window + sum(sampler.context))
        heard = options.reference_sound and sampler.networks.landmark.config.reference_sound
        self._sound = TemplateSound(video if heard else None)
        self._people: dict[int, Person] = {}
        self._encoded: OrderedDict[int, regions.Reference] = OrderedDict()
        self._reading = template.frames()  # up to the newest reference image

    def frames(
        self, start: float | None, compiled: Callable[[], Any], callback: FrameCallback | None
    ) -> Iterator[tuple[float, np.ndarray]]:
        """Yields (seconds, (H, W, 3) uint8) of the output's frames.

        Args:
          start: Time of the first frame, see `playback.Clock`.
          compiled: Returns the result of `Sampler.compile`, waiting for it if necessary.
          callback: See `Sampler.generate`.
        """
        self._check_face()
        key = self._sampler.make_key(self._options.seed)

        def generate(scene: int, masked: np.ndarray, landmarks: np.ndarray) -> Generated:
            with self._summary.phase("compiling"):  # the part that is not finished yet
                function = compiled()

            def paint(shown: np.ndarray, landmarks: np.ndarray) -> Any:
                reference = self._reference(scene)
                return self._sampler.generate_batch(function, reference, shown, landmarks, key)

            person, references = self._person(scene), None
            if self._sampler.warps_references(self._options):
                references = person.sharp_images, person.image_landmarks
            painter = None if function is None else paint
            return generation.generate(self._sampler, masked, landmarks, references, painter)

        size = self._sampler.batch_size(self._options)
        batcher = FrameBatcher(generate, size, self._paste, self._summary)
        pictures = self._template.pictures()
        # A visit is an unbroken part of the output that shows one scene.
        visit_of = lambda shown: (self._table.scene(shown.index), shown.lap)  # noqa: E731
        visits = itertools.groupby(self._clock(start), visit_of)
        visit, frames_of_visit, content = None, iter(()), None
        frame, masked, look = None, None, None
        for shown in self._clock(start):
            at, index = shown.time, shown.index
            if frame is None or frame.index != index:
                frame, masked = self._next_picture(pictures, index), None
            if visit != visit_of(shown):
                visit, frames_of_visit = next(visits)
                content = None
            inputs, occluded = None, False
            face = self._table.face(index)
            if face is not None:
                scene = self._table.scene(index)
                person = self._person(scene)
                content = content or self._content_track(person, frames_of_visit)
                with self._summary.phase("landmarks"):
                    landmarks = np.concatenate([face.pose(person.shape), content.at(at)])
                if masked is None or look is None:  # not where a picture is repeated
                    region, look = pasting.cut_region(
                        self._sampler, frame.rgb, face.transform, person.appearance
                    )
                    masked = pasting.hide_mouth(self._sampler, region)
                occluded = occlusion.hides_mouth(look.cover)
                if look.present and not occluded:
                    inside = outline.inside(landmarks, person.widest)
                    inputs = FrameInputs(face, masked, landmarks, scene, look, inside)
            if callback:
                callback(at, face, None if inputs is None else inputs.landmarks, index)
            yield from batcher.add(at, frame.rgb, inputs, occluded)
        yield from batcher.flush()

    def _next_picture(self, pictures: Iterator[VideoFrame], index: int) -> VideoFrame:
        """Decodes the next picture, which must be the one with the number `index`."""
        frame = next(pictures, None)
        if frame is None or frame.index != index:
            raise UserError(
                f"{self._template.name}: decodes differently each time or was changed during "
                "the run; convert it to an intact mp4 first"
            )
        return frame

    def scenes(self) -> list[dict[str, int]]:
        """Describes the scenes that were used; see `Summary.scenes`."""
        described = []
        for scene, person in sorted(self._people.items()):
            first, last = self._table.scene_frames(scene)
            described.append({"first": first, "last": last, "reference_frame": person.frame})
        return described

    def _check_face(self) -> None:
        with self._summary.phase("first faces"):
            has_face = self._table.has_face()
        if not has_face:
            raise UserError(
                f"{self._template.name}: no face was found in it; give a template that shows a "
                "face from the front, at least 60 pixels wide"
            )

    def _person(self, scene: int) -> Person:
        """Returns the person of a scene, which shows a face."""
        if scene not in self._people:
            self._people[scene] = self._find_person(scene)
        return self._people[scene]

    def _reference(self, scene: int) -> regions.Reference:
        """Returns the encoded reference image of a scene, which is kept for a while."""
        if scene not in self._encoded:
            person = self._person(scene)
            with self._summary.phase("reference"):
                self._encoded[scene] = self._sampler.encode_reference(
                    person.images, person.image_landmarks
                )
        self._encoded.move_to_end(scene)
        if len(self._encoded) > _MAX_ENCODED:
            self._encoded.popitem(last=False)
        return self._encoded[scene]

    def _find_person(self, scene: int) -> Person:
        """Detects the first faces of a scene and finds out what they show."""
        with self._summary.phase("first faces"):
            candidates = self._table.first_faces(scene)
        with self._summary.phase("reference"):
            person = find_person(
                self._sampler, candidates, self._reading, self._template.size, self._sound,
                self._options,
            )  # fmt: skip
        if not self._people:
            self._summary.reference_frame = person.frame
        self._summary.reference_sound |= bool(person.references.heard.any())
        return person

    def _content_track(self, person: Person, visit: Iterator[playback.Shown]) -> ContentTrack:
        """Starts to predict the lips and jaw from the speech and the poses of one visit.

        Args:
          person: The person of the scene.
          visit: Consecutive frames of the output that show the scene.
        """
        sampler, speech = self._sampler, self._speech
        faces = ((shown.time, self._table.face(shown.index)) for shown in visit)
        poses = ((at, None if face is None else face.pose(person.shape)) for at, face in faces)
        batch_seconds = sampler.batch_size(self._options) / self._summary.fps
        return ContentTrack(
            lambda mel, pose: sampler.complete_content(mel, pose, person.references),
            self._mel.windows,
            PoseTrack(poses, person.pose),
            speech.ticks,
            sampler.window,
            ahead=math.ceil(batch_seconds * TICKS_PER_SECOND) + 1,
            context=sampler.context,
        )

    def _clock(self, start: float | None) -> Iterator[playback.Shown]:
        mode = self._options.sync_mode
        if self._template.endless:
            mode = "bounce"
        end = self._speech.seconds - _SLACK_S
        return iter(playback.Clock(self._table.time, 1 / self._template.fps, end, start, mode))

    def _paste(self, rgb: np.ndarray, generated: Generated, inputs: FrameInputs) -> np.ndarray:
        return pasting.paste(
            self._sampler, rgb, generated, inputs.face.transform, inputs.look, inputs.inside
        )


def make_detector(face: str | int) -> TurnedFaces:
    """Creates a detector, a context manager, of as many faces as `Options.face` needs."""
    parsed = face_choice.parse_face(face)
    return TurnedFaces(FaceMesh(max_faces=max(4, parsed + 1) if isinstance(parsed, int) else 4))


def _progress_bar(frames: float, visible: bool) -> tqdm:
    interval = 0.2 if os.isatty(2) else 5.0
    return tqdm(total=math.ceil(frames), unit="frame", disable=not visible, mininterval=interval)
