"""Prepares a data set for training.

    python scripts/prepare_dataset.py --dataset fer2013 --source fer2013.csv

docs/datasets.md says what each set is read from.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from fer_jax import cache
from fer_jax.data import prepared
from fer_jax.data.table import Table
from fer_jax.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 where the input is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--dataset', required=True, help=f'one of {", ".join(prepared.SETS)}')
    parser.add_argument('--source', type=Path, help='what was downloaded: a file or a folder')
    parser.add_argument('--root', type=Path, default=cache.root() / 'datasets', help='where to write')
    arguments = parser.parse_args(argv)
    try:
        prepare(arguments.dataset, arguments.source, arguments.root)
    except UserError as error:
        print(f'fer_jax: {error}', file=sys.stderr)
        return 2
    return 0


def prepare(name: str, source: Path | None, root: Path) -> None:
    folder = prepared.folder(name, root)
    if prepared.is_prepared(name, root):
        print(f'{folder} is prepared already; remove it to prepare it anew')
    else:
        print(f'reading {source}')
        prepared.prepare(name, source, root)
    table = prepared.open_table(name, root)
    print_counts(table)
    print(*table.notes, sep='\n', end='\n' if table.notes else '')
    print(f'written to {folder}')
    print(f'train on it with --config.data.name={name}')


def print_counts(table: Table) -> None:
    """A row a class, a column a split; where a published count differs it stands behind."""
    splits = [str(split) for split in dict.fromkeys(table.splits)]
    counts = {
        split: np.bincount(table.labels[table.splits == split] + 1, minlength=len(table.classes) + 1)
        for split in splits
    }
    print(f'{"class":<12}' + ''.join(f'{split:>20}' for split in splits))
    differences = 0

    def cell(split: str, count: int, wanted: int | None) -> str:
        nonlocal differences
        if wanted is None or count == wanted:
            return f'{count:>20,}'
        differences += 1
        return f'{f"{count:,} (not {wanted:,})":>20}'

    by_class = {split: known for split, known in table.published.items() if len(known) == len(table.classes) > 1}
    for label, name in enumerate(table.classes):
        cells = [
            cell(split, int(counts[split][label + 1]), by_class[split][label] if split in by_class else None)
            for split in splits
        ]
        print(f'{name:<12}' + ''.join(cells))
    if any(counts[split][0] for split in splits):
        print(f'{"no label":<12}' + ''.join(f'{int(counts[split][0]):>20,}' for split in splits))
    totals = {split: sum(known) for split, known in table.published.items()}
    print(f'{"all":<12}' + ''.join(cell(split, int(counts[split].sum()), totals.get(split)) for split in splits))
    for name, mask in table.subsets.items():
        for split in splits:
            here = mask[table.splits == split]
            if 0 < here.sum() < len(here):
                print(f'{split}, {name}: {int(here.sum()):,} of {len(here):,}')
    if table.published:
        print(
            'all counts are the published ones'
            if not differences
            else f'{differences} counts differ from the published ones'
        )


if __name__ == '__main__':
    sys.exit(main())
