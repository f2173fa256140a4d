"""Draws faces from numbers: skin, eyes, mouth, brows and their folds, each moved by facial action units.

The two halves of a face are drawn at once, on the mirrored coordinate `mx = |x|`. A parameter is an array
[B, 1, 1], a colour [3, B, 1, 1], an action unit a number from 0 (off) to 1.
"""

from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np

from fer_jax.data.sets.face_canvas import Array, Canvas, Head, binned, bump, capsule, ellipse, part, saw, tone, within

UNITS = (1, 2, 4, 5, 6, 7, 9, 12, 15, 16, 20, 23, 25, 26)  # facial action units, by their FACS numbers
_CHUNK = 8  # images at once: amortises the calls, still fits the cache


def render(faces: Mapping[str, Array]) -> Array:
    """Renders faces.

    Args:
      faces: arrays [B] or [B, k] by name, see `synthetic_faces.describe`.

    Returns:
      uint8 [B, 64, 64, 3], RGB.
    """
    count = len(faces['yaw'])
    chunks = [_render({k: v[start : start + _CHUNK] for k, v in faces.items()}) for start in range(0, count, _CHUNK)]
    return np.concatenate(chunks)


def _render(faces: Mapping[str, Array]) -> Array:
    p = SimpleNamespace(**{name: _columns(values) for name, values in faces.items() if name != 'noise'})
    au = SimpleNamespace(**{f'u{unit}': _columns(faces[f'au{unit}']) for unit in UNITS})
    canvas = Canvas(p)
    head = Head(p, au, canvas)
    _background(canvas, head, p)
    canvas.paint(head.inside, p.skin)
    _forehead(*part(canvas, head, 0.75, -0.95, 0.0), p, au)
    _cheeks(*part(canvas, head, 0.9, -0.35, 1.15), p, au)
    _nose(*part(canvas, head, 0.4, -0.5, 0.7), p, au)
    _eyes(*part(canvas, head, 0.7, -0.45, 0.25), p, au)
    _mouth(*part(canvas, head, 0.75, 0.4, 1.3), p, au)
    _brows(*part(canvas, head, 0.85, -0.85, 0.1), p, au)
    if p.beard.any():
        _beard(*part(canvas, head, 9.0, 0.05, 9.0), p)
    _hair(canvas, head, p)
    if p.glasses.any():
        _glasses(*part(canvas, head, 1.0, -0.5, 0.4), p)
    _light(canvas, head, p)
    if p.block.any():
        _occluder(canvas, head, p)
    return _sensor(canvas, p, faces['noise'])


def _columns(values: Array) -> Array:
    """[B] -> [B, 1, 1] and [B, k] -> [k, B, 1, 1], float32."""
    values = np.asarray(values, np.float32)
    return values[:, None, None] if values.ndim == 1 else values.T[:, :, None, None]


def _background(canvas: Canvas, head: Head, p: SimpleNamespace) -> None:
    blend = np.clip(0.5 + 0.4 * (canvas.u * p.ground_x + canvas.v * p.ground_y), 0, 1)
    canvas.rgb[:] = p.ground_a + blend * (p.ground_b - p.ground_a)
    canvas.shade(0.5 * p.ground_blob * bump(canvas.u - p.ground_y, canvas.v + p.ground_x, 0.9, 0.7), (1, 1, 1))
    x, y = head.hx, head.hy
    canvas.paint(canvas.cover(head.cap, 3.0) * p.hairy, 0.8 * p.hair)
    if p.hair_length.any():
        curtain = ellipse(x, y - 0.45 * p.hair_length, p.skull + 0.08 + p.hair_volume, 1.0 + 0.5 * p.hair_length)
        canvas.paint(canvas.cover(curtain, 3.0) * (p.hair_length > 0), 0.75 * p.hair)
    _neck(*part(canvas, head, 9.0, 0.3, 9.0), p)
    _ears(*part(canvas, head, 9.0, -0.45, 0.5), p)


