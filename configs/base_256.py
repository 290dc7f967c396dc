"""Many people, 256 px crops: the size of the paper's experiments.

    uv run train.py --config=configs/base_256.py --workdir=W --config.stage=STAGE \
      --config.data.dir=SHARDS --config.autoencoder.weights="('sd-vae-ft-mse.safetensors',)"

Prepare the shards with `data_pipelines.prepare --crop_size=256`. The denoiser has 222 M parameters,
the landmark network 27 M, the autoencoder 84 M. Nothing has been trained at this size: its steps
are compiled for TPU slices (docs/scaling.md), and tests check the shapes and types of a joint step.
"""

from ml_collections import ConfigDict

from talkjax import configuration


def get_config() -> ConfigDict:
    c = configuration.default_config()
    c.steps = 400_000
    c.batch_size = 256
    c.optimizer.warmup_steps = 5000
    c.optimizer.weight_decay = 0.01
    c.checkpoint.every = 5000
    c.eval.every = 10_000
    return c
