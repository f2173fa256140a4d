"""The images that the HTML report shows, as data URIs; the templates hold the markup."""

import base64
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.inference.saliency import Explanation
from fer_jax.reporting import figures

Read = Callable[[np.ndarray], np.ndarray]  # positions [B] -> uint8 [B, H, W, C]
Explain = Callable[[np.ndarray, np.ndarray], Explanation]  # see `inference.saliency.explain`
MOST_SHOWN = 16  # images of a section
MOST_EXPLAINED = 12  # images with their maps
MOST_CLASSES = 10  # classes whose maps are shown
SIDE_PX = 96  # their pixels


def select_images(
    predictions: Mapping[str, np.ndarray], classes: Sequence[str], read: Read
) -> dict[str, list[dict[str, str]]]:
    """Selects the most confident misclassified images, and the images with the smallest margin of probability.

    Args:
      predictions: ids [N], labels int [N] and logits float [N, C] of a split.
      classes: class names.
      read: reads images of the split.

    Returns:
      'misclassified' and 'uncertain', at most `MOST_SHOWN` images each.
    """
    wide = predictions['logits'].astype(np.float64)
    probabilities = np.exp(wide - wide.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    wrong = np.flatnonzero(predicted != predictions['labels'])
    top_two = np.sort(probabilities, axis=1)[:, -2:]

    def tiles(order: np.ndarray) -> list[dict[str, str]]:
        chosen = order[:MOST_SHOWN]
        return [
            {
                'source': embed_image(image),
                'label': classes[predictions['labels'][index]],
                'prediction': f'{classes[predicted[index]]} {confidence[index]:.0%}',
                'id': str(predictions['ids'][index]),
            }
            for index, image in zip(chosen, read(chosen), strict=True)
        ]

    return {
        'misclassified': tiles(wrong[np.argsort(-confidence[wrong])]),
        'uncertain': tiles(np.argsort(top_two[:, 1] - top_two[:, 0])),
    }


def explain_images(
    predictions: Mapping[str, np.ndarray], classes: Sequence[str], read: Read, explain: Explain
) -> dict[str, Any]:
    """Computes occlusion maps of varied images, and of every class for one image of each class.

    Args:
      predictions: labels int [N], logits float [N, C] and subjects str [N] of a split.
      classes: class names.
      read: reads images of the split.
      explain: computes occlusion maps, see `inference.saliency.explain`.

    Returns:
      'saliency': the losses `removed` and `removed_at_random` of the deletion test, and `images`, empty where the maps
      do not pass it; 'class_maps': a table, or None where they do not pass it or there are more than `MOST_CLASSES`
      classes.
    """
    predicted = predictions['logits'].argmax(1)
    chosen = choose_varied(predictions['labels'], predicted == predictions['labels'], predictions['subjects'])
    images = read(chosen)
    maps = explain(images, predicted[chosen])
    saliency: dict[str, Any] = {
        'removed': float(maps.removed.mean()),
        'removed_at_random': float(maps.removed_at_random.mean()),
        'images': [],
    }
    if saliency['removed'] <= saliency['removed_at_random']:
        return {'saliency': saliency, 'class_maps': None}
    for index, image, heat in zip(chosen, images, maps.heats, strict=True):
        caption = {'label': classes[predictions['labels'][index]], 'prediction': classes[predicted[index]]}
        shown = {'source': embed_image(image), 'id': str(predictions['subjects'][index])}
        warm = {'source': embed_image(overlaid(image, np.maximum(heat, 0))), 'id': f'at most {heat.max():.1f}'}
        saliency['images'] += [caption | shown, caption | warm]
    if len(classes) > MOST_CLASSES:
        return {'saliency': saliency, 'class_maps': None}
    rows = []
    for first in np.unique(predictions['labels'][chosen], return_index=True)[1]:
        label, of_image = int(predictions['labels'][chosen[first]]), maps.maps[first]
        largest = max(float(np.abs(of_image).max()), 1e-12)
        cells = [
            {
                'source': embed_image(signed(of_class / largest)),
                'logit': float(predictions['logits'][chosen[first], which]),
                'is_label': which == label,
            }
            for which, of_class in enumerate(of_image)
        ]
        rows.append({'source': embed_image(images[first]), 'label': classes[label], 'cells': cells})
    return {'saliency': saliency, 'class_maps': {'classes': classes, 'rows': rows}}


def choose_varied(labels: np.ndarray, hits: np.ndarray, subjects: np.ndarray, most: int = MOST_EXPLAINED) -> np.ndarray:
    """Chooses images of all classes, correct and incorrect, of as many people as possible.

    Args:
      labels: int [N].
      hits: bool [N], whether the prediction is correct.
      subjects: str [N], '' where unknown.
      most: largest number of images to choose.

    Returns:
      Their positions, int [at most `most`], sorted by class with the correct ones first.
    """
    of_kind, of_person = list(zip(labels.tolist(), hits.tolist(), strict=True)), subjects.tolist()
    remaining = np.random.default_rng(0).permutation(len(labels)).tolist()
    kinds, people, chosen = Counter[tuple[int, bool]](), Counter[str](), list[int]()
    while remaining and len(chosen) < most:
        best = min(remaining, key=lambda index: (kinds[of_kind[index]], people[of_person[index]]))
        remaining.remove(best)
        chosen.append(best)
        kinds[of_kind[best]] += 1
        people[of_person[best]] += 1
    return np.array(sorted(chosen, key=lambda index: (labels[index], not hits[index], index)))


def signed(map: np.ndarray) -> np.ndarray:
    """Renders a map with values below 0 in purple and values above 0 in orange.

    Args:
      map: float [h, w] in -1..1; other values are clipped.

    Returns:
      uint8 [SIDE_PX, SIDE_PX, 3].
    """
    import matplotlib
    from PIL import Image

    large = Image.fromarray(map.astype(np.float32)).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)
    return (255 * matplotlib.colormaps['PuOr_r'](0.5 + np.clip(np.asarray(large), -1, 1) / 2)[..., :3]).astype(np.uint8)


