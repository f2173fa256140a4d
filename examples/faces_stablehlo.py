"""Expressions of cut-out faces with JAX alone: python faces_stablehlo.py MODEL.stablehlo FACE.jpg ..."""

import sys
from pathlib import Path

import jax
import numpy as np
from PIL import Image

model, *paths = sys.argv[1:]
exported = jax.export.deserialize(bytearray(Path(model).read_bytes()))
side = exported.in_avals[0].shape[1]
faces = np.stack([np.asarray(Image.open(path).convert('RGB').resize((side, side))) for path in paths])
for path, row in zip(paths, np.asarray(exported.call(faces)), strict=True):
    print(path, row.argmax(), f'{row.max():.4f}')
