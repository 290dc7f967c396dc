"""Options of sampling."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from talkjax.errors import UserError

if TYPE_CHECKING:
    from talkjax.files import PathLike

_AUDIO_CODECS = ("auto", "copy", "aac")


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of sampling.

    Attributes:
      steps: Number of DDIM steps; with 0 the mouth is warped out of the template's own frames, and
        no denoiser is used. None takes the checkpoint's own default, which may be another one for
        photographs.
      seed: Seed of the clip's initial noise.
      face: "largest"; the number of a face from left to right; a time and a point in pixels
        ("12.5s:640,360"), at which the face is; or "speaking", whose lips move with the template's
        own sound. Scenes that do not have the point or a clear speaker use "largest".
      landmark_guidance: Scale of classifier-free guidance by the landmarks. 1 is no guidance and
        the fastest.
      reference_guidance: Scale of classifier-free guidance by the reference image, as above.
      eta: 0 is deterministic DDIM, 1 is as random as DDPM.
      batch: Number of frames per batch over all devices; 0 chooses by the kind of device.
      crf: Quality of the H.264 output, from 0 (best) to 51.
      audio_codec: "auto" copies sound that the usual players of the output play and encodes other
        as AAC (FLAC in Matroska), "copy" copies any, "aac" encodes any.
      audio_track: Number of the audio track that speaks, from 0; None for the one that players
        play.
      metadata: Whether the output's container says that it is synthetic, and what made it; see
        `label`.
      c2pa_certificate: PEM file of a certificate, followed by those above it. The output is signed
        with it as C2PA describes; see docs/provenance.md.
      c2pa_key: PEM file of the certificate's private key.
      c2pa_timestamp_url: Address of an RFC 3161 time-stamp authority. With its time stamp, a
        signature stays valid after the certificate has expired.
      mark: Text that is written into the lower right corner of every frame, such as "AI-generated";
        "" is none.
      lossless: Whether to write RGB without loss, for tests.
      first_pass: Seconds of every scene, from its first face on, that its references come from.
      reference_sound: Whether the template's own sound tells how the person speaks, where the lips
        move with it.
      sync_mode: What happens where the template is shorter than the speech: it plays back and forth
        ("bounce"), it starts again ("loop"), the output ends with it ("cut_off"), or its last
        picture stands while the lips move on ("hold").
      keep_occlusions: Whether hands and things before the mouth keep their pixels; otherwise the
        mouth is painted over them.
      pixel_cache: Bytes of decoded frames that the ping-pong may keep.
    """

    steps: int | None = None
    seed: int = 0
    face: str | int = "largest"
    landmark_guidance: float = 1.0
    reference_guidance: float = 1.0
    eta: float = 0.0
    batch: int = 0
    crf: float = 18.0
    audio_codec: str = "auto"
    audio_track: int | None = None
    metadata: bool = True
    c2pa_certificate: PathLike | None = None
    c2pa_key: PathLike | None = None
    c2pa_timestamp_url: str | None = None
    mark: str = ""
    lossless: bool = False
    first_pass: float = 10.0
    reference_sound: bool = True
    sync_mode: str = "bounce"
    keep_occlusions: bool = True
    pixel_cache: int = 256 << 20

    def check(self, max_steps: int) -> None:
        """Checks that every value is in its range.

        Args:
          max_steps: Number of steps of the checkpoint's noise schedule.

        Raises:
          UserError: A value is out of range.
        """
        # They need packages of the extra `video`, which the API loads lazily.
        from talkjax.media import mark, playback
        from talkjax.sampling import face_choice

        limits = {
            "steps": (0, max_steps),
            "seed": (0, 2**32 - 1),
            "landmark_guidance": (0, 100),
            "reference_guidance": (0, 100),
            "eta": (0, 1),
            "batch": (0, 4096),
            "crf": (0, 51),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if name == "steps" and value is None:
                continue
            if not low <= value <= high:
                raise UserError(f"{name}={value} is out of range; give {low} to {high}")
        if self.audio_codec not in _AUDIO_CODECS:
            choices = ", ".join(_AUDIO_CODECS)
            raise UserError(f"audio_codec={self.audio_codec} is unknown; give one of {choices}")
        if self.sync_mode not in playback.MODES:
            choices = ", ".join(playback.MODES)
            raise UserError(f"sync_mode={self.sync_mode} is unknown; give one of {choices}")
        face_choice.parse_face(self.face)
        mark.check(self.mark)
