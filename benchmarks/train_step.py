r"""Compares the speed of the diffusion stage's train step with the same network in PyTorch.

    uv run --with torch --with diffusers -m benchmarks.train_step \
      [--config=configs/demo_128.py:diffusion] [--config.field=value ...] [--rounds=7] [--steps=5]

Both take whole steps (forward, loss, backward, clipping, AdamW, moving average) on one batch of
random latents. First, in float32, one step of each with the same weights and random numbers must
give the same loss, gradients, update and average; otherwise nothing is timed. Then they take
turns, so that other load on the machine slows all of them alike. PyTorch runs in every variant of
--variants, and the fastest one counts. Prints one JSON line. One device is used; on a GPU, set
--config.dtype=bfloat16 and --peak_tflops.
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
from talkjax.training import costs, plan, sharding, stages, state
from talkjax.training.rng import stream

VARIANTS = ("eager", "eager_channels_last", "compile", "compile_channels_last")

LOSS_TOLERANCE = 1e-5  # relative
GRADIENT_TOLERANCE = 1e-4  # of each parameter's gradient, relative in the Euclidean norm
UPDATE_TOLERANCE = 1e-3  # of each weight's step, in learning rates
UPDATE_SHARE = 0.99  # of the weights: where a gradient is rounding, AdamW steps anywhere


def make_batch(config: Any, nets: networks.Networks) -> dict[str, np.ndarray]:
    """Returns a random batch like those of the loader with cached latents."""
    rng = np.random.default_rng(0)
    rows, frames = config.batch_size, config.data.frames
    normal = lambda *shape: rng.standard_normal(shape, np.float32)  # noqa: E731
    points = lambda *shape: rng.random((*shape, NUM_LANDMARKS, 2), np.float32)  # noqa: E731
    return {
        "target_latent": normal(rows, frames, *nets.latent_shape),
        "masked_latent": normal(rows, frames, *nets.latent_shape),
        "reference_latent": normal(rows, 1, *nets.latent_shape),
        "frame_landmarks": points(rows, frames),
        "image_reference_landmarks": points(rows, 1),
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
        """Takes one training step."""
        self.state, self.metrics = self.compiled(self.state, self.batch)

    def weights(self) -> dict[str, np.ndarray]:
        """Returns the denoiser's weights by path."""
        return _flat(self.state.params["denoiser"])


def _noisy(params: Any) -> Any:
    """Returns parameters with noise: fresh ones have zeros that hide most of the network."""
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda x: x + 0.02 * rng.standard_normal(x.shape, np.float32), jax.device_get(params)
    )


def _flat(tree: Any) -> dict[str, np.ndarray]:
    # Copies, because the buffers are donated to the next step.
    return {k: np.array(v) for k, v in traverse_util.flatten_dict(tree, sep="/").items()}


# ---- agreement ----------------------------------------------------------------------------------


def check_agreement(config: Any, nets: networks.Networks, ours: JaxStep, theirs: TorchStep) -> dict:
    """Takes one step of each and compares the results.

    Returns:
      The largest deviations.

    Raises:
      UserError: The two do not compute the same.
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
    # Unused parameters have no gradient in PyTorch and a gradient of zero in JAX.
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
    """Returns the random numbers that our first step will draw."""
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
    """Times every runner in turn, reversing the order after every round.

    Returns:
      {name: (rounds, 2) seconds of wall clock and of processor time}.
    """
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runners}
    for turn in range(rounds):
        for name in list(runners)[:: 1 if turn % 2 else -1]:
            clock, processor = time.perf_counter(), time.process_time()
            runners[name]()
            seconds[name].append((time.perf_counter() - clock, time.process_time() - processor))
    return {name: np.asarray(turns) for name, turns in seconds.items()}


def summary(seconds: np.ndarray, steps: int) -> dict[str, Any]:
    """Returns milliseconds per step: wall-clock quartiles and the median of processor time."""
    clock, processor = seconds.T / steps * 1e3
    return {
        "ms": np.percentile(clock, [25, 50, 75]).round(1).tolist(),
        "processor_ms": round(float(np.median(processor)), 1),
    }


def ratio(one: np.ndarray, other: np.ndarray) -> dict[str, list[float]]:
    """Returns quartiles of the ratio of two runners' seconds, round by round."""
    quartiles = np.percentile(one / other, [25, 50, 75], axis=0).round(3)
    return {"clock": quartiles[:, 0].tolist(), "processor": quartiles[:, 1].tolist()}


