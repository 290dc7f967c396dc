"""Captions before a moving face are found; a moving or still face is none."""

import cv2
import numpy as np
import pytest

from talkjax.conventions import MASK
from talkjax.media import appearance, composite, overlay

SIZE = 160
PATH = [(2.5 * np.sin(k / 3), 2.5 * np.cos(k / 4)) for k in range(30)]


def frames(caption: bool, path) -> tuple[list[np.ndarray], np.ndarray]:
    """Frames of 200 x 200 px of a textured face, and their transforms."""
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.uniform(0, 255, (240, 240, 3)).astype(np.float32), (0, 0), 3)
    texture = np.clip((texture - 127) * 4 + 150, 0, 255)
    made, transforms = [], []
    for x, y in path:
        shift = np.array([[1, 0, x - 20], [0, 1, y - 20.0]])
        rgb = cv2.warpAffine(texture, shift, (200, 200)).astype(np.uint8)
        if caption:
            cv2.putText(rgb, "HELLO", (60, 140), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (0, 0, 0), 5)
            cv2.putText(rgb, "HELLO", (60, 140), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255, 255, 0), 2)
        made.append(rgb)
        transforms.append([[1 / SIZE, 0, -(20 + x) / SIZE], [0, 1 / SIZE, -(20 + y) / SIZE]])
    return made, np.array(transforms)


def test_a_caption_stays():
    shown, transforms = frames(True, PATH)
    plain, _ = frames(False, PATH)
    found = overlay.find_overlay(shown, transforms, MASK)
    letters = (shown[7] != plain[7]).any(-1)
    weight = found.window((0, 0, 200, 200))
    assert weight[letters].mean() > 0.95 and weight[letters].min() > 0.3
    far = cv2.dilate(letters.astype(np.uint8), np.ones((15, 15))) == 0
    assert weight[far].max() == 0
    region = np.full((80, 112, 3), (255, 0, 255), np.uint8)
    known = appearance.FaceAppearance(shown[0][20:180, 20:180], (), found)
    look = known.look(shown[7][20:180, 20:180])
    out = composite.paste(shown[7], region, transforms[7], colour=False, look=look)
    bright = (shown[7] == (255, 255, 0)).all(-1)
    error = np.abs(out[bright].astype(int) - shown[7][bright])
    assert error.mean() < 4 and (out[100:110, 80:120] == (255, 0, 255)).all()
    crop = np.ascontiguousarray(shown[0][20:180, 20:180])
    cropped = np.array([[1 / SIZE, 0, -20 / SIZE], [0, 1 / SIZE, -20 / SIZE]])
    seen = found.erase(crop, cropped)
    assert not (seen == (255, 255, 0)).all(-1).any()


@pytest.mark.parametrize("still", [False, True])
def test_a_face_is_no_caption(still):
    path = [(0.0, 0.0)] * 30 if still else PATH
    assert overlay.find_overlay(*frames(False, path), MASK) is None
    shown, transforms = frames(True, path)
    assert overlay.find_overlay(shown[:5], transforms[:5], MASK) is None  # too few to tell


def test_window():
    found = overlay.Overlay((3, 4), np.ones((2, 5), np.float32))
    whole = found.window((0, 0, 10, 12))
    assert whole.sum() == 10 and (whole[3:5, 4:9] == 1).all()
    np.testing.assert_array_equal(
        found.window((4, 6, 8, 20)), np.pad(whole[4:8, 6:], ((0, 0), (0, 8)))
    )
    assert not found.window((6, 0, 8, 3)).any()