def overlaid(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Renders an image in grey with a map laid over it in warm colours.

    Args:
      image: uint8 [H, W, C].
      heat: float [h, w], 0 or more.

    Returns:
      uint8 [SIDE_PX, SIDE_PX, 3].
    """
    import matplotlib
    from PIL import Image

    pixels = image[..., 0] if image.shape[-1] == 1 else image
    grey = np.asarray(Image.fromarray(pixels).convert('L').resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR)) / 255
    share = Image.fromarray((heat / max(heat.max(), 1e-12)).astype(np.float32))
    share = np.clip(np.asarray(share.resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)), 0, 1)
    warm = matplotlib.colormaps['inferno'](0.25 + 0.75 * share)[..., :3]
    alpha = (0.65 * share)[..., None]
    return (255 * ((1 - alpha) * grey[..., None] + alpha * warm)).astype(np.uint8)


def embed_image(image: np.ndarray) -> str:
    """Returns an image as the data URI of a PNG of `SIDE_PX` x `SIDE_PX` pixels.

    Args:
      image: uint8 [H, W, C].
    """
    from PIL import Image

    pixels = image[..., 0] if image.shape[-1] == 1 else image
    file = io.BytesIO()
    Image.fromarray(pixels).resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR).save(file, 'PNG')
    return _data_uri(file.getvalue())


def draw_comparison(curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Returns the figure of `figures.comparison_curves_png` as a data URI."""
    file = io.BytesIO()
    figures.comparison_curves_png(file, curves)
    return _data_uri(file.getvalue())


def embed_png(path: Path) -> str:
    """Returns a PNG file as a data URI; '' where the file does not exist."""
    return _data_uri(path.read_bytes()) if path.is_file() else ''


def _data_uri(png: bytes) -> str:
    return f'data:image/png;base64,{base64.b64encode(png).decode()}'
