"""From a template, a speech track and a checkpoint to a talking-face video, in constant memory.

    sampler = Sampler.load("CHECKPOINT")
    summary = sampler.generate(video="V.mp4", audio="A.wav", out="O.mp4")

One pass reads the template ahead for its faces (`faces`), another decodes its pictures (ping-pong,
`template`); the speech track streams beside them (`speech`, `completion`). Frames with a face go in
batches of one fixed shape through one compiled function (`regions`), which works while the batch
before is pasted and encoded here. That function is compiled while the faces are looked for.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from tqdm import tqdm

from talkjax.conventions import SAMPLE_RATE, TICKS_PER_SECOND, Box, mask_region, to_float
from talkjax.errors import UserError
from talkjax.media import audio as sound
from talkjax.media import composite, crop, tracking
from talkjax.networks import Networks
from talkjax.sampling import checkpoint, program, regions
from talkjax.sampling import reference as references
from talkjax.sampling.background import Behind, Prefetch
from talkjax.sampling.batches import Batches
from talkjax.sampling.completion import ContentTrack, PoseTrack
from talkjax.sampling.faces import Detector, Face, FaceTable, look, steady
from talkjax.sampling.speech import MelStream
from talkjax.sampling.summary import Summary
from talkjax.sampling.template import PIXEL_CACHE, Template, open_template, pingpong_clock

# (seconds, face, (131, 2) landmarks wanted) of an output frame; both None where there is no face.
Watch = Callable[[float, Face | None, np.ndarray | None], None]

if TYPE_CHECKING:
    from talkjax.media.facemesh import FaceMesh

_SLACK_S = 1e-3  # a frame that would begin this close to the end of the speech is left out
_LOOK_AHEAD = 4  # frames, of face detection
_WRITE_BEHIND = 8  # frames waiting to be encoded
_BATCH = {"cpu": 8}  # frames a device; elsewhere:
_BATCH_ACCELERATOR = 32


@dataclasses.dataclass(frozen=True)
class Options:
    """How to sample.

    Attributes:
      steps: of DDIM.
      seed: of the clip's noise.
      face: "largest" or an index from left to right, see `tracking.parse_face`.
      landmark_guidance, reference_guidance: scales; 1 is none and the fastest.
      eta: 0 deterministic .. 1 as random as DDPM.
      batch: frames at a time over all devices; 0 chooses.
      crf: quality of the H.264 output, 0 best .. 51.
      lossless: writes RGB without loss, for tests.
      first_pass: seconds of the template that references are chosen from.
      pixel_cache: bytes of decoded frames that the ping-pong may keep.
    """

    steps: int = 10
    seed: int = 0
    face: str | int = "largest"
    landmark_guidance: float = 1.0
    reference_guidance: float = 1.0
    eta: float = 0.0
    batch: int = 0
    crf: float = 18.0
    lossless: bool = False
    first_pass: float = references.FIRST_PASS_S
    pixel_cache: int = PIXEL_CACHE

    def check(self, most_steps: int) -> None:
        """Raises `UserError` for a value that makes no sense."""
        limits = {
            "steps": (1, most_steps),
            "seed": (0, 2**32 - 1),
            "landmark_guidance": (0, 100),
            "reference_guidance": (0, 100),
            "eta": (0, 1),
            "batch": (0, 4096),
            "crf": (0, 51),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise UserError(f"--{name}={value} is out of range; give {low} to {high}")
        tracking.parse_face(self.face)


class Sampler:
    """A checkpoint on its devices, ready for any number of clips."""

    def __init__(
        self,
        params: regions.Params,
        config: Any,
        networks: Networks,
        devices: Sequence[Any] | None = None,
    ) -> None:
        """Places the parameters; `load` does all of it.

        Args:
          params: subtrees "autoencoder", "denoiser" and "landmark".
          config: of the checkpoint; `region`, `mask` and `data` are read here.
          networks: of that config.
          devices: default all of this process's; frames are divided among them.
        """
        devices = list(devices or jax.local_devices())
        # The training mesh's axes; all devices lie along the first.
        mesh = jax.make_mesh(
            (len(devices), 1), ("data", "fsdp"), (AxisType.Auto,) * 2, devices=devices
        )
        self.networks = networks
        self.region, self.mask = networks.region, Box(*config["mask"])
        self._window, self._references = config["data"]["window"], config["data"]["references"]
        self._devices = len(devices)
        self._compiled: dict[tuple, Any] = {}
        self._platform = devices[0].platform
        self._rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
        self._everywhere = everywhere = NamedSharding(mesh, PartitionSpec())
        images = {name: params[name] for name in ("autoencoder", "denoiser")}
        self._image_params = jax.device_put(images, everywhere)
        self._landmark_params = jax.device_put({"landmark": params["landmark"]}, devices[0])
        self._encode_reference = jax.jit(
            lambda p, image, points: regions.encode_reference(p, networks, image, points)
        )
        self._complete = jax.jit(lambda p, *inputs: regions.complete_content(p, networks, *inputs))

    @classmethod
    def load(
        cls,
        directory: str | os.PathLike,
        *,
        devices: Sequence[Any] | None = None,
        dtype: str | None = None,
    ) -> Sampler:
        """Loads what `train.py --export` wrote; see `checkpoint.load` for errors and `dtype`."""
        params, config, networks = checkpoint.load(directory, dtype)
        return cls(params, config, networks, devices)

    def batch_size(self, options: Options) -> int:
        """Frames of a batch: a multiple of the devices."""
        each = _BATCH.get(self._platform, _BATCH_ACCELERATOR)
        wanted = options.batch or each * self._devices
        return -(-wanted // self._devices) * self._devices

    def _generator(self, options: Options) -> Any:
        """The batch function of these settings, compiled at most once and before it is needed."""
        settings = {
            "steps": options.steps,
            "landmark_guidance": float(options.landmark_guidance),
            "reference_guidance": float(options.reference_guidance),
            "eta": float(options.eta),
        }

        size = self.batch_size(options)
        place = (size, *settings.values())
        if place in self._compiled:
            return self._compiled[place]

        made = program.lower(
            self.networks,
            self._image_params,
            program.reference_shapes(self.networks, self._image_params),
            size,
            self._rows,
            self._everywhere,
            **settings,
        ).compile()
        return self._compiled.setdefault(place, made)

    def generate(
        self,
        *,
        audio: str | os.PathLike,
        out: str | os.PathLike,
        video: str | os.PathLike | None = None,
        image: str | os.PathLike | None = None,
        options: Options | None = None,
        detector: Detector | None = None,
        progress: bool = False,
        watch: Watch | None = None,
    ) -> Summary:
        """Makes one video.

        Its length is the speech's: frames that begin before the speech ends are shown, so video and
        audio end within one frame of each other. A template that is shorter runs to and fro.

        Args:
          audio: any file with an audio stream; it goes into the output unchanged.
          out: .mp4, .m4v, .mov or .mkv file; appears when it is complete.
          video, image: the template, one of them.
          options: see `Options`.
          detector: instead of a `FaceMesh` of its own (it must return all faces of a frame).
          progress: whether to show a bar on stderr.
          watch: is told of every frame of the output, in order, before it is written.

        Raises:
          UserError: a file cannot be used, there is no face, an option makes no sense.
        """
        options = options or Options()
        options.check(self.networks.schedule.steps)
        began = time.monotonic()
        template = open_template(video, image, options.pixel_cache)
        for path in (video, image, audio):
            if path is not None and os.path.exists(out) and os.path.samefile(path, out):
                raise UserError(f"{out}: is an input as well; give another --out")
        speech = MelStream(audio)
        summary = Summary(os.fsdecode(out), *template.size, template.fps)
        summary.audio_seconds = speech.seconds
        with contextlib.ExitStack() as stack:
            writer = stack.enter_context(
                template.writer(out, audio=audio, crf=options.crf, lossless=options.lossless)
            )
            summary.audio_copied = writer.audio_copied
            if detector is None:
                detector = stack.enter_context(face_mesh(options.face))
            bar = stack.enter_context(_bar(math.ceil(speech.seconds * template.fps), progress))
            same = video is not None and os.path.samefile(video, audio)
            # Stacked so that the threads end before what they use does. Two of them get ready what
            # is slow to start, for the faces are found in another process.
            compiler, opener = (stack.enter_context(Behind(1)) for _ in range(2))
            generator = compiler(self._generator, options)
            opener(sound.log_mel, np.zeros(SAMPLE_RATE, np.float32))
            frames = template.frames()
            sights = stack.enter_context(Prefetch(look(frames, detector), _LOOK_AHEAD))
            table = FaceTable(sights, template.fps, options.face)
            write = stack.enter_context(Behind(_WRITE_BEHIND))
            made = self._frames(
                template, table, speech, options, same, summary, generator.result, watch
            )
            for at, frame in made:
                write(writer.write, frame, at)
                bar.update()
            write.finish()
        summary.template_damaged = template.truncated()
        summary.seconds = time.monotonic() - began
        summary.frames_per_second = summary.frames / summary.seconds
        return summary

    def _frames(
        self,
        template: Template,
        table: FaceTable,
        speech: MelStream,
        options: Options,
        own_speech: bool,
        summary: Summary,
        generator: Callable[[], Any],
        watch: Watch | None,
    ) -> Iterator[tuple[float, np.ndarray]]:
        """(seconds, (H, W, 3) uint8) of the output; `generator` waits for the batch function."""
        with summary.phase("first faces"):
            candidates = table.first_pass(options.first_pass)
        if not candidates:
            raise UserError(
                f"{template.name}: no face was found in it; give a template that shows a face from "
                "the front, at least 60 pixels wide"
            )
        place = references.choose_image(candidates, template.size, self.region)
        candidates, shape = steady(candidates)
        chosen = candidates[place]
        summary.reference_frame = chosen.index
        with summary.phase("reference"):
            image = references.cut_image(template, chosen, self.networks.crop_size, self.region)
        points = references.choose_landmarks(candidates, self._references)
        del candidates
        with summary.phase("reference"):
            reference = self._encode_reference(self._image_params, image, chosen.landmarks)
            reference = jax.device_put(reference, self._everywhere)

        def clock() -> Iterator[tuple[float, int]]:
            # A template that drives itself keeps its own times: they belong to its speech.
            return pingpong_clock(
                table.time,
                interval=1 / template.fps,
                end=speech.seconds - _SLACK_S,
                start=None if own_speech else 0.0,
            )

        faces = ((at, table.face(index)) for at, index in clock())
        poses = ((at, face and face.pose(shape)) for at, face in faces)
        content = ContentTrack(
            lambda mel, pose: self._complete(self._landmark_params, mel, pose, points),
            speech.windows,
            PoseTrack(poses, chosen.face.pose(shape)),
            speech.ticks,
            self._window,
            ahead=math.ceil(self.batch_size(options) / template.fps * TICKS_PER_SECOND) + 1,
        )
        key = jax.device_put(jax.random.key(options.seed), self._everywhere)

        def run(masked: np.ndarray, landmarks: np.ndarray) -> jax.Array:
            with summary.phase("compiling"):  # what of it is still to be waited for
                generate = generator()
            inputs = jax.device_put((masked, landmarks), self._rows)
            return generate(self._image_params, reference, *inputs, key)

        batches = Batches(run, self.batch_size(options), self._paste, summary)
        pixels = template.forever()
        for at, index in clock():
            frame = next(pixels)
            if frame.index != index:
                raise UserError(
                    f"{template.name}: decodes differently each time or was changed meanwhile; "
                    "convert it to an intact mp4 first"
                )
            face = table.face(index)
            if face is None:
                if watch:
                    watch(at, None, None)
                yield from batches.add(at, frame.rgb, None)
                continue
            with summary.phase("landmarks"):
                landmarks = np.concatenate([face.pose(shape), content.at(at)])
            if watch:
                watch(at, face, landmarks)
            cut = crop.warp_crop(frame.rgb, face.transform, self.networks.crop_size)
            masked = mask_region(
                to_float(self.region.cut(cut)), self.region, self.mask, self.networks.crop_size
            )
            yield from batches.add(at, frame.rgb, (face, masked, landmarks))
        yield from batches.flush()

    def _paste(self, rgb: np.ndarray, region: np.ndarray, face: Face) -> np.ndarray:
        return composite.paste(rgb, region, face.transform, self.region, self.mask)


def face_mesh(face: str | int) -> FaceMesh:
    """A detector of as many faces as `Options.face` needs, as a context."""
    from talkjax.media.facemesh import FaceMesh

    parsed = tracking.parse_face(face)
    return FaceMesh(max_faces=4 if parsed == "largest" else max(4, parsed + 1))


def _bar(total: int, shown: bool) -> tqdm:
    interval = 0.2 if os.isatty(2) else 5.0
    return tqdm(total=total, unit="frame", disable=not shown, mininterval=interval)
