"""The sync expert: a judge of lip sync for whatever the prepared data show.

    uv run train.py --config=configs/sync.py --workdir=W --config.data.dir=SHARDS

A quarter of SyncNet's widths, 0.6 M parameters. Its data must be in sync: it learns what they show.
Measured with --config.steps=800 on 649 avatars, some thirteen minutes of two shared CPU cores:
matching 2.08 (chance 2.77) and accuracy 0.50 (0.18) on validation clips (docs/results.md).
"""

from ml_collections import ConfigDict

from talkjax import configuration


def get_config() -> ConfigDict:
    c = configuration.default_config()
    c.stage = "sync"
    c.steps, c.batch_size = 1500, 4  # runs of 16 windows
    c.init_from = ConfigDict({"sync": ""})  # an expert to start from
    c.crop_size = 128
    c.region = (0.375, 0.0625, 1.0, 0.9375)  # the mouth, 80 x 112 px
    c.dtype = "float32"

    c.sync = ConfigDict()
    c.sync.width = 0.25  # of SyncNet's
    c.sync.embedding = 256
    c.sync.image = (60, 84)  # px of the region that the network sees
    c.sync.lags = 15  # ticks either way that lips and sound are compared at
    c.sync.shape_weight = 2.0  # of reading the lips' shape off both embeddings
    c.sync.patience = 500  # steps that the loss may stay at chance without a warning
    c.sync.augment = ConfigDict()  # largest amounts or deviations
    c.sync.augment.zoom = 0.05  # log
    c.sync.augment.shift = 0.02  # of the region
    c.sync.augment.blur = 2.0  # px of the region
    c.sync.augment.contrast = 0.2  # log
    c.sync.augment.brightness = 0.15  # of half the range
    c.sync.augment.cast = 0.07
    c.sync.augment.codec = 0.5  # coarsest step of a cosine coefficient
    c.sync.augment.noise = 0.05

    c.data.window = 20  # ticks of a run: 4 more than it has windows
    c.data.sound_margin = 0  # ticks of sound on either side; 15 has all lags for every window
    c.data.audio_masks = 0  # a band taken out changes every cepstrum
    c.optimizer.learning_rate = 1.5e-3
    c.optimizer.warmup_steps = 100
    c.ema_decay = 0.998
    c.checkpoint.every = 250
    c.eval.every = 250
    c.eval.batches = 32
    return c
