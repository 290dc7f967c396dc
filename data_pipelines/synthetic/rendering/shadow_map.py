"""Soft shadows of one light by a shadow map."""

import numba
import numpy as np

_HALF, _ONE, _ZERO = np.float32(0.5), np.float32(1), np.float32(0)
_SLACK = np.float32(-1e-6)
_OPTIONS = {"cache": True, "nogil": True, "fastmath": True, "error_model": "numpy"}


@numba.njit(**_OPTIONS)
def render_shadow_map(light_space, opacity, triangles, out):
    """Renders the height of the surface that is nearest to the light.

    Args:
      light_space: x and y in texels of the map, and height towards the light, (V, 3) float32.
      opacity: Opacity of each vertex; triangles that are mostly transparent are left out, (V,).
      triangles: Vertex indices, (T, 3) int32.
      out: Overwritten with heights, very negative where there is nothing, (N, N) float32.
    """
    out[:] = np.float32(-1e9)
    height, width = out.shape
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        if opacity[a] + opacity[b] + opacity[c] < np.float32(1.8):
            continue
        ax, ay, bx, by = light_space[a, 0], light_space[a, 1], light_space[b, 0], light_space[b, 1]
        cx, cy = light_space[c, 0], light_space[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if abs(area) < np.float32(1e-9):
            continue
        x0 = max(int(np.ceil(min(ax, bx, cx) - _HALF)), 0)
        x1 = min(int(np.floor(max(ax, bx, cx) - _HALF)), width - 1)
        y0 = max(int(np.ceil(min(ay, by, cy) - _HALF)), 0)
        y1 = min(int(np.floor(max(ay, by, cy) - _HALF)), height - 1)
        inverse = _ONE / area
        az, bz, cz = light_space[a, 2], light_space[b, 2], light_space[c, 2]
        bdx, bdy = (cy - ay) * inverse, -(cx - ax) * inverse
        cdx, cdy = -(by - ay) * inverse, (bx - ax) * inverse
        for y in range(y0, y1 + 1):
            py = np.float32(y) + _HALF - ay
            for x in range(x0, x1 + 1):
                px = np.float32(x) + _HALF - ax
                wb = px * bdx + py * bdy
                wc = px * cdx + py * cdy
                if wb >= _SLACK and wc >= _SLACK and wb + wc <= _ONE - _SLACK:
                    z = az + wb * (bz - az) + wc * (cz - az)
                    if z > out[y, x]:
                        out[y, x] = z


@numba.njit(**_OPTIONS, forceinline=True)
def light_visibility(shadow, x, y, z):
    """Returns the share of the light that reaches a point of light space, in [0, 1]."""
    size = shadow.shape[0]
    x -= _HALF
    y -= _HALF
    i, j = int(np.floor(x)), int(np.floor(y))
    if i < 1 or j < 1 or i > size - 3 or j > size - 3:
        return _ONE
    a, b = x - np.float32(i), y - np.float32(j)
    total = _ZERO
    for dj in range(-1, 3):
        wy = _ONE
        if dj == -1:
            wy = _ONE - b
        elif dj == 2:
            wy = b
        for di in range(-1, 3):
            wx = _ONE
            if di == -1:
                wx = _ONE - a
            elif di == 2:
                wx = a
            # A margin with a soft transition keeps surfaces from shadowing themselves.
            d = (shadow[j + dj, i + di] - z - np.float32(0.03)) * np.float32(16)
            total += wx * wy * min(max(d, _ZERO), _ONE)
    return _ONE - total / np.float32(9)
