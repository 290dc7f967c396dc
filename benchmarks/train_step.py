"""The diffusion stage's train step against the same network in PyTorch.

    uv run --with torch --with diffusers benchmarks/train_step.py \
      [--config=configs/demo_128.py:diffusion] [--config.field=value ...] [--rounds=7] [--steps=5]

Both take a whole step (forward, loss, backward, clipping, AdamW, moving average) on one batch of
random latents. First, in float32, one step of each from the same weights with the same random
numbers must give the same loss, gradients, update and average; otherwise nothing is timed. Then
they take turns, so that other load on the machine slows all of them alike. PyTorch runs in every
variant of --variants, and the fastest one is compared. The result is one JSON line. One device is
used; on a GPU, give --config.dtype=bfloat16 and --peak_tflops.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the two share a GPU's memory

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import traverse_util
from ml_collections import ConfigDict
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import torch_denoiser
from benchmarks.torch_step import Draws, TorchStep
from talkjax import commands, configuration, networks
from talkjax.conventions import NUM_LANDMARKS
from talkjax.errors import UserError
from talkjax.training import metrics, plan, sharding, stages, state
from talkjax.training.rng import stream

VARIANTS = ("eager", "eager_channels_last", "compile", "compile_channels_last")

LOSS_TOLERANCE = 1e-5  # relative
GRADIENT_TOLERANCE = 1e-4  # of each parameter's gradient, relative in the Euclidean norm
UPDATE_TOLERANCE = 1e-3  # of each weight's step, in learning rates
UPDATE_SHARE = 0.99  # of the weights: where a gradient is rounding, AdamW steps anywhere


def make_batch(config: Any, nets: networks.Networks) -> dict[str, np.ndarray]:
    """A batch as the loader's with cached latents, of random numbers."""
    rng = np.random.default_rng(0)
    rows, frames = config.batch_size, config.data.frames
    normal = lambda *shape: rng.standard_normal(shape, np.float32)  # noqa: E731
    points = lambda *shape: rng.random((*shape, NUM_LANDMARKS, 2), np.float32)  # noqa: E731
    return {
        "target_latent": normal(rows, frames, *nets.latent_shape),
        "masked_latent": normal(rows, frames, *nets.latent_shape),
        "reference_latent": normal(rows, *nets.latent_shape),
        "frame_landmarks": points(rows, frames),
        "image_reference_landmarks": points(rows),
        "keep_landmarks": np.arange(rows) % 8 != 1,
        "keep_reference": np.arange(rows) % 8 != 2,
    }


class JaxStep:
    """The compiled step as `talkjax.training.loop` runs it, on the first device."""

    def __init__(self, config: Any, batch: dict[str, np.ndarray]):
        planned = plan.make_plan(config, stages.make_stage(config), batch, jax.devices()[:1])
        self.schedule = state.make_schedule(config.optimizer, config.steps)
        create = jax.jit(planned.create, out_shardings=planned.shardings)
        self.state = create(_noisy(planned.init()))
        self.batch = sharding.place_batch(batch, planned.batch_sharding)
        self.compiled = planned.lower("train").compile()
        self.metrics: dict[str, jax.Array] = {}

    def step(self) -> None:
        """One step of training."""
        self.state, self.metrics = self.compiled(self.state, self.batch)

    def weights(self) -> dict[str, np.ndarray]:
        """The denoiser's, by path."""
        return _flat(self.state.params["denoiser"])


def _noisy(params: Any) -> Any:
    """Parameters moved a little: fresh ones have zeros that hide most of the network."""
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda x: x + 0.02 * rng.standard_normal(x.shape, np.float32), jax.device_get(params)
    )


def _flat(tree: Any) -> dict[str, np.ndarray]:
    # Copies: the buffers are donated to the next step.
    return {k: np.array(v) for k, v in traverse_util.flatten_dict(tree, sep="/").items()}


# ---- agreement ----------------------------------------------------------------------------------


