"""A canvas for faces: coordinates on a turned ellipsoid, and antialiased shapes from signed distances.

Only +, -, *, / and sqrt touch the pixels. IEEE 754 rounds these correctly and they act on each pixel alone,
so an image has the same bytes on every machine and in every batch. (exp and sin differ between vector units.)

Units: the face is about 1.7 wide and 2.2 high, x to the right and y down, (0, -0.1) lies between the eyes.
"""

import copy
from types import SimpleNamespace

import numpy as np

Array = np.ndarray
SIZE = 64
FINE = SIZE * 3 // 2  # drawn finer than stored, then binned


class Canvas:
    """Holds RGB planes, float32 [3, B, H, W] in 0..1, and the plane coordinates of their pixels."""

    def __init__(self, p: SimpleNamespace):
        ticks = ((np.arange(FINE, dtype=np.float32) + 0.5) / FINE - 0.5) * 2.5
        self.u, self.v = ticks[None, None, :], ticks[None, :, None]
        self.rgb = np.empty((3, len(p.yaw), FINE, FINE), np.float32)
        self.pixel = 2.5 / FINE / p.scale  # in units of the face

    def cover(self, distance: Array, soft: float | Array = 1.6) -> Array:
        """Returns how far a shape covers each pixel, 0..1.

        Args:
          distance: signed distance to the shape, negative inside.
          soft: width of the edge, in pixels.
        """
        alpha = distance * (-1 / (self.pixel * soft))
        alpha += 0.5
        np.maximum(alpha, 0, out=alpha)
        return np.minimum(alpha, 1, out=alpha)

    def paint(self, alpha: Array, colour: Array) -> None:
        rest = 1 - alpha
        for plane, tone in zip(self.rgb, colour, strict=True):
            plane *= rest
            plane += alpha * tone

    def shade(self, amount: Array, tint: tuple[float, float, float] = (0.9, 1.05, 1.05)) -> None:
        """Darkens by `amount` (negative: lightens)."""
        for plane, weight in zip(self.rgb, tint, strict=True):
            plane *= 1 - amount * weight


class Head:
    """Holds coordinates: (hx, hy) in the plane of the head, (x, y) on its turned surface, and normals (nx, ny, nz)."""

    def __init__(self, p: SimpleNamespace, au: SimpleNamespace, canvas: Canvas):
        sine, cosine = turn(p.roll)
        u, v = (canvas.u - p.shift_x) / p.scale, (canvas.v - p.shift_y) / p.scale
        self.hx, self.hy = u * cosine + v * sine, v * cosine - u * sine
        self.nx, self.ny = self.hx / 0.98, (self.hy - 0.05) / 1.3
        self.nz = np.sqrt(np.maximum(1 - self.nx * self.nx - self.ny * self.ny, 0.02))
        sine, cosine = turn(p.yaw)
        self.yaw = sine
        x, depth = self.nx * cosine - self.nz * sine, self.nz * cosine + self.nx * sine
        sine, cosine = turn(p.pitch)
        y = self.ny * cosine - depth * sine
        self.x, self.y = x * 0.98, y * 1.3 + 0.05
        self.mx = np.abs(self.x)
        self.side = np.where(self.x < 0, np.float32(-1), np.float32(1))
        drop = 0.11 * au.u26
        skull = ellipse(self.hx, self.hy + 0.24, p.skull, 0.88)
        jaw = ellipse(self.hx - 0.1 * self.yaw, self.hy - 0.32 - drop, p.jaw, p.chin + 0.3 * drop)
        self.outline = union(skull, jaw, 0.22)
        self.inside = canvas.cover(self.outline)
        self.solid = self.inside.copy()  # what the light falls on: ears, neck and hair are added
        volume = p.hair_volume + 0.05
        crown = ellipse(self.hx, self.hy + 0.26, p.skull + volume, 0.89 + volume)
        self.cap = np.maximum(crown, self.hy - p.sideburn)


def part(canvas: Canvas, head: Head, wide: float, top: float, bottom: float) -> tuple[Canvas, Head]:
    """Returns canvas and head, cut to the smallest rectangle around |x| < wide and top < y < bottom in all images."""
    inner = ((head.mx < wide) & (head.y > top) & (head.y < bottom)).any(axis=0)
    rows, columns = np.flatnonzero(inner.any(axis=1)), np.flatnonzero(inner.any(axis=0))
    window = (..., slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    canvas, head = copy.copy(canvas), copy.copy(head)
    canvas.rgb = canvas.rgb[window]
    for name in ('hx', 'hy', 'x', 'y', 'mx', 'side', 'inside', 'solid'):
        setattr(head, name, getattr(head, name)[window])
    return canvas, head


def turn(half_tangent: Array) -> tuple[Array, Array]:
    """Returns (sine, cosine) of an angle, from the tangent of its half."""
    square = half_tangent * half_tangent
    return 2 * half_tangent / (1 + square), (1 - square) / (1 + square)


def ellipse(x: Array, y: Array, rx: float | Array, ry: float | Array) -> Array:
    """Computes the signed distance to an ellipse, to first order (Quilez, "ellipsoid bound")."""
    wide, high = 1 / rx, 1 / ry
    a, b = x * wide, y * high
    squares = a * a
    squares += b * b
    k = np.sqrt(squares)
    a *= wide
    b *= high
    a *= a
    b *= b
    a += b
    a += 1e-6
    return k * (k - 1) / np.sqrt(a, out=a)


def union(a: Array, b: Array, radius: float) -> Array:
    """Computes the smooth minimum of two distances (Quilez, polynomial)."""
    h = np.maximum(radius - np.abs(a - b), 0) / radius
    return np.minimum(a, b) - h * h * radius * 0.25


def capsule(x: Array, y: Array, ax: Array, ay: Array, bx: Array, by: Array, radius: Array) -> Array:
    dx, dy = bx - ax, by - ay
    t = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy + 1e-6), 0, 1)
    ex, ey = x - ax - t * dx, y - ay - t * dy
    return np.sqrt(ex * ex + ey * ey) - radius


def bump(x: Array, y: Array, rx: float | Array, ry: float | Array) -> Array:
    """Computes a smooth bump, 1 at the middle and 0 beyond the radii."""
    a, b = x / rx, y / ry
    a *= a
    b *= b
    h = 1 - a - b
    np.maximum(h, 0, out=h)
    h *= h
    return h


def within(t: Array, low: float, high: float, soft: float = 0.15) -> Array:
    """Returns 1 for low < t < high, falling to 0 over `soft` on the inner side of both ends."""
    return np.clip(np.minimum(t - low, high - t) / soft, 0, 1)


def tone(r: float, g: float, b: float) -> Array:
    return np.array([r, g, b], np.float32)[:, None, None, None]


def saw(t: Array) -> Array:
    return t - np.floor(t) - 0.5


def binned(planes: Array) -> Array:
    """Averages each three pixels along the last axis to two, by area."""
    left, middle, right = planes[..., 0::3], 0.5 * planes[..., 1::3], planes[..., 2::3]
    pairs = np.stack([left + middle, middle + right], axis=-1) * np.float32(2 / 3)
    return pairs.reshape(*planes.shape[:-1], -1)
