"""Writes the tables of docs/results/ from the records beside them, so that no number is copied by hand.

    python scripts/results_tables.py            # rewrites the pages
    python scripts/results_tables.py --check    # status 1 where a page differs from its records

A page holds `<!-- table: NAME -->` and `<!-- end of table -->`; what stands between is replaced by `TABLES[NAME]()`.
"""

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from fer_jax.cross_evaluate import markdown as matrix_table  # noqa: E402
from fer_jax.evaluation.comparison import points  # noqa: E402
from fer_jax.evaluation.summary import share  # noqa: E402
from scripts.benchmarks import roofline  # noqa: E402
from scripts.experiments import ck48, interval_coverage, transfer  # noqa: E402
from scripts.robustness import fuzz, kills  # noqa: E402

DOCS = Path(__file__).parents[1] / 'docs'
RESULTS = DOCS / 'results'
PAGES = (DOCS.parent / 'README.md', *sorted(DOCS.rglob('*.md')))
BLOCK = re.compile(r'(<!-- table: (\w+) -->\n).*?(\n<!-- end of table -->)', re.S)
Row = dict[str, Any]

LOSSES = {
    'cross_entropy': 'cross-entropy',
    'focal': 'focal, gamma 2',
    'inverse_weights': 'weights by inverse frequency',
    'effective_number': 'weights by effective number, beta 0.999',
    'logit_adjusted': 'logit adjustment, tau 1',
    'gce': 'generalised cross-entropy, q 0.7',
    'ferplus': 'FER+ votes as targets, selected on its majority',
    'mixup': 'mixup, alpha 0.2',
    'sam': 'SAM, radius 0.05',
    'ema': 'moving averages, decay 0.99',
}
CASES = {
    'resnet18@64x128': 'ResNet-18, 64 px',
    'resnet50@224x8': 'ResNet-50, 224 px',
    'vgg16@224x4': 'VGG16, 224 px',
    'efficientnet_lite0@96x64': 'EfficientNet-Lite0, 96 px',
    'efficientnet_lite0@224x16': 'EfficientNet-Lite0, 224 px',
}
PARTS = {'infer': 'inference', 'frozen': 'head on a frozen backbone', 'train': 'training'}
IMAGES = {'48 to 64': '48 to 64 px, grey', '48 to 224': '48 to 224 px, grey', 'JPEG 224': 'JPEG of 224 px, colour'}


def read(name: str) -> list[Row]:
    """Returns the records of docs/results/NAME.jsonl."""
    return [json.loads(line) for line in (RESULTS / f'{name}.jsonl').read_text().splitlines()]


def markdown(heads: list[str], rows: list[list[str]]) -> str:
    """Returns a Markdown table."""
    lines = [heads, ['---'] * len(heads), *rows]
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)


def scores(row: Row) -> str:
    """Returns '66.82 % [65.3, 68.3]'."""
    return share(row['accuracy'], row['accuracy_ci95'])


def speedrun() -> str:
    """Returns the runs of configs/fer2013_speedrun.py."""
    views = {'none': 'one view', 'flip': 'with mirror images'}
    rows = []
    for row in read('speedrun'):
        cells = [scores(row['splits'][split]) for split in ('test', 'test_clean', 'validation')]
        rows.append([f'`:{row["form"]}`', views[row['views']], *cells, f'{row["seconds"] / 60:.1f} min'])
    heads = ['config', 'views', 'test, official (3,589)', 'test, clean (3,275)', 'validation (3,589)']
    return markdown([*heads, 'from command to score'], rows)


def losses() -> str:
    """Returns one row for each loss, target and optimizer that was compared."""
    rows = [
        [
            LOSSES[row['cell']], scores(row), scores(row['clean']),
            f'{100 * row["balanced_accuracy"]:.2f} %', f'{row["macro_f1"]:.3f}',
        ]
        for row in read('losses_fer2013_5000')
    ]  # fmt: skip
    heads = ['changed', 'test, official (3,589)', 'test, clean (3,275)', 'balanced accuracy', 'macro F1']
    return markdown(heads, rows)


def pseudo() -> str:
    """Returns the rounds of pseudo-labels."""
    rows = []
    for row in read('pseudo_fer2013'):
        cells = ['', '']
        if 'precision' in row:
            cells = [f'{100 * row["coverage"]:.1f} %', share(row['precision'], row['precision_ci95'])]
        rows.append([row['row'], scores(row), *cells])
    heads = ['trained on', 'test, official (3,589)', 'images labelled', 'of these correct']
    return markdown(heads, rows)


