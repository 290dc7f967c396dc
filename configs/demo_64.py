"""A small model that two CPU cores train quickly from scratch: 64 px, to see how everything works.

    uv run train.py --config=configs/demo_64.py:STAGE --workdir=W --config.data.dir=SHARDS ...

STAGE is autoencoder, landmark, diffusion or joint. The data are some forty avatars of
`data_pipelines.synthesize`, prepared with `--crop_size=64`. The README has the complete command
lines.
"""

from ml_collections import ConfigDict

from talkjax import configuration

# steps, batch size, learning rate, warm-up steps, as in demo_128
BUDGETS = {
    "autoencoder": (1500, 8, 2e-3, 100),
    "landmark": (700, 32, 1e-3, 100),
    "diffusion": (1500, 8, 1e-3, 100),
    "joint": (100, 8, 2e-4, 20),
}


def get_config(stage: str = "diffusion") -> ConfigDict:
    c = configuration.small_config()
    configuration.set_stage(c, stage, BUDGETS)
    c.crop_size = 64
    c.autoencoder.f = 4  # 40 x 56 px become 10 x 14 latent cells, as in demo_128
    c.denoiser.channels = (48, 96)
    c.denoiser.blocks = 1
    c.landmark.update({"features": 96, "layers": 3, "heads": 4})
    c.ema_decay = 0.99
    c.eval.every = 500
    c.eval.batches = 4
    return c
