"""A linear model in the place of a stage, and the training program around it.

Run as a script it trains, so that tests can kill it:
python toy.py WORKDIR [config.field=json ...]
"""

import functools
import json
import os
import signal
import sys
import time
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from talkjax import commands, configuration
from talkjax.training import loop
from talkjax.training.rng import stream
from talkjax.training.stage import Stage

FEATURES, OUTPUTS = 16, 8
SIZES = {"x": FEATURES, "y": OUTPUTS}


def config(**changes) -> ConfigDict:
    c = configuration.default_config()
    c.stage = "toy"
    c.steps, c.batch_size = 12, 16
    c.optimizer.learning_rate, c.optimizer.warmup_steps = 0.02, 2
    c.mesh.fsdp_min_size = 1
    c.mesh.rules = (("bias", "replicate"), (".*", "fsdp"))
    c.log.every, c.checkpoint.every = 1, 4
    c.eval.every, c.eval.batches, c.eval.pictures = 6, 2, 3
    c.update_from_flattened_dict(changes)
    return c


def init(key, batch):
    shape = (batch["x"].shape[1], OUTPUTS)
    return {
        "denoiser": {
            "kernel": jax.random.normal(stream(key, "kernel"), shape) * 0.1,
            "bias": jnp.zeros(OUTPUTS),
        },
        "autoencoder": {"kernel": jax.random.normal(stream(key, "frozen"), (OUTPUTS, OUTPUTS))},
    }


def predict(params, x):
    y = x @ params["denoiser"]["kernel"] + params["denoiser"]["bias"][None]
    return y @ params["autoencoder"]["kernel"]


def loss_fn(params, batch, key, noise=0.1):
    x = batch["x"] + noise * jax.random.normal(stream(key, "noise"), batch["x"].shape)
    error = predict(params, x) - batch["y"]
    return jnp.mean(error**2), {"absolute": jnp.mean(jnp.abs(error))}


def preview(params, batch, key):
    def as_image(y):
        return jnp.broadcast_to(jnp.tanh(y)[:, None, :, None], (len(y), 4, OUTPUTS, 3))

    return {"truth": as_image(batch["y"]), "prediction": as_image(predict(params, batch["x"]))}


def stage(noise=0.1) -> Stage:
    return Stage(init, functools.partial(loss_fn, noise=noise), preview, trainable=("denoiser",))


def sample(index, rng):
    x = (rng.normal(size=FEATURES) + index % 3).astype(np.float32)
    return {"x": x, "y": np.sin(np.cumsum(x)[:OUTPUTS]).astype(np.float32)}


def make_data(c, slow=0.0):
    def wait(batch):
        time.sleep(slow)
        return batch

    def make(split):
        data = grain.MapDataset.range(64).seed(c.seed + (split != "train")).random_map(sample)
        data = data.shuffle().repeat() if split == "train" else data
        data = data.batch(c.batch_size, drop_remainder=True).map(wait)
        return data.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1))

    return make


def main(argv) -> None:
    workdir, *changes = argv
    changes = {name: json.loads(value) for name, _, value in (a.partition("=") for a in changes)}
    slow = changes.pop("slow", 0.0)
    noise = changes.pop("noise", 0.1)
    crash = changes.pop("kill_at", None)
    c = config(**changes)
    if crash is not None:
        write = loop.metrics.Writer.write

        def dying(self, row):
            write(self, row)
            if row["step"] == crash:
                os.kill(os.getpid(), signal.SIGKILL)

        loop.metrics.Writer.write = dying
    if loop.train(c, workdir, stage(noise), make_data(c, slow)):
        sys.exit(143)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", int(os.environ.get("DEVICES", "2")))
    sys.exit(commands.run_main(main, sys.argv[1:]))
