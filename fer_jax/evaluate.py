"""Command line: `python -m fer_jax.evaluate --workdir DIR ... [--split test | --data SET] [--tta VIEWS] [...]`.

One run is scored; several are compared, pooled where they differ by their seed alone, and asked together. Others'
predictions, a csv of probabilities, are scored beside them by the same rules.
"""

import argparse
import sys

from fer_jax.cli import run_and_exit, run_command
from fer_jax.errors import UserError
from fer_jax.evaluation import comparison, summary
from fer_jax.evaluation.evaluate_runs import evaluate, evaluate_together
from fer_jax.runs import restore
from fer_jax.runs import results as run_results
from fer_jax.utils.paths import path_argument


def main(argv: list[str] | None = None) -> int:
    """Scores one run, or compares several runs and predictions, and prints the results.

    Args:
      argv: arguments; None takes those of the process.

    Returns:
      The exit status: 0, or 2 where the input is wrong or images cannot be read.
    """
    parser = argparse.ArgumentParser(prog='fer-jax evaluate', description=__doc__)
    parser.add_argument(
        '--workdir', nargs='+', default=[], type=path_argument, help='of a run or release; several are compared'
    )
    parser.add_argument('--split', default='test', help='train, validation or test')
    parser.add_argument('--data', default='', help='another set: NAME, FOLDER or MANIFEST[:SPLIT]')
    parser.add_argument(
        '--tta', default='none', help='views of each image: none, flip, tencrop, or so many random ones'
    )
    parser.add_argument(
        '--predictions',
        nargs='+',
        default=[],
        type=path_argument,
        metavar='CSV',
        help="others' probabilities: id, classes",
    )
    parser.add_argument('--output', type=path_argument, help='write the results there as JSON')
    arguments = parser.parse_args(argv)
    workdirs, peers = [restore.resolve_workdir(workdir) for workdir in arguments.workdir], arguments.predictions
    asked = {'dataset': arguments.data, 'tta': arguments.tta}

    def command() -> int:
        if not (workdirs or peers):
            raise UserError('give --workdir DIR, or --predictions CSV with --data SET')
        if len(workdirs) == 1 and not peers and not sorted(workdirs[0].glob('seed-*')):
            results = evaluate(workdirs[0], arguments.split, **asked)
            print(summary.summary(results))
            each = [results]
            if left := results.get('left_out'):
                print('left out: ' + ', '.join(f'{count:,} {why}' for why, count in left.items()))
        else:
            results = evaluate_together(workdirs, arguments.split, **asked, predictions=peers)
            print(comparison.table(results))
            each = list(results['runs'].values())
        for line in dict.fromkeys(line for result in each for line in result.get('not_left_out', ())):
            print(f'warning: {line}')
        if arguments.output:
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            run_results.write_results(arguments.output, results)
        unreadable = max((result.get('left_out', {}).get('unreadable', 0) for result in each), default=0)
        if unreadable:
            print(f'fer_jax: {unreadable:,} images of {arguments.data} could not be read', file=sys.stderr)
        return 2 if unreadable else 0

    return run_command(command, OSError)


if __name__ == '__main__':
    run_and_exit(main)
