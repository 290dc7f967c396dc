"""Trains one stage of talkjax, releases the weights of a run, or compiles for a TPU slice.

    uv run train.py --config=configs/NAME.py --workdir=W [--config.field=value ...]
    uv run train.py --workdir=W --export=DIR [--export_dtype=float16]
    uv run --extra tpu train.py --config=configs/NAME.py --compile_for=v5e-256 [--compile_search]

The first goes on from W's newest checkpoint if there is one. SIGTERM saves a checkpoint and ends
with exit code 143. The second writes the averaged weights of W's newest checkpoint as safetensors,
and their config, into DIR. The third trains nothing: it says whether and how fast the step would
run on a TPU slice. The story of a run is in `talkjax/training/loop.py`.
"""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict, FrozenConfigDict, config_flags

from talkjax import commands
from talkjax.errors import UserError
from talkjax.training import processes

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment: a file of configs/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's directory.")
_EXPORT = flags.DEFINE_string("export", None, "Only write weights, into this directory.")
_EXPORT_DTYPE = flags.DEFINE_enum(
    "export_dtype", "float32", ["float32", "float16"], "What --export stores weights as."
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "One of several processes. Found by itself on TPU pods, Slurm and others; elsewhere set "
    "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID. See docs/multi_host.md.",
)
_HEARTBEAT_TIMEOUT = flags.DEFINE_integer(
    "heartbeat_timeout",
    processes.HEARTBEAT_TIMEOUT,
    "With --distributed: seconds without a sign of life from one process after which all end.",
    lower_bound=2,
)
_COMPILE_FOR = flags.DEFINE_string(
    "compile_for",
    None,
    "Only compile, for a TPU slice that need not be there (v5e-256, v5p-128, 2xv5e-256, ...; "
    "extra `tpu`), and tell memory, FLOPs, collectives and the roofline.",
)
_COMPILE_STEP = flags.DEFINE_enum(
    "compile_step", "train", ["train", "sample"], "What --compile_for compiles."
)
_COMPILE_SEARCH = flags.DEFINE_bool(
    "compile_search", False, "--compile_for searches for the best batch, from the config's up."
)
_COMPILE_QUICK = flags.DEFINE_bool(
    "compile_quick", False, "--compile_for lets the compiler try less hard: much faster, rougher."
)
_SIGTERM_EXIT = 128 + 15


def main(argv: Sequence[str]) -> None:
    """Trains or exports, as the flags say."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; flags are written --name=value")
    if _COMPILE_FOR.value:
        if _CONFIG.value is None:
            raise UserError("say what to compile: --config=configs/NAME.py")
        from talkjax.compile_ahead import command

        command.compile_for(
            _CONFIG.value,
            _COMPILE_FOR.value,
            _COMPILE_STEP.value,
            find_batch=_COMPILE_SEARCH.value,
            quick=_COMPILE_QUICK.value,
        )
        return
    if not _WORKDIR.value:
        raise UserError("say where the run is to live: --workdir=DIR")
    if "://" in _WORKDIR.value:
        raise UserError(f"--workdir={_WORKDIR.value} is no path; mount the bucket and name that")
    if _EXPORT.value:
        from talkjax import runs

        runs.export(_WORKDIR.value, _EXPORT.value, _EXPORT_DTYPE.value)
        print(f"wrote {_EXPORT.value}")
        return
    if _CONFIG.value is None:
        raise UserError("say what to train: --config=configs/NAME.py")
    if _DISTRIBUTED.value:
        processes.join(_HEARTBEAT_TIMEOUT.value)  # before anything asks for devices

    from talkjax.training import loop, stages

    config = FrozenConfigDict(with_latent_statistics(_CONFIG.value))
    try:
        stage = stages.build(config)
    except ValueError as error:
        raise UserError(f"the config does not fit together: {error}") from error
    stage = dataclasses.replace(stage, pretrained=published_weights(config))
    if loop.train(config, _WORKDIR.value, stage, make_data(config)):
        sys.exit(_SIGTERM_EXIT)


def with_latent_statistics(config: ConfigDict) -> ConfigDict:
    """The config with the normalisation that cached latents bring along."""
    if config.data.latents and config.stage in ("diffusion", "joint"):
        from talkjax.data import latents

        index = latents.read_index(config.data.latents)
        if tuple(index["mask"]) != tuple(config.mask):
            raise UserError(
                f"the latents in {config.data.latents} hide {tuple(index['mask'])}, the config "
                f"{tuple(config.mask)}; cache them again or set --config.mask"
            )
        config.autoencoder.latent_mean = tuple(index["mean"])
        config.autoencoder.latent_std = tuple(index["std"])
    return config


def published_weights(config: Any) -> dict[str, Any]:
    """The autoencoder's weights that `config.autoencoder.weights` names, {} if it names none."""
    from talkjax import weights

    files = tuple(name for name in config.autoencoder.weights if name)
    if not files:
        return {}
    if len(files) != (2 if config.autoencoder.kind == "taesd" else 1):
        raise UserError(
            "autoencoder.weights wants ('ENCODER.safetensors', 'DECODER.safetensors') for kind "
            "taesd, ('FILE.safetensors',) for kind kl"
        )
    loader = weights.taesd_params if len(files) == 2 else weights.autoencoder_kl_params
    return {"autoencoder": loader(*files)}


def make_data(config: Any) -> Any:
    """The loop's `MakeData`: this process's share of prepared shards, as `config.data` says.

    Raises:
      UserError: `config.data.dir` is not set; the batch does not split over the processes.
    """
    import jax  # not needed by the parent of a --distributed one

    from talkjax.data import loader, records

    if not config.data.dir:
        raise UserError("no data: set --config.data.dir to a folder made by data_pipelines.prepare")
    processes = jax.process_count()
    if config.batch_size % processes:
        raise UserError(
            f"batch_size={config.batch_size} must be a multiple of the {processes} processes"
        )
    fields = {name: value for name, value in config.data.items() if name != "dir"}
    options = loader.LoaderOptions(
        **fields | {"latents": fields["latents"] or None},
        stage=config.stage,
        region=tuple(config.region),
        batch_size=config.batch_size // processes,
    )
    here = {"process_index": jax.process_index(), "process_count": processes}

    def make(split: str) -> Any:
        if split == "train":
            return loader.train_dataset(config.data.dir, options, config.seed, **here)
        held_out = config.eval.dir or config.data.dir
        # Choices are made on a validation split, where there is one; the test split is for the end.
        if split not in records.list_splits(held_out):
            split = "test"
        return loader.eval_dataset(held_out, options, split, **here)

    return make


def run(argv: Sequence[str]) -> int:
    """`main` and what becomes of its errors; the exit code."""
    return (processes if _DISTRIBUTED.value else commands).run_main(main, argv)


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses the command line; a mistake there ends the program with one line and exit code 2."""
    try:
        rest = flags.FLAGS(argv)
        if _CONFIG.value is not None:
            _ = _CONFIG.value.stage  # a file that could not be loaded says so only when read
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # Orbax tells of every save in ten lines
        return rest
    # What ml_collections raises for an unknown field, a wrong type, a missing or faulty file.
    except (flags.Error, AttributeError, TypeError, ValueError, KeyError, OSError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        print(f"error: {lines[-1] if lines else repr(error)}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    app.run(lambda argv: sys.exit(run(argv)), flags_parser=parse_flags)
