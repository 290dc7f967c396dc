"""Defaults of every experiment; the files beside it are small diffs from it.

Not run by itself. A field is changed with --config.field=value; an unknown one is an error.
Values of the method that the paper does not publish (all of them here) are this project's own.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    c = ConfigDict()

    # -- what is trained
    c.stage = "diffusion"  # autoencoder, landmark, diffusion, joint or sync
    c.seed = 0
    c.steps = 100_000
    c.batch_size = 64  # of all devices together
    # Networks to start from: {stage: its --workdir or --export directory}.
    c.init_from = ConfigDict({"autoencoder": "", "landmark": "", "diffusion": "", "joint": ""})

    # -- geometry, in unit-square crop coordinates (y0, x0, y1, x1)
    c.crop_size = 256
    c.region = (0.0, 0.0, 1.0, 1.0)  # what the image models see
    c.mask = (0.4375, 0.125, 0.9375, 0.875)  # what they fill in

    # -- networks; the sizes of talkjax/models/*.py named `base`
    c.dtype = "bfloat16"  # of computation; parameters and their averages are float32
    c.autoencoder = ConfigDict()
    c.autoencoder.kind = "kl"  # kl (Stable Diffusion's layout), light or taesd
    c.autoencoder.size = "base"  # of kinds kl and light
    c.autoencoder.f = 8  # of kinds kl and light: 4 or 8
    c.autoencoder.layout = "taef2"  # of kind taesd
    c.autoencoder.remat = False  # of kinds kl and taesd: blocks are computed again backward
    c.autoencoder.kl_weight = 1e-6
    # Published weights to start from: one file for kl, encoder and decoder for taesd.
    c.autoencoder.weights = ("", "")
    # Per channel, or one value for all; filled in from cached latents where there are any.
    c.autoencoder.latent_mean = (0.0,)
    c.autoencoder.latent_std = (1 / 0.18215,)
    c.denoiser = ConfigDict()
    c.denoiser.channels = (320, 640, 768)
    c.denoiser.blocks = 2
    c.denoiser.attention = ()  # per resolution; all by default
    c.denoiser.groups = 32
    c.denoiser.remat = "products"  # none, products or full: what the backward pass computes again
    c.denoiser.talkformer = ConfigDict()
    c.denoiser.talkformer.heads = 8
    c.denoiser.talkformer.positional = "kernel"  # or dot
    c.denoiser.talkformer.implementation = "xla"  # of attention; cudnn on GPUs, pallas_tpu on TPUs
    c.denoiser.talkformer.motion_align = True  # ablation no_motion_align
    c.denoiser.talkformer.reference_align = True  # ablation no_reference_align
    c.landmark = ConfigDict({"features": 512, "layers": 8, "heads": 8, "dropout": 0.1})

    # -- method
    c.diffusion = ConfigDict({"schedule": "scaled_linear", "steps": 1000, "prediction": "eps"})
    c.loss = ConfigDict()
    c.loss.velocity_weight = 0.5
    c.loss.min_snr_gamma = 5.0
    c.loss.margin_weight = 0.2  # of latent cells outside of the mask
    c.loss.mouth_weight = 0.0  # how much more the mouth counts, in pixels and in latents
    c.loss.landmark_jitter = 0.002  # crop units, stage diffusion
    c.joint = ConfigDict()
    c.joint.end_to_end = True  # ablation no_end_to_end
    c.joint.landmark_weight = 1.0

    # -- data: the fields of talkjax.data.loader.LoaderOptions, and where it is
    c.data = ConfigDict()
    c.data.dir = ""
    c.data.latents = ""  # folder of cached latents; "" encodes pixels in the step
    c.data.window = 25
    c.data.references = 4
    c.data.frames = 4
    c.data.reference_margin = 5
    c.data.geometry_scale = 0.03
    c.data.geometry_rotation = 0.02
    c.data.geometry_shift = 0.01
    c.data.audio_gain = 0.5
    c.data.audio_noise = 5.0
    c.data.audio_masks = 2
    c.data.audio_warp = 0.1
    c.data.audio_equalizer = 0.5
    # Chances for classifier-free guidance: landmarks and reference together, the reference alone.
    c.data.drop_all = 0.1
    c.data.drop_reference = 0.1
    c.data.max_damaged = 0.01  # share of the records that may be damaged; one always may
    c.data.memory_limit = 4 << 30
    c.data.num_workers = 0
    c.data.num_threads = 2
    c.data.prefetch = 4

    # -- optimiser
    c.optimizer = ConfigDict()
    c.optimizer.learning_rate = 1e-4
    c.optimizer.schedule = "cosine"  # to steps; or constant
    c.optimizer.warmup_steps = 1000
    c.optimizer.final_fraction = 0.05  # of the learning rate, where the cosine ends
    c.optimizer.b1 = 0.9
    c.optimizer.b2 = 0.99
    c.optimizer.eps = 1e-8
    c.optimizer.weight_decay = 0.01
    c.optimizer.clip_norm = 1.0  # 0 switches it off
    c.optimizer.accumulation = 1  # microbatches a step
    c.ema_decay = 0.9999
    c.max_skipped_in_a_row = 20  # steps without a finite gradient before the run gives up

    # -- devices
    c.mesh = ConfigDict()
    c.mesh.data = -1  # what fsdp leaves
    c.mesh.fsdp = 1
    c.mesh.fsdp_min_size = 2**16  # smaller parameters are copied
    # Ordered (pattern of a parameter's path, tactic), for every kind of parameter that there is.
    c.mesh.rules = (
        (r"/(bias|scale|null|log_temperature|log_scale)$", "replicate"),
        (r"/(kernel|index|modality|order|position|heads)$", "fsdp"),
    )

    # -- what is written down, in steps
    c.log = ConfigDict({"every": 50})
    c.checkpoint = ConfigDict({"every": 1000, "keep_latest": 2, "keep_best": 1})
    c.eval = ConfigDict({"every": 2000, "batches": 16, "pictures": 8})  # every=0: never
    c.eval.dir = ""  # held-out data, if not in data.dir; split `validation`, or else `test`
    return c
