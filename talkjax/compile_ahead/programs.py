"""The programs that can be compiled: those of a training run, and the sampling of frames."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict, FrozenConfigDict

from talkjax import networks
from talkjax.conventions import MEL_WINDOW, NUM_LANDMARKS, NUM_LIPS, NUM_MELS, NUM_POSE, Box
from talkjax.errors import UserError
from talkjax.models import sync_expert
from talkjax.models.unet import Conditions
from talkjax.sampling import program as sampling_program
from talkjax.sampling import regions
from talkjax.training import plan, sharding, stages

SAMPLING_STEPS = 10  # the default of `sampling.steps`
# The values of latent statistics, which come with data or weights, do not matter here.
_ANY_STATISTICS = {"autoencoder.latent_mean": (0.0,), "autoencoder.latent_std": (1.0,)}


@dataclasses.dataclass(frozen=True)
class Program:
    """A program to compile, and how its costs add up.

    The compiler counts the costs of a loop's body once, hence `repeats` and `body`; neither matters
    to memory.

    Attributes:
      lowered: The whole program.
      samples: Number of samples in a batch.
      model_flops: FLOPs of a batch without recomputation, on all devices together.
      repeats: Number of iterations of the program's loop.
      body: The loop's body alone, lowered; None if it is nearly all of the program.
    """

    lowered: jax.stages.Lowered
    samples: int
    model_flops: float
    repeats: int = 1
    body: jax.stages.Lowered | None = None


def batch_shapes(config: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of a batch of one sample, as the loader makes it for `config.stage`."""
    data, stage = config.data, config.stage

    def array(*shape: int, dtype: Any = np.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((1, *shape), dtype)

    y0, x0, y1, x1 = Box(*config.region).pixels(config.crop_size)
    image = (y1 - y0, x1 - x0, 3)
    if stage == "sync":
        windows = data.window - sync_expert.FRAMES + 1
        steps = sync_expert.STEPS_PER_FRAME * (windows + 2 * data.sound_margin - 1)
        return {
            "lips": array(data.window, *image, dtype=np.uint8),
            "mel": array(steps + sync_expert.STEPS, NUM_MELS),
            "shape": array(windows, 2 * NUM_LIPS),
        }
    references = {
        "reference": array(data.image_references, *image, dtype=np.uint8),
        "image_reference_landmarks": array(data.image_references, NUM_LANDMARKS, 2),
    }
    if stage == "autoencoder":
        return {
            "target": array(*image, dtype=np.uint8),
            "frame_landmarks": array(NUM_LANDMARKS, 2),
        } | (references if config.autoencoder.guided else {})
    sample = {}
    if stage in ("landmark", "joint"):
        heard = config.landmark.past + data.window + config.landmark.future
        sample |= {
            "mel": array(heard, MEL_WINDOW, NUM_MELS),
            "pose": array(data.window, NUM_POSE, 2),
            "content": array(data.window, NUM_LANDMARKS - NUM_POSE, 2),
            "reference_landmarks": array(data.references, NUM_LANDMARKS, 2),
            "reference_mel": array(data.references, MEL_WINDOW, NUM_MELS),
            "reference_heard": array(data.references, dtype=np.bool_),
        }
    if stage in ("diffusion", "joint"):
        frames = data.frames
        sample |= {
            "frame_landmarks": array(frames, NUM_LANDMARKS, 2),
            "image_reference_landmarks": references["image_reference_landmarks"],
            "frame_tick": array(frames),
            "keep_landmarks": array(dtype=np.bool_),
            "keep_reference": array(dtype=np.bool_),
        }
        if data.latents:
            latent = networks.make_networks(config).latent_shape
            sample |= {
                "target_latent": array(frames, *latent),
                "reference_latent": array(data.image_references, *latent),
            }
            if config.denoiser.fill == "grey":
                sample["masked_latent"] = array(frames, *latent)
        if not data.latents or config.denoiser.fill == "warp":
            sample |= {"target": array(frames, *image, dtype=np.uint8)} | references
    return sample


def training_program(config: Any, devices: list[Any], name: str = "train") -> Program:
    """Lowers one of the programs of a training run.

    Args:
      config: See `talkjax.configuration`.
      devices: Devices of the mesh.
      name: A key of `talkjax.training.plan.PROGRAMS`. Of "preview", costs are incomplete: its
        sampling loop counts one iteration.

    Raises:
      UserError: Mesh, batch size, rules or optimizer do not fit together, or the stage has no such
        program.
      ValueError: The config does not describe a stage.
    """
    config = updated(config, _ANY_STATISTICS)
    planned = plan.make_plan(config, stages.make_stage(config), batch_shapes(config), devices)
    if name not in planned.programs:
        raise UserError(
            f"stage {config.stage} has no {name} program with eval.pictures={config.eval.pictures}"
        )
    _, (_, batch, *_) = planned.programs[name]
    samples = next(iter(batch.values())).shape[0]
    return Program(
        lowered=planned.lower(name),
        samples=samples,
        model_flops=_training_flops(_one_sample(config), name) * samples,
        repeats=config.optimizer.accumulation if name == "train" else 1,
    )


def _one_sample(config: Any) -> FrozenConfigDict:
    """Returns the config for one sample on one device, without recomputation.

    Attention uses XLA, because the FLOPs of other kernels are hidden from the cost analysis.
    """
    return updated(
        config,
        {
            "batch_size": 1, "optimizer.accumulation": 1, "mesh.data": 1, "mesh.fsdp": 1,
            "denoiser.remat": "none", "denoiser.talkformer.implementation": "xla",
        },
    )  # fmt: skip


@functools.lru_cache(maxsize=4)  # a search needs it for every batch size
def _training_flops(one_sample: FrozenConfigDict, name: str) -> float:
    """Returns the FLOPs of a training run's program for one sample."""
    devices = jax.devices("cpu")[:1]
    stage = stages.make_stage(one_sample)
    planned = plan.make_plan(one_sample, stage, batch_shapes(one_sample), devices)
    return planned.lower(name).cost_analysis()["flops"]


def sample_program(config: Any, devices: list[Any], steps: int = SAMPLING_STEPS) -> Program:
    """Lowers the sampling of `config.batch_size` frames, without guidance.

    Args:
      config: See `talkjax.configuration`.
      devices: Devices over which the frames are distributed.
      steps: Number of evaluations of the denoiser.

    Raises:
      UserError: The frames cannot be distributed evenly over the devices.
    """
    frames, config = config.batch_size, updated(config, _ANY_STATISTICS)
    whole, evaluation = _lower_sampling(config, devices, frames, steps)
    flops = _sample_flops(_one_sample(config), steps) * frames
    return Program(whole, frames, flops, repeats=steps, body=evaluation)


@functools.lru_cache(maxsize=4)
def _sample_flops(one_sample: FrozenConfigDict, steps: int) -> float:
    """Returns the FLOPs of sampling one frame."""
    lowered = _lower_sampling(one_sample, jax.devices("cpu")[:1], 1, steps)
    whole, evaluation = (program.cost_analysis()["flops"] for program in lowered)
    return whole + (steps - 1) * evaluation


def _lower_sampling(
    config: Any, devices: list[Any], frames: int, steps: int
) -> tuple[jax.stages.Lowered, jax.stages.Lowered]:
    """Lowers the sampling of a batch of frames, and one evaluation of its denoiser alone."""
    nets = networks.make_networks(config)
    mesh = sharding.make_mesh(-1, 1, devices)
    sharding.check_batch_size(frames, mesh)
    batch_sharding = sharding.batch_sharding(mesh)
    replicated = NamedSharding(mesh, PartitionSpec())

    def placed(tree: Any, where: NamedSharding) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree)

    shapes = regions.expected_params(nets)
    params = placed({name: shapes[name] for name in ("autoencoder", "denoiser")}, replicated)
    reference = sampling_program.reference_shapes(nets, params, config.data.image_references)
    whole = sampling_program.lower(
        nets, params, reference, frames, batch_sharding, replicated, steps=steps
    )
    latent = jax.ShapeDtypeStruct((frames, *nets.latent_shape), np.float32)
    points = jax.ShapeDtypeStruct((frames, NUM_LANDMARKS, 2), np.float32)
    flags = jax.ShapeDtypeStruct((frames,), np.bool_)
    motion = jax.eval_shape(
        lambda p, *inputs: nets.denoiser.apply(
            {"params": p["denoiser"]}, *inputs, nets.latent_shape[:2], method="motion_context"
        ),
        params, points, points, flags,
    )  # fmt: skip

    def evaluate(p: Any, z: Any, t: Any, conditions: Any) -> Any:
        return nets.denoiser.apply({"params": p["denoiser"]}, z, t, conditions, method="denoise")

    # The grid, the mask and the reference are the same for all frames, and so not split over them.
    grids = {
        level: placed(geometry, batch_sharding).replace(points=placed(geometry.points, replicated))
        for level, geometry in motion.geometry.items()
    }
    conditions = Conditions(
        masked=placed(latent, batch_sharding),
        mask=placed(jax.ShapeDtypeStruct(nets.mask.shape, np.float32), replicated),
        motion=placed(motion, batch_sharding).replace(geometry=grids),
        reference=placed(reference.context, replicated),
        keep_landmarks=placed(flags, batch_sharding),
        keep_reference=placed(flags, batch_sharding),
    )
    timesteps = jax.ShapeDtypeStruct((frames,), np.int32)
    evaluation = jax.jit(sharding.on_mesh(mesh, evaluate), out_shardings=batch_sharding).lower(
        params, placed(latent, batch_sharding), placed(timesteps, batch_sharding), conditions
    )
    return whole, evaluation


def updated(config: Any, changes: Mapping[str, Any]) -> FrozenConfigDict:
    """Returns a copy of a config with other values, {"field.field": value}."""
    copy = ConfigDict(config.to_dict())  # ConfigDict(config) would share nested fields
    copy.update_from_flattened_dict(dict(changes))
    return FrozenConfigDict(copy)


# (config, devices) -> Program, by the value of --step.
PROGRAMS: dict[str, Callable[[Any, list[Any]], Program]] = {
    **{name: functools.partial(training_program, name=name) for name in plan.PROGRAMS},
    "sample": sample_program,
}
