# /// script
# requires-python = ">=3.11,<3.13"
# dependencies = ["mediapipe==0.10.21", "numpy==1.26.4", "opencv-python-headless==4.11.0.86"]
#
# [tool.uv]
# constraint-dependencies = [
#     "absl-py==2.5.1", "attrs==26.1.0", "flatbuffers==25.12.19", "protobuf==4.25.9",
# ]
# override-dependencies = [
#     "jax ; python_version < '3'", "jaxlib ; python_version < '3'",
#     "matplotlib ; python_version < '3'", "opencv-contrib-python ; python_version < '3'",
#     "sentencepiece ; python_version < '3'", "sounddevice ; python_version < '3'",
# ]
# ///
"""FaceMesh in its own process and environment; `talkjax.media.facemesh` is the client.

MediaPipe's pins (numpy<2, protobuf<5) conflict with those of JAX. Therefore this script has the
separate environment above, which `uv run --script` builds once. The overrides leave out packages
that the face graphs never import.

Protocol version 1 is little endian and uses stdin and stdout. A message consists of `<IB` (the
length of the payload and the type) and the payload.

    worker -> client   H  hello: UTF-8 JSON {"protocol": 1, "mediapipe": "...", ...}
    client -> worker   F  frame: `<II` height, width, then height*width*3 bytes of RGB
    worker -> client   L  landmarks: `<I` n, then n*478*3 float32 (x, y, z in frame pixels)
    client -> worker   R  reset: forget earlier frames (no reply)
    client -> worker   Q  quit (no reply), as at the end of stdin

An error ends the worker with a traceback on stderr, because a graph that failed does not recover.

This file must not import talkjax, which is not installed in its environment.
"""

import argparse
import json
import os
import struct
import sys
import types

PROTOCOL_VERSION = 1
HEADER = struct.Struct("<IB")
POINTS = 478
MIN_SIDE = 16  # pixels; no face can be found in a smaller frame
ZOOM_SIDE = 384  # pixels; side of the square that the window of a small face is scaled to


def take_stdout():
    """Returns stdout as a binary file, and redirects file descriptor 1 (also of C++) to stderr."""
    sys.stdout.flush()
    own = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(own, "wb")


def import_mediapipe():
    """Imports MediaPipe for the CPU, without log messages and without matplotlib.

    MediaPipe imports matplotlib.pyplot for drawing functions, which are never called here. An empty
    module in its place saves ten packages and one second of every start.
    """
    os.environ.update(GLOG_minloglevel="2", TF_CPP_MIN_LOG_LEVEL="3", MEDIAPIPE_DISABLE_GPU="1")
    package, pyplot = types.ModuleType("matplotlib"), types.ModuleType("matplotlib.pyplot")
    package.pyplot = pyplot
    sys.modules.update({"matplotlib": package, "matplotlib.pyplot": pyplot})
    import mediapipe

    return mediapipe


def points_from(result, width: int, height: int):
    """Converts a FaceMesh result to (n, 478, 3) float32: x, y in image pixels, z at x's scale."""
    import numpy as np

    faces = result.multi_face_landmarks or []
    points = np.array(
        [[(p.x, p.y, p.z) for p in face.landmark] for face in faces], np.float64
    ).reshape(-1, POINTS, 3)
    return (points * (width, height, width)).astype(np.float32)


def bounds(points):
    """Returns the bounding box (x0, y0, x1, y1) of (478, 3) landmarks."""
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    return (*map(float, low), *map(float, high))


def overlaps(a, b) -> bool:
    """Returns whether two boxes show one face: the centre of either lies in the other."""
    for (x0, y0, x1, y1), (u0, v0, u1, v1) in ((a, b), (b, a)):
        if u0 <= (x0 + x1) / 2 <= u1 and v0 <= (y0 + y1) / 2 <= v1:
            return True
    return False