def _neck(canvas: Canvas, head: Head, p: SimpleNamespace) -> None:
    neck = np.maximum(np.abs(head.hx + 0.06 * head.yaw) - 0.62 * p.jaw - 0.08, 0.5 - head.hy)
    shoulders = ellipse(head.hx, head.hy - 2.05, 1.45, 0.85)
    skin, cloth = canvas.cover(neck), canvas.cover(shoulders)
    canvas.paint(skin, 0.78 * p.skin)
    canvas.paint(cloth, p.cloth)
    np.maximum(head.solid, np.maximum(skin, cloth), out=head.solid)


def _ears(canvas: Canvas, head: Head, p: SimpleNamespace) -> None:
    ear = canvas.cover(ellipse(np.abs(head.hx + 0.12 * head.yaw) - p.skull, head.hy - 0.02, 0.13, 0.23))
    canvas.paint(ear, 0.86 * p.skin)
    np.maximum(head.solid, ear, out=head.solid)


def _forehead(canvas: Canvas, head: Head, p: SimpleNamespace, au: SimpleNamespace) -> None:
    x, y, mx = head.x, head.y, head.mx
    # Corrugator (AU4): vertical furrows and a shadow between the brows
    frown = canvas.cover(np.abs(mx - 0.055 - 0.12 * (y + 0.25)) - 0.010, 2.2) * within(y, -0.42, -0.14, 0.08)
    dark = au.u4 * (0.55 * frown + 0.16 * bump(x, y + 0.24, 0.2, 0.16))
    # Frontalis: horizontal furrows, above its inner part (AU1) and its outer part (AU2)
    raised = np.minimum(au.u1 * np.clip(1.3 - 2.6 * mx, 0, 1) + au.u2 * np.clip(3 * mx - 0.4, 0, 1), 1)
    depth = np.clip(0.32 * raised + 0.12 * p.age, 0, 1) * np.clip(2.6 - 4 * mx, 0, 1)
    height = y + 0.05 * raised - 0.12 * mx * mx
    for row in (0.50, 0.61, 0.72):
        dark += depth * canvas.cover(np.abs(height + row) - 0.008, 2.5)
    canvas.shade(dark)


def _cheeks(canvas: Canvas, head: Head, p: SimpleNamespace, au: SimpleNamespace) -> None:
    x, y, mx = head.x, head.y, head.mx
    smile = 0.6 * au.u12 + 0.6 * au.u6
    cheek = bump(mx - 0.47, y - 0.30 + 0.08 * au.u6, 0.32, 0.26)
    canvas.shade((0.06 + 0.05 * smile) * cheek * p.blush, (-0.5, 1.6, 1.1))
    canvas.shade(-0.13 * (0.3 + smile) * bump(mx - 0.46, y - 0.22 + 0.07 * au.u6, 0.2, 0.14), (1, 1, 0.8))
    # Crow's feet
    feet = [canvas.cover(np.abs(y + 0.06 - slope * (mx - 0.60)) - 0.006, 2.0) for slope in (-0.55, 0.0, 0.5)]
    dark = 0.16 * bump(mx - 0.37, y + 0.14, 0.3, 0.17)  # the eye sockets
    dark += 0.10 * bump(x, y - 0.88 - 0.1 * au.u26, 0.25, 0.06) - 0.06 * bump(x, y - 0.98, 0.2, 0.12)
    dark += (feet[0] + feet[1] + feet[2]) * within(mx, 0.64, 0.80, 0.05) * (0.45 * au.u6 + 0.1 * p.age)
    # The nasolabial fold, from the wing of the nose around the corner of the mouth
    t = (y - 0.36 + 0.07 * au.u9) / (0.36 - 0.06 * au.u12 + 0.07 * au.u9)
    reach = 0.28 + 0.14 * au.u12 + 0.08 * au.u20 + 0.03 * au.u9
    fold = mx - 0.16 - 0.04 * au.u9 - reach * t + 0.10 * t * (1 - t) * (1 - 2.2 * au.u9)
    depth = 0.10 + 0.22 * p.age + 0.5 * au.u12 + 0.6 * au.u9 + 0.12 * au.u6 + 0.15 * au.u15
    crease = 0.55 * canvas.cover(np.abs(fold) - 0.008, 3.0) * within(t, 0, 1, 0.25)
    dark += np.minimum(depth, 1) * (crease + 0.10 * bump(fold + 0.06, t - 0.5, 0.12, 0.6))
    canvas.shade(dark)


