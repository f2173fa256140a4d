"""CelebA (Liu et al. 2015): 202,599 aligned faces with 40 attributes, five landmarks and identities."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fer_jax.data.sets.archives import Source, open_source
from fer_jax.data.sets.builder import Example, Reading
from fer_jax.errors import UserError

VERSION = '1.0.0'
SPLITS = ('train', 'validation', 'test')  # 0, 1, 2 in its partition file
PUBLISHED = {'train': 162_770, 'validation': 19_867, 'test': 19_962}
ALIGNED = 'img_align_celeba'
ATTRIBUTES, COORDINATES = 40, 10

Rows = dict[str, np.ndarray]  # image -> int32 cells


def read(source: Path) -> Reading:
    """Reads `img_align_celeba`, a folder or .zip, with the lists as .txt (the authors') or .csv (Kaggle's) beside it.

    Targets: 'attributes' [40] of 0 and 1, and, where their list is there, 'landmarks' [10], x and y in pixels of the
    aligned image. The subject is the identity, where its list is there. There are no classes.

    Raises:
      UserError: a list is missing, malformed or shorter than another, or none of its images is there.
    """
    opened = open_source(source)
    names, attributes = _list(opened, 'list_attr_celeba', ATTRIBUTES, -1, 1)
    _, partition = _list(opened, 'list_eval_partition', 1, 0, len(SPLITS) - 1)
    points, landmarks = _list(opened, 'list_landmarks_align_celeba', COORDINATES, needed=False)
    _, identities = _list(opened, 'identity_CelebA', 1, needed=False)
    for stem, rows in (('list_eval_partition', partition), ('landmarks', landmarks), ('identities', identities)):
        lacking = [image for image in attributes if image not in rows] if rows else []
        if lacking:
            raise UserError(
                f'{source}: the list of {stem} lacks {len(lacking):,} images of list_attr_celeba, such as '
                f'{lacking[0]}; fetch it again'
            )
    packed = opened.one(f'{ALIGNED}.zip')
    holder = open_source(source / packed) if packed and source.is_dir() else opened
    aligned = [name for name in holder.images() if ALIGNED in name] or holder.images()
    paths = holder.once((name.rsplit('/', 1)[-1], name) for name in aligned)
    notes = holder.lack((paths.get(image, image) for image in attributes), 'list_attr_celeba')
    members = {split: [image for image in attributes if image in paths and partition[image][0] == number]
             for number, split in enumerate(SPLITS)}  # fmt: skip

    def examples(split: str) -> Iterator[Example]:
        for image in members[split]:
            targets = {'attributes': (attributes[image] == 1).astype(np.float32)}
            if landmarks:
                targets['landmarks'] = landmarks[image].astype(np.float32)
            subject = str(identities[image][0]) if identities else ''
            yield Example(image, split, holder.read(paths[image]), subject=subject, targets=targets)

    return Reading(
        (),
        {split: len(images) for split, images in members.items()},
        examples,
        published=PUBLISHED,
        targets={'attributes': names} | ({'landmarks': points} if landmarks else {}),
        notes=notes,
    )


def _list(
    source: Source, stem: str, width: int, low: int | None = None, high: int = 0, *, needed: bool = True
) -> tuple[tuple[str, ...], Rows]:
    """Names of the `width` columns, where it has them, and the numbers of each image."""
    name = source.one(f'{stem}.txt', f'{stem}.csv')
    if name is None:
        if needed:
            raise UserError(f'{source.path} has no {stem}.txt or .csv; see docs/reference/datasets.md')
        return (), {}
    head: tuple[str, ...] = ()
    count = None
    rows: Rows = {}
    for line in source.lines(name):
        cells = [cell.strip() for cell in line.split(',')] if name.endswith('.csv') else line.split()
        if not rows and len(cells) == 1 and line.isdecimal() and count is None:
            count = int(line)  # the authors' lists begin with one
            continue
        if not rows and not head and not cells[0].lower().endswith(('.jpg', '.png')):
            head = tuple(cells[-width:])
            continue
        if len(cells) != width + 1:
            raise source.wrong(name, len(rows) + 1, f'{len(cells)} cells, expected {width + 1}')
        try:
            values = np.array(cells[1:], np.int32)
        except (OverflowError, ValueError):
            raise source.wrong(name, len(rows) + 1, 'not whole numbers') from None
        if low is not None and (values.min() < low or values.max() > high):
            worst = values.min() if values.min() < low else values.max()
            raise source.wrong(name, len(rows) + 1, f"'{worst}', expected a whole number from {low} to {high}")
        if cells[0] in rows:
            raise source.wrong(name, len(rows) + 1, f'{cells[0]} is listed before')
        rows[cells[0]] = values
    if count is not None and count != len(rows):
        raise UserError(f'{source.path}: {name} announces {count:,} rows and has {len(rows):,}; fetch it again')
    return head, rows
