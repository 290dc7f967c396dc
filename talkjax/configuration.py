"""The configuration of an experiment: its fields, their defaults, and how it is read.

`default_config()` defines every field. The files in configs/ change some of them, and
`--config.field=value` on the command line changes single ones; an unknown field is an error. The
paper does not publish its values of the method, so all of those here are this project's own.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from talkjax.errors import UserError

STAGES = ("autoencoder", "landmark", "diffusion", "joint", "sync")
# Fields that came later, with the values that reproduce what runs did before they existed.
_BEFORE = {
    "denoiser.skip_after_attention": False,
    "denoiser.fill": "grey",
    "data.image_references": 1,
    "landmark.past": 0,
    "landmark.future": 0,
    "landmark.look_ahead": -1,
    "landmark.reference_sound": False,
    "loss.spread_weight": 0.0,
    "data.geometry_content": 0.0,
    "data.audio_room": 0.0,
    "data.audio_line": 0.0,
    "data.silence": 0.0,
    "data.reference_still": 0.0,
}


def default_config() -> ConfigDict:
    """Returns a new configuration with every field at its default.

    The sizes of its networks are those of `configs/base_256.py`.
    """
    c = ConfigDict()

    # -- what is trained
    c.stage = "diffusion"  # one of STAGES
    c.seed = 0
    c.steps = 100_000
    c.batch_size = 64  # samples in a step, on all devices together
    # Networks to start from, each from a training run or an export. `joint` gives all that its
    # folder has, `diffusion` the denoiser and the autoencoder; the more specific field wins.
    c.init_from = ConfigDict({"autoencoder": "", "landmark": "", "diffusion": "", "joint": ""})

    # -- geometry, in unit-square crop coordinates (y0, x0, y1, x1)
    c.crop_size = 256
    c.region = (0.0, 0.0, 1.0, 1.0)  # what the image models see
    c.mask = (0.4375, 0.125, 0.9375, 0.875)  # what they fill in

    # -- networks
    c.dtype = "bfloat16"  # computation type; parameters and their averages are float32
    c.autoencoder = ConfigDict()
    c.autoencoder.kind = "kl"  # kl (Stable Diffusion's layout), light or taesd
    c.autoencoder.size = "base"  # for kinds kl and light
    c.autoencoder.f = 8  # downsampling factor for kinds kl and light: 4 or 8, light medium 8 or 16
    c.autoencoder.layout = "taef2"  # for kind taesd
    # Whether the decoder of kind light sees what fills in the mask (denoiser.fill), and adds to it.
    c.autoencoder.guided = False
    c.autoencoder.remat = False  # for kinds kl and taesd: rematerialise blocks
    c.autoencoder.kl_weight = 1e-6
    # Stage autoencoder, guided: chance that a guide is grey, and largest deviation of the noise in
    # latents, in units of their own: the denoiser's are not exact either.
    c.autoencoder.drop_guide = 0.5
    c.autoencoder.latent_noise = 0.2
    # Published weights to start from: one file for kl, encoder and decoder for taesd.
    c.autoencoder.weights = ("", "")
    # Statistics that normalise latents, per channel or one value for all. Empty: they are taken
    # from cached latents, else from the folder or file of weights, else measured at the start.
    c.autoencoder.latent_mean = ()
    c.autoencoder.latent_std = ()
    c.denoiser = ConfigDict()
    c.denoiser.channels = (320, 640, 768)
    c.denoiser.blocks = 2
    # What the denoiser is shown in the mask: grey, as in the paper, or warp, the reference images
    # warped to the target's landmarks, which needs pixels in training.
    c.denoiser.fill = "grey"
    c.denoiser.attention = ()  # one flag per resolution; empty: attention at all of them
    c.denoiser.groups = 32
    # Whether skip connections leave after the attention. After 2,000 steps of stage diffusion the
    # held-out loss was 0.2552 with True and 0.2607 with False (one seed).
    c.denoiser.skip_after_attention = True
    # Whether it is shown pictures of the lips' outline and opening besides attending to landmarks.
    c.denoiser.lip_shape = False
    c.denoiser.remat = "products"  # rematerialisation: none, products or full
    c.denoiser.talkformer = ConfigDict()
    c.denoiser.talkformer.heads = 8
    c.denoiser.talkformer.positional = "kernel"  # or dot
    c.denoiser.talkformer.implementation = "xla"  # or cudnn on GPUs, pallas_tpu on TPUs
    c.denoiser.talkformer.motion_align = True  # ablation no_motion_align
    c.denoiser.talkformer.reference_align = True  # ablation no_reference_align
    c.landmark = ConfigDict({"features": 512, "layers": 8, "heads": 8, "dropout": 0.1})
    c.landmark.past = 8  # ticks of sound heard before the window of data.window ticks ...
    c.landmark.future = 8  # ... and after it
    # Ticks of later sound that a prediction may depend on, for streaming; -1 is no limit.
    c.landmark.look_ahead = -1
    c.landmark.reference_sound = True  # whether references come with their sound
    # What it hears through: mel, a small network of its own; or whisper, a pretrained encoder of a
    # size of talkjax.models.whisper, from a published file, which a new run needs.
    c.landmark.audio = "mel"
    c.landmark.whisper = "base"
    c.landmark.whisper_weights = ""

    # -- method
    c.diffusion = ConfigDict({"schedule": "scaled_linear", "steps": 1000, "prediction": "eps"})
    # With denoiser.fill=warp: diffuse the difference between the latents of the truth and of the
    # warp, divided by this (about its deviation), instead of the truth's; 0 is off. A denoiser that
    # does nothing then returns the warp.
    c.diffusion.residual_scale = 0.0
    # Chance that a timestep of training is the last, which is where sampling in one step begins.
    c.diffusion.last_timestep = 0.0
    c.loss = ConfigDict()
    c.loss.velocity_weight = 0.5
    c.loss.spread_weight = 0.5  # how far the mouth moves in a window, stages landmark and joint
    c.loss.min_snr_gamma = 5.0
    c.loss.margin_weight = 0.2  # weight of latent cells outside of the mask
    c.loss.edge_weight = 0.5  # of differences between neighbouring pixels, stage autoencoder
    c.loss.mouth_weight = 0.0  # additional weight of the mouth, in pixels and in latents
    # Stages diffusion and joint, from pixels: weights of losses of pictures, one a window, that are
    # decoded from the estimates at the last timestep: the error of pixels (L1 and edges, as
    # edge_weight says); that of the lips' places, which a regressor reads off the pictures; what a
    # patch discriminator thinks of them, for the end of the training.
    c.loss.picture_weight = 0.0
    c.loss.lip_weight = 0.0
    c.loss.adversarial_weight = 0.0
    c.loss.landmark_jitter = 0.002  # standard deviation in crop units, stage diffusion
    c.joint = ConfigDict()
    c.joint.end_to_end = True  # ablation no_end_to_end
    # The loss of pictures whose gradient reaches the landmark network: diffusion, as in the paper;
    # teacher, the denoiser with these landmarks against itself with the true ones; one_step,
    # pictures sampled in one step; or warp, warped references. The last two need pixels.
    c.joint.path = "diffusion"
    c.joint.path_weight = 1.0  # factor of that gradient
    c.joint.change_weight = 0.0  # paths one_step and warp: weight of what changes between frames
    # What is trained. If the landmark network is not, the denoiser learns to live with its
    # predictions (ablation exposure_only).
    c.joint.train_denoiser = True
    c.joint.train_landmark = True
    c.joint.landmark_weight = 1.0

    # -- data: where it is, and the fields of talkjax.data.loader.LoaderOptions
    c.data = ConfigDict()
    c.data.dir = ""
    c.data.latents = ""  # folder of cached latents; empty: pixels are encoded in the step
    # Report of evaluate.py --landmarks_only on the training split: offsets of people's sound, which
    # are removed in training.
    c.data.sound_offsets = ""
    c.data.window = 25
    c.data.weights = ()  # shares of the folders if dir lists several, separated by commas
    c.data.references = 16
    c.data.image_references = 1  # reference images, whose lips differ
    c.data.frames = 4
    c.data.reference_margin = 5
    c.data.geometry_scale = 0.03
    c.data.geometry_rotation = 0.02
    c.data.geometry_shift = 0.01
    c.data.geometry_content = 0.06
    c.data.audio_gain = 0.5
    c.data.audio_noise = 8.5
    c.data.audio_masks = 2
    c.data.audio_warp = 0.1
    c.data.audio_equalizer = 0.8
    c.data.audio_room = 0.3
    c.data.audio_line = 0.2
    c.data.silence = 0.05  # chance of a closed mouth in the silence of a room, stage landmark
    c.data.reference_silent = 0.3
    c.data.reference_wrong = 0.1
    c.data.reference_still = 0.15
    # Chances for classifier-free guidance: landmarks and reference together, the reference alone.
    c.data.drop_all = 0.1
    c.data.drop_reference = 0.1
    c.data.max_damaged = 0.01  # share of records that may be damaged; one always may be
    c.data.num_workers = 0
    c.data.num_threads = 2
    c.data.prefetch = 4

    # -- augmentation of pixels, stages autoencoder and diffusion: the chance of a mirrored sample,
    # and the strength of changes of colour and brightness (1 is strong, yet still a face)
    c.augmentation = ConfigDict({"mirror": 0.0, "colour": 0.0})

    # -- optimiser
    c.optimizer = ConfigDict()
    c.optimizer.learning_rate = 1e-4
    c.optimizer.schedule = "cosine"  # to steps; or constant
    c.optimizer.warmup_steps = 1000
    c.optimizer.final_fraction = 0.05  # the cosine ends at this share of the learning rate
    c.optimizer.b1 = 0.9
    c.optimizer.b2 = 0.99
    c.optimizer.eps = 1e-8
    c.optimizer.weight_decay = 0.01
    c.optimizer.clip_norm = 1.0  # 0 disables clipping
    c.optimizer.accumulation = 1  # microbatches per step
    c.ema_decay = 0.9999
    c.max_skipped_in_a_row = 20  # non-finite steps in a row before the run stops

    # -- devices
    c.mesh = ConfigDict()
    c.mesh.data = -1  # all devices that fsdp leaves
    c.mesh.fsdp = 1
    c.mesh.fsdp_min_size = 2**16  # smaller parameters are replicated
    # Ordered pairs (pattern of a parameter's path, tactic); the first match decides.
    c.mesh.rules = (
        (r"/(bias|scale|null|unheard|log_temperature|log_scale)$", "replicate"),
        (r"/(kernel|index|modality|order|position|heads)$", "fsdp"),
    )

    # -- sampling: what a checkpoint's own default is
    c.sampling = ConfigDict()
    c.sampling.steps = 10  # of the denoiser; 0 warps the template's frames
    c.sampling.image_steps = -1  # the same where the template is a photograph; -1 is `steps`

    # -- logs, checkpoints and evaluations; intervals in steps
    # tensorboard=True also writes metrics and pictures to WORKDIR/tensorboard (extra tensorboard).
    c.log = ConfigDict({"every": 50, "tensorboard": False})
    c.checkpoint = ConfigDict({"every": 1000, "keep_latest": 2, "keep_best": 1})
    # A checkpoint is saved before every evaluation; every=0 disables evaluation.
    c.eval = ConfigDict({"every": 2000, "batches": 16, "pictures": 8})
    # Held-out data, if it is not in data.dir. Its split is `validation` if there is one, else
    # `test`.
    c.eval.dir = ""
    return c


def small_config() -> ConfigDict:
    """Returns a configuration of a size that two CPU cores train: 128 px crops of the mouth."""
    c = default_config()
    c.crop_size = 128
    c.region = (0.375, 0.0625, 1.0, 0.9375)  # 80 x 112 px, 10 x 14 latent cells at f=8
    c.dtype = "float32"
    c.autoencoder.kind = "light"
    c.autoencoder.size = "small"
    c.autoencoder.kl_weight = 1e-4
    c.denoiser.channels = (64, 128)
    c.denoiser.groups = 16
    c.denoiser.remat = "none"
    c.denoiser.talkformer.heads = 4
    c.landmark.update({"features": 160, "layers": 4, "heads": 4})
    c.diffusion.schedule = "cosine"
    c.diffusion.prediction = "v"
    c.loss.mouth_weight = 4.0
    c.data.frames = 2
    c.ema_decay = 0.999
    c.checkpoint.every = 250
    c.eval.every = 1000
    c.eval.batches = 8
    return c


def set_stage(
    config: ConfigDict, stage: str, budgets: Mapping[str, tuple[int, int, float, int]]
) -> None:
    """Sets the stage of a configuration and the training budget that belongs to it.

    Args:
      config: changed in place.
      stage: name of the stage.
      budgets: {stage: (steps, batch size, learning rate, warm-up steps)}.

    Raises:
      ValueError: the configuration has no budget for the stage.
    """
    if stage not in budgets:
        raise ValueError(f"this config has the stages {', '.join(budgets)}, not {stage!r}")
    config.stage = stage
    steps, batch_size, learning_rate, warmup_steps = budgets[stage]
    config.steps, config.batch_size = steps, batch_size
    config.optimizer.learning_rate, config.optimizer.warmup_steps = learning_rate, warmup_steps


# ---- reading ------------------------------------------------------------------------------------


def with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """Completes a configuration that an earlier version wrote.

    Args:
      config: plain data, such as a run's `config.json`.

    Returns:
      The configuration with the fields that it lacks: their defaults, or where a default changes
      what is computed, the value that reproduces the earlier version.
    """
    before = ConfigDict(default_config())
    before.update_from_flattened_dict(
        {name: value for name, value in _BEFORE.items() if _has(before, name)}
    )
    return _merged(before.to_dict(), config)


def keep_earlier_behaviour(config: ConfigDict, saved: Mapping[str, Any]) -> None:
    """Lets a run that an earlier version started resume as it was, with today's files of configs/.

    Args:
      config: The configuration to resume with, changed in place: fields whose default has changed
        what is computed, and which the run does not have, take their earlier value.
      saved: The run's `config.json`.
    """
    saved = ConfigDict(dict(saved))
    for name, value in _BEFORE.items():
        if _has(config, name) and not _has(saved, name):
            config.update_from_flattened_dict({name: value})


def _has(config: ConfigDict, name: str) -> bool:
    *parents, last = name.split(".")
    for parent in parents:
        if parent not in config:
            return False
        config = config[parent]
    return last in config


def _merged(defaults: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    merged = {name: value for name, value in defaults.items() if name not in config}
    for name, value in config.items():
        nested = isinstance(value, Mapping) and isinstance(defaults.get(name), Mapping)
        merged[name] = _merged(defaults[name], value) if nested else value
    return merged


def load(path: str | os.PathLike, overrides: Sequence[str] = ()) -> ConfigDict:
    """Loads a configuration file and applies command-line overrides.

    Args:
      path: `configs/NAME.py`, or `configs/NAME.py:ARGUMENT` for a file whose `get_config` takes
        one. A file that does not exist is looked for among those that are installed with talkjax.
      overrides: `--config.field=value`, ...

    Raises:
      UserError: the file does not exist or is faulty, a field is unknown, or a value has the wrong
        type.
    """
    values = flags.FlagValues()
    argv = ["config", f"--config={_installed(os.fspath(path))}", *overrides]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    try:
        rest = values(argv)
        config = values.config
        _ = config.stage  # a file that could not be loaded raises only when it is used
    # What ml_collections raises for an unknown field, a wrong type, a missing or faulty file.
    except (flags.Error, AttributeError, TypeError, ValueError, KeyError, OSError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UserError(lines[-1] if lines else repr(error)) from error
    if len(rest) > 1:
        raise UserError(f"unexpected argument {rest[1]!r}; flags have the form --name=value")
    return config


def _installed(path: str) -> str:
    """Returns the path, or that of the file of its name in an installed package's configs."""
    file, colon, argument = path.partition(":")
    beside = Path(__file__).parent / "configs" / Path(file).name
    if not Path(file).is_file():
        if not beside.is_file():
            raise UserError(f"{file} does not exist; give a configuration file: configs/NAME.py")
        file = str(beside)
    return file + colon + argument
