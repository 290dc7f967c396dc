"""Draws the figures of docs/method.md with the networks of a checkpoint.

    uv run docs/method_figures.py [--video=FILE --audio=FILE --checkpoint=DIR]

The default is what is part of the package. The files docs/method_*.jpg are overwritten.
"""

import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from talkjax import commands, conventions, head_pose
from talkjax.conventions import FULL, LIPS_SLICE, NUM_POSE, Box
from talkjax.media import crop
from talkjax.media.detection import detect_faces
from talkjax.media.video import VideoReader
from talkjax.models import positions
from talkjax.models.talkformer import KernelAttention
from talkjax.networks import Networks
from talkjax.sampling import bundled, checkpoint, pipeline, pretrained
from talkjax.sampling.faces import FaceTable
from talkjax.sampling.options import Options
from talkjax.sampling.person import Person, find_person
from talkjax.sampling.sampler import Sampler
from talkjax.sampling.speech import TemplateSound
from talkjax.sampling.template import open_template

OUT = Path(__file__).resolve().parent
STEPS = 1
SHOWN = 3  # reference images of the figures
BLOCK = "talk_down_0"  # the first TalkFormer block, at the finest resolution
COLORS = {"pose": "tab:cyan", "jaw": "tab:orange", "lips": "tab:red"}
# Landmarks near which the attention of one cell is shown.
QUERIES = {"corner of the mouth": 61, "lower lip": 17, "chin": 152}


class Example(NamedTuple):
    """One frame of an output, and all that it was made of.

    Attributes:
      rgb: (H, W, 3) uint8 frame of the template.
      result: (H, W, 3) uint8 the same frame of the output.
      transform: (2, 3) transform from frame to crop coordinates.
      landmarks: (131, 2) target landmarks: pose as measured, content as predicted.
      person: References of the template.
    """

    rgb: np.ndarray
    result: np.ndarray
    transform: np.ndarray
    landmarks: np.ndarray
    person: Person


def make_example(sampler: Sampler, video: str, audio: str) -> Example:
    """Generates a video and returns the frame with the widest mouth."""
    options, frames = Options(steps=STEPS, lossless=True), []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.mkv")
        sampler.generate(
            video=video, audio=audio, out=out, options=options,
            callback=lambda time, face, landmarks, index: frames.append((face, landmarks, index)),
        )  # fmt: skip
        opening = [-1 if x is None else conventions.mouth_opening(x) for _, x, _ in frames]
        place = int(np.argmax(opening))
        face, landmarks, index = frames[place]
        result = next(f.rgb for f in VideoReader(out) if f.index == place)
    rgb = next(f.rgb for f in VideoReader(video) if f.index == index)
    template = open_template(video, None)
    with pipeline.make_detector("largest") as detector:
        table = FaceTable(detect_faces(template.frames(), detector), template.fps)
        person = find_person(
            sampler, table.first_faces(0), template.frames(), template.size, TemplateSound(None),
            options,
        )  # fmt: skip
    return Example(rgb, result, face.transform, landmarks, person)


def shown_region(networks: Networks, example: Example) -> np.ndarray:
    """Returns the (1, H, W, 3) float32 region of the example's frame, with its mouth."""
    whole = crop.warp_crop(example.rgb, example.transform, networks.crop_size)
    return conventions.to_float(networks.region.cut(whole))[None]


def attention_weights(
    params: Any, networks: Networks, example: Example
) -> tuple[np.ndarray, np.ndarray]:
    """Evaluates the denoiser once and returns what the cells of `BLOCK` attend to.

    Returns:
      (h, w, 131) weights of the target's landmarks, and (h, w, R, h, w) of the references' cells,
      both averaged over the heads.
    """
    denoiser, size = networks.denoiser, networks.latent_shape[:2]

    @jax.jit
    def evaluate(params, region, landmarks, images, references):
        own, yes = {"params": params["denoiser"]}, jnp.ones((1,), bool)
        filled = networks.fill_in(region, landmarks, images, references)
        latents = networks.encode(params["autoencoder"], images)
        conditions = denoiser.apply(
            own, networks.encode(params["autoencoder"], filled), jnp.asarray(networks.mask),
            landmarks, latents, references, yes, yes, method="conditions",
        )  # fmt: skip
        noise = jax.random.normal(jax.random.key(0), (1, *networks.latent_shape))
        last = jnp.full((1,), networks.schedule.steps - 1)
        _, state = denoiser.apply(
            own, noise, last, conditions, method="denoise", mutable=["intermediates"],
            capture_intermediates=lambda module, _: isinstance(module, KernelAttention),
        )  # fmt: skip
        block = state["intermediates"][BLOCK]
        # The result of a call is the attended values and the weights, (1, heads, N, M).
        return [block[part]["attention"]["__call__"][0][1] for part in ("motion", "reference")]

    person = example.person
    weights = evaluate(
        params,
        shown_region(networks, example),
        example.landmarks[None],
        conventions.to_float(person.images[:SHOWN])[None],
        person.image_landmarks[None, :SHOWN],
    )
    motion, reference = (np.asarray(x)[0].mean(0) for x in weights)
    return motion.reshape(*size, -1), reference.reshape(*size, SHOWN, *size)


