"""Traces the train, evaluation and preview programs of configs on a mesh of 16 devices.

Run as a script, because the number of devices is fixed when JAX starts:
python programs_16.py CONFIG:STAGE,IMPLEMENTATION ...
"""

import importlib
import sys
from pathlib import Path

import jax

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from talkjax.compile_ahead.programs import batch_shapes
from talkjax.training import plan, stages


def main(name: str, implementation: str) -> None:
    module, _, stage = name.partition(":")
    config = importlib.import_module(f"configs.{module}").get_config()
    config.stage = stage
    config.batch_size = 32
    config.autoencoder.latent_mean, config.autoencoder.latent_std = (0.0,), (1.0,)
    config.mesh.fsdp = 4
    config.denoiser.talkformer.implementation = implementation
    config.dtype = "float32" if implementation == "xla" else "bfloat16"
    planned = plan.make_plan(config, stages.make_stage(config), batch_shapes(config))
    for program, (function, arguments) in planned.programs.items():
        traced = function.trace(*arguments)
        print(name, program, len(traced.jaxpr.eqns) > 0)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 16)
    for case in sys.argv[1:]:
        main(*case.split(","))