def check_agreement(config: Any, nets: networks.Networks, ours: JaxStep, theirs: TorchStep) -> dict:
    """Takes one step of each and compares them.

    Returns:
      The largest deviations.

    Raises:
      UserError: the two do not compute the same.
    """
    before, rate = ours.weights(), float(ours.schedule(0))
    batch = theirs.place({name: np.asarray(x) for name, x in ours.batch.items()})
    theirs.step(batch, _same_draws(config, nets, ours, theirs))
    ours.step()
    numbers = {name: float(x) for name, x in ours.metrics.items()}
    found = {
        name: abs(float(x) - numbers[name]) / abs(numbers[name])
        for name, x in theirs.metrics.items()
    }
    for name, error in found.items():
        if not error < LOSS_TOLERANCE * (100 if name == "grad_norm" else 1):
            raise UserError(f"not the same: {name} differs by {error:.1e}; nothing was timed")

    # AdamW's first moment after one step is the clipped gradient times 1 - b1, in both.
    moments = next(
        s.mu for s in jax.tree.leaves(ours.state.opt_state, is_leaf=_is_adam) if _is_adam(s)
    )
    gradients = {k: x / (1 - config.optimizer.b1) for k, x in _flat(moments["denoiser"]).items()}
    named = list(theirs.model.named_parameters())
    # What has no part in the loss has no gradient in PyTorch, a gradient of zero in JAX.
    other = torch_denoiser.named_like_flax(
        (name, torch.zeros_like(p) if p.grad is None else p.grad) for name, p in named
    )
    floor = 1e-4 * np.sqrt(sum(np.square(x).sum() for x in gradients.values()))
    errors = {
        k: np.linalg.norm(other[k] - x) / max(np.linalg.norm(x), floor)
        for k, x in gradients.items()
    }
    worst = max(errors, key=errors.get)
    if not errors[worst] < GRADIENT_TOLERANCE:
        raise UserError(
            f"not the same: gradients of {worst} differ by {errors[worst]:.1e}; nothing was timed"
        )
    found["gradient"] = float(errors[worst])

    averages = zip((name for name, _ in named), theirs.average, strict=True)
    for what, mine, other in (
        ("update", ours.weights(), torch_denoiser.named_like_flax(named)),
        ("average", _flat(ours.state.ema["denoiser"]), torch_denoiser.named_like_flax(averages)),
    ):
        moved = sum(np.abs(x - before[k]).sum() for k, x in mine.items())
        same = sum((np.abs(mine[k] - other[k]) < UPDATE_TOLERANCE * rate).sum() for k in mine)
        share = same / sum(x.size for x in mine.values())
        if not (share > UPDATE_SHARE and moved > 0):
            raise UserError(
                f"not the same: {what} of {1 - share:.1%} of weights; nothing was timed"
            )
        found[f"{what}_share"] = float(share)
    return found


def _is_adam(x: Any) -> bool:
    return hasattr(x, "mu")


def _same_draws(config: Any, nets: networks.Networks, ours: JaxStep, theirs: TorchStep) -> Draws:
    """What our first step is going to draw."""
    key = stream(jax.random.key(config.seed), "train", 0)
    points, latents = ours.batch["frame_landmarks"], ours.batch["target_latent"]
    rows = latents.shape[0] * latents.shape[1]
    noise = jax.random.normal(stream(key, "noise"), (rows, *latents.shape[2:]))
    t = jax.random.randint(stream(key, "timestep"), (rows,), 0, nets.schedule.steps)
    jitter = jax.random.normal(stream(key, "jitter"), points.shape).reshape(rows, -1, 2)
    device = theirs.model.conv_in.weight.device
    t, noise, jitter = (torch.tensor(np.asarray(x), device=device) for x in (t, noise, jitter))
    return Draws(t.long(), theirs.to_layout(noise), jitter)


# ---- time ---------------------------------------------------------------------------------------


def take_turns(runners: dict[str, Callable[[], None]], rounds: int) -> dict[str, np.ndarray]:
    """Seconds of each turn of each runner, by the clock and of processor: (rounds, 2).

    The order is turned round every time.
    """
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runners}
    for turn in range(rounds):
        for name in list(runners)[:: 1 if turn % 2 else -1]:
            clock, processor = time.perf_counter(), time.process_time()
            runners[name]()
            seconds[name].append((time.perf_counter() - clock, time.process_time() - processor))
    return {name: np.asarray(turns) for name, turns in seconds.items()}


def summary(seconds: np.ndarray, steps: int) -> dict[str, Any]:
    """Milliseconds a step: the quartiles by the clock, the median of processor time."""
    clock, processor = seconds.T / steps * 1e3
    return {
        "ms": np.percentile(clock, [25, 50, 75]).round(1).tolist(),
        "processor_ms": round(float(np.median(processor)), 1),
    }


def ratio(one: np.ndarray, other: np.ndarray) -> dict[str, list[float]]:
    """Quartiles of one's seconds over other's, turn by turn."""
    quartiles = np.percentile(one / other, [25, 50, 75], axis=0).round(3)
    return {"clock": quartiles[:, 0].tolist(), "processor": quartiles[:, 1].tolist()}


def measured_peak(device: str, dtype: str) -> dict[str, float]:
    """TFLOP/s of a large square matrix product in both frameworks, the best of ten."""
    size = 2048 if device == "cpu" else 8192
    ours = jnp.ones((size, size), dtype)
    product = jax.jit(jnp.matmul)
    theirs = torch.ones((size, size), dtype=getattr(torch, dtype), device=device)
    runners = {
        "jax": lambda: product(ours, ours).block_until_ready(),
        "torch": lambda: (theirs @ theirs)[0, 0].item(),
    }
    take_turns(runners, 2)
    return {k: 2e-12 * size**3 / v[:, 0].min() for k, v in take_turns(runners, 10).items()}


