"""Lossy coding of frames, for the traces that it leaves in them."""

from fractions import Fraction

import av
import numpy as np

CODECS = ("none", "h264", "mpeg2video", "mpeg4", "mjpeg")
_ENCODERS = {"h264": "libx264"}


class Transcoder:
    """Encodes frames and decodes them again, in constant memory and with the same result each time.

    Args:
      codec: One of `CODECS` but "none".
      quality: Quantizer from 1 (best) to 31; for H.264, the rate factor from 0 to 51.
      width, height: Size of the frames in pixels, which must be even.
      rate: Frames per second.
    """

    def __init__(self, codec: str, quality: int, width: int, height: int, rate: float):
        self._count = 0
        encoder = av.CodecContext.create(_ENCODERS.get(codec, codec), "w")
        encoder.width, encoder.height = width, height
        encoder.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        encoder.framerate = Fraction(round(rate)) if codec == "mpeg2video" else Fraction(rate)
        encoder.framerate = encoder.framerate.limit_denominator(1001)
        encoder.time_base = 1 / encoder.framerate
        encoder.thread_count = 1
        if codec == "h264":
            encoder.options = {"crf": str(quality), "preset": "ultrafast", "tune": "zerolatency"}
        else:
            encoder.options = {"qmin": str(quality), "qmax": str(quality)}
            encoder.gop_size = 25
        self._encoder = encoder
        self._decoder = av.CodecContext.create(codec, "r")
        self._decoder.thread_count = 1

    def push(self, frame: np.ndarray) -> list[np.ndarray]:
        """Codes a frame (H, W, 3) uint8; returns the frames that are ready, in order."""
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        picture = picture.reformat(format=self._encoder.pix_fmt)
        picture.pts, picture.time_base = self._count, self._encoder.time_base
        self._count += 1
        return self._decode(self._encoder.encode(picture))

    def flush(self) -> list[np.ndarray]:
        """Returns the frames that are still in the codec; no frame can be pushed afterwards."""
        frames = self._decode(self._encoder.encode(None))
        return frames + [f.to_ndarray(format="rgb24") for f in self._decoder.decode(None)]

    def _decode(self, packets):
        return [
            frame.to_ndarray(format="rgb24")
            for packet in packets
            for frame in self._decoder.decode(packet)
        ]
