"""How the head moves: similarity and affine fits to the points that speech does not move.

A *transform* is a (2, 3) matrix that takes frame coordinates to crop coordinates. Both are
continuous: frame coordinates are pixels with the centre of the first pixel at (0.5, 0.5); crop
coordinates are the unit square, (0, 0) its top left corner. It is a similarity (rotation, one
scale, shift), fitted to `conventions.RIGID` alone and smoothed over time, so nothing that speech
moves can be read off a crop, its mask or its normalised pose (arXiv 2408.05416 gives pose and
hides content; this is what keeps that honest).

That the *points* given as pose exclude jaw and lips is not enough: a landmark detector regresses
all of them together, and its tiny errors in eyes and nose follow the mouth so well that a linear
readout of raw pose points recovers its opening (correlation 0.96 on one speaker's held-out clips).
So the networks never see them. They see `steady_pose`: one fixed shape per clip, moved by a
smoothed affine fit.
"""

import numpy as np

from talkjax import conventions

# Where the template's eyes land in the crop: the chin of a wide open mouth stays inside.
EYE_CENTRE = (0.5, 0.22)
INTEROCULAR = 0.30
SMOOTHING_SECONDS = 0.12  # of the crop
# Of the pose's motion: the shortest at which a linear readout of it (and of half a second around)
# tells no more about the mouth's opening than the place in the sentence does.
MOTION_SECONDS = 0.3

# A generic frontal face: left half in interocular units around the point between the eyes
# (x right, y down); the right half is its mirror image. In the order of `conventions.LEFT_EYE`, ...
# fmt: off
_LEFT_EYE = (
    (-0.705, -0.002), (-0.683, -0.016), (-0.655, -0.033), (-0.606, -0.055), (-0.527, -0.07),
    (-0.445, -0.068), (-0.36, -0.045), (-0.299, -0.008), (-0.271, 0.018), (-0.295, 0.025),
    (-0.346, 0.032), (-0.422, 0.048), (-0.501, 0.057), (-0.581, 0.053), (-0.634, 0.04),
    (-0.671, 0.024),
)
_LEFT_BROW = (
    (-0.905, -0.273), (-0.812, -0.373), (-0.663, -0.424), (-0.467, -0.414), (-0.236, -0.381),
    (-0.207, -0.242), (-0.451, -0.327), (-0.632, -0.339), (-0.763, -0.302), (-0.851, -0.224),
)
# fmt: on
_BRIDGE = ((0.0, -0.084), (0.0, 0.047), (0.0, 0.164), (0.0, 0.273), (0.0, 0.389))


def _template() -> tuple[np.ndarray, np.ndarray]:
    eye, brow = np.array(_LEFT_EYE), np.array(_LEFT_BROW)
    mirror = np.array([-1.0, 1.0])
    points = np.concatenate([eye, eye * mirror, brow, brow * mirror, np.array(_BRIDGE)])
    # Lids blink and brows rise; eye corners and the bridge are bone.
    weights = np.concatenate([np.full(32, 0.5), np.full(20, 0.25), np.full(len(_BRIDGE), 2.0)])
    for corner in (33, 133, 263, 362):
        weights[conventions.RIGID.index(corner)] = 4.0
    return points * INTEROCULAR + np.array(EYE_CENTRE), weights


TEMPLATE, WEIGHTS = _template()


def fit_similarity(rigid: np.ndarray) -> np.ndarray:
    """Weighted least-squares similarity from rigid points to the template.

    Args:
      rigid: (N, 57, 2) frame coordinates of `conventions.RIGID`.

    Returns:
      (N, 4) parameters (log scale, angle, x, y): the last two are the frame point that lands on
      `EYE_CENTRE`. Chosen so that averaging them over time is meaningful.
    """
    weights = WEIGHTS / WEIGHTS.sum()
    source = rigid[..., 0].astype(np.float64) + 1j * rigid[..., 1]
    target = TEMPLATE[:, 0] + 1j * TEMPLATE[:, 1]
    source_mean = (source * weights).sum(-1, keepdims=True)
    target_mean = (target * weights).sum()
    source_c, target_c = source - source_mean, target - target_mean
    factor = (np.conj(source_c) * target_c * weights).sum(-1) / (
        np.abs(source_c) ** 2 * weights
    ).sum(-1)
    centre = (EYE_CENTRE[0] + 1j * EYE_CENTRE[1] - target_mean) / factor + source_mean[..., 0]
    return np.stack([np.log(np.abs(factor)), np.angle(factor), centre.real, centre.imag], -1)


def transforms_from_parameters(parameters: np.ndarray) -> np.ndarray:
    """(N, 4) parameters of `fit_similarity` to (N, 2, 3) transforms."""
    log_scale, angle, x, y = np.moveaxis(parameters, -1, 0)
    a, b = np.exp(log_scale) * np.cos(angle), np.exp(log_scale) * np.sin(angle)
    linear = np.stack([np.stack([a, -b], -1), np.stack([b, a], -1)], -2)
    centre = np.stack([x, y], -1)
    shift = np.array(EYE_CENTRE) - np.einsum("...ij,...j->...i", linear, centre)
    return np.concatenate([linear, shift[..., None]], -1)


