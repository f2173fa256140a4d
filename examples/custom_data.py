"""Read images from a source of your own: python custom_data.py faces.npz runs/mine

The source here is an .npz file with `images` (uint8 [N, H, W, 3]), `labels` (int [N]) and `subjects` (str [N]). It
could be a database or an archive. `read` returns the classes, the size of each split, and a generator of examples.
"""

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

import fer_jax
from fer_jax.data.sets.builder import Example, Reading
from fer_jax.data.sources import prepared
from fer_jax.utils import cache


class NpzFaces:
    """Faces in an .npz file."""

    VERSION = '1.0.0'  # raise it when `read` changes: prepared copies of other versions are not used
    CLASSES = ('happy', 'sad')

    @classmethod
    def read(cls, source: Path) -> Reading:
        """Reads the file.

        Args:
          source: the .npz file.
        """
        faces = np.load(source)
        images, labels, subjects = faces['images'], faces['labels'], faces['subjects']

        def examples(split: str) -> Iterator[Example]:
            for number, image in enumerate(images):
                file = io.BytesIO()
                Image.fromarray(image).save(file, 'png')
                yield Example(f'{number:05}', split, file.getvalue(), int(labels[number]), str(subjects[number]))

        return Reading(cls.CLASSES, {'all': len(images)}, examples)  # no splits: fer_jax splits by subject


source, workdir = sys.argv[1:]
fer_jax.register_dataset('npz_faces', NpzFaces)
root = cache.root() / 'datasets'
if not prepared.is_prepared('npz_faces', root):
    prepared.prepare('npz_faces', Path(source), root)

config = fer_jax.get_config('quickstart')
config.data.name = 'npz_faces'
results = fer_jax.train(config, workdir)
print(results['splits']['test']['accuracy'])
