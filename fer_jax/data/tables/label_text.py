"""Labels as text, to stand beside images."""

from collections.abc import Sequence

import numpy as np

LEAST_SHARE = 0.005


def describe_label(label: np.ndarray, names: Sequence[str], *, kind: str) -> str:
    """Returns what an example is trained on as text, in lines.

    Args:
      label: int [], a class, -1 where unknown; or float [C], by `kind`.
      names: of the classes, attributes or levels.
      kind: of float labels: 'shares' of classes, of which the two largest are named; 'attributes', of which those that
        are present are named, with their share where images are mixed; or 'levels', of which all numbers are given.
        NaN is unknown.
    """
    if label.ndim == 0:
        return names[int(label)] if label >= 0 else 'unknown'
    if kind == 'levels':
        return '\n'.join(f'{name} {value:.2f}' for name, value in zip(names, label, strict=True) if not np.isnan(value))
    if kind == 'attributes':
        present = [(name, value) for name, value in zip(names, label, strict=True) if value >= LEAST_SHARE]
        lines = [name if value > 1 - LEAST_SHARE else f'{value:.2f} {name}' for name, value in present]
        return '\n'.join(lines) or ('unknown' if np.isnan(label).all() else 'none')
    first, second = np.argsort(-label, kind='stable')[:2]
    if label[second] < LEAST_SHARE:
        return names[first]
    return '\n'.join(f'{label[index]:.2f} {names[index]}' for index in (first, second))
