"""Whisper encoders with random weights, as Hugging Face's files hold them."""

import numpy as np
import safetensors.numpy

from talkjax.models.whisper import WhisperConfig

SMALL = WhisperConfig(mels=20, width=128, layers=3, heads=2, max_positions=40)


def sinusoids(length, width):
    """Whisper's positions in float64."""
    rates = 10_000.0 ** (-np.arange(width // 2) / (width // 2 - 1))
    phase = np.arange(length)[:, None] * rates
    return np.concatenate([np.sin(phase), np.cos(phase)], 1)


def random_tensors(config=SMALL, seed=0):
    """{name without prefix: float32 array} of an encoder."""
    rng, width = np.random.default_rng(seed), config.width
    tensors = {"embed_positions.weight": sinusoids(config.max_positions, width)}

    def dense(name, *shape, bias=True):
        tensors[f"{name}.weight"] = rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
        if bias:
            tensors[f"{name}.bias"] = rng.normal(size=shape[0])

    def norm(name):
        tensors[f"{name}.weight"] = rng.uniform(0.5, 1.5, width)
        tensors[f"{name}.bias"] = rng.normal(size=width)

    dense("conv1", width, config.mels, 3)
    dense("conv2", width, width, 3)
    for i in range(config.layers):
        layer = f"layers.{i}."
        for name in "qkv":
            dense(f"{layer}self_attn.{name}_proj", width, width, bias=name != "k")
        dense(f"{layer}self_attn.out_proj", width, width)
        dense(f"{layer}fc1", 4 * width, width)
        dense(f"{layer}fc2", width, 4 * width)
        norm(f"{layer}self_attn_layer_norm")
        norm(f"{layer}final_layer_norm")
    norm("layer_norm")
    return {name: value.astype(np.float32) for name, value in tensors.items()}


def save(path, tensors, prefix="model.encoder.", dtype=np.float32, **others):
    """Writes encoder tensors under Hugging Face's names, and others under their own."""
    named = {prefix + name: value.astype(dtype) for name, value in tensors.items()}
    safetensors.numpy.save_file(named | others, path)
    return path
