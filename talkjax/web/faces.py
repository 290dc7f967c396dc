"""Choosing the face that speaks by a click on a picture of the template."""

from __future__ import annotations

import cv2
import numpy as np

from talkjax.media import tracking
from talkjax.media.detection import Detector, detect_faces
from talkjax.media.video import VideoFrame
from talkjax.sampling import face_choice

_CHOSEN, _OTHER = (46, 160, 67), (255, 255, 255)  # colours of the boxes, RGB
_MARGIN = 0.35  # of a face that its box shows around eyes, brows and nose
_MOST_SIDE = 1280  # pixels of the picture that is shown


def find_face(
    frame: VideoFrame, point: tuple[float, float], detector: Detector
) -> tuple[str, np.ndarray]:
    """Finds the face at a point of a frame.

    Args:
      frame: A frame of the template.
      point: (x, y) in pixels.
      detector: Face detector.

    Returns:
      The value of `Options.face` that chooses it, and the frame with the face marked,
      (H, W, 3) uint8.

    Raises:
      UserError: There is no face at the point.
    """
    text = f"{frame.time:.3f}s:{point[0]:.0f},{point[1]:.0f}"
    face = face_choice.parse_face(text)
    assert isinstance(face, face_choice.FacePoint)
    found = list(detect_faces([frame], detector))
    (chosen,) = (box for box in face_choice.trace_point(found, face).values() if box is not None)
    boxes = tracking.pose_boxes(found[0].faces)
    marked = frame.rgb.copy()
    for box in boxes:
        _draw(marked, box, _CHOSEN if np.array_equal(box, chosen) else _OTHER)
    return text, marked


def _draw(rgb: np.ndarray, box: np.ndarray, colour: tuple[int, int, int]) -> None:
    """Draws a box around the whole face of which `box` holds eyes, brows and nose."""
    width = box[2] - box[0]
    low, high = box[:2] - _MARGIN * width, box[2:] + _MARGIN * width
    high[1] += _MARGIN * width  # mouth and chin
    corners = [tuple(int(value) for value in corner) for corner in (low, high)]
    cv2.rectangle(rgb, *corners, colour, max(2, round(min(rgb.shape[:2]) / 120)), cv2.LINE_AA)


def encode_picture(rgb: np.ndarray) -> tuple[bytes, float]:
    """Returns a picture as JPEG, made smaller where it is large, and its scale."""
    scale = min(1.0, _MOST_SIDE / max(rgb.shape[:2]))
    if scale < 1:
        size = (round(rgb.shape[1] * scale), round(rgb.shape[0] * scale))
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(".jpg", rgb[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, 90))
    if not done:
        raise ValueError(f"a picture of {rgb.shape} cannot be encoded")
    return data.tobytes(), scale
