"""From HDR (PQ or HLG) to what an SDR screen shows, as a colour table.

Reference white (203 cd/m2: 58% PQ, 75% HLG, by ITU-R BT.2408) comes out at 90% of SDR white; above
it, highlights up to 1000 cd/m2 are compressed by the curve of ITU-R BT.2390. BT.2020 colours that
BT.709 lacks lose saturation, not hue.
"""

from __future__ import annotations

import functools
import os
import tempfile
from fractions import Fraction

import av
import numpy as np

PQ, HLG = 16, 18  # FFmpeg's AVColorTransferCharacteristic (ITU-T H.273)
NAMES = {PQ: "PQ", HLG: "HLG"}
_BT709 = 1  # of the colour primaries
_WHITE, _PEAK = 203.0, 1000.0  # cd/m2
_GAMMA = 2.4  # of an SDR screen (ITU-R BT.1886)
_LUMINANCE_2020 = np.array([0.2627, 0.6780, 0.0593])
_LUMINANCE_709 = np.array([0.2126, 0.7152, 0.0722])
_TO_709 = np.array(  # from linear BT.2020, ITU-R BT.2087
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
)
_M1, _M2 = 2610 / 16384, 2523 / 32  # of PQ, SMPTE ST 2084
_C1, _C2, _C3 = 3424 / 4096, 2413 / 128, 2392 / 128
_GRID = 65  # points along each axis of the table


def pq_to_light(signal: np.ndarray) -> np.ndarray:
    """Returns cd/m2 of a PQ signal in [0, 1]."""
    root = np.power(np.clip(signal, 0, 1), 1 / _M2)
    power = np.maximum(root - _C1, 0) / (_C2 - _C3 * root)
    return 10000 * np.power(power, 1 / _M1)


def light_to_pq(light: np.ndarray) -> np.ndarray:
    """Returns the PQ signal of cd/m2."""
    power = np.power(np.maximum(light, 0) / 10000, _M1)
    return np.power((_C1 + _C2 * power) / (1 + _C3 * power), _M2)


def hlg_to_light(signal: np.ndarray) -> np.ndarray:
    """Returns cd/m2 of (..., 3) HLG signals in [0, 1] on a screen of 1000 cd/m2 (BT.2100)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    signal = np.clip(signal, 0, 1)
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    luminance = scene @ _LUMINANCE_2020
    return _PEAK * np.power(luminance, 0.2)[..., None] * scene


def compress(light: np.ndarray) -> np.ndarray:
    """Maps cd/m2 up to 1000 to at most 203 by the spline of BT.2390 in PQ space."""
    top = light_to_pq(np.array(_PEAK))
    value, limit = np.minimum(light_to_pq(light) / top, 1), light_to_pq(np.array(_WHITE)) / top
    knee = 1.5 * limit - 0.5
    t = (value - knee) / (1 - knee)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (3 * t**2 - 2 * t**3) * limit
    )
    return pq_to_light(np.where(value < knee, value, spline) * top)


def to_sdr(rgb: np.ndarray, transfer: int, primaries: int = 9) -> np.ndarray:
    """Converts HDR colours to SDR.

    Args:
      rgb: (..., 3) signals in [0, 1].
      transfer: `PQ` or `HLG`.
      primaries: The colours' primaries; anything but BT.709 is taken for BT.2020.

    Returns:
      (..., 3) BT.709 signals in [0, 1].
    """
    light = hlg_to_light(rgb) if transfer == HLG else pq_to_light(rgb)
    brightest = np.maximum(light.max(-1, keepdims=True), 1e-6)
    linear = light * (compress(brightest) / brightest) / _WHITE
    if primaries != _BT709:
        linear = linear @ _TO_709.T
    luminance = np.clip(linear @ _LUMINANCE_709, 0, 1)[..., None]
    low, high = (f(linear, axis=-1, keepdims=True) for f in (np.min, np.max))
    keep = np.minimum(
        np.where(low < 0, luminance / np.maximum(luminance - low, 1e-9), 1),
        np.where(high > 1, (1 - luminance) / np.maximum(high - luminance, 1e-9), 1),
    )
    linear = luminance + np.clip(keep, 0, 1) * (linear - luminance)
    return np.power(np.clip(linear, 0, 1), 1 / _GAMMA)


@functools.cache
def _cube(transfer: int, primaries: int) -> str:
    """Returns the table in the text format that FFmpeg's `lut3d` reads: red changes fastest."""
    axis = np.linspace(0, 1, _GRID)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")
    colours = to_sdr(np.stack([red, green, blue], -1).reshape(-1, 3), transfer, primaries)
    lines = [f"{r:.6f} {g:.6f} {b:.6f}" for r, g, b in colours]
    return "\n".join([f"LUT_3D_SIZE {_GRID}", *lines, ""])


class ToneMap:
    """Applies `to_sdr` to pictures of any size, through a table."""

    FORMAT = "gbrp16le"  # of the pictures that it takes and returns, full range

    def __init__(self, transfer: int, primaries: int) -> None:
        """Creates a converter; see `to_sdr`."""
        self._key = transfer, primaries
        self._size = (0, 0)
        self._graph: av.filter.Graph | None = None

    def __call__(self, picture: av.VideoFrame) -> av.VideoFrame:
        """Converts a picture in `FORMAT`."""
        if self._graph is None or self._size != (picture.width, picture.height):
            self._size = picture.width, picture.height
            self._graph = self._configured()
        picture.pts, picture.time_base = 0, Fraction(1, 1000)
        self._graph.push(picture)
        return self._graph.pull()

    def _configured(self) -> av.filter.Graph:
        graph = av.filter.Graph()
        width, height = self._size
        source = graph.add_buffer(
            width=width, height=height, format=self.FORMAT, time_base=Fraction(1, 1000)
        )
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "table.cube")
            with open(path, "w", encoding="ascii") as file:
                file.write(_cube(*self._key))
            table = graph.add("lut3d", file=path, interp="tetrahedral")
            sink = graph.add("buffersink")
            source.link_to(table)
            table.link_to(sink)
            graph.configure()
        return graph
