"""The programs that are compiled: the train step of any stage, and a sampler's batch of frames."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict, FrozenConfigDict

from talkjax import networks
from talkjax.conventions import MEL_WINDOW, NUM_LANDMARKS, NUM_LIPS, NUM_MELS, NUM_POSE, Box
from talkjax.models import sync_expert
from talkjax.sampling import program as sampling_program
from talkjax.sampling import regions
from talkjax.training import plan, sharding, stages

SAMPLING_STEPS = 10  # what sample.py does unless told otherwise


@dataclasses.dataclass(frozen=True)
class Program:
    """What is to be compiled, and how its costs add up.

    Attributes:
      lowered: the whole program.
      samples: of the batch.
      model_flops: FLOPs of a batch without recomputation, all devices together.
      repeats: how often what a loop of it holds is run: the compiler counts the costs of a loop's
        body once. None of this matters to memory.
      body: the loop's body by itself, lowered; None where it is nearly all of the program.
    """

    lowered: jax.stages.Lowered
    samples: int
    model_flops: float
    repeats: int = 1
    body: jax.stages.Lowered | None = None


def batch_shapes(config: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of one sample of `config.stage`, as the loader makes them, with a leading 1."""
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
    if stage == "autoencoder":
        return {
            "target": array(*image, dtype=np.uint8),
            "frame_landmarks": array(NUM_LANDMARKS, 2),
        }
    sample = {}
    if stage in ("landmark", "joint"):
        sample |= {
            "mel": array(data.window, MEL_WINDOW, NUM_MELS),
            "pose": array(data.window, NUM_POSE, 2),
            "content": array(data.window, NUM_LANDMARKS - NUM_POSE, 2),
            "reference_landmarks": array(data.references, NUM_LANDMARKS, 2),
        }
    if stage in ("diffusion", "joint"):
        frames = data.frames
        sample |= {
            "frame_landmarks": array(frames, NUM_LANDMARKS, 2),
            "image_reference_landmarks": array(NUM_LANDMARKS, 2),
            "frame_tick": array(frames),
            "keep_landmarks": array(dtype=np.bool_),
            "keep_reference": array(dtype=np.bool_),
        }
        if data.latents:
            latent = networks.build(config).latent_shape
            sample |= {
                "target_latent": array(frames, *latent),
                "masked_latent": array(frames, *latent),
                "reference_latent": array(*latent),
            }
        else:
            sample |= {
                "target": array(frames, *image, dtype=np.uint8),
                "reference": array(*image, dtype=np.uint8),
            }
    return sample


def train_program(config: Any, devices: list[Any]) -> Program:
    """The whole train step of `config.stage`, with `config.batch_size` samples in all.

    Raises:
      UserError: as `plan.make_plan`.
      ValueError: as `stages.make_stage`.
    """
    planned = plan.make_plan(config, stages.make_stage(config), batch_shapes(config), devices)
    return Program(
        lowered=planned.lower("train"),
        samples=config.batch_size,
        model_flops=_train_flops(_plain(config)) * config.batch_size,
        repeats=config.optimizer.accumulation,
    )


def _plain(config: Any) -> FrozenConfigDict:
    """One sample on one device, nothing computed twice, no kernels that hide what they compute."""
    return changed(
        config,
        {
            "batch_size": 1, "optimizer.accumulation": 1, "mesh.data": 1, "mesh.fsdp": 1,
            "denoiser.remat": "none", "denoiser.talkformer.implementation": "xla",
        },
    )  # fmt: skip


@functools.lru_cache(maxsize=4)  # a search asks for every batch size
def _train_flops(plain: FrozenConfigDict) -> float:
    """FLOPs of the method itself for one sample's step."""
    one = plan.make_plan(
        plain, stages.make_stage(plain), batch_shapes(plain), jax.devices("cpu")[:1]
    )
    return one.lower("train").cost_analysis()["flops"]


def sample_program(config: Any, devices: list[Any], steps: int = SAMPLING_STEPS) -> Program:
    """A batch of `config.batch_size` frames in `steps` evaluations of the denoiser, no guidance.

    Raises:
      UserError, ValueError: as `train_program`.
    """
    frames = config.batch_size
    whole, body = _sampling(config, devices, frames, steps)
    return Program(whole, frames, _sample_flops(_plain(config), steps) * frames, steps, body)


@functools.lru_cache(maxsize=4)
def _sample_flops(plain: FrozenConfigDict, steps: int) -> float:
    """FLOPs of the method itself for one frame."""
    one = _sampling(plain, jax.devices("cpu")[:1], 1, steps)
    whole, evaluation = (part.cost_analysis()["flops"] for part in one)
    return whole + (steps - 1) * evaluation


def _sampling(config: Any, devices: list[Any], frames: int, steps: int) -> tuple[Any, Any]:
    """Lowers the batch of frames, and by itself one evaluation of the denoiser in it."""
    nets = networks.build(config)
    mesh = sharding.make_mesh(-1, 1, devices)
    sharding.check_batch_size(frames, mesh)
    rows, everywhere = sharding.batch_sharding(mesh), NamedSharding(mesh, PartitionSpec())

    def placed(tree: Any, where: NamedSharding) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree)

    shapes = {k: v for k, v in regions.expected_params(nets).items() if k != "landmark"}
    params = placed(shapes, everywhere)
    reference = sampling_program.reference_shapes(nets, params)
    whole = sampling_program.lower(nets, params, reference, frames, rows, everywhere, steps=steps)
    latent = jax.ShapeDtypeStruct((frames, *nets.latent_shape), np.float32)
    points = jax.ShapeDtypeStruct((frames, NUM_LANDMARKS, 2), np.float32)
    flags = jax.ShapeDtypeStruct((frames,), np.bool_)
    motion = jax.eval_shape(nets.motion_context, params["denoiser"], points, points, flags)

    def evaluate(p: Any, z: Any, t: Any, masked: Any, motion: Any, context: Any, keep: Any) -> Any:
        return nets.denoise(p["denoiser"], z, t, masked, motion, context, keep, keep)

    rowwise = placed(
        (latent, jax.ShapeDtypeStruct((frames,), np.int32), latent, motion, flags), rows
    )
    # The grid is the same for all frames, and so not split over them.
    rowwise[3].geometry.update(
        {k: g.replace(points=placed(g.points, everywhere)) for k, g in motion.geometry.items()}
    )
    z, t, masked, motion, keep = rowwise
    body = jax.jit(sharding.on_mesh(mesh, evaluate), out_shardings=rows).lower(
        params, z, t, masked, motion, placed(reference.context, everywhere), keep
    )
    return whole, body


def changed(config: Any, changes: Mapping[str, Any]) -> FrozenConfigDict:
    """A config with other values, {"field.field": value}; the given one stays as it is."""
    copy = ConfigDict(config.to_dict())  # ConfigDict(config) would share what is nested
    copy.update_from_flattened_dict(dict(changes))
    return FrozenConfigDict(copy)
