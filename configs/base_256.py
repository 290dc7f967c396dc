"""Many people, 256 px crops: the size of the paper's experiments.

Command:
    uv run train.py --config=configs/base_256.py --workdir=W --config.data.dir=SHARDS
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    c = base.get_config()
    c.steps = 400_000
    c.batch_size = 256
    c.optimizer.warmup_steps = 5000
    c.optimizer.weight_decay = 0.01
    c.checkpoint.every = 5000
    c.eval.every = 10_000
    return c
