"""Small configurations and batches for tests of the stages."""

import numpy as np

from configs import person_128


def tiny_config(stage, **changes):
    config = person_128.get_config()
    config.stage = stage
    config.crop_size = 64
    config.region = (0.25, 0.0, 1.0, 1.0)
    config.autoencoder.layout = "taesd"
    config.autoencoder.latent_mean, config.autoencoder.latent_std = (0.0,), (1.0,)
    config.denoiser.channels = (8,)  # more levels take longer to compile, and show the same
    config.denoiser.groups = 4
    config.denoiser.blocks = 1
    config.denoiser.talkformer.heads = 2
    config.landmark.update({"features": 16, "layers": 1, "heads": 2, "dropout": 0.0})
    config.landmark.update({"past": 1, "future": 2})
    config.update_from_flattened_dict(changes)
    return config


def batch(seed=0, b=2, f=2, t=5):
    rng = np.random.default_rng(seed)

    def uniform(*shape):
        return rng.uniform(0.2, 0.8, shape).astype(np.float32)

    return {
        "mel": uniform(b, 1 + t + 2, 16, 80),
        "pose": uniform(b, t, 74, 2),
        "content": uniform(b, t, 57, 2),
        "reference_landmarks": uniform(b, 3, 131, 2),
        "reference_mel": uniform(b, 3, 16, 80),
        "reference_heard": np.tile([True, False, True], (b, 1)),
        "target_latent": uniform(b, f, 6, 8, 4),
        "masked_latent": uniform(b, f, 6, 8, 4),
        "reference_latent": uniform(b, 1, 6, 8, 4),
        "frame_landmarks": uniform(b, f, 131, 2),
        "image_reference_landmarks": uniform(b, 1, 131, 2),
        "frame_tick": np.array([[0.0, 3.5], [1.25, 4.0]], np.float32),
        "keep_landmarks": np.ones(b, bool),
        "keep_reference": np.ones(b, bool),
    }


def warped(**changes):
    """A configuration that fills in the mask with warped references, and a batch of pixels."""
    config = tiny_config("diffusion", **changes)
    config.denoiser.fill = "warp"
    config.data.image_references = 2
    data = {k: v for k, v in batch().items() if not k.endswith("latent")}
    rng = np.random.default_rng(0)
    data["target"] = rng.integers(0, 255, (2, 2, 48, 64, 3), np.uint8)
    data["reference"] = rng.integers(0, 255, (2, 2, 48, 64, 3), np.uint8)
    data["image_reference_landmarks"] = np.repeat(data["image_reference_landmarks"], 2, axis=1)
    return config, data