def _nose(canvas: Canvas, head: Head, p: SimpleNamespace, au: SimpleNamespace) -> None:
    length = p.nose_length - 0.06 * au.u9
    x = head.x - 0.16 * head.yaw * np.clip(head.y + 0.1, 0, 0.5)  # the tip stands out of the surface
    y, mx = head.y, np.abs(x)
    wide = p.nose_width * (1 + 0.18 * au.u9 + 0.10 * au.u12)
    along = np.clip((y + 0.12) / (length + 0.12), 0, 1)
    wall = mx - 0.05 - (0.75 * wide - 0.05) * along * along
    light = np.clip(0.5 + 0.7 * p.light_x * np.where(x < 0, np.float32(1), np.float32(-1)), 0.15, 1)
    canvas.shade(0.25 * light * canvas.cover(np.abs(wall) - 0.012, 6.0) * within(y, -0.25, 0.9, 0.2) * (y < length))
    canvas.shade(-0.14 * bump(x, y - 0.1, 0.06, 0.3) - 0.16 * bump(x, y - length + 0.07, 0.09, 0.09), (1, 1, 0.9))
    wing = ellipse(mx - wide, y - length + 0.03 + 0.03 * au.u9, 0.05, 0.065 + 0.02 * au.u9)
    canvas.shade(0.38 * canvas.cover(np.abs(wing) - 0.010, 2.5) * (mx > wide))
    canvas.shade(0.30 * bump(x, y - length - 0.06, 1.2 * wide, 0.07))
    nostril = ellipse(mx - 0.55 * wide, y - length - 0.012 + 0.02 * au.u9, 0.42 * wide, 0.026 + 0.012 * au.u9)
    canvas.paint(0.8 * canvas.cover(nostril), 0.28 * p.skin)
    canvas.shade(0.10 * bump(x, y - length - 0.14, 0.05, 0.09))  # philtrum
    # Wrinkled nose: furrows across its root and down its sides
    curve = y - 0.9 * mx * mx + 0.25 * mx
    root = [canvas.cover(np.abs(curve - row) - 0.010, 2.2) for row in (-0.17, -0.09, -0.01)]
    flank = canvas.cover(np.abs(y - 0.02 - 0.8 * mx) - 0.008, 2.5) * within(mx, 0.08, 0.26)
    canvas.shade(au.u9 * (0.55 * (root[0] + root[1] + root[2]) * (mx < 0.17) + 0.35 * flank))


def _eyes(canvas: Canvas, head: Head, p: SimpleNamespace, au: SimpleNamespace) -> None:
    e = (head.mx - p.eye_x) / p.eye_width
    y = head.y + 0.09 + p.eye_tilt * (head.mx - p.eye_x)
    arch = 1 - e * e
    squint = 1 - 0.22 * au.u6 - 0.12 * au.u7 - 0.30 * au.u9
    upper = p.eye_open * (1 + 0.75 * au.u5 - 0.12 * au.u4) * squint * (1 - p.blink)
    slant = 1 - 0.30 * e * (1 + 1.3 * au.u1 * (1 - au.u5) - 1.8 * au.u4 * (1 - au.u1))
    lower = 0.60 * p.eye_open * (1 + 0.25 * au.u5 - 0.50 * au.u6 - 0.62 * au.u7 - 0.35 * au.u9)
    top, bottom = -upper * arch * slant, lower * arch * (1 + 0.2 * e)
    opening = canvas.cover(np.maximum(top - y, y - bottom)) * (arch > 0)
    canvas.paint(opening, p.sclera * (0.97 - 0.25 * np.clip(1 - (y - top) / 0.06, 0, 1)))
    ix = head.mx - p.eye_x - (0.4 * head.yaw * 0.1 + p.gaze_x) * head.side
    iy = y - p.gaze_y + 0.012 * au.u5
    radius = np.sqrt(ix * ix + iy * iy)
    iris = 0.098
    canvas.paint(opening * canvas.cover(radius - iris), 0.45 * p.iris)
    canvas.paint(opening * canvas.cover(radius - 0.78 * iris), p.iris)
    canvas.paint(opening * canvas.cover(radius - 0.42 * iris), tone(0.06, 0.06, 0.07))
    glint = ellipse(ix + 0.035 * head.side, iy + 0.04, 0.022, 0.026)
    canvas.paint(0.9 * opening * canvas.cover(glint), tone(0.97, 0.97, 0.97))
    ends = np.clip(6 * (arch + 0.15), 0, 1)
    lash = np.abs(y - np.minimum(top, 0.02)) - 0.014 - p.lashes * np.clip(0.6 + 0.5 * e, 0, 1)
    canvas.paint(0.85 * ends * canvas.cover(lash), 0.10 + 0.12 * p.skin)
    dark = 0.35 * ends * canvas.cover(np.abs(y - np.maximum(bottom, -0.02)) - 0.008)
    crease = np.abs(y - top + 0.055 - 0.025 * au.u5 + 0.015 * au.u9) - 0.007
    dark += 0.38 * np.clip(4 * (arch + 0.1), 0, 1) * canvas.cover(crease, 2.2)
    # Orbicularis: the bulge under the eye (AU6, AU7), bags with age
    pouch = np.abs(y - bottom - 0.075 + 0.02 * au.u6) - 0.008
    strength = np.clip(0.35 * au.u6 + 0.30 * au.u7 + 0.15 * au.u9 + 0.22 * p.age, 0, 1)
    canvas.shade(dark + strength * np.clip(3 * (arch - 0.05), 0, 1) * canvas.cover(pouch, 3.0))


