"""One person, 128 px crops, 15 M parameters in all: for two CPU cores or anything better.

    uv run train.py --config=configs/person_128.py:STAGE --workdir=W --config.data.dir=SHARDS ...

STAGE is landmark, diffusion or joint; the README has the complete command lines. The data are
twenty minutes of one speaker at 25 fps, prepared with `data_pipelines.prepare`, and latents cached
with the taef2 weights and `data_pipelines.cache_latents --config=configs/person_128.py --stride=3`.
On held-out clips the mouth's opening correlates with the truth at 0.90 for their own audio and 0.86
for another clip's, after about an hour on two cores (docs/results.md).
"""

from ml_collections import ConfigDict

from talkjax import configuration

# steps; windows in a batch (of 4 images each in the last two); learning rate; warm-up steps
BUDGETS = {
    "landmark": (4000, 32, 1e-3, 200),
    "diffusion": (4000, 4, 6e-4, 200),
    "joint": (600, 4, 2e-4, 50),
}


def get_config(stage: str = "diffusion") -> ConfigDict:
    c = configuration.small_config()
    configuration.set_stage(c, stage, BUDGETS)
    c.autoencoder.kind = "taesd"
    c.loss.mouth_weight = 0.0
    c.denoiser.channels = (96, 192)
    c.data.frames = 4
    # One person has one voice.
    c.data.audio_warp = 0.0
    c.data.audio_equalizer = 0.0
    c.checkpoint.every = 500
    return c
