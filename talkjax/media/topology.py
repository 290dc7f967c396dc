"""The 131 landmarks of the method, as indices into FaceMesh's 478 points.

Zhong et al. (arXiv 2408.05416, section 3.1) split a face's landmarks into *pose* (upper oval,
brows, nose, eyes: what the head does) and *content* (jaw and lips: what speech does). The order
kept everywhere in talkjax is pose (74), jaw (17), lips (40); `ALL` is that order.
"""

import numpy as np

# Every region runs along its outline, so that consecutive indices are neighbours on the face.
UPPER_OVAL = (162, 127, 234, 93, 323, 454, 356, 389)
LEFT_BROW = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46)
RIGHT_BROW = (300, 293, 334, 296, 336, 285, 295, 282, 283, 276)
NOSE_BRIDGE = (168, 6, 197, 195, 5)
NOSE_LOWER = (48, 115, 220, 45, 4, 275, 440, 344, 278)
LEFT_EYE = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)
RIGHT_EYE = (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249)
JAW = (132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361)
# fmt: off
OUTER_LIPS = (
    61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291,  # upper, from the right corner of the mouth
    375, 321, 405, 314, 17, 84, 181, 91, 146,  # lower, back
)
INNER_LIPS = (
    78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308,
    324, 318, 402, 317, 14, 87, 178, 88, 95,
)
# fmt: on

POSE = UPPER_OVAL + LEFT_BROW + RIGHT_BROW + NOSE_BRIDGE + NOSE_LOWER + LEFT_EYE + RIGHT_EYE
LIPS = OUTER_LIPS + INNER_LIPS
CONTENT = JAW + LIPS
ALL = POSE + CONTENT

NUM_POSE, NUM_JAW, NUM_LIPS = len(POSE), len(JAW), len(LIPS)
NUM_CONTENT, NUM_ALL = len(CONTENT), len(ALL)
FACEMESH_POINTS = 478

# The points a crop may be fitted to: they move with the skull and not with speech. They are a
# subset of POSE, so no crop, mask or normalisation can see the jaw or the lips.
RIGID = LEFT_EYE + RIGHT_EYE + LEFT_BROW + RIGHT_BROW + NOSE_BRIDGE


def positions(points: tuple[int, ...], within: tuple[int, ...] = ALL) -> np.ndarray:
    """Places of FaceMesh indices `points` in the sequence `within`, (len(points),) int64."""
    place = {index: i for i, index in enumerate(within)}
    return np.array([place[index] for index in points], np.int64)


def select(mesh: np.ndarray, points: tuple[int, ...] = ALL) -> np.ndarray:
    """Picks the (x, y) of `points` from (..., 478, 2 or 3) FaceMesh output: (..., K, 2)."""
    return mesh[..., list(points), :2]


def interocular(landmarks: np.ndarray) -> np.ndarray:
    """Distance between the eye centres of (..., 131, 2) landmarks, in their unit: (...)."""
    left = landmarks[..., positions(LEFT_EYE), :].mean(-2)
    right = landmarks[..., positions(RIGHT_EYE), :].mean(-2)
    return np.linalg.norm(right - left, axis=-1)


def mouth_opening(landmarks: np.ndarray) -> np.ndarray:
    """Inner-lip gap of (..., 131, 2) landmarks over the interocular distance: (...)."""
    upper, lower = positions((13, 14))
    gap = np.linalg.norm(landmarks[..., upper, :] - landmarks[..., lower, :], axis=-1)
    return gap / interocular(landmarks)
