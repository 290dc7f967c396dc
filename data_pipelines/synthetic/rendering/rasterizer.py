"""A small software rasterizer with textures, soft light and antialiased silhouettes.

It works in two passes. `rasterize` finds the nearest triangle at 2 x 2 samples of every pixel.
`shade` lights one point of a pixel whose samples agree, and every sample of the others, and
averages in linear light, which antialiases silhouettes at little more than the cost of one sample
per pixel.

The arrays of a mesh are float32 unless noted otherwise:

    screen (V, 3)             x and y in pixels, where 0 is the image's edge, and 1 / distance
    normals (V, 3)            unit vectors
    uv (V, 2)                 texture coordinates in texels of the material's rectangle
    vertex_colours (V, 3)     factors of the texture's colour
    opacity (V,)              opacity of CUTOUT materials; see below
    triangles (T, 3) int32    vertex indices
    material (T,) int32       rows of `materials`

The atlas (H, W, 4) holds linear RGB and gloss. A row of `materials` (M, 12) holds

    0-3     x, y, width and height of the material's rectangle in the atlas
    4       1 if the texture repeats
    5       the kind: OPAQUE; CUTOUT, with a hole where the opacity is below the texture's gloss; or
            INNER, which lies inside the head and never hides material 0, the skin, which is drawn
            first
    6, 7    strength of the highlight, and the binary logarithm of its exponent
    8-10    how far diffuse light wraps around edges in red, green and blue
    11      1 if back faces are visible

`lights` (L, 9) holds the direction towards each light, its linear colour, and the direction halfway
between the light and the viewer. `ambient` (2, 3) is the light from above and from below.
"""

import numba
import numpy as np

from .shadow_map import light_visibility

MATERIAL_FIELDS = 12
OPAQUE, CUTOUT, INNER = 0, 1, 2
# Numba promotes int with float32 to float64; typed constants keep single precision.
_HALF, _ONE, _TWO = np.float32(0.5), np.float32(1), np.float32(2)
_QUARTER, _ZERO = np.float32(0.25), np.float32(0)
_SLACK = np.float32(-1e-6)
_OPTIONS = {"cache": True, "nogil": True, "fastmath": True, "error_model": "numpy"}