def distil() -> str:
    """Returns the teacher, and the student with and without it."""
    rows = [
        [row['row'], scores(row), ', '.join(f'{100 * each:.1f}' for each in row.get('each', ())), scores(row['clean'])]
        for row in read('distil_fer2013_5000')
    ]
    return markdown(['', 'test, official (3,589)', 'each seed', 'test, clean (3,275)'], rows)


def joint() -> str:
    """Returns the runs with and without the task of action units."""
    return markdown(['', 'test (1,050)'], [[row['row'], scores(row)] for row in read('joint_synthetic')])


def coverage() -> str:
    """Returns the coverage of intervals by subject: one row for each number of people."""
    records = read('interval_coverage')

    def cell(people: int, kind: str, accuracies: tuple[float, ...]) -> str:
        figures = [
            row['coverage']
            for row in records
            if (row['kind'], row['subjects']) == (kind, people) and row['accuracy'] in accuracies
        ]
        return f'{min(figures):.1f} to {max(figures):.1f}'

    accuracies = interval_coverage.ACCURACIES
    rows = [
        [str(people), *(cell(people, 'accuracy', (each,)) for each in accuracies), cell(people, 'gain', accuracies)]
        for people in interval_coverage.SUBJECTS
    ]
    return markdown(['people', *(f'accuracy {each:.0%}' for each in accuracies), 'gain of +3 points'], rows)


def steps(threads: int) -> str:
    """Returns the speed of steps, and in bold the ratio to PyTorch."""
    metric, name = ('images_per_cpu_second', '1_thread') if threads == 1 else ('images_per_second', '2_cores')
    contenders = ['fer_jax', *(['fer_jax, a device a core'] if threads != 1 else []), 'PyTorch', 'PyTorch, compiled']
    rows = []
    for part, what in PARTS.items():
        records = read(f'{part}_cpu_{name}')
        for case, title in CASES.items():
            medians = {}
            for contender in contenders:
                own = [row for row in records if (row['case'], row['contender']) == (case, contender)]
                values = [row[metric] for row in own if metric in row]
                if values:
                    medians[contender] = statistics.median(values)
            if not medians:
                continue
            cells = [f'{title}, {what}']
            for contender in contenders:
                ratio = '' if contender == 'PyTorch' else f' **{medians[contender] / medians["PyTorch"]:.2f}**'
                cells.append(f'{medians[contender]:#.3g}'.rstrip('.') + ratio if contender in medians else '')
            rows.append(cells)
    heads = {'fer_jax, a device a core': 'fer_jax, one device per core', 'fer_jax': 'fer_jax, one device'}
    unit = 'images per CPU-second' if threads == 1 else 'images per second'
    return markdown([unit, *(heads.get(name, name) if threads != 1 else name for name in contenders)], rows)


def feeding(threads: int) -> str:
    """Returns the speed of input pipelines."""
    metric, name = ('images_per_cpu_second', '1_thread') if threads == 1 else ('images_per_second', '2_cores')
    records = read(f'data_cpu_{name}')
    contenders = list(dict.fromkeys(row['contender'] for row in records))
    rows = []
    for case in dict.fromkeys(row['case'] for row in records):
        figures = {
            contender: [row[metric] for row in records if (row['case'], row['contender']) == (case, contender)]
            for contender in contenders
        }
        torch = statistics.median(figures['PyTorch'])
        cells = [IMAGES.get(case, case)]
        for contender in contenders:
            if not figures[contender]:
                cells.append('')
                continue
            median = statistics.median(figures[contender])
            cells.append(f'{median:,.0f}' + ('' if contender == 'PyTorch' else f' **{median / torch:.1f} x**'))
        rows.append(cells)
    unit = 'images per CPU-second' if threads == 1 else 'images per second'
    return markdown([unit, *contenders], rows)


