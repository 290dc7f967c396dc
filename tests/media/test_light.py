"""The change of light and colours between two pictures of a face, and undoing it."""

import cv2
import numpy as np
import pytest

from talkjax.conventions import MASK, MOUTH_REGION
from talkjax.media import appearance, composite, crop, light

SIZE = 128
TRANSFORM = np.array([[1 / SIZE, 0, 0], [0, 1 / SIZE, 0.0]])


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    """(128, 128, 3) float32: skin, dark eyes, red lips, a blue wall."""
    image = np.full((SIZE, SIZE, 3), (90, 120, 170), np.float32)
    cv2.ellipse(image, (64, 60), (44, 58), 0, 0, 360, (200, 150, 120), -1)
    for x in (45, 83):
        cv2.ellipse(image, (x, 28), (9, 5), 0, 0, 360, (40, 30, 25), -1)
    cv2.ellipse(image, (64, 84), (18, 8), 0, 0, 360, (170, 70, 70), -1)
    return cv2.GaussianBlur(image, (0, 0), 1.5)


def as_pixels(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


CHANGES = {
    "fade to black": (0.1, 0.0),
    "half faded": (0.5, 0.0),
    "fade to white": (0.3, 0.7 * 255),
    "yellow lamp": (np.array([1.0, 0.8, 0.5]), 0.0),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_perfect_mouth_gets_the_light_of_its_frame(face, name):
    """What the reference shows in its light is pasted as the frame shows it."""
    gain, offset = CHANGES[name]
    frame = as_pixels(face * gain + offset)
    look = appearance.FaceAppearance(as_pixels(face)).look(frame)
    error = look.light.remove(frame)[:50] - face[:50]
    assert np.abs(error).mean() < 3
    region = MOUTH_REGION.cut(as_pixels(face))
    out = composite.paste(frame, region, TRANSFORM, look=look)
    lower = MASK.cut(out.astype(float) - frame)
    assert np.abs(lower).max() <= 4
    dazzling = MASK.cut(composite.paste(frame, region, TRANSFORM).astype(float) - frame)
    assert np.abs(dazzling.mean()) > 8 * np.abs(lower.mean())  # this is what was wrong


def test_usual_changes_are_left_alone(face):
    known = appearance.FaceAppearance(as_pixels(face))
    moved = np.roll(face, (1, -2), (0, 1)) * (0.94, 0.95, 0.96)
    look = known.look(as_pixels(moved))
    assert look.light.is_usual and look.toning.freedom == 1
    region = MOUTH_REGION.cut(as_pixels(face))
    plain = composite.paste(as_pixels(moved), region, TRANSFORM)
    np.testing.assert_array_equal(
        composite.paste(as_pixels(moved), region, TRANSFORM, look=look), plain
    )


def test_light_is_continuous(face):
    """A slow fade changes the light in small steps."""
    known = appearance.FaceAppearance(as_pixels(face))
    looks = [known.look(as_pixels(face * g)) for g in np.linspace(1, 0.05, 400)]
    gains = np.array([look.light.gain.mean() for look in looks])
    assert gains[0] == 1 and gains[-1] == pytest.approx(0.05, abs=0.01)
    assert np.abs(np.diff(gains)).max() < 0.03


def test_a_dim_reference_is_shown_brighter(face):
    dim = as_pixels(face * 0.25)
    known = appearance.FaceAppearance(dim)
    assert 85 < light.measure(known.reference).level < 100
    out = composite.paste(dim, MOUTH_REGION.cut(known.reference), TRANSFORM, look=known.look(dim))
    assert np.abs(out.astype(float) - dim).max() <= 2
    bright = as_pixels(face)
    assert appearance.FaceAppearance(bright).reference is bright


LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def toned(face: np.ndarray, name: str) -> np.ndarray:
    x = (face @ LUMA)[..., None] / 255
    return {
        "grey": x * (255, 255, 255),
        "sepia": x * (240, 190, 130) + (10, 5, 0),
        "duotone": (1 - x) * (40, 0, 90) + x * (255, 230, 120),
    }[name]


@pytest.mark.parametrize("name", ["grey", "sepia", "duotone"])
def test_toned_footage_gets_no_pink_lips(face, name):
    """The network paints red lips all the same; they come out in the picture's own colours."""
    ramp = toned(np.linspace(0, 255, 256)[:, None].repeat(3, 1), name)

    def off_colour(image):  # distance from the picture's colour at the same luma
        luma = image @ LUMA
        return np.stack([np.interp(luma, ramp @ LUMA, c) for c in ramp.T], -1) - image

    frame = as_pixels(toned(face, name))
    look = appearance.FaceAppearance(frame).look(frame)
    assert look.toning.freedom == 0
    pink = frame.astype(np.float32)
    cv2.ellipse(pink, (64, 84), (18, 8), 0, 0, 360, (220, 90, 110), -1)
    out, plain = (
        composite.paste(frame, MOUTH_REGION.cut(pink), TRANSFORM, look=kind)[78:90, 50:78]
        for kind in (look, None)
    )
    assert np.abs(off_colour(out.astype(np.float32))).max() <= 4
    assert np.abs(off_colour(plain.astype(np.float32))).max() > 20  # this is what was wrong


def test_colour_fades_smoothly(face):
    known = appearance.FaceAppearance(as_pixels(face))
    grey = toned(face, "grey")
    shares = np.linspace(1, 0, 200)
    freedom = [known.look(as_pixels(grey + s * (face - grey))).toning.freedom for s in shares]
    assert freedom[0] == 1 and freedom[-1] == 0
    assert np.abs(np.diff(freedom)).max() < 0.08


def test_small_crops_of_every_face():
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (90, 120, 3), np.uint8)
    faces = rng.uniform(20, 60, (2, 478, 3)).astype(np.float32)
    assert crop.cut_faces(frame, faces, 64).shape == (2, 64, 64, 3)
    assert crop.cut_faces(frame, faces[:0], 64).shape == (0, 64, 64, 3)