def overlap(a, b) -> float:
    """Returns the intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (a, b)]
    return width * height / (sum(areas) - width * height)


def distinct(faces, before):
    """Removes duplicates among faces.

    If several faces are allowed, FaceMesh sometimes detects a face that it already follows and
    returns it twice, a few pixels apart. The one that is nearest to a face of the previous frame is
    kept, so that the face does not jump.
    """
    if len(faces) < 2:
        return faces
    old = [bounds(face) for face in before]
    boxes = [bounds(face) for face in faces]
    order = sorted(
        range(len(faces)), key=lambda i: -max((overlap(boxes[i], b) for b in old), default=0.0)
    )
    kept: list[int] = []
    for i in order:
        if not any(overlaps(boxes[i], boxes[j]) for j in kept):
            kept.append(i)
    return faces[sorted(kept)]


class Zoom:
    """Follows one face that is too small for FaceMesh's own detector.

    A square window around the face is enlarged and given to a tracking FaceMesh. The window stays
    in its place while the face is well inside it, so that the landmarks are as stable as those of a
    large face. Moving the window restarts the tracking.
    """

    def __init__(self, mesh):
        self.mesh = mesh
        self.window = None  # (x, y, side) in frame pixels; (x, y) is the corner

    def aim(self, box) -> None:
        """Centres the window, three times the size of the box, and restarts the tracking."""
        x0, y0, x1, y1 = box
        side = max(MIN_SIDE, round(3.0 * max(x1 - x0, y1 - y0)))
        self.window = (round((x0 + x1 - side) / 2), round((y0 + y1 - side) / 2), side)
        self.mesh.reset()

    def read(self, rgb):
        """Returns a (478, 3) face in frame pixels or None. The frame is surrounded by black."""
        import cv2
        import numpy as np

        x, y, side = self.window
        height, width = rgb.shape[:2]
        patch = np.zeros((side, side, 3), np.uint8)
        left, top = max(x, 0), max(y, 0)
        right, bottom = min(x + side, width), min(y + side, height)
        if right <= left or bottom <= top:
            return None
        patch[top - y : bottom - y, left - x : right - x] = rgb[top:bottom, left:right]
        shrink = side > ZOOM_SIDE
        patch = cv2.resize(
            patch,
            (ZOOM_SIDE, ZOOM_SIDE),
            interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC,
        )
        faces = points_from(self.mesh.process(patch), side, side)
        if not len(faces):
            return None
        return faces[0] + np.array([x, y, 0], np.float32)

    def follow(self, rgb):
        """Does the same as `read`, but moves the window if the face nears its border or shrinks."""
        face = self.read(rgb)
        if face is None:
            return None
        x, y, side = self.window
        x0, y0, x1, y1 = box = bounds(face)
        margin = 0.1 * side
        inside = x0 > x + margin and y0 > y + margin
        inside &= x1 < x + side - margin and y1 < y + side - margin
        if not (inside and side / 5 < max(x1 - x0, y1 - y0)):
            self.aim(box)
            face = self.read(rgb)
        return face


class Detector:
    """FaceMesh, and for faces too small for it the full-range detector with `Zoom` windows."""

    def __init__(self, max_faces: int):
        self.solutions = import_mediapipe().solutions
        self.max_faces = max_faces
        self.mesh = self._new_mesh(max_faces)
        self.full_range = None  # loaded when first needed
        self.idle: list[Zoom] = []
        self.zooms: list[Zoom] = []
        self.shape = None
        self.before = ()  # faces of the previous frame

    def _new_mesh(self, faces: int):
        return self.solutions.face_mesh.FaceMesh(
            static_image_mode=False, max_num_faces=faces, refine_landmarks=True
        )

    def reset(self) -> None:
        """Forgets earlier frames."""
        self.mesh.reset()
        self.idle += self.zooms
        self.zooms = []
        self.shape = None
        self.before = ()

    def _boxes(self, rgb) -> list:
        """Returns face boxes of the full-range detector in frame pixels, by falling confidence."""
        if self.full_range is None:
            self.full_range = self.solutions.face_detection.FaceDetection(
                min_detection_confidence=0.5, model_selection=1
            )
        height, width = rgb.shape[:2]
        found = self.full_range.process(rgb).detections or []
        boxes = []
        for detection in sorted(found, key=lambda d: -d.score[0]):
            box = detection.location_data.relative_bounding_box
            x, y, w, h = box.xmin * width, box.ymin * height, box.width * width, box.height * height
            if w > 4 and h > 4:
                boxes.append((x, y, x + w, y + h))
        return boxes

    def detect(self, rgb):
        """Detects the faces of a (H, W, 3) uint8 frame: (n, 478, 3) float32, frame pixels."""
        import numpy as np

        if min(rgb.shape[:2]) < MIN_SIDE:
            return np.zeros((0, POINTS, 3), np.float32)
        if self.shape not in (None, rgb.shape):
            self.reset()
        self.shape = rgb.shape
        if not self.zooms:
            faces = points_from(self.mesh.process(rgb), rgb.shape[1], rgb.shape[0])
            faces = self.before = distinct(faces, self.before)
            if len(faces):
                return faces
        return self._small_faces(rgb)

    def _small_faces(self, rgb):
        import numpy as np

        kept, faces = [], []
        for zoom in self.zooms:
            face = zoom.follow(rgb)
            if face is None or any(overlaps(bounds(face), bounds(other)) for other in faces):
                self.idle.append(zoom)
            else:
                kept.append(zoom)
                faces.append(face)
        self.zooms = kept
        if len(faces) < self.max_faces:
            for box in self._boxes(rgb):
                if len(faces) == self.max_faces:
                    break
                if any(overlaps(box, bounds(face)) for face in faces):
                    continue
                zoom = self.idle.pop() if self.idle else Zoom(self._new_mesh(1))
                zoom.aim(box)
                face = zoom.read(rgb)
                if face is None or any(overlaps(bounds(face), bounds(f)) for f in faces):
                    self.idle.append(zoom)
                else:
                    self.zooms.append(zoom)
                    faces.append(face)
        return np.array(faces, np.float32).reshape(-1, POINTS, 3)


def read_exactly(stream, count: int):
    """Reads exactly `count` bytes; returns None at the end of the stream."""
    data = bytearray(count)
    view, got = memoryview(data), 0
    while got < count:
        step = stream.readinto(view[got:])
        if not step:
            return None
        got += step
    return data


def write_message(stream, kind: bytes, *parts: bytes) -> None:
    """Sends one message."""
    stream.write(HEADER.pack(sum(map(len, parts)), kind[0]))
    for part in parts:
        stream.write(part)
    stream.flush()


def serve(detector, incoming, outgoing) -> None:
    """Answers messages until the client quits or the stream ends."""
    import numpy as np

    while (header := read_exactly(incoming, HEADER.size)) is not None:
        length, kind = HEADER.unpack(header)
        payload = read_exactly(incoming, length)
        if payload is None or kind == ord("Q"):
            return
        if kind == ord("R"):
            detector.reset()
        elif kind == ord("F"):
            height, width = struct.unpack_from("<II", payload)
            rgb = np.frombuffer(payload, np.uint8, offset=8).reshape(height, width, 3)
            faces = detector.detect(rgb)
            write_message(outgoing, b"L", struct.pack("<I", len(faces)), faces.tobytes())
        else:
            raise ValueError(f"unknown message type {kind}")


def main() -> None:
    """Loads the models, sends the hello message and serves the client."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--max-faces", type=int, default=1)
    arguments = parser.parse_args()
    outgoing = take_stdout()
    detector = Detector(arguments.max_faces)
    import mediapipe
    import numpy

    hello = {
        "protocol": PROTOCOL_VERSION,
        "mediapipe": mediapipe.__version__,
        "numpy": numpy.__version__,
        "python": sys.version.split()[0],
    }
    write_message(outgoing, b"H", json.dumps(hello).encode())
    serve(detector, sys.stdin.buffer.raw, outgoing)


if __name__ == "__main__":
    main()
