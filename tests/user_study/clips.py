"""Two folders of tiny talking "systems", with everything in them that could give them away."""

import av
import numpy as np

from tests.media_files import Sound, make_media, picture, tone

SYSTEMS = ("ours-v7", "wavlipper")
CLIPS = ("anna/clip_one", "anna/clip_two", "ben")


def make_clip(path, hue, seconds=0.6, fps=25, hertz=300.0, size=(64, 64)):
    """A short MP4 with sound, whose metadata tell where it comes from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    images = [picture(i, width, height) for i in range(round(seconds * fps))]
    for image in images:
        image[..., 2] = hue
    bare = path.with_name("bare.mp4")
    make_media(bare, images, fps=fps, sound=Sound(tone(seconds, 16000, hertz=hertz), 16000))
    with av.open(str(bare)) as source, av.open(str(path), "w") as target:
        target.metadata["title"] = target.metadata["comment"] = f"by {path.parts[-2]} {path.stem}"
        copies = [target.add_stream_from_template(stream) for stream in source.streams]
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = copies[packet.stream.index]
                target.mux(packet)
    bare.unlink()
    return path


def make_systems(folder, clips=CLIPS, **options):
    """Folders `folder`/SYSTEM with one video for each clip; returns them."""
    for hue, system in zip((60, 200), SYSTEMS, strict=True):
        for number, clip in enumerate(clips):
            make_clip(folder / system / f"{clip}.mp4", hue + number, **options)
    return [folder / system for system in SYSTEMS]


def make_truth(folder, clips=CLIPS):
    """A picture of the real person for each clip, with a telling comment in it."""
    import cv2

    for clip in clips:
        path = folder / f"{clip}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((48, 40, 3), 120, np.uint8))
    return folder
