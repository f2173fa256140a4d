"""RAF-DB (Li et al. 2017), basic expressions, aligned faces of 100 x 100 px."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from fer_jax.data.builders.face_set import Example, Reading
from fer_jax.data.builders.sources import Source, open_source
from fer_jax.errors import UserError

VERSION = '1.0.0'
CLASSES = ('surprise', 'fear', 'disgust', 'happy', 'sad', 'angry', 'neutral')  # 1 to 7 in its files
PUBLISHED = {'train': (1290, 281, 717, 4772, 1982, 705, 2524), 'test': (329, 74, 160, 1185, 478, 162, 680)}
LIST = 'list_patition_label.txt'  # its own spelling

Found = list[tuple[str, str, int]]  # image, split, label


def read(source: Path) -> Reading:
    """The official release (list file and `Image/aligned`) or the copy in folders `train/1` to `test/7`.

    Raises:
      UserError: neither is there, a row of the list is malformed, or none of its images is there.
    """
    opened = open_source(source)
    listing = opened.one(LIST)
    found, notes = _listed(opened, listing) if listing else (_in_folders(opened), ())

    def examples(split: str) -> Iterator[Example]:
        for name, own, label in found:
            if own == split:
                yield Example(PurePosixPath(name).name, split, opened.read(name), label)

    splits = {split: sum(own == split for _, own, _ in found) for split in PUBLISHED}
    return Reading(CLASSES, splits, examples, published=PUBLISHED, notes=notes)


def _listed(source: Source, listing: str) -> tuple[Found, tuple[str, ...]]:
    aligned = {PurePosixPath(name).name: name for name in source.images() if '_aligned' in name}
    rows: Found = []
    for number, line in enumerate(source.text(listing).splitlines(), 1):
        cells = line.split()
        if not cells:
            continue
        split = cells[0].split('_')[0]
        if len(cells) != 2 or split not in PUBLISHED:
            raise source.wrong(listing, number, f'{line!r}, expected train_00001.jpg 5')
        label = source.number(listing, number, cells[1], 1, len(CLASSES)) - 1
        name = cells[0].rsplit('.', 1)[0] + '_aligned.jpg'
        rows.append((aligned.get(name, name), split, label))
    notes = source.lack((name for name, _, _ in rows), listing)
    known = set(aligned.values())
    return [row for row in rows if row[0] in known], notes


def _in_folders(source: Source) -> Found:
    found: Found = []
    for name in source.images():
        parts = PurePosixPath(name).parts
        if len(parts) >= 3 and parts[-3] in PUBLISHED and parts[-2] in map(str, range(1, 8)):
            found.append((name, parts[-3], int(parts[-2]) - 1))
    if not found:
        raise UserError(f'{source.path} has neither {LIST} nor folders train/1 to test/7; see docs/datasets.md')
    return found
