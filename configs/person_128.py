"""One person, 128 px crops, 15 M parameters in all: for two CPU cores or anything better.

    uv run train.py --config=configs/person_128.py:STAGE --workdir=W --config.data.dir=SHARDS ...

STAGE is landmark, diffusion or joint; README has the whole command lines. Data: twenty minutes of
one speaker at 25 fps, prepared with `data_pipelines.prepare`, latents cached from the taef2 weights
with `data_pipelines.cache_latents --stride=3`. Measured on held-out clips: opening correlation 0.90
with their own audio, 0.86 with another clip's, after about an hour on two cores (docs/results.md).
"""

from ml_collections import ConfigDict

from configs import demo_128

# steps, windows a batch (of 4 images each in the last two), learning rate, warm-up
STAGES = {
    "landmark": (4000, 32, 1e-3, 200),
    "diffusion": (4000, 4, 6e-4, 200),
    "joint": (600, 4, 2e-4, 50),
}


def get_config(stage: str = "diffusion") -> ConfigDict:
    if stage not in STAGES:
        raise ValueError(f"this config has the stages {', '.join(STAGES)}, not {stage!r}")
    c = demo_128.get_config(stage)
    c.steps, c.batch_size, c.optimizer.learning_rate, c.optimizer.warmup_steps = STAGES[stage]
    c.autoencoder.kind = "taesd"
    c.loss.mouth_weight = 0.0
    c.denoiser.channels = (96, 192)
    c.data.frames = 4
    # One person has one voice.
    c.data.audio_warp = 0.0
    c.data.audio_equalizer = 0.0
    c.checkpoint.every = 500
    return c
