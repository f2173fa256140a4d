"""The images of a report: mistakes, what is uncertain, and where the evidence is."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from html import escape

import numpy as np

Read = Callable[[str, np.ndarray], np.ndarray]  # split, positions [B] -> uint8 [B, H, W, C]
Explain = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray | None]]  # see `inference.saliency.explain`
MOST_SHOWN = 16  # images of a section
MOST_CLASSES = 10  # classes whose maps are shown
SIDE_PX = 96  # their pixels


def uncertain(part: Mapping[str, np.ndarray], classes: Sequence[str], shown: str, read: Read) -> list[str]:
    """The most confident mistakes, and what the network was least sure of."""
    wide = part['logits'].astype(np.float64)
    shares = np.exp(wide - wide.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    told, sure = shares.argmax(1), shares.max(1)
    wrong = np.flatnonzero(told != part['labels'])
    pair = np.sort(shares, axis=1)[:, -2:]
    sections = []
    for title, note, index in (
        ('The most confident mistakes', 'Label, then what the network said.', wrong[np.argsort(-sure[wrong])]),
        ('The least certain', 'Where the two likeliest classes are nearest.', np.argsort(pair[:, 1] - pair[:, 0])),
    ):
        chosen = index[:MOST_SHOWN]
        tiles = ''
        for at, image in zip(chosen, read(shown, chosen), strict=True):
            label, said = escape(classes[part['labels'][at]]), f'{escape(classes[told[at]])} {sure[at]:.0%}'
            tiles += (
                f'<figure><img src="{_embedded(image)}" width="{SIDE_PX}" height="{SIDE_PX}" alt="{label}"><figcaption>'
                f'<b>{label}</b> &rarr; {said}<br><small>{escape(str(part["ids"][at]))}</small></figcaption></figure>'
            )
        if tiles:
            sections.append(f'<section><h2>{title}</h2><p>{note}</p><div class="tiles">{tiles}</div></section>')
    return sections


def evidence(
    part: Mapping[str, np.ndarray], classes: Sequence[str], shown: str, read: Read, explain: Explain
) -> list[str]:
    """Two images of each class with what spoke for the class that was told, and of one what speaks for each class."""
    told = part['logits'].argmax(1)
    chosen: list[int] = []
    for label in range(min(len(classes), MOST_SHOWN)):
        of_class = np.flatnonzero(part['labels'] == label)
        chosen += of_class[np.linspace(0, len(of_class) - 1, 4).astype(int)[1:3]].tolist() if len(of_class) > 1 else []
    if not chosen:
        return []
    images = read(shown, np.array(chosen))
    heats, maps = explain(images, told[chosen])
    tiles = ''
    for at, image, heat in zip(chosen, images, heats, strict=True):
        name, said = (escape(classes[which]) for which in (part['labels'][at], told[at]))
        tiles += (
            f'<figure><img src="{_embedded(overlaid(image, heat))}" width="{SIDE_PX}" height="{SIDE_PX}" alt="{name}">'
            f'<figcaption><b>{name}</b> &rarr; {said}</figcaption></figure>'
        )
    sections = [
        '<section><h2>What it looked at</h2><p>Grad-CAM of the class that the network told, on two images of each '
        f'class that nobody chose: the brighter, the more speaks for it.</p><div class="tiles">{tiles}</div></section>'
    ]
    if maps is None or len(classes) > MOST_CLASSES:
        return sections
    rows = ''
    for at, image, of_image in list(zip(chosen, images, maps, strict=True))[::2]:
        label, largest = int(part['labels'][at]), max(float(np.abs(of_image).max()), 1e-12)
        cells = ''.join(
            f'<td{" class=right" if which == label else ""}><img src="{_embedded(signed(one / largest))}" '
            f'width="{SIDE_PX // 2}" height="{SIDE_PX // 2}" alt="">'
            f'<small>{part["logits"][at, which]:+.1f}</small></td>'
            for which, one in enumerate(of_image)
        )
        rows += (
            f'<tr><th scope="row"><img src="{_embedded(image)}" width="{SIDE_PX // 2}" height="{SIDE_PX // 2}" alt="">'
            f'{escape(classes[label])}</th>{cells}</tr>'
        )
    head = ''.join(f'<th scope="col">{escape(name)}</th>' for name in classes)
    sections.append(
        '<section><h2>Evidence for every class</h2><p>Class activation maps of the first of these: orange speaks for '
        'the class, blue against it, at one scale an image; their sum and a constant is the logit, below.</p>'
        f'<div class="wide"><table class="maps"><tr><th></th>{head}</tr>{rows}</table></div></section>'
    )
    return sections


def signed(map: np.ndarray) -> np.ndarray:
    """uint8 [SIDE_PX, SIDE_PX, 3] of a map float [h, w] in -1..1: blue below 0, orange above."""
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


def _embedded(image: np.ndarray) -> str:
    from PIL import Image

    pixels = image[..., 0] if image.shape[-1] == 1 else image
    file = io.BytesIO()
    Image.fromarray(pixels).resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR).save(file, 'PNG')
    return f'data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}'
