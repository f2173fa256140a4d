"""Classify a folder of face crops into a table: python batch_to_pandas.py release crops faces.csv

For photographs, where faces have to be found first, use `fer_jax.Analyzer(run).photo(path).to_pandas()`.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

import fer_jax

BATCH_SIZE = 256

run, folder, output = sys.argv[1:]
classify = fer_jax.load(run)
paths = sorted(path for path in Path(folder).rglob('*') if path.suffix.lower() in ('.jpg', '.jpeg', '.png'))
rows = []
for first in range(0, len(paths), BATCH_SIZE):
    batch = paths[first : first + BATCH_SIZE]
    images = [np.asarray(ImageOps.exif_transpose(Image.open(path)).convert('RGB')) for path in batch]
    rows += classify.calibrated(images).tolist()
table = pd.DataFrame(rows, columns=list(classify.classes), index=pd.Index(map(str, paths), name='file'))
table.insert(0, 'label', table.idxmax(axis=1))
table.insert(1, 'confidence', table[list(classify.classes)].max(axis=1))
table.to_csv(output)
print(table.label.value_counts())
