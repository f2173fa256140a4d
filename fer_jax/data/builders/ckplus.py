"""CK+ (Lucey et al. 2010): the peak frames known as CK+48, or the original sequences."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from fer_jax.data.builders.face_set import Example, Reading
from fer_jax.data.builders.sources import Source, open_source
from fer_jax.data.names import canonical
from fer_jax.errors import UserError

VERSION = '1.0.0'
CLASSES = ('neutral', 'angry', 'contempt', 'disgust', 'fear', 'happy', 'sad', 'surprise')  # 0 to 7 in its emotion files
SUBJECTS, SEQUENCES = 118, 327
PEAKS = {'angry': 135, 'contempt': 54, 'disgust': 177, 'fear': 75, 'happy': 207, 'sad': 84, 'surprise': 249}
FRAME = re.compile(r'^(S\d+)_(\d+)_\d+\.(png|jpe?g|tiff?)$')

Found = list[tuple[str, str, int]]  # image, subject, label


def read(source: Path) -> Reading:
    """CK+48's class folders (`anger/S010_004_00000017.png`), or `cohn-kanade-images` with `Emotion`.

    Of an original sequence with an emotion file the first frame is neutral and the last three show the expression, as
    the literature takes them; CK+48 has no neutral frames. All images are of one split; subjects are known.

    Raises:
      UserError: neither is there, or an emotion file is malformed.
    """
    opened = open_source(source)
    emotions = [name for name in opened.names if name.endswith('_emotion.txt')]
    found = _sequences(opened, emotions) if emotions else _folders(opened)
    classes = CLASSES if emotions else CLASSES[1:]

    def examples(split: str) -> Iterator[Example]:
        for name, subject, label in found:
            data = opened.read(name)
            yield Example(PurePosixPath(name).name, split, data, label - len(CLASSES) + len(classes), subject)

    published = {'all': (SEQUENCES, *PEAKS.values()) if emotions else tuple(PEAKS.values())}
    people = len({subject for _, subject, _ in found})
    taken = len({'_'.join(PurePosixPath(name).name.split('_')[:2]) for name, _, _ in found})
    notes = (f'{people} subjects in {taken} sequences; published: {SUBJECTS} in {SEQUENCES}',)
    return Reading(classes, {'all': len(found)}, examples, published=published, notes=notes)


def _folders(source: Source) -> Found:
    found: Found = []
    for name in source.images():
        path = PurePosixPath(name)
        match, label = FRAME.match(path.name), canonical(path.parent.name)
        if match and label in PEAKS:
            found.append((name, match[1], CLASSES.index(label)))
    if not found:
        raise UserError(f'{source.path} has neither files *_emotion.txt nor class folders with S010_004_00000017.png')
    return found


def _sequences(source: Source, emotions: list[str]) -> Found:
    frames: dict[tuple[str, str], list[str]] = {}
    for name in source.images():
        match = FRAME.match(PurePosixPath(name).name)
        if match:
            frames.setdefault((match[1], match[2]), []).append(name)
    found: Found = []
    for emotion in emotions:
        text = source.text(emotion).strip()
        try:
            label = int(float(text))
        except ValueError:
            label = -1
        if not 1 <= label <= 7:
            raise UserError(f'{source.path}: {emotion} holds {text!r}, expected 1 to 7; fetch it again')
        subject, sequence = PurePosixPath(emotion).name.split('_')[:2]
        own = sorted(frames.get((subject, sequence), []))
        if len(own) < 4:
            raise UserError(
                f'{source.path}: {emotion} has {len(own)} frames, expected at least 4 of {subject}_{sequence}'
            )
        found += [(own[0], subject, 0), *((name, subject, label) for name in own[-3:])]
    return found
