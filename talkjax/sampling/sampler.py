"""`Sampler`: a checkpoint on its devices, which generates talking-face videos.

    sampler = Sampler.from_pretrained()
    summary = sampler.generate(video="V.mp4", audio="A.wav", out="O.mp4")

This module holds the networks and their compiled functions. `talkjax.sampling.pipeline` reads and
writes the files.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from talkjax import media
from talkjax.conventions import Box, masked_box
from talkjax.errors import UserError
from talkjax.files import PathLike
from talkjax.models import warp
from talkjax.models.landmark_completion import References
from talkjax.networks import Networks
from talkjax.sampling import checkpoint, pretrained, program, regions
from talkjax.sampling.options import Options
from talkjax.sampling.summary import Summary

if TYPE_CHECKING:
    from talkjax.media.detection import Detector
    from talkjax.sampling.avatar import Avatar
    from talkjax.sampling.faces import Face
    from talkjax.sampling.session import Session

# Called with (seconds, face, (131, 2) target landmarks, number of the template's frame) of each
# frame of the output. Face and landmarks are None where the frame shows no face.
FrameCallback = Callable[[float, "Face | None", np.ndarray | None, int], None]

_FRAMES_PER_DEVICE = {"cpu": 8}
_FRAMES_PER_ACCELERATOR = 32


class Sampler:
    """A checkpoint on its devices, ready for any number of clips.

    Attributes:
      networks: Networks of the checkpoint.
      region: The part of the crop that the image models see.
      mask: The part of the crop that they fill in.
      hidden: The same in whole pixels of the networks' crops.
      window: Number of ticks in a window of the landmark network.
      references: Number of reference frames of the landmark network.
      image_references: Number of reference images that the denoiser attends to.
      steps: Number of denoising steps where the options name none.
      open_sessions: A token for each session that is open.
      image_steps: The same where the template is a photograph. Its one mouth can be warped open or
        shut, but shows no teeth that it hides.
    """

    def __init__(
        self,
        params: regions.Params,
        config: Any,
        networks: Networks,
        devices: Sequence[Any] | None = None,
    ) -> None:
        """Places the parameters on the devices. Most callers use `from_pretrained`.

        Args:
          params: Parameters of `networks`.
          config: Config of the checkpoint, of which `mask`, `data` and `sampling` are used.
          networks: Networks of that config.
          devices: Devices among which frames are divided; all of this process by default.
        """
        devices = list(devices or jax.local_devices())
        # The mesh has the axes of training; all devices lie along the first.
        mesh = jax.make_mesh(
            (len(devices), 1), ("data", "fsdp"), (AxisType.Auto,) * 2, devices=devices
        )
        self.networks = networks
        self.region, self.mask = networks.region, Box(*config["mask"])
        self.hidden = masked_box(self.region, self.mask, networks.crop_size)
        self.window: int = config["data"]["window"]
        self.references: int = config["data"]["references"]
        self.image_references: int = config["data"]["image_references"]
        self.steps: int = config["sampling"]["steps"]
        own: int = config["sampling"]["image_steps"]
        self.image_steps = self.steps if own < 0 else own
        self.context = regions.context_ticks(networks)
        self._config = config
        self._devices = len(devices)
        self._platform: str = devices[0].platform
        self._compiled: dict[tuple, Any] = {}
        self.open_sessions: set[object] = set()
        self._batch_sharding = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
        self._replicated = NamedSharding(mesh, PartitionSpec())
        names = ("autoencoder", "denoiser")
        images = {name: params[name] for name in names}
        others = {name: tree for name, tree in params.items() if name not in names}
        self._image_params = jax.device_put(images, self._replicated)
        self._landmark_params = jax.device_put(others, devices[0])
        self._encode_reference = jax.jit(
            lambda p, images, points: regions.encode_reference(p, networks, images, points)
        )
        self._warp_field = jax.jit(networks.warp_field)
        self._host = _host_device(devices)
        self._complete = jax.jit(lambda p, *inputs: regions.complete_content(p, networks, *inputs))

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: PathLike | None = None,
        *,
        revision: str | None = None,
        devices: Sequence[Any] | None = None,
        dtype: str | None = None,
    ) -> Sampler:
        """Loads a checkpoint.

        Args:
          name_or_path: None for the bundled checkpoint, a folder of exported weights or the
            directory of a training run (local or in a bucket), or the id of a Hugging Face
            repository ("owner/name").
          revision: Branch, tag or commit of the repository.
          devices: Devices among which frames are divided; all of this process by default.
          dtype: Type of the computation, for example "bfloat16". The default is the checkpoint's,
            but float32 on CPUs.

        Raises:
          UserError: There is no such checkpoint, or it is damaged or incomplete.
        """
        directory = pretrained.find_checkpoint(name_or_path, revision)
        params, config, networks = checkpoint.load(directory, dtype)
        return cls(params, config, networks, devices)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Tells checkpoints apart: 16 hexadecimal digits, see `checkpoint.fingerprint`."""
        params = jax.tree.map(np.asarray, {**self._image_params, **self._landmark_params})
        return checkpoint.fingerprint(params, self._config)

    def generate(
        self,
        *,
        audio: PathLike,
        out: PathLike,
        video: PathLike | None = None,
        image: PathLike | None = None,
        options: Options | None = None,
        detector: Detector | None = None,
        progress: bool = False,
        callback: FrameCallback | None = None,
    ) -> Summary:
        """Generates one video.

        The video is as long as the speech: it shows the frames that begin before the speech ends,
        so that video and audio end within one frame of each other. `Options.sync_mode` says what
        follows where the template is shorter.

        Args:
          audio: Any file with an audio stream. It is copied to the output where the players of the
            output play it, and encoded as AAC otherwise (`Options.audio_codec`).
          out: The output, an .mp4, .m4v, .mov or .mkv file. It appears when it is complete.
          video: The template, either a video ...
          image: ... or a photograph.
          options: Options of sampling.
          detector: Face detector that replaces `FaceMesh`. It must return all faces of a frame.
          progress: Whether to show a progress bar on stderr.
          callback: Called with every frame of the output, in order, before it is written.

        Raises:
          UserError: A file cannot be used, the template shows no face, an option is out of range,
            or the packages of the extra `video` are not installed.
        """
        media.check_packages()
        from talkjax.sampling import pipeline

        options = options or Options()
        options.check(self.networks.schedule.steps)
        self.check_guidance(options)
        return pipeline.generate_video(
            self, video, image, audio, out, options, detector, progress, callback
        )

    def stream(
        self,
        avatar: PathLike | Avatar,
        *,
        rate: int = 16_000,
        options: Options | None = None,
        look_ahead_ms: float | None = 200.0,
        chunk: int = 3,
        queue: int = 25,
        when_full: str = "block",
        realtime: bool = True,
        sessions: int = 1,
    ) -> Session:
        """Opens a live session: sound goes in as it comes, frames with their sound come out.

        A frame is shown `look_ahead_ms` + (`chunk` - 1) * 40 ms + the time of computing after its
        sound was pushed. Speech that is pushed faster than it is said is heard further ahead, for
        as far as it is there.

        Args:
          avatar: A file of `talkjax.prepare_avatar`, or `Avatar.load` of one.
          rate: Samples a second of the sound, both ways.
          options: `steps`, `seed`, guidance, `eta` and `sync_mode` are used.
          look_ahead_ms: Later sound that must be known before a frame is made; None waits for
            `flush`, and predicts as for a file.
          chunk: Number of frames that are made together.
          queue: Largest number of frames that wait to be read.
          when_full: What happens where they are not read: "block" makes no more frames until
            there is room, "drop" drops the oldest ones with their sound.
          realtime: Whether an item can be read no earlier than its time, 25 items a second;
            otherwise items come as fast as they are made.
          sessions: How many sessions may be open on this sampler.

        Raises:
          UserError: The avatar is damaged or belongs to another checkpoint, an argument is out of
            range, or too many sessions are open.
        """
        media.check_packages()
        from talkjax.sampling import streaming

        return streaming.open_session(
            self,
            avatar,
            rate=rate,
            options=options,
            look_ahead_ms=look_ahead_ms,
            chunk=chunk,
            queue=queue,
            when_full=when_full,
            realtime=realtime,
            sessions=sessions,
        )

    def check_guidance(self, options: Options) -> None:
        """Raises `UserError` where the options ask for guidance that the checkpoint cannot give."""
        guided = (options.landmark_guidance, options.reference_guidance) != (1, 1)
        if guided and self.networks.residual_scale:
            raise UserError(
                "this checkpoint corrects a warp, which guidance cannot; leave landmark_guidance "
                "and reference_guidance at 1"
            )

    def steps_of(self, options: Options, photograph: bool = False) -> int:
        """Returns the number of denoising steps: the checkpoint's own where none is given."""
        own = self.image_steps if photograph else self.steps
        return own if options.steps is None else options.steps

    def batch_size(self, options: Options) -> int:
        """Returns the number of frames in a batch, a multiple of the number of devices."""
        per_device = _FRAMES_PER_DEVICE.get(self._platform, _FRAMES_PER_ACCELERATOR)
        frames = options.batch or per_device * self._devices
        return -(-frames // self._devices) * self._devices

    def warps_references(self, options: Options) -> bool:
        """Returns whether references are warped to the target's landmarks."""
        return program.warps_references(self.networks, self.steps_of(options))

    def references_for(self, options: Options) -> int:
        """Returns the number of reference images; the denoiser attends to `image_references`."""
        return program.reference_count(self.networks, self.image_references, self.steps_of(options))

    def encode_reference(self, images: np.ndarray, landmarks: np.ndarray) -> regions.Reference:
        """Encodes the first `image_references` of a scene for `generate_batch`."""
        count = self.image_references
        reference = self._encode_reference(self._image_params, images[:count], landmarks[:count])
        return jax.device_put(reference, self._replicated)

    def warp_field(self, landmarks: np.ndarray, references: np.ndarray) -> warp.Field:
        """Computes how references are warped, on the host: NumPy arrays.

        Args:
          landmarks: (B, 131, 2) target landmarks, crop coordinates.
          references: (R, 131, 2) landmarks of the references.
        """
        inputs = jax.device_put((landmarks, references[None]), self._host)
        return jax.tree.map(np.asarray, self._warp_field(*inputs))

    def complete_content(
        self, mel: np.ndarray, pose: np.ndarray, references: References
    ) -> jax.Array:
        """Predicts the content landmarks of one window; see `regions.complete_content`."""
        return self._complete(self._landmark_params, mel, pose, references)

    def make_key(self, seed: int) -> jax.Array:
        """Creates the random key of a clip for `generate_batch`."""
        return jax.device_put(jax.random.key(seed), self._replicated)

    def compile(self, options: Options) -> Any:
        """Compiles the function for a batch of frames, once for each setting.

        Returns:
          A function for `generate_batch`, or None where the options ask for no denoising step.
        """
        if self.steps_of(options) == 0:
            return None
        settings = {
            "steps": self.steps_of(options),
            "landmark_guidance": float(options.landmark_guidance),
            "reference_guidance": float(options.reference_guidance),
            "eta": float(options.eta),
        }
        size = self.batch_size(options)
        cache_key = (size, *settings.values())
        if cache_key not in self._compiled:
            self._compiled[cache_key] = program.lower(
                self.networks,
                self._image_params,
                program.reference_shapes(self.networks, self._image_params, self.image_references),
                size,
                self._batch_sharding,
                self._replicated,
                **settings,
            ).compile()
        return self._compiled[cache_key]

    def generate_batch(
        self,
        compiled: Any,
        reference: regions.Reference,
        shown: np.ndarray,
        landmarks: np.ndarray,
        key: jax.Array,
    ) -> jax.Array:
        """Starts to generate one batch of regions; see `regions.generate_regions`.

        Args:
          compiled: Output of `compile`.
          reference: Output of `encode_reference`.
          shown: (B, H, W, 3) float32 regions as the denoiser is shown them, B as `batch_size`.
          landmarks: (B, 131, 2) target landmarks, crop coordinates.
          key: Output of `make_key`.

        Returns:
          (B, H, W, 3) uint8 regions, possibly still being computed.
        """
        inputs = jax.device_put((shown, landmarks), self._batch_sharding)
        return compiled(self._image_params, reference, *inputs, key)


def _host_device(devices: Sequence[Any]) -> Any:
    """Returns the host's CPU, or the first of the devices where JAX is told to leave it alone."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return devices[0]
