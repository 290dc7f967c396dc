"""An explicit warp of reference images to the target's landmarks.

The paper (arXiv 2408.05416, section 3.2) hides the mouth of the target in grey, and warps the
reference implicitly, by attention. This project can also show the networks a first guess of what
is hidden: the references, bent so that their landmarks come to lie on the target's. It holds for
people that nobody trained on, and at the resolution of pixels.

Everything is differentiable in the landmarks, so the loss of the images reaches the landmark
network through the warp as well.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from talkjax.models import positions

# Crop units: standard deviations of the weights of landmarks around a place, and of displacements
# around the nearest landmark: collars do not move with the jaw.
SIGMA, REACH = 0.025, 0.1
# Mean distance of lips, in crop units, at which a reference counts 1/e of one without any.
LIKENESS = 0.004
_STEP = 8  # px between the places at which displacements are computed


def displacement(points: jax.Array, landmarks: jax.Array, references: jax.Array) -> jax.Array:
    """Computes where from a place the same place of each reference lies.

    Args:
      points: (B, N, 2) places in the target image, in crop coordinates.
      landmarks: (B, K, 2) landmarks of the target image.
      references: (B, R, K, 2) landmarks of the reference images.

    Returns:
      (B, R, N, 2) in crop units.
    """
    batch, count, known, _ = references.shape
    distance = positions.squared_distance(points, landmarks)
    weights = jax.nn.softmax(-distance / (2 * SIGMA**2), axis=-1)  # of all references
    offsets = (references - landmarks[:, None]).swapaxes(1, 2).reshape(batch, known, 2 * count)
    moved = positions.mean_position(weights, offsets)
    moved *= jnp.exp(-distance.min(-1, keepdims=True) / (2 * REACH**2))
    return moved.reshape(batch, -1, count, 2).swapaxes(1, 2)


def likeness(landmarks: jax.Array, references: jax.Array, lips: slice) -> jax.Array:
    """Weighs references by how near the shape of their lips is to the target's.

    Args:
      landmarks: (B, K, 2) landmarks of the target image.
      references: (B, R, K, 2) landmarks of the reference images.
      lips: Which landmarks are lips.

    Returns:
      (B, R) weights of sum 1. They change smoothly with the landmarks, so videos do not flicker.
    """
    difference = references[:, :, lips] - landmarks[:, None, lips]
    difference -= difference.mean(-2, keepdims=True)  # not the place
    distance = jnp.abs(difference).mean((-2, -1)) / LIKENESS
    return jax.nn.softmax(-jnp.square(distance), axis=-1)


def sample_bilinear(images: jax.Array, places: jax.Array) -> jax.Array:
    """Reads images at places between their pixels.

    Args:
      images: (N, H, W, C).
      places: (N, h, w, 2) as (x, y) in pixels; the centre of the first pixel is (0, 0). Outside of
        the image, its border is repeated.

    Returns:
      (N, h, w, C).
    """
    count, height, width, channels = images.shape
    limit = jnp.asarray([width - 1, height - 1], jnp.float32).reshape(1, 1, 1, 2)
    places = jnp.clip(places, 0.0, limit)
    low = jnp.minimum(jnp.floor(places), jnp.maximum(limit - 1, 0))
    share = places - low
    column, row = (low[..., axis].astype(jnp.int32) for axis in (0, 1))
    start = row * width + column  # (N, h, w)
    pixels = images.reshape(count, height * width, channels)

    def read(offset: int) -> jax.Array:
        index = jnp.minimum(start + offset, height * width - 1).reshape(count, -1, 1)
        return jnp.take_along_axis(pixels, index, axis=1).reshape(*start.shape, channels)

    x, y = share[..., :1], share[..., 1:]
    above = read(0) * (1 - x) + read(1) * x
    below = read(width) * (1 - x) + read(width + 1) * x
    return above * (1 - y) + below * y


class Field(NamedTuple):
    """How references are warped and mixed.

    Attributes:
      moved: (B, R, n, m, 2) displacements on a grid of cells over the region, in crop units.
      weights: (B, R) see `likeness`.
    """

    moved: jax.Array
    weights: jax.Array


def make_field(
    references: jax.Array,
    landmarks: jax.Array,
    region: tuple[float, ...],
    shape: tuple[int, int],
    lips: slice,
) -> Field:
    """Computes the warp of reference images to the target's landmarks.

    Args:
      references: (B or 1, R, K, 2) landmarks of the references, in crop coordinates.
      landmarks: (B, K, 2) landmarks of the target.
      region: What the images show, (y0, x0, y1, x1) in crop coordinates.
      shape: Height and width of the images; the grid has a cell for 8 x 8 px.
      lips: See `likeness`.
    """
    batch = landmarks.shape[0]
    references = jnp.broadcast_to(references, (batch, *references.shape[1:]))
    count = references.shape[1]
    coarse = max(shape[0] // _STEP, 1), max(shape[1] // _STEP, 1)
    grid = positions.grid_positions(*coarse, region)[None]
    grid = jnp.broadcast_to(grid, (batch, *grid.shape[1:]))
    moved = displacement(grid, landmarks, references)
    return Field(moved.reshape(batch, count, *coarse, 2), likeness(landmarks, references, lips))


def warp_references(
    images: jax.Array,
    field: Field,
    region: tuple[float, ...],
    part: tuple[slice, slice] = (slice(None), slice(None)),
) -> jax.Array:
    """Warps reference images to the target's landmarks and mixes them.

    Args:
      images: (B or 1, R, H, W, 3) references, which show `region`.
      field: Output of `make_field`.
      region: What the images show, (y0, x0, y1, x1) in crop coordinates.
      part: Rows and columns that are wanted.

    Returns:
      (B, H, W, 3), or the part of it: what the references show at the target's landmarks; those
      whose lips are like the target's count most.
    """
    batch, count = field.weights.shape
    height, width, channels = images.shape[2:]
    images = jnp.broadcast_to(images, (batch, *images.shape[1:]))
    moved = field.moved.reshape(-1, *field.moved.shape[2:])
    moved = jax.image.resize(moved, (batch * count, height, width, 2), "linear")
    y0, x0, y1, x1 = region
    scale = jnp.asarray([width / (x1 - x0), height / (y1 - y0)]).reshape(1, 1, 1, 2)
    y, x = jnp.meshgrid(
        jnp.arange(height, dtype=jnp.float32), jnp.arange(width, dtype=jnp.float32), indexing="ij"
    )
    places = (jnp.stack([x, y], -1)[None] + moved * scale)[:, *part]
    warped = sample_bilinear(images.reshape(-1, height, width, channels), places)
    warped = warped.reshape(batch, count, *places.shape[1:3], channels)
    return (warped * field.weights[:, :, None, None, None]).sum(1)
