"""Head pose: similarity and affine fits to the landmarks that speech does not move.

A *transform* is a (2, 3) matrix that maps frame coordinates to crop coordinates. Both are
continuous. Frame coordinates are pixels, and the centre of the first pixel is at (0.5, 0.5). Crop
coordinates are the unit square, and (0, 0) is its top left corner. A transform is a similarity
(rotation, one scale, shift) that is fitted to `conventions.RIGID` alone, and whose errors are taken
out by the motion of the upper face's pixels (`StreamingHeadPose`), so nothing that speech moves can
be read off a crop, its mask or its normalized pose. The method (arXiv 2408.05416) gives the
networks the pose and hides the content; this module keeps the two apart.

Leaving jaw and lips out of the pose *points* is not enough. A landmark detector regresses all
points together, and its small errors in the eyes and nose follow the mouth: a linear readout of raw
pose points recovers the mouth's opening with a correlation of 0.96 on held-out clips of one
speaker. The networks therefore never see raw pose points. They see the output of `normalize_pose`:
one fixed shape per clip, moved by a smoothed affine fit.

`StreamingHeadPose` processes footage as it arrives, and `fit_transforms` a whole clip.
"""

import numpy as np

from talkjax import conventions
from talkjax.smoothing import StreamingSmoother, smooth

EYE_CENTRE = (0.5, 0.22)  # leaves room in the crop for the chin of a wide open mouth
INTEROCULAR = 0.30
SMOOTHING_SECONDS = 0.12  # sigma for the fits where there are no pictures to correct them by
ERROR_SECONDS = 0.3  # sigma for the error that pictures cannot tell from a slow motion
# Sigma for the motion of the pose. It is the shortest at which a linear readout of the motion (and
# of half a second around it) predicts the mouth's opening no better than the time within the
# sentence does.
MOTION_SECONDS = 0.3
_BLINK = 0.01  # crop units (and radians) by which blinks and noise move a fit at most
LOOK_AHEAD = 3 * (SMOOTHING_SECONDS + ERROR_SECONDS)  # lag of `StreamingHeadPose` in seconds

