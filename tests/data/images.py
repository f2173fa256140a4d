"""Real images for tests."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

EXPRESSIONS = ('anger', 'contempt', 'disgust', 'fear', 'happy', 'sadness', 'surprise')


def ck48(root: Path, count: int) -> np.ndarray:
    """uint8 [count, 48, 48, 1]: faces of CK+48, the classes in turn."""
    folders = [sorted((root / 'ck48' / name).iterdir()) for name in EXPRESSIONS]
    paths = [folders[index % 7][3 * (index // 7)] for index in range(count)]
    return np.stack([np.asarray(Image.open(path).convert('L')) for path in paths])[..., None]


def link_ck48(shared_data: Path, folder: Path, names: Iterable[str], count: int) -> Path:
    """Link the first `count` faces of each of these classes of CK+ as class folders of `folder`; return it."""
    for name in names:
        (folder / name).mkdir(parents=True)
        for path in sorted((shared_data / 'ck48' / name).iterdir())[:count]:
            (folder / name / path.name).symlink_to(path)
    return folder


def photographs(root: Path, size: int) -> np.ndarray:
    """uint8 [6, size, size, 3]: the middles of six colour photographs."""
    images = []
    for path in sorted((root / 'photos').glob('*.jpg')):
        image = Image.open(path).convert('RGB')
        left, top = (image.width - 1000) // 2, (image.height - 1000) // 2
        images.append(np.asarray(image.crop((left, top, left + 1000, top + 1000)).resize((size, size))))
    return np.stack(images)
