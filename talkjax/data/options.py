"""What a batch holds and how it is made."""

import dataclasses

from talkjax.data import audio_augmentation
from talkjax.errors import UserError

STAGES = ("autoencoder", "landmark", "diffusion", "joint", "sync")


@dataclasses.dataclass(frozen=True)
class LoaderOptions:
    """What a batch holds and how it is made.

    Attributes:
      stage: Decides which parts a batch has: `landmark` the audio and landmark part, `diffusion`
        the image part, `joint` both, `autoencoder` single images, `sync` those of `sync_samples`.
      batch_size: Samples per batch *of this process*.
      window: T, the ticks of a window.
      references: R, the number of landmark references per sample.
      past, future: Ticks of sound before and after the window; the landmark network's.
      image_references: Number of reference images per sample. They show lips as different as the
        clip has them.
      frames: F, the number of image frames per window (unused by `landmark` and `autoencoder`).
      pixels: Whether batches with latents hold target and reference in pixels as well, and those of
        stage `autoencoder` the reference images.
      weights: Shares of the folders of a mixture; empty for shares by their footage.
      region: Part of the crop that the image models see, (y0, x0, y1, x1) in the unit square.
      latents: Folder of the latent cache; None for pixels.
      sound_offsets: Report with the sound's offset by person, see `sound_offsets`; None removes
        none. For training; held-out clips stay as they are.
      reference_margin: No reference is taken from so many ticks around the window if the clip is
        long enough: a neighboring tick would give half of the answer away.
      geometry_scale, geometry_rotation, geometry_shift: Standard deviations of the landmark jitter
        (of the logarithm, in radians, in crop units). Stage `landmark` only, because images would
        not move with the landmarks.
      geometry_content: Deviation of the logarithms by which lips and jaw alone are stretched, in
        target and references alike, so that the references and not the pose tell their shape; a
        tenth of it is that of their shift in crop units. Stage `landmark` only.
      audio_gain, audio_noise, audio_masks, audio_warp, audio_equalizer, audio_room, audio_line:
        See `audio_augmentation.Amounts`.
      silence: Chance that a sample is a closed mouth in the silence of a room, stage `landmark`
        only.
      reference_silent, reference_wrong, reference_still: Chances that the references come without
        their sound, with other sound of the clip, and as one face again and again, as a photograph
        gives it (references of landmarks, and images where there are several).
      drop_all: Chance that a sample drops landmarks and reference together.
      drop_reference: Chance that a sample drops the reference alone. These two are the conditions
        that `talkjax.diffusion.guidance` evaluates besides the full one; the landmarks are never
        dropped alone.
      sound_margin: Ticks of sound on either side of a window (stage `sync` only).
      max_damaged: Share of a split's records that may be damaged; one always may.
      num_workers: Worker processes; 0 for threads only.
      num_threads: Reading threads of each process.
      prefetch: Number of batches made ahead of time.
    """

    stage: str = "landmark"
    batch_size: int = 32
    window: int = 25
    references: int = 16
    image_references: int = 1
    pixels: bool = False
    past: int = 0
    future: int = 0
    frames: int = 4
    weights: tuple[float, ...] = ()
    region: tuple[float, float, float, float] = (0.375, 0.0625, 1.0, 0.9375)
    latents: str | None = None
    sound_offsets: str | None = None
    reference_margin: int = 5
    geometry_scale: float = 0.03
    geometry_rotation: float = 0.02
    geometry_shift: float = 0.01
    geometry_content: float = 0.0
    audio_gain: float = 0.5
    audio_noise: float = 5.0
    audio_masks: int = 2
    audio_warp: float = 0.0
    audio_equalizer: float = 0.0
    audio_room: float = 0.0
    audio_line: float = 0.0
    silence: float = 0.0
    reference_silent: float = 0.3
    reference_wrong: float = 0.1
    reference_still: float = 0.15
    drop_all: float = 0.1
    drop_reference: float = 0.1
    sound_margin: int = 0
    max_damaged: float = 0.01
    num_workers: int = 0
    num_threads: int = 2
    prefetch: int = 4

    def __post_init__(self):
        if self.stage not in STAGES:
            raise UserError(f"no stage {self.stage!r}; use one of {', '.join(STAGES)}")
        for name in ("batch_size", "window", "references", "image_references", "frames"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be at least 1")
        chances = self.drop_all, self.drop_reference
        if self.latents and self.weights:
            raise UserError("data.latents belong to one folder; give no data.weights with them")
        if min(chances) < 0 or sum(chances) > 1:
            raise UserError(
                f"drop_all={chances[0]:g} and drop_reference={chances[1]:g} must be chances whose "
                "sum is at most 1"
            )

    @property
    def audio_amounts(self) -> audio_augmentation.Amounts:
        """How strongly the sound is distorted."""
        names = (field.name for field in dataclasses.fields(audio_augmentation.Amounts))
        return audio_augmentation.Amounts(**{n: getattr(self, f"audio_{n}") for n in names})

    @property
    def has_landmark_part(self) -> bool:
        """Whether batches hold audio and landmarks."""
        return self.stage in ("landmark", "joint")

    @property
    def has_images(self) -> bool:
        """Whether batches hold images or latents."""
        return self.stage != "landmark"

    @property
    def needs_latents(self) -> bool:
        """Whether the latent cache is read."""
        return self.latents is not None and self.stage in ("diffusion", "joint")

    @property
    def needs_pixels(self) -> bool:
        """Whether JPEGs are decoded."""
        return self.has_images and (self.pixels or not self.needs_latents)