def runners_of(ours: JaxStep, theirs: dict[str, TorchStep], steps: int) -> dict[str, Callable]:
    """What takes a turn: so many steps, waited for."""

    def jax_turn() -> None:
        for _ in range(steps):
            ours.step()
        ours.metrics["loss"].block_until_ready()

    def torch_turn(other: TorchStep) -> Callable[[], None]:
        batch = other.place({name: np.asarray(x) for name, x in ours.batch.items()})

        def run() -> None:
            for _ in range(steps):
                other.step(batch)
            other.metrics["loss"].item()

        return run

    return {"jax": jax_turn} | {name: torch_turn(other) for name, other in theirs.items()}


def make_parser() -> commands.Parser:
    """Returns the parser of the command line."""
    parser = commands.Parser(__doc__, prog="train_step.py")
    add = parser.add_argument
    add(
        "--config",
        default="configs/demo_128.py:diffusion",
        metavar="FILE",
        help="configuration of stage diffusion (default: %(default)s)",
    )
    add(
        "--rounds",
        type=commands.bounded(int, 1),
        default=7,
        help="turns of each framework (default: %(default)s)",
    )
    add(
        "--steps",
        type=commands.bounded(int, 1),
        default=5,
        help="steps in a turn (default: %(default)s)",
    )
    add(
        "--variants",
        type=commands.comma_separated,
        default=list(VARIANTS),
        help=f"variants of PyTorch: {', '.join(VARIANTS)} (default: all)",
    )
    add(
        "--peak_tflops",
        type=float,
        default=0.0,
        help="peak TFLOP/s of the device; 0 measures it with a large matrix product (default: 0)",
    )
    return parser


def main(argv: Sequence[str]) -> None:
    """Compares, times and reports."""
    given, overrides = make_parser().parse_known_args(argv)
    if not set(given.variants) <= set(VARIANTS):
        raise UserError(f"--variants must be some of {', '.join(VARIANTS)}")
    config = ConfigDict(configuration.load(given.config, overrides))
    config.denoiser.remat = "none"  # PyTorch here recomputes nothing
    if config.stage != "diffusion":
        raise UserError(f"this benchmark is for stage diffusion, not {config.stage}")
    config.optimizer.warmup_steps = 0  # so that the first step moves weights enough to compare
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("JAX sees a GPU, PyTorch does not; install its CUDA build")

    exact = ConfigDict(config)
    exact.dtype = "float32"
    nets = networks.make_networks(exact)
    batch = make_batch(config, nets)
    with jax.default_matmul_precision("highest"):
        ours = JaxStep(exact, batch)
    weights, rates = ours.weights(), np.asarray(ours.schedule(jnp.arange(1000)))

    def torch_step(config: Any, variant: str) -> TorchStep:
        return TorchStep(
            config,
            nets,
            weights,
            rates,
            device,
            channels_last="channels_last" in variant,
            compiled="compile" in variant,
        )

    agreement = check_agreement(exact, nets, ours, torch_step(exact, "eager"))
    if config.dtype != "float32" or device != "cpu":
        ours = JaxStep(config, batch)
        torch.set_float32_matmul_precision("high")  # JAX's default on GPUs
    theirs, unavailable = {}, {}
    for variant in given.variants:
        other = torch_step(config, variant)
        try:
            other.step(other.place(batch))  # compiles
            theirs[variant] = other
        except Exception as error:  # of many kinds, where inductor finds no compiler
            unavailable[variant] = f"{type(error).__name__}: {error}"[:200]
    counter = FlopCounterMode(display=False)
    with counter:
        other = torch_step(config, "eager")
        placed = other.place(batch)
        other.gradients(placed, other.draw(placed))

    runners = runners_of(ours, theirs, given.steps)
    take_turns(runners, 2)  # warm up
    seconds = take_turns(runners, given.rounds)
    peaks = (
        {"given": given.peak_tflops} if given.peak_tflops else measured_peak(device, config.dtype)
    )
    tflop, times = counter.get_total_flops() / 1e12, {}
    for name, turns in seconds.items():
        times[name] = summary(turns, given.steps)
        times[name]["mfu"] = round(tflop / times[name]["ms"][1] * 1e3 / max(peaks.values()), 3)
    best = min(theirs, key=lambda name: times[name]["ms"][1], default=None)
    print(json.dumps({
        "device": jax.devices()[0].device_kind,
        "dtype": config.dtype,
        "batch": [config.batch_size, config.data.frames],
        "latent": nets.latent_shape,
        "channels": list(nets.denoiser.config.channels),
        "parameters": sum(x.size for x in weights.values()),
        "agreement": agreement,
        "gflop": round(tflop * 1e3, 2),
        "gflop_xla": round(metrics.compiled_costs(ours.compiled)["flops"] / 1e9, 2),
        "peak_tflops": {name: round(x, 3) for name, x in peaks.items()},
        "times": times,
        "unavailable": unavailable,
        "best_torch": best,
        "torch_over_jax": best and ratio(seconds[best], seconds["jax"]),
    }))  # fmt: skip


if __name__ == "__main__":
    commands.run(main)
