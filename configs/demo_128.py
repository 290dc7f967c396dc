"""The released model: any avatar of the synthetic corpus, 128 px crops, 8 M parameters in all.

    uv run train.py --config=configs/demo_128.py:STAGE --workdir=W --config.data.dir=SHARDS ...

STAGE is autoencoder, landmark, diffusion or joint; nothing but data of `data_pipelines.synthesize`
(and `synthesize_speech`, stage landmark) is needed. README has the command lines (of demo_64). The
bundled weights come from several runs with other flags than the defaults below; docs/results.md has
those, and what they gave.
"""

from ml_collections import ConfigDict

from configs import base

# steps, batch (images; windows of 25 ticks; windows of 2 images), learning rate, warm-up
STAGES = {
    "autoencoder": (6000, 8, 1e-3, 200),
    "landmark": (5000, 32, 1e-3, 200),
    "diffusion": (10_000, 8, 6e-4, 200),
    "joint": (1000, 8, 2e-4, 50),
}


def get_config(stage: str = "diffusion") -> ConfigDict:
    c = base.get_config()
    if stage not in STAGES:
        raise ValueError(f"this config has the stages {', '.join(STAGES)}, not {stage!r}")
    c.stage = stage
    c.steps, c.batch_size, c.optimizer.learning_rate, c.optimizer.warmup_steps = STAGES[stage]
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
    c.landmark = {"features": 160, "layers": 4, "heads": 4, "dropout": 0.1}
    c.diffusion.schedule = "cosine"
    c.diffusion.prediction = "v"
    c.loss.mouth_weight = 4.0
    c.data.frames = 2
    c.ema_decay = 0.999
    c.checkpoint.every = 250
    c.eval.every = 1000
    c.eval.batches = 8
    return c