def _mouth(canvas: Canvas, head: Head, p: SimpleNamespace, au: SimpleNamespace) -> None:
    pull = 1 + p.crooked * head.side
    width = p.mouth_width * (1 + 0.30 * au.u12 + 0.34 * au.u20 - 0.10 * au.u23 - 0.24 * au.u26 * (1 - au.u20))
    m = head.x / width
    q = m * m
    arch = np.maximum(1 - q, 0)
    rise = (0.17 * au.u12 - 0.17 * au.u15 - 0.03 * au.u20) * pull
    line = p.mouth_y + 0.04 * au.u12 - 0.035 * au.u15 - 0.015 * au.u9 - rise * q
    gap_top = 0.055 * au.u26 + 0.045 * au.u25 + 0.055 * au.u9 * au.u16
    gap_low = 0.29 * au.u26 * (1 - 0.45 * au.u20) + 0.12 * au.u25 + 0.13 * au.u16
    square = arch * (1 + 0.5 * q * (au.u16 + au.u20))
    top, bottom = line - gap_top * square, line + gap_low * square
    thin = (1 - 0.60 * au.u23) * (1 - 0.25 * au.u12) * (1 - 0.30 * au.u20)
    lip_top = p.lips * 0.075 * thin * (1 - 0.4 * au.u9) * arch * (1 - 0.35 * bump(m, 0 * m, 0.28, 1.0))
    lip_low = p.lips * 0.105 * thin * (arch * (0.55 + 0.45 * arch))
    y = head.y
    inside = arch > 0
    canvas.shade(0.22 * bump(m, y - bottom - lip_low - 0.05, 0.75, 0.06))  # under the lower lip
    lips = np.maximum(top - lip_top - y, y - bottom - lip_low)
    canvas.paint(0.85 * inside * canvas.cover(lips, 2.0), p.lip)
    canvas.shade(0.18 * inside * canvas.cover(np.maximum(top - lip_top - y, y - top)))
    canvas.shade(-0.20 * bump(m, y - bottom - 0.5 * lip_low, 0.5, 0.05) * inside, (1, 1, 1))
    hole = inside * canvas.cover(np.maximum(top - y, y - bottom))
    canvas.paint(hole, tone(0.22, 0.07, 0.08))
    tongue = ellipse(head.x, y - bottom - 0.02, 0.6 * width, 0.12 * np.clip(3 * gap_low, 0, 1) + 0.01)
    canvas.paint(0.8 * hole * canvas.cover(tongue, 3), tone(0.66, 0.27, 0.28))
    enamel = tone(0.95, 0.93, 0.88) * (1 - 0.25 * np.minimum(q, 1))
    bite = np.minimum(0.085 * np.clip(1.6 * au.u25 + 0.5 * au.u26 + 0.5 * au.u9, 0, 1), 1.0)
    canvas.paint(hole * canvas.cover(y - top - bite * (1 - 0.4 * q)), enamel)
    canvas.paint(hole * canvas.cover(bottom - 0.075 * au.u16 - 0.05 * au.u20 * au.u26 - y), 0.94 * enamel)
    seam = np.maximum(np.abs(y - line) - 0.012 - 0.006 * au.u23, np.abs(m) - 1.02)
    canvas.paint(0.75 * canvas.cover(seam) * (gap_low < 0.03), 0.35 * p.lip)
    corner = bump(np.abs(head.x) - width, y - p.mouth_y - 0.04 * au.u12 + rise, 0.06, 0.05)
    dark = corner * (0.25 + 0.25 * au.u12 + 0.3 * au.u15)
    # Depressed corners leave a furrow to the jaw, stretched ones crease beside, tight lips furrow around them
    t = (y - p.mouth_y - 0.10) / 0.22
    furrow = canvas.cover(np.abs(head.mx - width - 0.02 - 0.05 * t) - 0.01, 3.0) * within(t, 0, 1, 0.3)
    dark += au.u15 * (0.40 * furrow + 0.28 * bump(head.x, y - p.mouth_y - 0.27, 0.16, 0.07))
    beside = canvas.cover(np.abs(head.mx - width - 0.07 + 1.5 * (y - line) * (y - line)) - 0.008, 3.0)
    dark += 0.4 * au.u20 * beside * within(y, 0.52, 0.84, 0.1)
    around = canvas.cover(np.abs(np.abs(y - line - 0.01) - 0.095) - 0.008, 3.0)
    canvas.shade(dark + 0.35 * au.u23 * arch * around)