def measured_peak(device: str, dtype: str) -> dict[str, float]:
    """Returns TFLOP/s of a large square matrix product in both frameworks, the best of ten."""
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


def make_runners(ours: JaxStep, theirs: dict[str, TorchStep], steps: int) -> dict[str, Callable]:
    """Returns functions that run `steps` steps and wait for them."""

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
    """Returns the parser of this command's flags."""
    parser = commands.Parser(__doc__, prog="python -m benchmarks.train_step")
    add = parser.add_argument
    add(
        "--config",
        metavar="FILE[:ARGUMENT]",
        default="configs/demo_128.py:diffusion",
        help="configuration file of stage diffusion (default: %(default)s); --config.field=value "
        "changes a field",
    )
    add(
        "--rounds",
        type=commands.bounded(int, 1),
        default=7,
        help="number of turns of each framework (default: %(default)s)",
    )
    add(
        "--steps",
        type=commands.bounded(int, 1),
        default=5,
        help="number of steps per turn (default: %(default)s)",
    )
    add(
        "--variants",
        type=commands.comma_separated,
        default=list(VARIANTS),
        help=f"variants of PyTorch to time (default: {','.join(VARIANTS)})",
    )
    add(
        "--peak_tflops",
        type=commands.bounded(float, 0),
        default=0.0,
        help="peak of the device; 0 measures it with a large matrix product (default: %(default)s)",
    )
    return parser


def main(argv: Sequence[str]) -> None:
    """Checks the agreement, times the steps and prints the result."""
    args, overrides = make_parser().parse_known_args(argv)
    if not set(args.variants) <= set(VARIANTS):
        raise UserError(f"--variants must be among {','.join(VARIANTS)}")
    config = configuration.load(args.config, overrides)
    config.denoiser.remat = "none"  # the step in PyTorch has no rematerialization
    if config.stage != "diffusion":
        raise UserError(f"--config must be of stage diffusion, not {config.stage}")
    config.optimizer.warmup_steps = 0  # so that the first step moves the weights enough
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("JAX finds a GPU but PyTorch does not; install PyTorch's CUDA build")

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
    for variant in args.variants:
        other = torch_step(config, variant)
        try:
            other.step(other.place(batch))  # compiles
            theirs[variant] = other
        except Exception as error:  # of many types, for example if inductor finds no compiler
            unavailable[variant] = f"{type(error).__name__}: {error}"[:200]
    counter = FlopCounterMode(display=False)
    with counter:
        other = torch_step(config, "eager")
        placed = other.place(batch)
        other.gradients(placed, other.draw(placed))

    runners = make_runners(ours, theirs, args.steps)
    take_turns(runners, 2)  # warm up
    seconds = take_turns(runners, args.rounds)
    peaks = {"given": args.peak_tflops} if args.peak_tflops else measured_peak(device, config.dtype)
    tflop, times = counter.get_total_flops() / 1e12, {}
    for name, turns in seconds.items():
        times[name] = summary(turns, args.steps)
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
        "gflop_xla": round(costs.count_flops(ours.compiled) / 1e9, 2),
        "peak_tflops": {name: round(x, 3) for name, x in peaks.items()},
        "times": times,
        "unavailable": unavailable,
        "best_torch": best,
        "torch_over_jax": best and ratio(seconds[best], seconds["jax"]),
    }))  # fmt: skip


def run() -> None:
    """Runs the command."""
    commands.run(main)


if __name__ == "__main__":
    run()