def smooth(
    values: np.ndarray,
    times: np.ndarray,
    at: np.ndarray | None = None,
    sigma: float = SMOOTHING_SECONDS,
) -> np.ndarray:
    """Gaussian average over time, cut at three sigma.

    Args:
      values: (N, D) samples; angles must not wrap within a window.
      times: (N,) seconds, increasing.
      at: (M,) times wanted; the samples' own by default.
      sigma: seconds.

    Returns:
      (M, D).
    """
    at = times if at is None else at
    reach = 3 * sigma
    out = np.empty((len(at), values.shape[1]))
    for i, time in enumerate(at):
        lo, hi = np.searchsorted(times, [time - reach, time + reach + 1e-9])
        lo, hi = min(lo, len(times) - 1), max(hi, lo + 1)
        weight = np.exp(-0.5 * ((times[lo:hi] - time) / sigma) ** 2) + 1e-12
        out[i] = (values[lo:hi] * weight[:, None]).sum(0) / weight.sum()
    return out


def fit_transforms(mesh: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Smoothed frame-to-crop transforms of a clip.

    Args:
      mesh: (N, 478, 2 or 3) FaceMesh points in frame coordinates; every row finite.
      times: (N,) seconds.

    Returns:
      (N, 2, 3) float64 transforms.
    """
    parameters = fit_similarity(conventions.select(mesh, conventions.RIGID))
    parameters[:, 1] = np.unwrap(parameters[:, 1])
    return transforms_from_parameters(smooth(parameters, np.asarray(times, np.float64)))


def apply_transforms(points: np.ndarray, transforms: np.ndarray) -> np.ndarray:
    """Frame coordinates (N, K, 2) to crop coordinates (N, K, 2)."""
    linear, shift = transforms[..., :2], transforms[..., 2]
    return np.einsum("nij,nkj->nki", linear, points) + shift[:, None, :]


def invert(transforms: np.ndarray) -> np.ndarray:
    """The inverses of (..., 2, 3) transforms, of the same shape."""
    linear = np.linalg.inv(transforms[..., :2])
    return np.concatenate([linear, -linear @ transforms[..., 2:]], -1)


def fit_affine(rigid: np.ndarray) -> np.ndarray:
    """Weighted least-squares affine maps from the template to points.

    Args:
      rigid: (N, 57, 2) `conventions.RIGID`, in any coordinates.

    Returns:
      (N, 2, 3): template (crop) coordinates to those of the points.
    """
    source = np.concatenate([TEMPLATE, np.ones((len(TEMPLATE), 1))], 1)
    solve = np.linalg.solve(source.T @ (source * WEIGHTS[:, None]), (source * WEIGHTS[:, None]).T)
    return np.einsum("kp,npd->ndk", solve, rigid.astype(np.float64))


def compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """The (N, 2, 3) maps that do `inner` (N, 2, 3) first, then `outer` (N, 2, 3)."""
    linear = outer[..., :2] @ inner[..., :2]
    shift = outer[..., :2] @ inner[..., 2:] + outer[..., 2:]
    return np.concatenate([linear, shift], -1)


def pose_shape(points: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """A person's pose points at rest: the mean over frames, head motion taken out.

    Args:
      points: (N, 74, 2) `conventions.POSE`.
      maps: (N, 2, 3) the frames' `fit_affine`, in the same coordinates.

    Returns:
      (74, 2) template coordinates.
    """
    return apply_transforms(points, invert(maps)).mean(0)


def steady_pose(
    landmarks: np.ndarray, transforms: np.ndarray, times: np.ndarray, found: np.ndarray
) -> np.ndarray:
    """The pose that the networks get: a clip's fixed shape under a smoothed affine motion.

    Args:
      landmarks: (N, 131, 2) measured, crop coordinates.
      transforms: (N, 2, 3) the frames' smoothed transforms.
      times: (N,) seconds.
      found: (N,) bool, whether a frame's landmarks were measured (for the shape); any, if none.

    Returns:
      (N, 74, 2) float32, crop coordinates.
    """
    in_crop = fit_affine(landmarks[:, conventions.positions(conventions.RIGID)])
    used = found if found.any() else np.ones(len(found), bool)
    shape = pose_shape(landmarks[used, : conventions.NUM_POSE].astype(np.float64), in_crop[used])
    # Smoothed in the frame's coordinates: the crop's own motion would come back otherwise.
    transforms = np.asarray(transforms, np.float64)
    in_frame = compose(invert(transforms), in_crop)
    times = np.asarray(times, np.float64)
    smoothed = smooth(in_frame.reshape(-1, 6), times, sigma=MOTION_SECONDS).reshape(-1, 2, 3)
    motion = compose(transforms, smoothed)
    return apply_transforms(np.broadcast_to(shape, (len(motion), *shape.shape)), motion).astype(
        np.float32
    )
