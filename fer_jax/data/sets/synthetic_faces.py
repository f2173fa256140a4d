"""Synthetic faces: an embedded data set of seven expressions, drawn from facial action units.

An expression is its FACS prototype, as in the EMFACS table (Friesen and Ekman, 1983), at a varying intensity.
A face has an identity (shape, skin, hair, glasses) that all its images share; pose, light, occlusion and sensor
noise are each image's own. Image `index` of a split is a pure function of (version, split, index).
"""

import functools
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fer_jax.data.sets.builder import Example, Reading
from fer_jax.data.sets.face_canvas import SIZE
from fer_jax.data.sets.face_renderer import UNITS, render
from fer_jax.utils import threads

CLASSES = ('angry', 'disgust', 'fear', 'happy', 'sad', 'surprise', 'neutral')  # FER2013's order
PROTOTYPES: dict[str, tuple[int, ...]] = {
    'angry': (4, 5, 7, 23),
    'disgust': (9, 15, 16),
    'fear': (1, 2, 4, 5, 20, 26),
    'happy': (6, 12),
    'sad': (1, 4, 15),
    'surprise': (1, 2, 5, 26),
    'neutral': (),
}
ACTION_UNITS = UNITS  # 25 (lips part) belongs to no prototype: speech, open smiles
PER_IDENTITY = 7  # images of one face: every expression once
IDENTITIES = {'train': range(0, 400), 'validation': range(400, 500), 'test': range(500, 650)}
VERSION = '1.1.0'
_DRAWING = 1  # of the drawings: another number draws other faces
_IDENTITY, _IMAGE, _NOISE, _UNITS = range(4)
_STREAM = {'identity': 0, 'train': 1, 'validation': 2, 'test': 3}

_SKINS = (
    (0.97, 0.84, 0.75), (0.93, 0.76, 0.64), (0.88, 0.69, 0.54), (0.80, 0.60, 0.44),
    (0.68, 0.48, 0.34), (0.55, 0.37, 0.26), (0.43, 0.28, 0.20), (0.95, 0.80, 0.66),
)  # fmt: skip
_HAIRS = (
    (0.09, 0.07, 0.07), (0.16, 0.11, 0.08), (0.30, 0.19, 0.12), (0.45, 0.29, 0.16),
    (0.74, 0.58, 0.34), (0.62, 0.27, 0.12), (0.60, 0.59, 0.58), (0.82, 0.80, 0.77),
)  # fmt: skip
_IRISES = ((0.30, 0.18, 0.09), (0.42, 0.28, 0.13), (0.36, 0.44, 0.24), (0.31, 0.48, 0.62), (0.45, 0.50, 0.53))
_FRAMES = ((0.06, 0.06, 0.07), (0.25, 0.13, 0.07), (0.50, 0.42, 0.25), (0.45, 0.10, 0.12), (0.15, 0.22, 0.42))


