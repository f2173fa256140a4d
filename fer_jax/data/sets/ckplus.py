"""CK+ (Lucey et al. 2010): the peak frames known as CK+48, or the original sequences."""

import re
from collections.abc import Iterator
from pathlib import Path

from fer_jax.data.sets.archives import Source, open_source
from fer_jax.data.sets.builder import Example, Reading
from fer_jax.data.tables.expressions import canonical
from fer_jax.errors import UserError

VERSION = '1.0.0'
CLASSES = ('neutral', 'angry', 'contempt', 'disgust', 'fear', 'happy', 'sad', 'surprise')  # 0 to 7 in its emotion files
SUBJECTS, SEQUENCES = 118, 327
PEAKS = {'angry': 135, 'contempt': 54, 'disgust': 177, 'fear': 75, 'happy': 207, 'sad': 84, 'surprise': 249}
FRAME = re.compile(r'(S\d+)_(\d+)_\d+\.(png|jpe?g|tiff?)')


def read(source: Path) -> Reading:
    """Reads CK+48's class folders (`anger/S010_004_00000017.png`), or `cohn-kanade-images` with `Emotion`.

    Of an original sequence with an emotion file the first frame is neutral and the last three show the expression, as
    the literature takes them; CK+48 has no neutral frames. All images are of one split; subjects are known.

    Raises:
      UserError: neither is there, an emotion file is malformed, or a frame is there twice.
    """
    opened = open_source(source)
    frames = ((name.rsplit('/', 1)[-1], name) for name in opened.images())
    paths = opened.once((frame, name) for frame, name in frames if FRAME.fullmatch(frame))
    emotions = [name for name in opened.names if name.endswith('_emotion.txt')]
    labels = _sequences(opened, emotions, paths) if emotions else _folders(opened, paths)
    classes = CLASSES if emotions else CLASSES[1:]

    def examples(split: str) -> Iterator[Example]:
        for frame in sorted(labels):
            subject = frame.split('_')[0]
            yield Example(frame, split, opened.read(paths[frame]), classes.index(labels[frame]), subject)

    taken = {tuple(frame.split('_')[:2]) for frame in labels}
    people = len({subject for subject, _ in taken})
    return Reading(
        classes,
        {'all': len(labels)},
        examples,
        published={'all': (SEQUENCES, *PEAKS.values()) if emotions else tuple(PEAKS.values())},
        image_shape=opened.shape(paths[frame] for frame in labels),
        notes=(f'{people} subjects in {len(taken)} sequences; published: {SUBJECTS} in {SEQUENCES}',),
    )


def _folders(source: Source, paths: dict[str, str]) -> dict[str, str]:
    """frame -> class"""
    labels = {frame: canonical(f'/{name}'.split('/')[-2]) for frame, name in paths.items()}
    if not labels:
        raise UserError(f'{source.path} has neither files *_emotion.txt nor class folders with S010_004_00000017.png')
    for frame, label in labels.items():
        if label not in PEAKS:
            raise UserError(
                f'{source.path}: {paths[frame]} is in no folder of a class ({", ".join(PEAKS)}) and without '
                'the folder Emotion; unpack Emotion_labels.zip beside the images'
            )
    return labels


def _sequences(source: Source, emotions: list[str], paths: dict[str, str]) -> dict[str, str]:
    """frame -> class"""
    frames: dict[tuple[str, str], list[str]] = {}
    for frame in sorted(paths):
        subject, sequence, _ = frame.split('_')
        frames.setdefault((subject, sequence), []).append(frame)
    labels: dict[str, str] = {}
    for emotion in emotions:
        text = source.read(emotion).decode('ascii', 'replace').strip()
        try:
            label = float(text)
        except ValueError:
            label = -1
        if label not in range(1, 8):
            raise UserError(f'{source.path}: {emotion} holds {text[:20]!r}, expected 1 to 7; fetch it again')
        subject, sequence = emotion.rsplit('/', 1)[-1].split('_')[:2]
        own = frames.get((subject, sequence), [])
        if len(own) < 4:
            name = f'{subject}_{sequence}'
            raise UserError(f'{source.path}: {emotion} has {len(own)} frames, expected at least 4 of {name}')
        labels |= {own[0]: CLASSES[0]} | dict.fromkeys(own[-3:], CLASSES[int(label)])
    return labels
