"""Prepares a data set for training.

    python scripts/prepare_dataset.py --dataset fer2013 --source fer2013.csv

The source may be fer2013.csv itself, a .gz of it, or the .zip or .tar.gz that holds it.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from fer_jax import cache
from fer_jax.data import datasets
from fer_jax.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 where the input is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--dataset', required=True, help=f'one of {", ".join(datasets.BUILDERS)}')
    parser.add_argument('--source', type=Path, help='the file that was downloaded')
    parser.add_argument('--root', type=Path, default=cache.root() / 'datasets', help='where to write')
    arguments = parser.parse_args(argv)
    try:
        prepare(arguments.dataset, arguments.source, arguments.root)
    except UserError as error:
        print(f'fer_jax: {error}', file=sys.stderr)
        return 2
    return 0


def prepare(name: str, source: Path | None, root: Path) -> None:
    if name not in datasets.BUILDERS:
        raise UserError(f'--dataset={name!r} is unknown; there are {", ".join(datasets.BUILDERS)}')
    if name == 'fer2013':
        if source is None:
            raise UserError('--source is missing; give fer2013.csv or the archive that holds it')
        prepare_fer2013(source, root)
    splits = {role: role for role in ('train', 'validation', 'test')}
    data = datasets.load(name=name, dir='', splits=splits, image_size=2**16, channels=3, root=root, seed=0)
    published = published_counts(name)
    print_counts(data, published)
    print(f'written to {root / name}, fingerprint {data.fingerprint[:16]}')
    print(f'train on it with --config.data.name={name}')


def prepare_fer2013(source: Path, root: Path) -> None:
    from fer_jax.data.builders import fer2013

    builder = datasets.builder('fer2013', root)
    if builder.is_prepared():
        print(f'{builder.data_path} is prepared already; remove it to prepare it anew')
        return
    print(f'reading {source}')
    builder.rows = list(fer2013.rows(source))
    builder.download_and_prepare(file_format='array_record')


def published_counts(name: str) -> dict[str, tuple[int, ...]]:
    if name != 'fer2013':
        return {}
    from fer_jax.data.builders.fer2013 import PUBLISHED

    return PUBLISHED


def print_counts(data: datasets.Dataset, published: dict[str, tuple[int, ...]]) -> None:
    """A row a class, a column a split; where a published count differs it stands behind."""
    print(f'{"class":<12}' + ''.join(f'{role:>20}' for role in data.splits))
    differences = 0
    counts = {role: np.bincount(split.labels, minlength=len(data.classes)) for role, split in data.splits.items()}
    for label, name in enumerate(data.classes):
        cells = []
        for role in data.splits:
            count = int(counts[role][label])
            wanted = published[role][label] if role in published else count
            differences += count != wanted
            cells.append(f'{count:,}' if count == wanted else f'{count:,} (not {wanted:,})')
        print(f'{name:<12}' + ''.join(f'{cell:>20}' for cell in cells))
    print(f'{"all":<12}' + ''.join(f'{len(split.labels):>20,}' for split in data.splits.values()))
    for role, split in data.splits.items():
        for name, mask in split.subsets.items():
            print(f'{role}, {name}: {int(mask.sum()):,} of {len(mask):,}')
    if published:
        print(f'{f"{differences} counts differ from" if differences else "all counts are"} the published ones')


if __name__ == '__main__':
    sys.exit(main())
