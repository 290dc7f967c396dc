"""Avatars of the synthetic corpus, 128 px crops, 8 M parameters in all.

    uv run train.py --config=configs/demo_128.py:STAGE --workdir=W --config.data.dir=SHARDS ...

STAGE is autoencoder, landmark, diffusion or joint. All data come from `data_pipelines.synthesize`
and, for stage landmark, `data_pipelines.synthesize_speech`. The README has complete command lines
for configs/demo_64.py. The landmark network of the bundled checkpoint was trained with this file;
docs/results.md lists the flags and the measured results.
"""

from ml_collections import ConfigDict

from talkjax import configuration

# steps; batch (images, windows of 25 ticks, or windows of 2 images); learning rate; warm-up steps
BUDGETS = {
    "autoencoder": (6000, 8, 1e-3, 200),
    "landmark": (5000, 32, 1e-3, 200),
    "diffusion": (10_000, 8, 6e-4, 200),
    "joint": (1000, 8, 2e-4, 50),
}


def get_config(stage: str = "diffusion") -> ConfigDict:
    c = configuration.small_config()
    configuration.set_stage(c, stage, BUDGETS)
    return c
