"""Things before the mouth keep their pixels; the mouth's own motion never counts as one."""

import cv2
import numpy as np
import pytest

from talkjax.conventions import MASK, MOUTH_REGION
from talkjax.media import appearance, composite, occlusion

SIZE = 128
TRANSFORM = np.array([[1 / SIZE, 0, 0], [0, 1 / SIZE, 0.0]])
SKIN = (200, 150, 120)


def face(opening: float = 0.0, x: float = 0.0, smile: float = 0.0) -> np.ndarray:
    """(128, 128, 3) uint8: a talking face before a wall, `x` pixels aside."""
    image = np.full((SIZE, SIZE, 3), (90, 120, 170), np.float32)
    centre = 64 + x

    def ellipse(at, axes, colour):
        at = [round(16 * v) for v in at]
        axes = [max(round(16 * v), 1) for v in axes]
        cv2.ellipse(image, at, axes, 0, 0, 360, colour, -1, cv2.LINE_AA, 4)

    ellipse((centre, 128), (60, 24), (60, 90, 60))
    ellipse((centre, 60), (44, 58 + 8 * opening), SKIN)
    for side in (-19, 19):
        ellipse((centre + side, 28), (9, 4), (40, 30, 25))
        ellipse((centre + side, 16), (12, 3), (70, 45, 30))
    ellipse((centre, 84 + 4 * opening), (16 + 4 * smile, 6 + 8 * opening), (170, 70, 70))
    ellipse((centre, 84 + 4 * opening), (12 + 4 * smile, 8 * opening), (50, 15, 15))
    if opening > 0.5:
        ellipse((centre, 80), (8, 2), (235, 230, 220))
    noise = np.random.default_rng(abs(round(1000 * (opening + x)))).normal(0, 2, image.shape)
    return np.clip(cv2.GaussianBlur(image, (0, 0), 1.2) + noise, 0, 255).astype(np.uint8)


def talk(frames: int, seed: int = 0) -> list[np.ndarray]:
    at = np.arange(frames)
    opening = np.clip(np.sin(at / 2.3 + seed), 0, 1)
    return [
        face(o, 1.5 * np.sin(k / 7 + seed), np.sin(k / 9)) for k, o in zip(at, opening, strict=True)
    ]


def hand(image):
    out = image.copy()
    cv2.ellipse(out, (64, 92), (26, 22), 0, 0, 360, (196, 147, 118), -1)
    return out


def microphone(image):
    out = image.copy()
    cv2.circle(out, (64, 90), 14, (35, 35, 38), -1)
    cv2.line(out, (64, 90), (90, 127), (35, 35, 38), 9)
    return out


def paper(image):
    out = image.copy()
    out[76:] = (235, 232, 218)
    return out


@pytest.fixture(scope="module")
def scene() -> list[np.ndarray]:
    return talk(60)


def known(frames) -> appearance.FaceAppearance:
    return appearance.FaceAppearance(frames[0], [appearance.thumbnail(f) for f in frames])


@pytest.mark.parametrize(
    ("before", "early"),
    [(hand, False), (microphone, False), (microphone, True), (paper, False), (paper, True)],
)
def test_what_hides_the_mouth_is_noticed(scene, before, early):
    shown = talk(60, seed=1)
    hidden = range(20, 35)
    shown = [before(f) if i in hidden else f for i, f in enumerate(shown)]
    person = known(shown if early else scene)  # it may be there in the first seconds already
    found = [occlusion.hides_mouth(person.look(f).cover) for f in shown]
    assert all(found[i] for i in hidden)
    assert not any(found[:20]) and not any(found[37:])


def test_talking_is_no_occlusion(scene):
    person = known(scene)
    for frame in [*talk(60, seed=2), *(face(o, smile=2.0) for o in (0.0, 0.5, 1.0))]:
        look = person.look(frame)
        assert look.cover is None and look.present
    dark = person.look((face() * 0.3).astype(np.uint8))
    assert dark.cover is None and dark.present


def test_a_cup_beside_the_mouth_stays_in_front(scene):
    """The new mouth is painted where the cup is not, and nothing of the cup is lost."""
    person = known(scene)
    frame = face()
    cup = np.zeros(frame.shape[:2], bool)
    cup[88:, 70:100] = True
    frame[cup] = (60, 160, 220)
    look = person.look(frame)
    assert occlusion.touches_face(look.cover) and not occlusion.hides_mouth(look.cover)
    region = np.full((80, 112, 3), (255, 0, 255), np.uint8)
    out = composite.paste(frame, region, TRANSFORM, colour=False, look=look)
    inside = np.zeros_like(cup)
    inside[91:116, 73:97] = True
    assert np.abs(out[inside].astype(int) - frame[inside]).max() <= 2
    assert (out[70:84, 40:60] == (255, 0, 255)).all()
    # The networks see the person there instead.
    seen = person.clear(frame, look)
    assert np.abs(seen[inside] - person.reference[inside]).max() == 0
    assert MOUTH_REGION.cut(seen).shape == (80, 112, 3)


def test_few_frames_and_a_photograph_have_no_occlusion():
    person = known([face()] * 2)
    assert person.look(paper(face())).cover is None
    assert not occlusion.hides_mouth(None) and not occlusion.touches_face(None)


def test_an_occluder_fades_away_without_flicker(scene):
    person = known(scene)
    person.look(paper(scene[0]))
    mask = MASK.pixels(appearance.THUMBNAIL)
    weights = []
    for frame in scene[:8]:
        cover = person.look(frame).cover
        weights.append(0.0 if cover is None else float(cover[50, (mask[1] + mask[3]) // 2]))
    assert weights[0] == pytest.approx(0.6, abs=0.01) and weights[-1] == 0
    assert (np.diff(weights) <= 0).all()


def test_a_wall_is_nobody(scene):
    """A detector goes on for some frames where the person is no more."""
    person = known(scene)
    wall = np.full_like(scene[0], 130)
    wall[:, ::9] = 120
    assert not person.look(wall).present
    assert person.look(scene[5]).present
    assert not person.look(scene[5], inside=0.5).present
    assert not person.look(scene[5], inside=0.65).present  # not yet back
    assert person.look(scene[5], inside=0.7).present


def test_share_inside_of_the_picture():
    for shift, share in ((0.0, 1), (0.5, 0.5), (-0.5, 0.5), (1.0, 0)):
        moved = TRANSFORM.copy()
        moved[0, 2] += shift  # the crop's middle is the picture's edge
        assert appearance.share_inside(moved, (SIZE, SIZE)) == share
