"""The images that the HTML report shows, as data URIs; the templates hold the markup."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Read = Callable[[np.ndarray], np.ndarray]  # positions [B] -> uint8 [B, H, W, C]
Explain = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray | None]]  # see `inference.saliency.explain`
MOST_SHOWN = 16  # images of a section
MOST_CLASSES = 10  # classes whose maps are shown
SIDE_PX = 96  # their pixels


def select_images(
    predictions: Mapping[str, np.ndarray], classes: Sequence[str], read: Read
) -> dict[str, list[dict[str, str]]]:
    """Selects the most confident of the misclassified images, and those with the smallest margin of probability.

    Args:
      predictions: ids [N], labels int [N] and logits float [N, C] of a split.
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
    """Computes saliency maps of two images of each class, and class activation maps of one of them.

    Args:
      predictions: labels int [N] and logits float [N, C] of a split.
      read: reads images of the split.

    Returns:
      'saliency', a list of images, empty where no class has two; 'class_maps', a table, or None where the network has
      no such maps or there are more than `MOST_CLASSES` classes.
    """
    predicted = predictions['logits'].argmax(1)
    chosen: list[int] = []
    for label in range(min(len(classes), MOST_SHOWN)):
        of_class = np.flatnonzero(predictions['labels'] == label)
        chosen += of_class[np.linspace(0, len(of_class) - 1, 4).astype(int)[1:3]].tolist() if len(of_class) > 1 else []
    if not chosen:
        return {'saliency': [], 'class_maps': None}
    images = read(np.array(chosen))
    heats, maps = explain(images, predicted[chosen])
    saliency = [
        {
            'source': embed_image(overlaid(image, heat)),
            'label': classes[predictions['labels'][index]],
            'prediction': classes[predicted[index]],
            'id': '',
        }
        for index, image, heat in zip(chosen, images, heats, strict=True)
    ]
    if maps is None or len(classes) > MOST_CLASSES:
        return {'saliency': saliency, 'class_maps': None}
    rows = []
    for index, image, of_image in list(zip(chosen, images, maps, strict=True))[::2]:
        label, largest = int(predictions['labels'][index]), max(float(np.abs(of_image).max()), 1e-12)
        cells = [
            {
                'source': embed_image(signed(of_class / largest)),
                'logit': float(predictions['logits'][index, which]),
                'is_label': which == label,
            }
            for which, of_class in enumerate(of_image)
        ]
        rows.append({'source': embed_image(image), 'label': classes[label], 'cells': cells})
    return {'saliency': saliency, 'class_maps': {'classes': classes, 'rows': rows}}


def signed(map: np.ndarray) -> np.ndarray:
    """uint8 [SIDE_PX, SIDE_PX, 3] of a map float [h, w] in -1..1: purple below 0, orange above."""
    import matplotlib
    from PIL import Image

    large = Image.fromarray(map.astype(np.float32)).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)
    return (255 * matplotlib.colormaps['PuOr_r'](0.5 + np.clip(np.asarray(large), -1, 1) / 2)[..., :3]).astype(np.uint8)


def overlaid(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """uint8 [SIDE_PX, SIDE_PX, 3]: the image in grey, warm where the map float [h, w] is high."""
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
    """Returns a data URI of a PNG, `SIDE_PX` pixels wide and high, of an image uint8 [H, W, C]."""
    from PIL import Image

    pixels = image[..., 0] if image.shape[-1] == 1 else image
    file = io.BytesIO()
    Image.fromarray(pixels).resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR).save(file, 'PNG')
    return _data_uri(file.getvalue())


def embed_png(path: Path) -> str:
    """Returns a data URI of a PNG file; '' where there is none."""
    return _data_uri(path.read_bytes()) if path.is_file() else ''


def _data_uri(png: bytes) -> str:
    return f'data:image/png;base64,{base64.b64encode(png).decode()}'
