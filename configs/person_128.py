"""One person, 128 px crops.

Command:
    uv run train.py --config=configs/person_128.py --workdir=W --config.data.dir=SHARDS
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    c = base.get_config()
    c.crop_size = 128
    c.region = (0.375, 0.0625, 1.0, 0.9375)  # 80 x 112 px, 10 x 14 latent cells at f=8
    c.dtype = "float32"
    c.autoencoder.kind = "taesd"
    c.denoiser.channels = (96, 192)
    c.denoiser.groups = 16
    c.denoiser.remat = False
    c.denoiser.talkformer.heads = 4
    c.landmark = {"features": 160, "layers": 4, "heads": 4, "dropout": 0.1}
    c.diffusion.schedule = "cosine"
    c.diffusion.prediction = "v"
    c.steps = 5_000
    c.batch_size = 32
    c.optimizer.learning_rate = 1e-3
    c.optimizer.warmup_steps = 200
    c.ema_decay = 0.999
    return c
