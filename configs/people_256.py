"""People and avatars, 256 px crops of the mouth: the bundled checkpoint.

    uv run train.py --config=configs/people_256.py:STAGE --workdir=W --config.data.dir=SHARDS ...

STAGE is autoencoder, landmark, diffusion or joint. Prepare the shards with `--crop_size=256`. The
denoiser works on 10 x 14 cells, as in demo_128. Three reference images whose lips and poses differ,
warped to the target's landmarks, fill in the mask; the denoiser predicts what the truth's latents
differ from theirs by, and the decoder adds to them. Train the autoencoder without these pictures
first (`--config.autoencoder.drop_guide=1`) and then with them: otherwise its latents learn little
beside them. docs/results.md has the commands and the numbers.
"""

from ml_collections import ConfigDict

from talkjax import configuration

# steps; batch (images, windows of 25 ticks, or windows of 2 images); learning rate; warm-up steps
BUDGETS = {
    "autoencoder": (2000, 8, 8e-4, 200),  # twice, see above
    "landmark": (9000, 32, 8e-4, 100),
    "diffusion": (5000, 8, 6e-4, 100),
    "joint": (1000, 8, 1e-4, 50),
}


def get_config(stage: str = "diffusion") -> ConfigDict:
    c = configuration.small_config()
    configuration.set_stage(c, stage, BUDGETS)
    c.crop_size = 256
    c.autoencoder.size = "medium"
    c.autoencoder.f = 16
    c.autoencoder.guided = True
    # With 0.5, squares of 4 x 4 px that change together begin by staying grey, and go on doing so.
    c.loss.edge_weight = 0.1
    c.denoiser.fill = "warp"
    c.data.image_references = 3
    # A template's frames show most of what its mouth can look like, a photograph does not.
    c.sampling.update({"steps": 0, "image_steps": 1})
    c.diffusion.residual_scale = 0.4
    c.diffusion.last_timestep = 0.9
    # Guidance would compare a state that is relative to the warp with one that has no warp.
    c.data.drop_all = 0.0
    c.data.drop_reference = 0.0
    if stage in ("diffusion", "joint"):
        c.optimizer.schedule = "constant"
        c.loss.mouth_weight = 12.0  # the rest of the warp is good already
        c.data.reference_still = 0.6
    return c
