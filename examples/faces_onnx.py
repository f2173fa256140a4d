"""Expressions of cut-out faces with onnxruntime alone: python faces_onnx.py MODEL.onnx FACE.jpg ..."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image

model, *paths = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=['CPUExecutionProvider'])
classes = json.loads(session.get_modelmeta().custom_metadata_map['classes'])
side = session.get_inputs()[0].shape[1]
faces = np.stack([np.asarray(Image.open(path).convert('RGB').resize((side, side))) for path in paths])
(probabilities,) = session.run(['probabilities'], {'faces': faces})
for path, row in zip(paths, probabilities, strict=True):
    print(path, classes[row.argmax()], f'{row.max():.4f}')
