"""JAFFE (Lyons et al. 1998): 213 grey portraits of ten Japanese women."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from fer_jax.data.builders.face_set import Example, Reading
from fer_jax.data.builders.sources import open_source
from fer_jax.data.names import canonical
from fer_jax.errors import UserError

VERSION = '1.0.0'
CLASSES = ('angry', 'disgust', 'fear', 'happy', 'neutral', 'sad', 'surprise')
PUBLISHED = {'all': 213}
NAME = re.compile(r'^([A-Z]{2})\.(AN|DI|FE|HA|NE|SA|SU)\d*\.\d+\.(tiff?|png|jpe?g)$', re.IGNORECASE)


def read(source: Path) -> Reading:
    """Images named like KA.AN1.39.tiff, in a folder or zip: subject KA, expression AN.

    Raises:
      UserError: there is no such image.
    """
    opened = open_source(source)
    matches = [(name, NAME.match(PurePosixPath(name).name)) for name in opened.images()]
    found = [(name, match[1].upper(), CLASSES.index(canonical(match[2]))) for name, match in matches if match]
    if not found:
        raise UserError(f'{source} has no images named like KA.AN1.39.tiff')
    others = len(matches) - len(found)

    def examples(split: str) -> Iterator[Example]:
        for name, subject, label in found:
            yield Example(PurePosixPath(name).name, split, opened.read(name), label, subject)

    notes = (f'{others} images of other names are left out',) if others else ()
    return Reading(CLASSES, {'all': len(found)}, examples, published=PUBLISHED, notes=notes)
