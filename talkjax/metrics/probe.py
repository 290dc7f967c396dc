"""Measures whether a denoiser uses its landmarks and its reference, and how well its warp aligns.

A model can look good while one of its conditions has no effect. Two measurements on held-out
windows show this: how much the estimate of the mouth deteriorates when a condition is dropped or
replaced by a wrong one, and how far the location in the reference to which a facial point attends
is from that point's true location there.
"""

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from talkjax.conventions import LIPS_SLICE, NUM_POSE
from talkjax.diffusion import schedules
from talkjax.models import positions, talkformer
from talkjax.networks import Networks

TIMESTEPS = (0.9, 0.6)  # shares of the schedule: the image is hardly visible, and partly visible
CONDITIONS = (
    "all", "no landmarks", "another frame's landmarks", "no reference", "another person's reference"
)  # fmt: skip
BATCH_KEYS = (
    "target_latent", "masked_latent", "reference_latent", "frame_landmarks",
    "image_reference_landmarks",
)  # fmt: skip

Batch = dict[str, jax.Array]


def probe_denoiser(
    nets: Networks, params: Any, batches: Iterable[Batch], seed: int = 0
) -> dict[str, Any]:
    """Probes a denoiser.

    Args:
      nets: Networks of the checkpoint.
      params: Parameters with the entry "denoiser".
      batches: Batches of the stage `diffusion` with latents, each of B > 1 different clips.
      seed: Seed of the noise.

    Returns:
      {"x0_l1": {condition: mean absolute error of the one-step estimate around the mouth},
      "warp": {"own" or "other": {block: {"error", "identity", "kernel"}}}}. The warp is measured
      for a reference of the same person ("own") and of another ("other"). Its numbers are mean
      distances in crop units from the lip and jaw points of the reference to the attended locations
      ("error"), to the same points of the target ("identity", no warp), and to the correspondence
      that the kernel starts from ("kernel"). It is {} without reference alignment.

    Raises:
      ValueError: There is no batch.
    """
    run = jax.jit(functools.partial(_probe, nets))
    totals: Any = None
    count = 0
    for number, batch in enumerate(batches):
        key = jax.random.fold_in(jax.random.key(seed), number)
        found = jax.device_get(run(params["denoiser"], batch, key))
        totals = found if totals is None else jax.tree.map(np.add, totals, found)
        count += 1
    if not count:
        raise ValueError("there is no batch to probe the denoiser with")
    return jax.tree.map(lambda x: float(x / count), totals)


def _probe(nets: Networks, params: Any, batch: Batch, key: jax.Array) -> dict[str, Any]:
    first = {k: v[:, 0] for k, v in batch.items() if k in ("target_latent", "masked_latent")}
    points = batch["frame_landmarks"][:, 0]
    x0 = nets.to_state(first["target_latent"], first["masked_latent"])
    noise = jax.random.normal(key, x0.shape)
    near = _near_lips(nets, points)
    cases = [_case(batch, points, name) for name in CONDITIONS]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *cases)

    def error_at(case: _Case, t: jax.Array) -> jax.Array:
        z = schedules.add_noise(nets.schedule, x0, noise, t)
        output = _denoise(nets, params, first["masked_latent"], z, t, case)
        estimate = schedules.predict_x0(nets.schedule, nets.prediction, output, z, t)
        error = (jnp.abs(estimate - x0).mean(-1) * near).sum() / near.sum()
        return (nets.residual_scale or 1.0) * error

    steps = jnp.array([round(share * nets.schedule.steps) for share in TIMESTEPS], jnp.int32)
    times = jnp.repeat(steps[:, None], x0.shape[0], axis=1)

    # Loops, because a denoiser for each condition and timestep takes long to compile.
    def error_of(case: _Case) -> jax.Array:
        return jax.lax.map(lambda t: error_at(case, t), times).mean()

    errors = dict(zip(CONDITIONS, jax.lax.map(error_of, stacked), strict=True))
    names = "reference_latent", "image_reference_landmarks"
    both = {name: jnp.stack([batch[name], jnp.roll(batch[name], 1, 0)]) for name in names}
    warps = jax.lax.map(
        lambda references: _warp(nets, params, references, points, x0, first["masked_latent"]), both
    )
    warp = {
        name: jax.tree.map(lambda x, index=index: x[index], warps)
        for index, name in enumerate(("own", "other"))
    }
    return {"x0_l1": errors, "warp": warp}


def _near_lips(nets: Networks, points: jax.Array) -> jax.Array:
    """Returns (B, h, w): 1 in masked cells within one cell of the lips' bounding box, else 0."""
    h, w, _ = nets.latent_shape
    grid = positions.grid_positions(h, w, nets.region).reshape(1, h, w, 2)
    margin = 1.0 / max(h, w)
    lips = points[:, LIPS_SLICE]
    low, high = (x[:, None, None] for x in (lips.min(1) - margin, lips.max(1) + margin))
    inside = ((grid >= low) & (grid <= high)).all(-1)
    return inside.astype(jnp.float32) * jnp.asarray(nets.mask)[None]