# ---- figures ------------------------------------------------------------------------------------


def show(axis: Axes, image: np.ndarray, box: Box, title: str) -> None:
    """Shows an image, uint8 or float in [-1, 1], of a box of the crop in crop coordinates."""
    if image.dtype != np.uint8:
        image = np.clip((image + 1) / 2, 0, 1)
    axis.imshow(image, extent=(box.x0, box.x1, box.y1, box.y0))
    axis.set(xlim=(box.x0, box.x1), ylim=(box.y1, box.y0), xticks=[], yticks=[])
    axis.set_title(title, fontsize="small")


def draw_points(axis: Axes, landmarks: np.ndarray, size: float = 3) -> None:
    """Draws (131, 2) landmarks by their part of the face."""
    parts = (slice(NUM_POSE), slice(NUM_POSE, LIPS_SLICE.start), LIPS_SLICE)
    for (name, color), part in zip(COLORS.items(), parts, strict=True):
        axis.scatter(*landmarks[part].T, s=size, color=color, label=name, linewidths=0)


def draw_box(axis: Axes, box: Box, color: str, label: str, to_axis: np.ndarray) -> None:
    """Outlines a box of the crop, through a (2, 3) transform to the axis's coordinates."""
    corners = np.array([(box.x0, box.y0), (box.x1, box.y0), (box.x1, box.y1), (box.x0, box.y1)])
    corners = head_pose.apply_transforms(corners[None], to_axis[None])[0]
    axis.plot(*corners[[0, 1, 2, 3, 0]].T, color=color, label=label, linewidth=1.5)


def landmarks_figure(networks: Networks, example: Example, mask: Box) -> Figure:
    """Draws crop, landmarks, region and mask."""
    figure = Figure((8, 2.2), dpi=150, layout="constrained")
    axes = figure.subplots(1, 4)
    to_frame = head_pose.invert(example.transform)
    axes[0].imshow(example.rgb)
    axes[0].set(xticks=[], yticks=[])
    axes[0].set_title("frame", fontsize="small")
    for box, color, name in (
        (FULL, "white", "crop"), (networks.region, "gold", "region"), (mask, "red", "mask"),
    ):  # fmt: skip
        draw_box(axes[0], box, color, name, to_frame)
    axes[0].set(xlim=(0, example.rgb.shape[1]), ylim=(example.rgb.shape[0], 0))
    axes[0].legend(fontsize="x-small", loc="lower left")
    whole = crop.warp_crop(example.rgb, example.transform, networks.crop_size)
    show(axes[1], whole, FULL, "crop, landmarks")
    draw_points(axes[1], example.landmarks)
    axes[1].legend(fontsize="x-small", loc="lower left")
    region = jnp.asarray(shown_region(networks, example))
    grey = conventions.mask_region(np.asarray(region), networks.region, mask, networks.crop_size)
    show(axes[2], grey[0], networks.region, "region, masked in grey")
    images = conventions.to_float(example.person.images)[None]
    references = example.person.image_landmarks[None]
    warped = networks.warp_into_mask(region, example.landmarks[None], images, references)
    show(axes[3], np.asarray(warped)[0], networks.region, "region, filled with the warp")
    return figure


