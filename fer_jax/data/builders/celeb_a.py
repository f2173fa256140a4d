"""CelebA (Liu et al. 2015): 202,599 aligned faces with 40 attributes, five landmarks and identities."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from fer_jax.data.builders.face_set import Example, Reading
from fer_jax.data.builders.sources import Source, open_source
from fer_jax.errors import UserError

VERSION = '1.0.0'
SPLITS = ('train', 'validation', 'test')  # 0, 1, 2 in its partition file
PUBLISHED = {'train': 162_770, 'validation': 19_867, 'test': 19_962}
ATTRIBUTES = 40

Rows = dict[str, list[str]]  # image -> cells


def read(source: Path) -> Reading:
    """`img_align_celeba` with the lists as .txt (the authors') or .csv (Kaggle's); all in one folder, or one zip.

    Targets: 'attributes' [40] of 0 and 1, and, where their list is there, 'landmarks' [10], x and y in pixels of the
    aligned image. The subject is the identity, where its list is there. There are no classes.

    Raises:
      UserError: a list is missing or malformed, or none of its images is there.
    """
    opened = open_source(source)
    names, attributes = _list(opened, 'list_attr_celeba', needed=True)
    if len(names) != ATTRIBUTES:
        raise UserError(f'{source}: list_attr_celeba has {len(names)} attributes, expected {ATTRIBUTES}')
    _, partition = _list(opened, 'list_eval_partition', needed=True)
    points, landmarks = _list(opened, 'list_landmarks_align_celeba')
    _, identities = _list(opened, 'identity_CelebA')
    paths = {PurePosixPath(name).name: name for name in opened.images()}
    listed = [image for image in attributes if image in partition]
    notes = opened.lack((paths.get(image, image) for image in listed), 'list_attr_celeba')
    split_of = {
        image: SPLITS[opened.number('list_eval_partition', number, partition[image][0], 0, 2)]
        for number, image in enumerate(listed, 1)
        if image in paths
    }
    columns = {'attributes': names} | ({'landmarks': points} if landmarks else {})

    def examples(split: str) -> Iterator[Example]:
        for image, own in split_of.items():
            if own == split:
                targets = {'attributes': np.array([cell == '1' for cell in attributes[image]], np.float32)}
                if landmarks:
                    targets['landmarks'] = np.array(landmarks.get(image, ['nan'] * len(points)), np.float32)
                subject = identities.get(image, [''])[0]
                yield Example(image, split, opened.read(paths[image]), subject=subject, targets=targets)

    splits = {split: sum(own == split for own in split_of.values()) for split in SPLITS}
    return Reading((), splits, examples, published=PUBLISHED, targets=columns, notes=notes)


def _list(source: Source, stem: str, *, needed: bool = False) -> tuple[tuple[str, ...], Rows]:
    """Column names, and the cells of each image."""
    name = source.one(f'{stem}.txt', f'{stem}.csv')
    if name is None:
        if needed:
            raise UserError(f'{source.path} has no {stem}.txt or .csv; see docs/datasets.md')
        return (), {}
    comma = name.endswith('.csv')
    lines = [line.split(',') if comma else line.split() for line in source.text(name).splitlines() if line.strip()]
    if lines and len(lines[0]) == 1 and lines[0][0].isdigit():  # the authors' lists begin with a count
        lines = lines[1:]
    head: tuple[str, ...] = ()
    if lines and not lines[0][0].lower().endswith(('.jpg', '.png')):
        head = tuple(cell.strip() for cell in lines[0])
        lines, head = lines[1:], head[1:] if comma else head
    width = len(lines[0]) if lines else 0
    for number, cells in enumerate(lines, 1):
        if len(cells) != width or (head and len(cells) != len(head) + 1):
            raise source.wrong(name, number, f'{len(cells)} cells, expected {len(head) + 1 if head else width}')
    return head, {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}
