"""What tests of sampling share: a random tiny checkpoint, a scripted face, small videos."""

import functools
import json
from pathlib import Path

import numpy as np

from configs import person_128
from talkjax import conventions, head_pose, networks, weights
from talkjax.sampling import regions
from tests import parameters
from tests.media_files import Sound, make_media, tone

WIDTH, HEIGHT = 96, 80
SIDE = 64.0  # of the crop in frame pixels


def tiny_config(**changes) -> dict:
    c = person_128.get_config()
    c.stage = "joint"
    c.crop_size, c.region = 32, (0.0, 0.0, 1.0, 1.0)
    c.autoencoder.layout = "taesd"
    c.autoencoder.latent_mean, c.autoencoder.latent_std = (0.0,), (1.0,)
    c.denoiser.channels, c.denoiser.blocks, c.denoiser.groups = (16,), 1, 4
    c.denoiser.talkformer.heads = 2
    c.landmark.update({"features": 16, "layers": 1, "heads": 2, "dropout": 0.1})
    c.data.window, c.data.references = 10, 3
    c.update_from_flattened_dict(changes)
    return json.loads(json.dumps(c.to_dict()))


def random_params(config: dict, seed: int = 0) -> dict:
    """Random everywhere, also where training starts from zero."""
    params = parameters.random_like(regions.expected_params(networks.make_networks(config)), seed)
    last = params["autoencoder"]["decoder"]["layer_19"]
    # Grey on average, and seldom at the limits.
    last["kernel"], last["bias"] = last["kernel"] * 0.2, np.array([1.0, 0.1, 1.2], np.float32)
    return params


def save_checkpoint(directory: Path, **changes) -> Path:
    config = tiny_config(**changes)
    weights.save_params(directory, random_params(config), config)
    return directory


@functools.cache
def face_shape() -> np.ndarray:
    """(478, 2) crop coordinates of a still face with a closed mouth."""
    points = np.random.default_rng(1).uniform(0.3, 0.7, (478, 2))
    points[list(conventions.RIGID)] = head_pose.TEMPLATE
    angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    lips = np.stack([0.5 + 0.1 * np.cos(angle), 0.6 - 0.03 * np.sin(angle)], -1)
    points[list(conventions.OUTER_LIPS)], points[list(conventions.INNER_LIPS)] = lips, lips
    return points


def face_at(index: int, opening: float = 0.0, x: float = 16.0, y: float = 8.0) -> np.ndarray:
    """(478, 3) float32 frame pixels of the face in frame `index`: it nods a little."""
    points = face_shape().copy()
    points[[14, 17], 1] += opening
    points = points * SIDE + (x, y) + _nod(index)
    return np.concatenate([points, np.zeros((478, 1))], 1).astype(np.float32)


def _nod(index: int) -> np.ndarray:
    return np.array([np.sin(index / 5), 0.7 * np.cos(index / 7)])


class ScriptedMesh:
    """Stands in for FaceMesh: frame i shows the faces that `script(i)` returns."""

    def __init__(self, script=None):
        self.script = script or (lambda i: [face_at(i, 0.02 * (i % 4))])
        self.calls = 0

    def reset(self):
        pass  # at the start and at every cut

    def detect(self, rgb):
        assert rgb.dtype == np.uint8 and rgb.ndim == 3
        faces = self.script(self.calls)
        self.calls += 1
        return np.array(faces, np.float32).reshape(len(faces), 478, 3)


class TrackingMesh:
    """Stands in for FaceMesh over a cut: only after a reset does it look where the face is."""

    def __init__(self, places):
        self.places, self.calls, self.place, self.resets = places, 0, None, []

    def reset(self):
        self.place = None
        self.resets.append(self.calls)

    def detect(self, rgb):
        self.place = self.places[self.calls] if self.place is None else self.place
        self.calls += 1
        return face_at(0, x=self.place)[None]


def picture(index: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """(H, W, 3) uint8 with some structure that moves with the face."""
    y, x = np.mgrid[:height, :width]
    x, y = x - _nod(index)[0], y - _nod(index)[1]
    waves = [np.sin(x / 9), np.cos(y / 8), np.sin((x + y) / 11)]
    return np.rint(128 + 60 * np.stack(waves, -1)).astype(np.uint8)


def make_template(path: Path, frames: int = 12, **options) -> Path:
    size = options.pop("size", (WIDTH, HEIGHT))
    return make_media(path, [picture(i, *size) for i in range(frames)], **options)


def make_speech(path: Path, seconds: float, rate: int = 16000) -> Path:
    return make_media(path, sound=Sound(tone(seconds, rate), rate))


def opening_mesh() -> ScriptedMesh:
    """Stands in for FaceMesh on a template whose mouth opens and closes."""
    return ScriptedMesh(lambda i: [face_at(i, 0.02 * (i % 5))])


def until_end(session, most=500):
    """Reads the items of a session up to the end of what is said."""
    items = []
    for item in session:
        items.append(item)
        if item.end_of_speech:
            return items
        assert len(items) < most
    return items
