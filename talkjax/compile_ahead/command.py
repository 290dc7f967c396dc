"""`train.py --compile_for=SLICE`."""

from collections.abc import Callable
from typing import Any

import jax
from ml_collections import FrozenConfigDict

from talkjax.compile_ahead import programs, report, search, slices
from talkjax.errors import UserError


def compile_for(
    config: Any,
    name: str,
    step: str,
    *,
    find_batch: bool,
    quick: bool,
    say: Callable[..., None] = print,
) -> report.Report:
    """Compiles a config's step for a slice and says what comes of it.

    Args:
      config: see `configs/base.py`. `data.latents` need not exist: set, it means that latents are
        cached, whose normalisation does not matter here.
      name: of the slice.
      step: "train", or "sample" for a batch of frames.
      find_batch: whether to search for the best batch; else it is `config.batch_size`.
      quick: see `report.compile_program`; a search compiles its candidates so in any case, and at
        the end the best one as asked for.
      say: is given lines.

    Returns:
      The last, or the best, report.

    Raises:
      UserError: no such slice; config, mesh and batch do not fit each other; no compiler here.
    """
    jax.config.update("jax_platforms", "cpu")  # libtpu is to compile, not to look for a TPU
    where = slices.parse(name)
    devices = where.devices()
    chips = len(devices)

    def compile_one(given: Any, quick: bool) -> report.Report:
        try:
            if step == "train":
                program = programs.train_program(given, devices)
            else:
                program = programs.sample_program(given, devices)
        except ValueError as error:
            raise UserError(f"the config does not fit together: {error}") from error
        found = report.compile_program(program, where, chips, quick)
        for line in found.lines():
            say(line)
        return found

    if not find_batch:
        found = compile_one(FrozenConfigDict(config), quick)
    else:
        start = max(config.batch_size // chips, 1)

        def resized(each: int) -> Any:
            return programs.changed(config, {"batch_size": each * chips})

        *_, found = search.best_batch(lambda each: compile_one(resized(each), True), start)
        each = found.samples // chips
        say(f"best of these: {each} samples a chip, batch {found.samples}")
        if found.fits and not quick:
            found = compile_one(resized(each), False)
    say(f"{report.HEADER}\n{found.row()}")
    return found