class _Draws:
    """Uniform numbers from Philox (Salmon et al., 2011), a generator that is a function of a counter."""

    def __init__(self, stream: str, number: int, purpose: int):
        counter = np.array([0, purpose, number, _STREAM[stream]], np.uint64)
        self.bits = np.random.Philox(counter=counter, key=np.array([_DRAWING, 0], np.uint64))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * (int(self.bits.random_raw()) >> 11) * 2.0**-53

    def chance(self, probability: float) -> bool:
        return self.uniform() < probability

    def pick(self, rows: tuple) -> np.ndarray:
        return np.array(rows[int(self.uniform() * len(rows))])

    def colour(self, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        return np.array([self.uniform(low, high) for _ in range(3)])

    def bell(self, width: float) -> float:
        """Between -width and width, mostly near 0: a triangular distribution."""
        return width * (self.uniform() + self.uniform() - 1)

    def noise(self, shape: tuple[int, ...]) -> np.ndarray:
        """Nearly normal, unit variance: sums of four 16-bit numbers (integers: exact)."""
        a, b, c, d = self.bits.random_raw(int(np.prod(shape))).view(np.uint16).reshape(-1, 4).T
        total = (a.astype(np.int32) + b) + (c.astype(np.int32) + d)
        return ((total.reshape(shape) - 2 * 65535) * (np.sqrt(3.0) / 65536)).astype(np.float32)


def identity_of(split: str, index: int) -> int:
    return IDENTITIES[split][index // PER_IDENTITY]


def label_of(index: int) -> int:
    return index % len(CLASSES)


def examples(split: str) -> int:
    return len(IDENTITIES[split]) * PER_IDENTITY


def intensities(split: str, index: int) -> np.ndarray:
    """Returns the action units of one image, float32 [14] in the order of `ACTION_UNITS`, 0 (off) to 1."""
    draws = _Draws(split, index, _UNITS)
    expression = CLASSES[label_of(index)]
    strength = draws.uniform(0.55, 1.0)
    units = {unit: strength * draws.uniform(0.75, 1.0) for unit in PROTOTYPES[expression]}
    apart = {'happy': 0.65, 'disgust': 0.3, 'angry': 0.1, 'sad': 0.1, 'neutral': 0.12}.get(expression, 0.0)
    units[25] = draws.uniform(0.2, 0.8) if draws.chance(apart) else 0.0
    return np.array([units.get(unit, 0.0) for unit in ACTION_UNITS], np.float32)


@functools.lru_cache(maxsize=64)
def _identity(number: int) -> dict[str, Any]:
    d = _Draws('identity', number, _IDENTITY)
    tone, shade = d.pick(_SKINS), d.uniform(0.92, 1.04)
    skin = np.minimum(tone * shade * (1 + np.array([0.0, d.bell(0.04), d.bell(0.07)])), 1)
    hair = np.minimum(d.pick(_HAIRS) * d.uniform(0.8, 1.2), 1)
    bald, long, fringe = d.chance(0.10), d.chance(0.42), d.chance(0.30)
    bearded = not long and d.chance(0.35)
    density = d.uniform(0.15, 0.85)
    reddening = d.uniform(0.1, 1.0) if long else d.uniform(0, 0.45)
    return {
        'skin': skin,
        'blush': d.uniform(0.3, 1.3),
        'age': float(d.chance(0.4)) * d.uniform(0.2, 1.0),
        'skull': d.uniform(0.74, 0.84),
        'jaw': d.uniform(0.56, 0.70),
        'chin': d.uniform(0.68, 0.78),
        'hair': hair,
        'hairy': float(not bald),
        'hair_length': float(long and not bald) * d.uniform(0.5, 1.0),
        'hair_volume': d.uniform(0.0, 0.12),
        'hairline': d.uniform(0.50, 0.62) if fringe else d.uniform(0.68, 0.82),
        'fringe': d.uniform(-0.3, 0.3) if fringe else d.uniform(-0.1, 0.7),
        'parting': d.bell(0.35),
        'sideburn': d.uniform(-0.15, 0.3),
        'beard': float(bearded) * density,
        'moustache': float(bearded and d.chance(0.7)) * np.minimum(1.2 * density, 0.9),
        'eye_x': d.uniform(0.34, 0.39),
        'eye_width': d.uniform(0.185, 0.225),
        'eye_open': d.uniform(0.085, 0.118),
        'eye_tilt': d.uniform(-0.06, 0.16),
        'lashes': d.uniform(0.004, 0.02) if long else d.uniform(0.0, 0.008),
        'iris': d.pick(_IRISES) * d.uniform(0.8, 1.2),
        'sclera': np.array([0.97, 0.95, 0.93]) * d.uniform(0.92, 1.0),
        'brow': 0.75 * hair + 0.06 * skin,
        'brow_y': d.uniform(0.27, 0.345),
        'brow_arch': d.uniform(0.02, 0.075),
        'brow_length': d.uniform(0.50, 0.60),
        'brow_thick': d.uniform(0.022, 0.05),
        'brow_density': d.uniform(0.75, 1.0),
        'nose_length': d.uniform(0.33, 0.43),
        'nose_width': d.uniform(0.13, 0.19),
        'mouth_y': d.uniform(0.62, 0.69),
        'mouth_width': d.uniform(0.27, 0.34),
        'lips': d.uniform(0.75, 1.4),
        'lip': skin * (1 - reddening * np.array([0.08, 0.5, 0.4])) * np.array([0.88, 0.68, 0.68]),
        'glasses': float(d.chance(0.28)),
        'lens_height': d.uniform(0.17, 0.23),
        'lens_square': d.uniform(0.0, 0.9),
        'lens_tint': float(d.chance(0.25)) * d.uniform(0.05, 0.3),
        'wire': d.uniform(0.008, 0.026),
        'frame': d.pick(_FRAMES),
    }


def describe(split: str, index: int) -> dict[str, Any]:
    """Returns what `render` needs of one image: numbers, colours [3] and noise [64, 64, 3]."""
    d = _Draws(split, index, _IMAGE)
    face = dict(_identity(identity_of(split, index)))
    face |= {f'au{unit}': value for unit, value in zip(ACTION_UNITS, intensities(split, index), strict=True)}
    sunny, angle = d.uniform(0.0, 1.0), d.uniform(-1, 1)
    across = 2 * angle / (1 + angle * angle)  # a point of the half circle from its half-angle tangent
    warmth = d.bell(0.14)
    covered = d.chance(0.22)
    side = -1.0 if d.chance(0.5) else 1.0
    face |= {
        'yaw': d.bell(0.22),
        'pitch': d.bell(0.11),
        'roll': d.bell(0.16),
        'scale': d.uniform(1.04, 1.28),
        'shift_x': d.bell(0.16),
        'shift_y': d.bell(0.14),
        'gaze_x': d.bell(0.06),
        'gaze_y': d.bell(0.025),
        'blink': d.uniform(0.0, 0.22),
        'crooked': d.bell(0.35),
        'light_x': 0.75 * across,
        'light_y': d.uniform(-0.6, 0.1),
        'light_z': 0.75,
        'ambient': 0.35 + 0.5 * sunny,
        'light_tint': np.array([1 + warmth, 1.0, 1 - warmth]),
        'ground_a': 0.6 * d.uniform(0.05, 0.95) + 0.4 * d.colour(),
        'ground_b': 0.6 * d.uniform(0.05, 0.95) + 0.4 * d.colour(),
        'ground_x': d.uniform(-1, 1),
        'ground_y': d.uniform(-1, 1),
        'ground_blob': d.uniform(-0.8, 0.8),
        'cloth': 0.4 * d.uniform() + 0.6 * d.colour(0.05, 0.9),
        'sheen': float(d.chance(0.4)) * d.uniform(0.2, 0.6),
        'block': float(covered),
        'block_ax': side * d.uniform(0.9, 1.3),
        'block_ay': d.uniform(-0.2, 1.4),
        'block_bx': side * d.uniform(0.25, 0.7),
        'block_by': d.uniform(-0.6, 0.9),
        'block_radius': d.uniform(0.07, 0.12),
        'block_spread': 0.19 if d.chance(0.6) else 0.03,
        'block_colour': face['skin'] * 0.9 if d.chance(0.6) else d.colour(0.1, 0.9),
        'exposure': d.uniform(0.75, 1.2),
        'contrast': d.uniform(0.75, 1.15),
        'blur': d.uniform(0, 1) * d.uniform(0, 1),
        'sensor': d.uniform(0.004, 0.035),
        'noise': _Draws(split, index, _NOISE).noise((SIZE, SIZE, 3)),
    }
    return face


def images(split: str, indices: Any) -> np.ndarray:
    """Draws the images of a split by index, uint8 [B, 64, 64, 3] RGB."""
    faces = [describe(split, int(index)) for index in indices]
    return render({name: np.stack([face[name] for face in faces]) for name in faces[0]})


def read(source: Path | None = None) -> Reading:
    """Draws all splits; there is no source. The subject is the identity, the target the intensity of action units."""

    def examples_of(split: str) -> Iterator[Example]:
        blocks = [range(start, min(start + 64, examples(split))) for start in range(0, examples(split), 64)]
        with threads.threads() as pool:  # numpy releases the interpreter, so threads help
            drawn = pool.map(functools.partial(images, split), blocks)
            for indices, block in zip(blocks, drawn, strict=True):
                for index, pixels in zip(indices, block, strict=True):
                    yield Example(
                        f'{split}-{index:05d}',
                        split,
                        _png(pixels),
                        label_of(index),
                        subject=f'{identity_of(split, index):03d}',
                        targets={'action_units': intensities(split, index)},
                    )

    return Reading(
        CLASSES,
        {split: examples(split) for split in IDENTITIES},
        examples_of,
        targets={'action_units': tuple(f'AU{unit}' for unit in ACTION_UNITS)},
        image_shape=(SIZE, SIZE, 3),
    )


def _png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, 'PNG', compress_level=1)
    return stream.getvalue()