def warp_figure(networks: Networks, example: Example) -> Figure:
    """Draws references, the displacement of the one that counts most, and the results."""
    figure = Figure((8, 3.3), dpi=150, layout="constrained")
    axes, box = figure.subplots(2, 4), networks.region
    person, target = example.person, example.landmarks[None]
    field = networks.warp_field(target, person.image_landmarks[None])
    weights, moved = np.asarray(field.weights)[0], np.asarray(field.moved)[0]
    order = np.argsort(-weights)[:4]
    for axis, number in zip(axes[0], order, strict=True):
        show(axis, person.images[number], box, f"reference, weight {weights[number]:.2f}")
        draw_points(axis, person.image_landmarks[number])
    whole = crop.warp_crop(example.rgb, example.transform, networks.crop_size)
    show(axes[1, 0], box.cut(whole), box, "target landmarks")
    draw_points(axes[1, 0], example.landmarks)
    show(axes[1, 1], person.images[order[0]], box, "displacement, doubled")
    rows, columns = moved.shape[1:3]
    grid = np.asarray(positions.grid_positions(rows, columns, box)).reshape(rows, columns, 2)
    places, steps = (x[::2, ::2].reshape(-1, 2).T for x in (grid, moved[order[0]]))
    axes[1, 1].quiver(
        *places, *steps, angles="xy", scale_units="xy", scale=0.5, color="lime", width=0.006
    )
    region = jnp.asarray(shown_region(networks, example))
    images = conventions.to_float(person.images)[None]
    warped = networks.warp_into_mask(region, target, images, person.image_landmarks[None])
    show(axes[1, 2], np.asarray(warped)[0], box, "warped and mixed")
    result = crop.warp_crop(example.result, example.transform, networks.crop_size)
    show(axes[1, 3], box.cut(result), box, f"output ({STEPS} step)")
    return figure


def attention_figure(params: Any, networks: Networks, example: Example) -> Figure:
    """Draws what a few cells attend to: landmarks, and places in the references."""
    motion, reference = attention_weights(params, networks, example)
    rows, columns = networks.latent_shape[:2]
    box = networks.region
    grid = np.asarray(positions.grid_positions(rows, columns, box)).reshape(rows, columns, 2)
    figure = Figure((8, 4.6), dpi=150, layout="constrained")
    axes = figure.subplots(len(QUERIES), 1 + SHOWN, squeeze=False)
    whole = crop.warp_crop(example.result, example.transform, networks.crop_size)
    high, wide = (box.y1 - box.y0) / rows, (box.x1 - box.x0) / columns
    for line, (name, index) in zip(axes, QUERIES.items(), strict=True):
        point = example.landmarks[conventions.positions((index,))[0]]
        distance = np.linalg.norm(grid - point, axis=-1)
        cell = np.unravel_index(distance.argmin(), distance.shape)
        show(line[0], box.cut(whole), box, f"from the {name}")
        weights = motion[cell]
        line[0].scatter(*example.landmarks.T, s=500 * weights, color="gold", alpha=0.7)
        corner = grid[cell] - (wide / 2, high / 2)
        line[0].add_patch(Rectangle(corner, wide, high, fill=False, color="red", linewidth=1.5))
        maps = reference[cell]
        for number, axis in enumerate(line[1:]):
            share = maps[number].sum()
            image = example.person.images[number].astype(np.float32)
            heat = cv2.resize(maps[number] / maps.max(), image.shape[1::-1])[..., None]
            mixed = 0.35 * image * (1 - heat) + heat * np.array([255, 215, 0]) + 0.25 * image * heat
            title = f"reference {number + 1}: {share:.0%}"
            show(axis, np.clip(mixed, 0, 255).astype(np.uint8), box, title)
    return figure


def write(figure: Figure, path: Path) -> None:
    """Writes a figure as a JPEG."""
    canvas, data = FigureCanvasAgg(figure), io.BytesIO()
    canvas.draw()
    Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).save(data, "JPEG", quality=88)
    path.write_bytes(data.getvalue())


def make_parser() -> commands.Parser:
    """Returns the parser of the command line."""
    parser = commands.Parser(__doc__, prog="docs/method_figures.py")
    parser.add_argument("--video", metavar="FILE", help="template (default: the bundled avatar)")
    parser.add_argument("--audio", metavar="FILE", help="speech (default: the bundled sentence)")
    parser.add_argument("--checkpoint", metavar="DIR", help="default: the bundled checkpoint")
    return parser


def main(argv: Sequence[str]) -> None:
    """Runs the command line `argv`."""
    given = make_parser().parse_args(argv)
    params, config, networks = checkpoint.load(pretrained.find_checkpoint(given.checkpoint))
    sampler = Sampler(params, config, networks)
    video, audio = given.video or str(bundled.template()), given.audio or str(bundled.speech())
    example = make_example(sampler, video, audio)
    write(landmarks_figure(networks, example, sampler.mask), OUT / "method_landmarks.jpg")
    write(warp_figure(networks, example), OUT / "method_warp.jpg")
    write(attention_figure(params, networks, example), OUT / "method_attention.jpg")


if __name__ == "__main__":
    main(sys.argv[1:])