def search() -> str:
    """Returns the runs on validation that led to configs/fer2013_speedrun.py."""
    names = {'resnet8_small': 'ResNet-8 from scratch', 'efficientnet_lite0': 'EfficientNet-Lite0 from ImageNet'}
    rows = []
    for row in read('speedrun_search'):
        phases = [phase for phase in row['phases'] if not phase['head_only']]
        head = ', head first' if len(phases) < len(row['phases']) else ''
        columns = [', then '.join(str(phase[key]) for phase in phases) for key in ('pixels', 'epochs')]
        rate = f'{phases[0]["optimizer"]}, {phases[0]["learning_rate"]:g}'
        minutes = f'{row["core_seconds"] / 60:.1f}'
        score = f'{100 * row["validation"]["accuracy"]:.1f} %'
        rows.append([names[row['network']] + head, *columns, rate, minutes, score])
    heads = ['network', 'pixels', 'epochs', 'optimizer, learning rate', 'core minutes', 'validation']
    return markdown(heads, rows)


def detector() -> str:
    """Returns the accuracy on raw photographs beside that on published crops."""
    sets = [read('raw_fer2013'), read('raw_ckplus')]

    def line(name: str, cell: Callable[[list[Row]], str]) -> list[str]:
        return [name, *map(cell, sets)]

    def scored(crops: str) -> Callable[[list[Row]], str]:
        return lambda rows: share(rows[0]['all'][crops], rows[0]['all'][f'{crops}_ci95'])

    def change(part: str, number: int) -> Callable[[list[Row]], str]:
        return lambda rows: points(rows[number][part]['gain'], rows[number][part]['gain_ci95'])

    rows = [
        line('faces missed', lambda rows: share(rows[0]['miss_rate'], rows[0]['miss_rate_ci95'])),
        *(
            line(f'missed, {side}', lambda rows, side=side: '{missed} of {n}'.format(**rows[0]['by_side'][side]))
            for side in sets[0][0]['by_side']
        ),
        line('detections without a face', lambda rows: str(rows[0]['others'])),
        line('accuracy on published crops', scored('aligned')),
        line('accuracy on raw photographs', scored('raw')),
        line('change, a missed face counts as wrong', change('all', 0)),
        line('p (McNemar)', lambda rows: f'{rows[0]["all"]["p"]:.2g}'),
        *(
            line(f'change among faces that were found, margin {row["margin"]:g}', change('found', number))
            for number, row in enumerate(sets[0])
        ),
    ]
    names = ('FER2013, test', 'CK+, all')
    return markdown(['', *(f'{name}, {own[0]["n"]:,} images' for name, own in zip(names, sets, strict=True))], rows)


def kill_table(name: str) -> Callable[[], str]:
    """Returns a function that makes the table of a campaign of kills or signals."""
    return lambda: kills.table(read(name)).rpartition('\n')[0]


TABLES: dict[str, Callable[[], str]] = {
    'ck48': lambda: ck48.table(read('ck48')).strip(),
    'coverage': coverage,
    'detector': detector,
    'distil': distil,
    'feeding_1_thread': lambda: feeding(1),
    'feeding_2_cores': lambda: feeding(2),
    'fuzz': lambda: fuzz.table(read('reliability_fuzz')),
    'joint': joint,
    'kills': kill_table('reliability_kills'),
    'kills_seed_1': kill_table('reliability_kills_seed_1'),
    'kills_seed_2': kill_table('reliability_kills_seed_2'),
    'losses': losses,
    'matrix': lambda: matrix_table(read('matrix')).strip(),
    'pseudo': pseudo,
    'roofline': lambda: roofline.table(read('roofline')).strip(),
    'search': search,
    'signals': kill_table('reliability_signals'),
    'speedrun': speedrun,
    'steps_1_thread': lambda: steps(1),
    'steps_2_cores': lambda: steps(2),
    'transfer': lambda: transfer.table(read('transfer_1000')).partition('\n\n')[0],
    'sources': lambda: transfer.table(read('transfer_28709')).partition('\n\n')[0],
}


def rewritten(text: str) -> str:
    """Returns a page with its tables made anew."""
    return BLOCK.sub(lambda match: match[1] + TABLES[match[2]]() + match[3], text)


def main(argv: list[str] | None = None) -> int:
    """Rewrites the pages, or checks them; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='write nothing; status 1 where a page is not up to date')
    arguments = parser.parse_args(argv)
    stale = [page for page in PAGES if (text := page.read_text()) != rewritten(text)]
    for page in stale:
        print(page.relative_to(DOCS.parent))
        if not arguments.check:
            page.write_text(rewritten(page.read_text()))
    return int(arguments.check and bool(stale))


if __name__ == '__main__':
    sys.exit(main())