def _brows(canvas: Canvas, head: Head, p: SimpleNamespace, au: SimpleNamespace) -> None:
    b = (head.mx - 0.14 + 0.07 * au.u4) / p.brow_length
    inner = 0.20 * au.u1 - 0.16 * au.u4 * (1 - 0.85 * au.u1) - 0.05 * au.u9
    outer = 0.19 * au.u2 - 0.02 * au.u4 - 0.05 * au.u9 * (1 - au.u2)
    middle = 0.10 * au.u1 + 0.20 * au.u2 - 0.06 * au.u9
    middle = middle - au.u4 * (0.10 * (1 - 0.5 * au.u1) + 0.09 * au.u2)
    lift = inner * (1 - b) * (1 - 2 * b) + 4 * middle * b * (1 - b) + outer * b * (2 * b - 1)
    y = head.y + p.brow_y + lift + p.brow_arch * 4 * b * (1 - b) - 0.05 * b * b
    body = np.clip(np.minimum(5 * b + 0.45, 1.5 * (1.02 - b)), 0, 1)
    hairs = 0.85 * p.brow_density * within(b, -0.08, 1.02, 0.08)
    canvas.paint(hairs * canvas.cover(np.abs(y) - p.brow_thick * body, 2.2), p.brow)


def _beard(canvas: Canvas, head: Head, p: SimpleNamespace) -> None:
    mx, y = head.mx, head.y
    below = np.clip(3 * (y - 0.42 - 0.30 * np.clip(1 - 1.6 * mx, 0, 1)), 0, 1)
    beard = np.minimum(below + np.clip(4 * (mx - 0.62), 0, 1) * (y > 0.1), 1)
    lips = np.clip(1.4 - 2.2 * bump(head.x, y - p.mouth_y - 0.06, 0.55, 0.24), 0, 1)
    canvas.paint(head.inside * p.beard * beard * lips, 0.9 * p.hair)
    whiskers = ellipse(mx - 0.14, y - p.mouth_y + 0.115, 0.19, 0.045)
    canvas.paint(p.moustache * canvas.cover(whiskers, 4.0), p.hair)


