"""One page about a run, in one file that opens offline: `python -m fer_jax.report WORKDIR [WORKDIR ...]`.

Every run ends with it. The command writes it again, or with several workdirs a page that compares them.
"""

import argparse
from pathlib import Path

from fer_jax.cli import run_and_exit, run_command
from fer_jax.data.tasks import PRIMARY
from fer_jax.inference.predictor import Predictor
from fer_jax.reporting.html_report import compare, write_report
from fer_jax.runs import data as run_data
from fer_jax.runs.results import read_results
from fer_jax.utils.paths import path_argument


def main(argv: list[str] | None = None) -> int:
    """Writes the HTML report of a run, or of a comparison of several, and prints its path.

    Args:
      argv: arguments; None takes those of the process.

    Returns:
      The exit status: 0, or 2 where the input is wrong.
    """
    parser = argparse.ArgumentParser(prog='fer-jax report', description=__doc__)
    parser.add_argument('workdir', nargs='+', type=path_argument, help='of a finished run; several are compared')
    parser.add_argument('--output', type=path_argument, default=Path('comparison.html'), help='of a comparison')
    arguments = parser.parse_args(argv)

    def command() -> None:
        if len(arguments.workdir) > 1:
            print(compare(arguments.workdir, arguments.output))
        else:
            (workdir,) = arguments.workdir
            read_results(workdir)
            print(write_report(workdir, run_data.data_of_run(workdir)[PRIMARY], Predictor(workdir).explain))

    return run_command(command, OSError)


if __name__ == '__main__':
    run_and_exit(main)