class _Case(NamedTuple):
    """What a denoiser is given under one of `CONDITIONS`."""

    points: jax.Array
    reference: jax.Array
    own: jax.Array  # landmarks of the reference
    keep_landmarks: jax.Array
    keep_reference: jax.Array


def _case(batch: Batch, points: jax.Array, condition: str) -> _Case:
    reference, own = batch["reference_latent"], batch["image_reference_landmarks"]
    yes = jnp.ones((points.shape[0],), bool)
    case = _Case(points, reference, own, yes, yes)
    if condition == "no landmarks":
        return case._replace(keep_landmarks=~yes)
    if condition == "no reference":
        return case._replace(keep_reference=~yes)
    if condition == "another frame's landmarks":
        # Lips and jaw of the same person's reference frame, with the pose of this frame.
        mixed = jnp.concatenate([points[:, :NUM_POSE], own[:, 0, NUM_POSE:]], 1)
        return case._replace(points=mixed)
    if condition == "another person's reference":
        return case._replace(reference=jnp.roll(reference, 1, 0), own=jnp.roll(own, 1, 0))
    return case


def _denoise(
    nets: Networks, params: Any, masked: jax.Array, z: jax.Array, t: jax.Array, case: _Case
) -> jax.Array:
    conditions = nets.denoiser.apply(
        {"params": params}, masked, jnp.asarray(nets.mask), *case, method="conditions"
    )
    return nets.denoiser.apply({"params": params}, z, t, conditions, method="denoise")


def _warp(
    nets: Networks,
    params: Any,
    references: Batch,
    points: jax.Array,
    x0: jax.Array,
    masked: jax.Array,
) -> dict[str, dict[str, jax.Array]]:
    """Measures where in the reference the target's lip and jaw points attend to."""
    config = nets.denoiser.config.talkformer
    if not config.reference_align:
        return {}
    own = references["image_reference_landmarks"]
    yes = jnp.ones((points.shape[0],), bool)
    conditions = nets.denoiser.apply(
        {"params": params}, masked, jnp.asarray(nets.mask), points,
        references["reference_latent"], own, yes, yes, method="conditions",
    )  # fmt: skip
    t = jnp.full((points.shape[0],), round(0.6 * nets.schedule.steps), jnp.int32)
    z = schedules.add_noise(nets.schedule, x0, jnp.zeros_like(x0), t)
    _, state = nets.denoiser.apply(
        {"params": params}, z, t, conditions, method="denoise", mutable=["intermediates"],
        capture_intermediates=lambda m, _: isinstance(m, talkformer.KernelAttention),
    )  # fmt: skip
    found = {}
    for name, block in state["intermediates"].items():
        if "reference" not in block:
            continue
        (_, weights), *_ = block["reference"]["attention"]["__call__"]  # (B, H, N, M)
        level = _level(nets, weights.shape[-2])
        h, w = level
        grid = positions.grid_positions(h, w, config.region)
        first = own[:, 0]
        content, wanted = points[:, NUM_POSE:], first[:, NUM_POSE:]
        cell = positions.squared_distance(
            content, jnp.broadcast_to(grid[None], (points.shape[0], *grid.shape))
        ).argmin(-1)  # (B, K), the cell that contains a point
        at = jnp.take_along_axis(weights.mean(1), cell[..., None], axis=1)  # (B, K, M)
        inside = grid[cell]
        offset = content - inside
        matched = positions.corresponding_points(inside, points, first, config.sigma)
        places = {
            "error": positions.mean_position(
                at, conditions.reference[name.removeprefix("talk_")].points
            )
            + offset,
            "identity": content,
            "kernel": matched + offset,
        }
        # Points outside the region have no cell.
        y0, x0_, y1, x1 = config.region
        low, high = (jnp.asarray(v, jnp.float32).reshape(1, 1, 2) for v in ((x0_, y0), (x1, y1)))
        seen = ((content > low) & (content < high) & (wanted > low) & (wanted < high)).all(-1)
        seen = seen.astype(jnp.float32)
        found[name] = {
            key: (jnp.linalg.norm(place - wanted, axis=-1) * seen).sum() / seen.sum()
            for key, place in places.items()
        }
    return found


def _level(nets: Networks, cells: int) -> tuple[int, int]:
    h, w, _ = nets.latent_shape
    for s in range(len(nets.denoiser.config.channels)):
        if (h >> s) * (w >> s) == cells:
            return h >> s, w >> s
    raise ValueError(f"no resolution has {cells} cells")