def _hair(canvas: Canvas, head: Head, p: SimpleNamespace) -> None:
    x, y, mx = head.x, head.y, head.mx
    temples = np.maximum(mx - 0.60, 0)
    edge = p.hairline + p.parting * x + p.fringe * (x * x - 0.25) - 3.0 * temples
    front = np.maximum(head.cap, 0.6 * (y + edge))
    strands = 0.88 + 0.22 * np.abs(saw(7 * x + 4 * p.parting * y))
    strands += 0.35 * bump(x - 0.3 * p.light_x, y + 0.8, 0.6, 0.22)
    alpha = canvas.cover(front, 2.5) * p.hairy
    canvas.shade(0.25 * p.hairy * canvas.cover(front - 0.06, 6.0) * head.inside)
    canvas.paint(alpha, p.hair * strands)
    head.solid = np.maximum(head.solid, alpha)


def _glasses(canvas: Canvas, head: Head, p: SimpleNamespace) -> None:
    x, y = np.abs(head.mx - p.eye_x - 0.01), np.abs(head.y + 0.06)
    rx, ry = 0.27, p.lens_height
    box = np.maximum(x - rx, y - ry)
    oval = ellipse(x, y, rx + 0.01, ry + 0.02)
    lens = oval + p.lens_square * (box - oval)
    canvas.paint(p.glasses * p.lens_tint * canvas.cover(lens), 0.12 + 0.2 * p.frame)
    sheen = canvas.cover(np.abs(head.mx + 0.8 * head.y - p.eye_x - 0.05) - 0.05, 4.0) * canvas.cover(lens)
    canvas.paint(p.glasses * p.sheen * sheen, tone(0.97, 0.97, 0.97))
    bridge = np.maximum(np.abs(head.y + 0.09 - 0.5 * head.x * head.x) - 0.016, head.mx - p.eye_x + 0.24)
    temple = np.maximum(np.abs(head.y + 0.10) - 0.018, p.eye_x + 0.26 - head.mx)
    wire = np.minimum(np.minimum(np.abs(lens) - p.wire, bridge), temple)
    canvas.paint(p.glasses * head.inside * canvas.cover(wire), p.frame)


def _light(canvas: Canvas, head: Head, p: SimpleNamespace) -> None:
    facing = np.maximum(head.nx * p.light_x + head.ny * p.light_y + head.nz * p.light_z, 0)
    level = p.ambient + (1 - p.ambient) * facing * 1.25
    rim = np.clip(1 + head.outline / 0.22, 0, 1)  # darker where the surface turns away
    level = level * (1 - 0.22 * rim * rim * head.inside)
    canvas.rgb *= 1 + head.solid * (level * p.light_tint - 1)


def _occluder(canvas: Canvas, head: Head, p: SimpleNamespace) -> None:
    """A hand of three fingers, or one bar, that reaches into the face from outside."""
    x, y = head.hx, head.hy
    dx, dy = p.block_bx - p.block_ax, p.block_by - p.block_ay
    apart = p.block_spread / np.sqrt(dx * dx + dy * dy + 1e-6)
    for finger in (-1, 0, 1):
        ax, ay = p.block_ax - finger * dy * apart, p.block_ay + finger * dx * apart
        reach = 1 - 0.08 * abs(finger)
        d = capsule(x, y, ax, ay, ax + reach * dx, ay + reach * dy, p.block_radius)
        round_ = 0.75 + 0.35 * np.clip(-d / p.block_radius, 0, 1)
        canvas.paint(p.block * canvas.cover(d, 2.0), p.block_colour * round_)


def _sensor(canvas: Canvas, p: SimpleNamespace, noise: Array) -> Array:
    """Binning to the image size, exposure, defocus, noise [B, 64, 64, 3] of unit variance, quantisation."""
    rgb = binned(binned(canvas.rgb).swapaxes(-1, -2)).swapaxes(-1, -2)
    rgb = (rgb - 0.45) * p.contrast + 0.45 * p.exposure
    padded = np.pad(rgb, ((0, 0), (0, 0), (1, 1), (1, 1)), mode='edge')
    rows = 0.25 * padded[..., :-2, :] + 0.5 * padded[..., 1:-1, :] + 0.25 * padded[..., 2:, :]
    soft = 0.25 * rows[..., :-2] + 0.5 * rows[..., 1:-1] + 0.25 * rows[..., 2:]
    rgb = rgb + p.blur * (soft - rgb) + p.sensor * np.moveaxis(noise, -1, 0)
    return np.moveaxis(np.clip(np.floor(rgb * 255 + 0.5), 0, 255).astype(np.uint8), 0, -1)
