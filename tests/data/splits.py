"""Splits made by hand."""

from typing import Any

import numpy as np

from fer_jax.data.dataset import Split


def split_of(images: np.ndarray, labels: np.ndarray, **changes: Any) -> Split:
    """A split over uint8 images [N, H, W, C] in memory, ids '0', '1', ..."""
    count = len(images)
    fields: dict[str, Any] = {
        'ids': np.arange(count).astype(str),
        'digests': np.zeros((count, 32), np.uint8),
        'labels': labels.astype(np.int32),
        'attributes': None,
        'levels': None,
        'shape': images.shape[1:],
        'read': lambda index: images[index],
        'weights': np.ones(count, np.float32),
        'distributions': None,
        'subjects': np.full(count, ''),
        'groups': np.full(count, ''),
        'subsets': {},
        'targets': {},
    }
    return Split(**(fields | changes))
