"""RAF-DB (Li et al. 2017), basic expressions, aligned faces of 100 x 100 px."""

from collections.abc import Iterator
from pathlib import Path

from fer_jax.data.sets.archives import Source, open_source
from fer_jax.data.sets.builder import Example, Reading
from fer_jax.errors import UserError

VERSION = '1.0.0'
CLASSES = ('surprise', 'fear', 'disgust', 'happy', 'sad', 'angry', 'neutral')  # 1 to 7 in its files
PUBLISHED = {'train': (1290, 281, 717, 4772, 1982, 705, 2524), 'test': (329, 74, 160, 1185, 478, 162, 680)}
LIST = 'list_patition_label.txt'  # its own spelling

Found = dict[str, int]  # train_00001_aligned.jpg -> label


def read(source: Path) -> Reading:
    """Reads the official release (list file and `Image/aligned`) or the copy in folders `train/1` to `test/7`.

    Raises:
      UserError: neither is there, a row of a list is malformed, or none of its images is there.
    """
    opened = open_source(source)
    listing = opened.one(LIST)
    paths, labels, notes = _listed(opened, listing) if listing else _in_folders(opened)
    members = {split: sorted(name for name in labels if name.startswith(f'{split}_')) for split in PUBLISHED}

    def examples(split: str) -> Iterator[Example]:
        for name in members[split]:
            yield Example(name, split, opened.read(paths[name]), labels[name])

    return Reading(
        CLASSES,
        {split: len(names) for split, names in members.items()},
        examples,
        published=PUBLISHED,
        image_shape=opened.shape(paths[name] for name in labels),
        notes=notes,
    )


def _listed(source: Source, listing: str) -> tuple[dict[str, str], Found, tuple[str, ...]]:
    files = ((name.rsplit('/', 1)[-1], name) for name in source.images())
    paths = source.once((image, name) for image, name in files if '_aligned.' in image)
    labels: Found = {}
    for number, line in enumerate(source.lines(listing), 1):
        cells = line.split()
        if len(cells) != 2 or not cells[0].startswith(('train_', 'test_')):
            raise source.wrong(listing, number, f'{line!r}, expected train_00001.jpg 5')
        name = cells[0].rsplit('.', 1)[0] + '_aligned.jpg'
        if name in labels:
            raise source.wrong(listing, number, f'{cells[0]} is listed before')
        labels[name] = source.number(listing, number, cells[1], 1, len(CLASSES)) - 1
    notes = source.lack((paths.get(name, name) for name in labels), listing)
    return paths, {name: label for name, label in labels.items() if name in paths}, notes


def _in_folders(source: Source) -> tuple[dict[str, str], Found, tuple[str, ...]]:
    parts = ((name, name.split('/')) for name in source.images())
    inside = [(name, path) for name, path in parts if len(path) >= 3 and path[-3] in PUBLISHED]
    labels: Found = {}
    for name, (split, folder, image) in ((name, path[-3:]) for name, path in inside):
        if folder not in map(str, range(1, len(CLASSES) + 1)) or not image.startswith(f'{split}_'):
            raise UserError(f'{source.path}: {name}, expected like {split}/1/{split}_00001_aligned.jpg, classes 1 to 7')
        labels[image] = int(folder) - 1
    if not labels:
        raise UserError(f'{source.path} has no {LIST} and no folders train/1 to test/7; see docs/reference/datasets.md')
    for listing in source.ending('train_labels.csv', 'test_labels.csv'):
        for number, row in enumerate(source.table(listing, ('image', 'label')), 1):
            label = source.number(listing, number, row['label'], 1, len(CLASSES)) - 1
            if labels.get(row['image'], label) != label:
                place = labels[row['image']] + 1
                raise source.wrong(listing, number, f'{row["image"]} has label {label + 1} but lies in folder {place}')
    return source.once((path[-1], name) for name, path in inside), labels, ()