# The left half of a generic frontal face, in interocular units around the point between the eyes
# (x right, y down), ordered as `conventions.LEFT_EYE` etc. The right half is its mirror image.
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
    """Fits similarities from rigid points to the template by weighted least squares.

    Args:
      rigid: (N, 57, 2) frame coordinates of `conventions.RIGID`.

    Returns:
      (N, 4) parameters (log scale, angle, x, y), which can be averaged over time. (x, y) is the
      frame point that the transform maps to `EYE_CENTRE`.
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
    """Converts (N, 4) parameters from `fit_similarity` to (N, 2, 3) transforms."""
    log_scale, angle, x, y = np.moveaxis(parameters, -1, 0)
    a, b = np.exp(log_scale) * np.cos(angle), np.exp(log_scale) * np.sin(angle)
    linear = np.stack([np.stack([a, -b], -1), np.stack([b, a], -1)], -2)
    centre = np.stack([x, y], -1)
    shift = np.array(EYE_CENTRE) - np.einsum("...ij,...j->...i", linear, centre)
    return np.concatenate([linear, shift[..., None]], -1)


def fit_single_frames(mesh: np.ndarray) -> np.ndarray:
    """Fits each frame's transform to its own landmarks alone.

    Args:
      mesh: (N, 478, 2 or 3) FaceMesh points in frame coordinates.

    Returns:
      (N, 2, 3) float64 transforms.
    """
    return transforms_from_parameters(fit_similarity(conventions.select(mesh, conventions.RIGID)))


class StreamingHeadPose:
    """Transforms and head motions of one unbroken run of frames.

    The transforms follow the head exactly; only errors of the fits are taken out. A fit moves when
    the person blinks or speaks although the head does not. How much it is wrong, up to a constant,
    is known from the pictures: in crops that are cut by perfect fits, the upper face stands still,
    so its apparent motion from one crop to the next (`drift`) is the change of the error. The
    constant is unknown, and so is what the sum of many drifts is worth. Therefore the error's
    average over `ERROR_SECONDS` is left in: place and slow changes come from the landmarks, fast
    changes from the pictures. Where there is no drift, the difference of a fit from its average
    over `SMOOTHING_SECONDS` counts as its error, unless it is so large that the head must have
    moved.

    The output lags `LOOK_AHEAD` seconds and some frames behind the input.
    """

    def __init__(self) -> None:
        self._averages = StreamingSmoother(SMOOTHING_SECONDS)  # of fits
        self._errors = StreamingSmoother(ERROR_SECONDS)
        self._motions = StreamingSmoother(MOTION_SECONDS)
        self._reset()

    def _reset(self) -> None:
        self._angle: float | None = None  # of the last frame, unwrapped
        self._deviation: np.ndarray | None = None  # (4,) of the last frame from its average
        self._error = np.zeros(4)  # of the last frame
        # Rows that wait: for their average; for their average error; of motions for transforms.
        self._fits, self._drifts, self._times = _rows(4), _rows(4), _rows()
        self._uncorrected, self._uncorrected_errors = _rows(4), _rows(4)
        self._ready = _rows(6)

    def push(
        self, times: np.ndarray, rigid: np.ndarray, drift: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Adds the next n frames.

        Args:
          times: (n,) seconds, increasing also from call to call.
          rigid: (n, 57, 2) `conventions.RIGID` in frame coordinates.
          drift: (n, 4) apparent motion of the upper face since the previous frame, in crops cut by
            the two frames' own fits, see `talkjax.media.head_motion`; NaN or None where unknown.

        Returns:
          (m, 2, 3) frame-to-crop transforms and (m, 2, 3) affine head motions, from template to
          crop coordinates, of the next m frames that have become final, in order.
        """
        fits = fit_similarity(rigid)
        if self._angle is None:
            fits[:, 1] = np.unwrap(fits[:, 1])
        else:
            fits[:, 1] = np.unwrap(np.append(self._angle, fits[:, 1]))[1:]
        if len(fits):
            self._angle = fits[-1, 1]
        drift = np.full((len(fits), 4), np.nan) if drift is None else np.asarray(drift, np.float64)
        self._fits = np.concatenate([self._fits, fits])
        self._drifts = np.concatenate([self._drifts, drift])
        self._times = np.concatenate([self._times, times])
        averages = self._averages.push(times, fits)
        motions = self._motions.push(times, fit_motion(rigid).reshape(-1, 6))
        self._ready = np.concatenate([self._ready, motions.reshape(-1, 6)])
        return self._take(self._average_errors(averages))

    def flush(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the remaining transforms and motions at a run's end; a new run may begin."""
        averages = [self._average_errors(self._averages.flush()), self._errors.flush()]
        self._ready = np.concatenate([self._ready, self._motions.flush().reshape(-1, 6)])
        rest = self._take(np.concatenate([part.reshape(-1, 4) for part in averages]))
        self._reset()
        return rest

    def _average_errors(self, averages: np.ndarray) -> np.ndarray:
        """Computes the errors of the next fits from their averages; returns average errors."""
        count = len(averages)
        fits, self._fits = self._fits[:count], self._fits[count:]
        drifts, self._drifts = self._drifts[:count], self._drifts[count:]
        times, self._times = self._times[:count], self._times[count:]
        errors = np.empty((count, 4))
        for i in range(count):
            deviation = _as_drift(fits[i] - averages[i], fits[i])
            step = drifts[i]
            if not np.isfinite(step).all():
                step = deviation - (deviation if self._deviation is None else self._deviation)
                step = step if np.abs(step).max() < _BLINK else np.zeros(4)
            self._error = self._error + step
            self._deviation, errors[i] = deviation, self._error
        self._uncorrected = np.concatenate([self._uncorrected, fits])
        self._uncorrected_errors = np.concatenate([self._uncorrected_errors, errors])
        return self._errors.push(times, errors)

    def _take(self, averages: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Takes the next frames, whose average errors are given, out of what waits."""
        count = len(averages)
        fits, self._uncorrected = self._uncorrected[:count], self._uncorrected[count:]
        errors = self._uncorrected_errors[:count] - averages.reshape(-1, 4)
        self._uncorrected_errors = self._uncorrected_errors[count:]
        motions, self._ready = self._ready[:count], self._ready[count:]
        transforms = transforms_from_parameters(_correct(fits, errors))
        return transforms, motions.reshape(-1, 2, 3)


def _rows(*shape: int) -> np.ndarray:
    return np.zeros((0, *shape))


def _as_drift(difference: np.ndarray, fit: np.ndarray) -> np.ndarray:
    """Converts a difference (4,) of two fits to the apparent motion that it causes in the crop."""
    unit = np.exp(fit[0] + 1j * fit[1])  # crop units per pixel
    shift = -unit * (difference[2] + 1j * difference[3])
    return np.array([difference[0], difference[1], shift.real, shift.imag])


def _correct(fits: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Undoes errors (n, 4), which are given as drifts, of fits (n, 4)."""
    scale, angle = fits[:, 0] - errors[:, 0], fits[:, 1] - errors[:, 1]
    # The crop is turned and scaled about the eyes' centre and moved back by the drift.
    moved = (errors[:, 2] + 1j * errors[:, 3]) / np.exp(fits[:, 0] + 1j * fits[:, 1])
    return np.stack([scale, angle, fits[:, 2] + moved.real, fits[:, 3] + moved.imag], -1)


def fit_transforms(
    mesh: np.ndarray, times: np.ndarray, drift: np.ndarray | None = None
) -> np.ndarray:
    """Fits the frame-to-crop transforms of a whole clip; see `StreamingHeadPose`.

    Args:
      mesh: (N, 478, 2 or 3) FaceMesh points in frame coordinates; every row is finite.
      times: (N,) seconds, increasing.
      drift: (N, 4), see `StreamingHeadPose.push`.

    Returns:
      (N, 2, 3) float64 transforms.
    """
    stream = StreamingHeadPose()
    rigid = conventions.select(mesh, conventions.RIGID)
    transforms, _ = stream.push(np.asarray(times, np.float64), rigid, drift)
    return np.concatenate([transforms, stream.flush()[0]])


def apply_transforms(points: np.ndarray, transforms: np.ndarray) -> np.ndarray:
    """Maps (N, K, 2) frame coordinates to (N, K, 2) crop coordinates."""
    linear, shift = transforms[..., :2], transforms[..., 2]
    return np.einsum("nij,nkj->nki", linear, points) + shift[:, None, :]


def invert(transforms: np.ndarray) -> np.ndarray:
    """Returns the inverses of (..., 2, 3) transforms, in the same shape."""
    linear = np.linalg.inv(transforms[..., :2])
    return np.concatenate([linear, -linear @ transforms[..., 2:]], -1)


def compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Returns the (N, 2, 3) maps that apply `inner` (N, 2, 3) first, then `outer` (N, 2, 3)."""
    linear = outer[..., :2] @ inner[..., :2]
    shift = outer[..., :2] @ inner[..., 2:] + outer[..., 2:]
    return np.concatenate([linear, shift], -1)


def fit_affine(rigid: np.ndarray) -> np.ndarray:
    """Fits affine maps from the template to points by weighted least squares.

    Args:
      rigid: (N, 57, 2) `conventions.RIGID`, in any coordinates.

    Returns:
      (N, 2, 3) maps from template (crop) coordinates to those of the points.
    """
    source = np.concatenate([TEMPLATE, np.ones((len(TEMPLATE), 1))], 1)
    solve = np.linalg.solve(source.T @ (source * WEIGHTS[:, None]), (source * WEIGHTS[:, None]).T)
    return np.einsum("kp,npd->ndk", solve, rigid.astype(np.float64))


def fit_motion(rigid: np.ndarray) -> np.ndarray:
    """Fits the head's affine motion within its crop: what no crop can follow, such as a turn.

    Args:
      rigid: (N, 57, 2) `conventions.RIGID`, in any coordinates.

    Returns:
      (N, 2, 3) maps from template to crop coordinates, as if each crop were cut by its frame's own
      fit.
    """
    own = transforms_from_parameters(fit_similarity(rigid))
    return compose(own, fit_affine(rigid))


def pose_shape(landmarks: np.ndarray) -> np.ndarray:
    """Computes a person's pose points at rest: their mean over frames without the head's motion.

    Args:
      landmarks: (N, 131, 2) landmarks, in any coordinates.

    Returns:
      (74, 2) template coordinates.
    """
    maps = fit_affine(landmarks[:, conventions.positions(conventions.RIGID)])
    points = landmarks[:, : conventions.NUM_POSE].astype(np.float64)
    return apply_transforms(points, invert(maps)).mean(0)


def normalize_pose(landmarks: np.ndarray, times: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Computes the pose that the networks see: one shape per clip under a smoothed affine motion.

    Args:
      landmarks: (N, 131, 2) measured landmarks, crop coordinates.
      times: (N,) seconds, increasing.
      found: (N,) bool, whether a frame's landmarks were measured. The shape is computed from the
        measured frames, or from all frames if none was measured.

    Returns:
      (N, 74, 2) float32, crop coordinates.
    """
    shape = pose_shape(landmarks[found] if found.any() else landmarks)
    motion = fit_motion(landmarks[:, conventions.positions(conventions.RIGID)])
    smoothed = smooth(motion.reshape(-1, 6), times, MOTION_SECONDS).reshape(-1, 2, 3)
    shapes = np.broadcast_to(shape, (len(smoothed), *shape.shape))
    return apply_transforms(shapes, smoothed).astype(np.float32)
