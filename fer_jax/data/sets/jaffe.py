"""JAFFE (Lyons et al. 1998): 213 grey portraits of ten Japanese women, 256 x 256 px."""

import re
from collections.abc import Iterator
from pathlib import Path

from fer_jax.data.sets.archives import open_source
from fer_jax.data.sets.builder import Example, Reading
from fer_jax.data.tables.expressions import canonical
from fer_jax.errors import UserError

VERSION = '1.0.0'
CLASSES = ('angry', 'disgust', 'fear', 'happy', 'neutral', 'sad', 'surprise')
PUBLISHED = {'all': (30, 29, 32, 31, 30, 31, 30)}
NAME = re.compile(r'([A-Z]{2})\.(AN|DI|FE|HA|NE|SA|SU)\d*\.\d+\.\w+', re.IGNORECASE)


def read(source: Path) -> Reading:
    """Reads images named like KA.AN1.39.tiff: subject KA, expression AN.

    Raises:
      UserError: there is no such image, or one is there twice.
    """
    opened = open_source(source)
    images = [(name.rsplit('/', 1)[-1], name) for name in opened.images()]
    paths = opened.once((image, name) for image, name in images if NAME.fullmatch(image))
    if not paths:
        raise UserError(f'{source} has no images named like KA.AN1.39.tiff; see docs/reference/datasets.md')
    others = len(images) - len(paths)

    def examples(split: str) -> Iterator[Example]:
        for image in sorted(paths):
            subject, expression = NAME.fullmatch(image).groups()  # type: ignore[union-attr]
            label = CLASSES.index(canonical(expression))
            yield Example(image, split, opened.read(paths[image]), label, subject.upper())

    return Reading(
        CLASSES,
        {'all': len(paths)},
        examples,
        published=PUBLISHED,
        image_shape=opened.shape(paths.values()),
        notes=(f'{others} images of other names are left out',) if others else (),
    )