@numba.njit(**_OPTIONS)
def compute_normals(points, triangles, out):
    """Computes the area-weighted vertex normals of a mesh into `out` (V, 3), all in float32."""
    out[:] = 0
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ux = points[b, 0] - points[a, 0]
        uy = points[b, 1] - points[a, 1]
        uz = points[b, 2] - points[a, 2]
        vx = points[c, 0] - points[a, 0]
        vy = points[c, 1] - points[a, 1]
        vz = points[c, 2] - points[a, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for k in range(3):
            v = triangles[t, k]
            out[v, 0] += nx
            out[v, 1] += ny
            out[v, 2] += nz
    for v in range(out.shape[0]):
        s = np.float32(1) / np.sqrt(
            out[v, 0] * out[v, 0]
            + out[v, 1] * out[v, 1]
            + out[v, 2] * out[v, 2]
            + np.float32(1e-12)
        )
        out[v, 0] *= s
        out[v, 1] *= s
        out[v, 2] *= s


@numba.njit(**_OPTIONS, forceinline=True)
def _sample_texture(atlas, materials, m, u, v, out):
    """Samples a texture bilinearly into `out` (4,); it repeats or is clamped at its edges."""
    x0, y0 = int(materials[m, 0]), int(materials[m, 1])
    w, h = int(materials[m, 2]), int(materials[m, 3])
    u -= _HALF
    v -= _HALF
    fu, fv = np.floor(u), np.floor(v)
    a, b = u - fu, v - fv
    i, j = int(fu), int(fv)
    if materials[m, 4] > _ZERO:
        i0, j0 = i % w, j % h
        i1, j1 = (i + 1) % w, (j + 1) % h
    else:
        i0, j0 = min(max(i, 0), w - 1), min(max(j, 0), h - 1)
        i1, j1 = min(max(i + 1, 0), w - 1), min(max(j + 1, 0), h - 1)
    w00 = (_ONE - a) * (_ONE - b)
    w10 = a * (_ONE - b)
    w01 = (_ONE - a) * b
    w11 = a * b
    for k in range(4):
        out[k] = (
            w00 * atlas[y0 + j0, x0 + i0, k]
            + w10 * atlas[y0 + j0, x0 + i1, k]
            + w01 * atlas[y0 + j1, x0 + i0, k]
            + w11 * atlas[y0 + j1, x0 + i1, k]
        )


@numba.njit(**_OPTIONS, forceinline=True)
def _clip_span(value, step, low, high):
    """Returns the part of [low, high] where value + step * x is not negative."""
    if step > np.float32(1e-12):
        low = max(low, -value / step)
    elif step < np.float32(-1e-12):
        high = min(high, -value / step)
    elif value < _SLACK:
        high = low - np.float32(2)
    return low, high


@numba.njit(**_OPTIONS)
def rasterize(screen, uv, opacity, triangles, material, materials, atlas, z_buffer, nearest):
    """Finds the nearest triangle at each sample.

    Args:
      screen, uv, opacity, triangles, material, materials, atlas: See the module's docstring.
      z_buffer: Overwritten with 1 / distance, or 0 where there is nothing, (2 H, 2 W) float32.
      nearest: Overwritten with the triangle, or -1 where there is nothing, (2 H, 2 W) int32.
    """
    z_buffer[:] = 0
    nearest[:] = -1
    height, width = z_buffer.shape
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax, ay = screen[a, 0] * _TWO, screen[a, 1] * _TWO
        bx, by = screen[b, 0] * _TWO, screen[b, 1] * _TWO
        cx, cy = screen[c, 0] * _TWO, screen[c, 1] * _TWO
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        m = material[t]
        # y points down, so front faces are clockwise.
        if area >= 0 and materials[m, 11] == 0:
            continue
        if abs(area) < np.float32(1e-9):
            continue
        x0 = max(int(np.ceil(min(ax, bx, cx) - _HALF)), 0)
        x1 = min(int(np.floor(max(ax, bx, cx) - _HALF)), width - 1)
        y0 = max(int(np.ceil(min(ay, by, cy) - _HALF)), 0)
        y1 = min(int(np.floor(max(ay, by, cy) - _HALF)), height - 1)
        if x1 < x0 or y1 < y0:
            continue
        inverse = _ONE / area
        az, bz, cz = screen[a, 2], screen[b, 2], screen[c, 2]
        # The weights of b and c are linear functions of the sample's position.
        bdx, bdy = (cy - ay) * inverse, -(cx - ax) * inverse
        cdx, cdy = -(by - ay) * inverse, (bx - ax) * inverse
        holes = materials[m, 5] == 1
        inner = materials[m, 5] == 2
        left, top = int(materials[m, 0]), int(materials[m, 1])
        across, along = int(materials[m, 2]), int(materials[m, 3])
        for y in range(y0, y1 + 1):
            py = np.float32(y) + _HALF - ay
            px = np.float32(x0) + _HALF - ax
            wb = px * bdx + py * bdy
            wc = px * cdx + py * cdy
            first, last = x0, x1
            if x1 - x0 > 5:  # Wide triangles scan only the part of the row between their edges.
                low, high = _ZERO, np.float32(x1 - x0)
                low, high = _clip_span(wb, bdx, low, high)
                low, high = _clip_span(wc, cdx, low, high)
                low, high = _clip_span(_ONE - wb - wc, -bdx - cdx, low, high)
                skip = max(int(low) - 1, 0)
                first, last = x0 + skip, min(x0 + int(high) + 1, x1)
                wb += np.float32(skip) * bdx
                wc += np.float32(skip) * cdx
            for x in range(first, last + 1):
                wa = _ONE - wb - wc
                if wa >= _SLACK and wb >= _SLACK and wc >= _SLACK:
                    z = wa * az + wb * bz + wc * cz
                    if z > z_buffer[y, x]:
                        visible = not (
                            inner and nearest[y, x] >= 0 and material[nearest[y, x]] == 0
                        )
                        if holes:
                            s = _ONE / z
                            pa, pb, pc = wa * az * s, wb * bz * s, wc * cz * s
                            f = pa * opacity[a] + pb * opacity[b] + pc * opacity[c]
                            if f < _ONE:
                                u = pa * uv[a, 0] + pb * uv[b, 0] + pc * uv[c, 0]
                                v = pa * uv[a, 1] + pb * uv[b, 1] + pc * uv[c, 1]
                                i = left + int(np.floor(u)) % across
                                j = top + int(np.floor(v)) % along
                                visible = f > atlas[j, i, 3]
                        if visible:
                            z_buffer[y, x] = z
                            nearest[y, x] = t
                wb += bdx
                wc += cdx


@numba.njit(**_OPTIONS, forceinline=True)
def _shade_sample(
    t, x, y, screen, normals, uv, vertex_colours, triangles, material, materials, atlas, lights,
    ambient, light_space, shadow, texel, colour,
):  # fmt: skip
    """Adds the linear colour of triangle t at pixel position (x, y) to `colour` (3,)."""
    a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
    ax, ay = screen[a, 0], screen[a, 1]
    ux, uy = screen[b, 0] - ax, screen[b, 1] - ay
    vx, vy = screen[c, 0] - ax, screen[c, 1] - ay
    inverse = np.float32(1) / (ux * vy - uy * vx)
    px, py = x - ax, y - ay
    wb = (px * vy - py * vx) * inverse
    wc = (py * ux - px * uy) * inverse
    # The centre of a pixel may lie just outside the triangle that its samples hit.
    wb = min(max(wb, np.float32(-0.3)), np.float32(1.3))
    wc = min(max(wc, np.float32(-0.3)), np.float32(1.3))
    wa = _ONE - wb - wc
    wa, wb, wc = wa * screen[a, 2], wb * screen[b, 2], wc * screen[c, 2]
    s = _ONE / (wa + wb + wc)
    wa, wb, wc = wa * s, wb * s, wc * s
    m = material[t]
    _sample_texture(
        atlas,
        materials,
        m,
        wa * uv[a, 0] + wb * uv[b, 0] + wc * uv[c, 0],
        wa * uv[a, 1] + wb * uv[b, 1] + wc * uv[c, 1],
        texel,
    )
    nx = wa * normals[a, 0] + wb * normals[b, 0] + wc * normals[c, 0]
    ny = wa * normals[a, 1] + wb * normals[b, 1] + wc * normals[c, 1]
    nz = wa * normals[a, 2] + wb * normals[b, 2] + wc * normals[c, 2]
    s = _ONE / np.sqrt(nx * nx + ny * ny + nz * nz + np.float32(1e-12))
    if materials[m, 11] > _ZERO and nz > _ZERO:
        s = -s
    nx, ny, nz = nx * s, ny * s, nz * s
    up = _HALF - _HALF * ny
    r = ambient[1, 0] + (ambient[0, 0] - ambient[1, 0]) * up
    g = ambient[1, 1] + (ambient[0, 1] - ambient[1, 1]) * up
    bl = ambient[1, 2] + (ambient[0, 2] - ambient[1, 2]) * up
    sr, sg, sb = _ZERO, _ZERO, _ZERO
    kr, kg, kb = materials[m, 8], materials[m, 9], materials[m, 10]
    fr, fg, fb = _ONE / (_ONE + kr), _ONE / (_ONE + kg), _ONE / (_ONE + kb)
    power = int(materials[m, 7])
    for i in range(lights.shape[0]):
        d = nx * lights[i, 0] + ny * lights[i, 1] + nz * lights[i, 2]
        reach = _ONE
        if i == 0:  # The key light casts shadows, but does not sharpen its own soft terminator.
            reach = light_visibility(
                shadow,
                wa * light_space[a, 0] + wb * light_space[b, 0] + wc * light_space[c, 0],
                wa * light_space[a, 1] + wb * light_space[b, 1] + wc * light_space[c, 1],
                wa * light_space[a, 2] + wb * light_space[b, 2] + wc * light_space[c, 2],
            )
            facing = min(max(d * np.float32(4) + _HALF, _ZERO), _ONE)
            reach = _ONE - np.float32(0.85) * facing * (_ONE - reach)
        r += lights[i, 3] * reach * max((d + kr) * fr, _ZERO)
        g += lights[i, 4] * reach * max((d + kg) * fg, _ZERO)
        bl += lights[i, 5] * reach * max((d + kb) * fb, _ZERO)
        h = nx * lights[i, 6] + ny * lights[i, 7] + nz * lights[i, 8]
        if h > _ZERO and d > _ZERO:
            for _ in range(power):
                h *= h
            h *= reach * min(d * np.float32(4), _ONE)
            sr += h * lights[i, 3]
            sg += h * lights[i, 4]
            sb += h * lights[i, 5]
    k = materials[m, 6] * texel[3]
    tr = wa * vertex_colours[a, 0] + wb * vertex_colours[b, 0] + wc * vertex_colours[c, 0]
    tg = wa * vertex_colours[a, 1] + wb * vertex_colours[b, 1] + wc * vertex_colours[c, 1]
    tb = wa * vertex_colours[a, 2] + wb * vertex_colours[b, 2] + wc * vertex_colours[c, 2]
    colour[0] += tr * (texel[0] * r + k * sr)
    colour[1] += tg * (texel[1] * g + k * sg)
    colour[2] += tb * (texel[2] * bl + k * sb)


@numba.njit(**_OPTIONS)
def shade(
    screen, normals, uv, vertex_colours, triangles, material, materials, atlas, lights, ambient,
    light_space, shadow, z_buffer, nearest, background, out,
):  # fmt: skip
    """Lights the triangles that `rasterize` found.

    Args:
      screen, normals, uv, vertex_colours, triangles, material, materials, atlas, lights, ambient:
        See the module's docstring.
      light_space, shadow: Vertices (V, 3) and shadow map of the first light, see `shadow_map`.
      z_buffer, nearest: Results of `rasterize`.
      background: Linear colour behind the mesh, (H, W, 3) float32.
      out: Overwritten with linear colour, (H, W, 3) float32.
    """
    height, width = out.shape[:2]
    texel = np.empty(4, np.float32)
    colour = np.empty(3, np.float32)
    for y in range(height):
        for x in range(width):
            i00, i01 = nearest[2 * y, 2 * x], nearest[2 * y, 2 * x + 1]
            i10, i11 = nearest[2 * y + 1, 2 * x], nearest[2 * y + 1, 2 * x + 1]
            if i00 < 0 and i01 < 0 and i10 < 0 and i11 < 0:
                for k in range(3):
                    out[y, x, k] = background[y, x, k]
                continue
            colour[:] = 0
            same = i00 >= 0 and i01 >= 0 and i10 >= 0 and i11 >= 0
            if same:
                m = material[i00]
                same = material[i01] == m and material[i10] == m and material[i11] == m
            if same:
                d00, d01 = z_buffer[2 * y, 2 * x], z_buffer[2 * y, 2 * x + 1]
                d10, d11 = z_buffer[2 * y + 1, 2 * x], z_buffer[2 * y + 1, 2 * x + 1]
                low, high = min(d00, d01, d10, d11), max(d00, d01, d10, d11)
                same = high - low < np.float32(0.006) * high
            if same:
                _shade_sample(
                    i11, np.float32(x) + _HALF, np.float32(y) + _HALF, screen, normals, uv,
                    vertex_colours, triangles, material, materials, atlas, lights, ambient,
                    light_space, shadow, texel, colour,
                )  # fmt: skip
                for k in range(3):
                    out[y, x, k] = colour[k]
                continue
            for j in range(4):
                t = nearest[2 * y + j // 2, 2 * x + j % 2]
                if t < 0:
                    for k in range(3):
                        colour[k] += background[y, x, k]
                else:
                    px = np.float32(x) + _QUARTER + _HALF * np.float32(j % 2)
                    py = np.float32(y) + _QUARTER + _HALF * np.float32(j // 2)
                    _shade_sample(
                        t, px, py, screen, normals, uv, vertex_colours, triangles, material,
                        materials, atlas, lights, ambient, light_space, shadow, texel, colour,
                    )  # fmt: skip
            for k in range(3):
                out[y, x, k] = colour[k] * _QUARTER


@numba.njit(**_OPTIONS)
def apply_tone_curve(linear, curve, noise, shift, out):
    """Converts linear light to 8 bits by a tone curve and adds sensor noise.

    Args:
      linear: Linear light, (H, W, 3) float32.
      curve: Values in [0, 255] of linear light from 0 to 1, (N,) float32.
      noise: Noise in 8-bit steps, (H, W, 3) float32.
      shift: Offset in pixels by which the noise is rolled, (2,) int64.
      out: Overwritten with the image, (H, W, 3) uint8.
    """
    top = np.float32(curve.shape[0] - 1)
    height, width = linear.shape[:2]
    for y in range(height):
        j = (y + shift[0]) % height
        for x in range(width):
            i = (x + shift[1]) % width
            for k in range(3):
                v = linear[y, x, k] * top
                v = curve[int(min(max(v, _ZERO), top))]
                v += noise[j, i, k] + _HALF
                out[y, x, k] = np.uint8(min(max(v, _ZERO), np.float32(255)))
