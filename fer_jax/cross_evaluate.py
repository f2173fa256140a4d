"""Trained on one set, scored on another: every run against every set, each pair once.

    python -m fer_jax.cross_evaluate --workdir runs/fer2013 --workdir runs/ck48 --data fer2013 --data ferplus \\
        --data faces/ck48 --output docs/results/matrix.jsonl

A set is a prepared one by its name, a folder of class folders, or a manifest; `fer2013:validation` names another split
than its test split, which is all of it where none is published. Classes are matched by what they mean ('anger' is
'angry'); only those that both know are compared, and only among these a run chooses. An image is left out on which,
to the byte, the run was trained or selected, or one that it learnt from: its `model.weights`, its teachers, theirs in
turn. `--output` gets one JSON object a pair, and beside it a Markdown table and a heat map; the same command leaves
pairs alone that are there, and `--fresh` does not. A pair that cannot be scored is named.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fer_jax
from fer_jax.cli import run_and_exit, run_command
from fer_jax.data import dataset
from fer_jax.errors import UserError
from fer_jax.evaluation import cross_dataset, score_logits, summary
from fer_jax.runs import metrics_log
from fer_jax.utils import fonts, plotting
from fer_jax.utils.paths import path_argument

KEPT = (*score_logits.OF_GROUP, 'classes', 'left_out')


def main(argv: list[str] | None = None) -> int:
    """Scores every run on every data set, and writes the results, a table and a heat map.

    Args:
      argv: arguments; None takes those of the process.

    Returns:
      The exit status: 0, or 2 where the input is wrong or images cannot be read.
    """
    parser = argparse.ArgumentParser(
        prog='fer-jax cross-evaluate', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--workdir', required=True, action='append', type=path_argument, help='of a finished run; repeatable'
    )
    parser.add_argument('--data', required=True, action='append', help='NAME, FOLDER or MANIFEST[:SPLIT]; repeatable')
    parser.add_argument('--output', required=True, type=path_argument, help='.jsonl to write')
    parser.add_argument('--fresh', action='store_true', help='score pairs anew that --output has already')
    arguments = parser.parse_args(argv)

    def command() -> int:
        rows = matrix(arguments.workdir, arguments.data, arguments.output, fresh=arguments.fresh)
        table = markdown(rows)
        arguments.output.with_suffix('.md').write_text(table, encoding='utf-8')
        heat_map(arguments.output.with_suffix('.png'), rows)
        print(table)
        unreadable = max(row['left_out'].get('unreadable', 0) for row in rows)
        if unreadable:
            print(f'fer_jax: up to {unreadable:,} images of a set could not be read', file=sys.stderr)
        return 2 if unreadable else 0

    return run_command(command)


def matrix(workdirs: Sequence[Path], sets: Sequence[str], output: Path, *, fresh: bool = False) -> list[dict[str, Any]]:
    """Scores every run on every data set, and writes each result to `output` as soon as it is computed.

    Pairs that cannot be scored are printed and left out.

    Args:
      workdirs: folders of finished runs.
      sets: data sets, see `data.dataset.open_split`.
      output: .jsonl file; pairs that it already has at the same step are not scored again.
      fresh: True to score those pairs again.

    Returns:
      One row per pair, in the order of `workdirs` and `sets`, then the other rows of `output`.

    Raises:
      UserError: no pair can be scored, or a run or a set cannot be read.
    """
    rows = {(row['workdir'], row['data']): row for row in metrics_log.read_metrics(output)}
    tables = {name: dataset.open_split(name) for name in sets}
    output.parent.mkdir(parents=True, exist_ok=True)
    order = dict.fromkeys([*((str(workdir), name) for workdir in workdirs for name in sets), *rows])
    for workdir in workdirs:
        predictor = fer_jax.load(workdir)
        seen = cross_dataset.trained_on(workdir)
        for name, table in tables.items():
            before = rows.get((str(workdir), name))
            if before is not None and before['step'] == predictor.step and not fresh:
                continue
            rows.pop((str(workdir), name), None)
            try:
                result = cross_dataset.score_unseen(predictor, table, seen)
            except UserError as error:
                print(f'{workdir} on {name} is left out: {error}')
            else:
                row = {'workdir': str(workdir), 'step': predictor.step, 'data': name}
                rows[str(workdir), name] = row | {field: result[field] for field in KEPT if field in result}
            lines = [json.dumps(rows[pair]) + '\n' for pair in order if pair in rows]
            output.write_text(''.join(lines), encoding='utf-8')
    if not rows:
        raise UserError('no pair can be scored; the reasons are above')
    return [rows[pair] for pair in order if pair in rows]


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the results as a Markdown table with one row per pair.

    Args:
      rows: see `matrix`.
    """
    lines = ['| run | scored on | n | accuracy | balanced | classes | left out: trained on, other classes |']
    lines.append('|---|---|---:|---:|---:|---:|---:|')
    for row in rows:
        shares = summary.share(row['accuracy'], row['accuracy_ci95'])
        lines.append(
            f'| {_cell(row["workdir"])} | {_cell(row["data"])} | {row["n"]:,} | {shares} | '
            f'{100 * row["balanced_accuracy"]:.2f} % | {len(row["classes"])} | '
            f'{row["left_out"]["trained on"]:,}, {row["left_out"]["of other classes"]:,} |'
        )
    return '\n'.join(lines) + '\n'


def _cell(path: str) -> str:
    return Path(path).name.replace('|', '\\|')


def heat_map(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a heat map of the accuracies as PNG, with runs in rows and data sets in columns.

    Each cell shows the accuracy, its interval and the number of examples.

    Args:
      path: file to write.
      rows: see `matrix`.
    """
    runs = list(dict.fromkeys(row['workdir'] for row in rows))
    sets = list(dict.fromkeys(row['data'] for row in rows))
    drawn = plotting.figure(2.6 + 1.5 * len(sets), 1.5 + 0.95 * len(runs))
    axes = drawn.add_subplot()
    values = np.full((len(runs), len(sets)), np.nan)
    for row in rows:
        values[runs.index(row['workdir']), sets.index(row['data'])] = row['accuracy']
    axes.imshow(values, cmap='Blues', vmin=0, vmax=1, aspect='auto')
    for row in rows:
        cell = sets.index(row['data']), runs.index(row['workdir'])
        interval = '[{:.1f}, {:.1f}]\n'.format(*(100 * np.array(row['accuracy_ci95']))) if row['accuracy_ci95'] else ''
        text = f'{row["accuracy"]:.1%}\n{interval}n {row["n"]:,}'
        colour = 'white' if row['accuracy'] > 0.55 else plotting.INK
        axes.text(*cell, text, ha='center', va='center', fontsize=9, color=colour)
    axes.set_xticks(range(len(sets)), [fonts.showable(Path(name).name) for name in sets])
    axes.set_yticks(range(len(runs)), [fonts.showable(Path(name).name) for name in runs])
    axes.set_xlabel('scored on')
    axes.set_ylabel('trained as')
    axes.set_title('accuracy [95 % interval]', loc='left')
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    drawn.savefig(path)


if __name__ == '__main__':
    run_and_exit(main)
