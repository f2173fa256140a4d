"""Gives every reader of fer_jax malformed input: only a UserError may come out, soon, and with bounded memory.

    python scripts/robustness/fuzz.py --count 1200 --output docs/results/fuzz.jsonl
    python scripts/robustness/fuzz.py --only torch --first 417 --count 1     # one input again, with the traceback

Inputs are mutations of small valid ones, by bytes and by structure (an archive with a changed member, JSON with a
changed value, PNG with a changed chunk of right checksum); input `n` of a target follows from (--seed, target, n).
Each target runs in a process of its own, with its address space bounded. What counts as a finding: any exception but
UserError, a crash of the process, more than --seconds for one input, more than --megabytes above the valid inputs.
"""

import argparse
import contextlib
import json
import logging
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import traceback
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.errors import UserError
from fer_jax.utils import progress
from scripts.robustness.mutations import mutate
from scripts.robustness.targets import TARGETS

STARTING = 120.0  # seconds for imports and the first input
SPACE = 8 << 30  # bytes of address space above what the process has at its start


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 1 where there are findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--count', type=int, default=1200, help='inputs a target')
    parser.add_argument('--first', type=int, default=0, help='number of the first')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--only', default=','.join(TARGETS), help='targets')
    parser.add_argument('--seconds', type=float, default=5.0, help='for one input')
    parser.add_argument('--megabytes', type=float, default=1000.0, help='of memory above that of valid input')
    parser.add_argument('--output', type=Path, help='.jsonl to write: a line a target, then one a finding')
    arguments = parser.parse_args(argv)
    reports, findings = [], []
    for name in arguments.only.split(','):
        report, finds = fuzz(name, arguments)
        reports.append(report)
        findings += finds
    lines = [json.dumps(line) for line in (*reports, *findings)]
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text('\n'.join(lines) + '\n')
    print(table(reports))
    for finding in findings:
        print(f'{finding["target"]} {finding["input"]}: {finding["what"]}')
    return int(bool(findings))


def fuzz(name: str, arguments: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(what was tried, what was found) of one target; its process is started again after a crash or a hang."""
    report = {'target': name, 'inputs': 0, 'refused': 0, 'accepted': 0, 'findings': 0, 'slowest': 0.0, 'megabytes': 0.0}
    findings: list[dict[str, Any]] = []
    context = multiprocessing.get_context('fork')
    number, end = arguments.first, arguments.first + arguments.count
    with progress.bar(None, name, arguments.count, unit='') as bar:
        while number < end:
            ours, theirs = context.Pipe()
            process = context.Process(
                target=work, args=(name, arguments.seed, number, end, arguments.megabytes, theirs), daemon=True
            )
            process.start()
            theirs.close()
            if 'gone' in (ready := answer_of(process, ours, STARTING)):
                raise SystemExit(f'{name}, valid input: {ready["gone"]}')
            gone = ''
            while number < end and not gone:
                answer = answer_of(process, ours, arguments.seconds)
                gone = answer.get('gone', '')
                what = gone or answer['what']
                report['slowest'] = max(report['slowest'], answer.get('seconds', arguments.seconds))
                report['megabytes'] = max(report['megabytes'], answer.get('megabytes', 0))
                report['refused'] += answer.get('refused', False)
                report['accepted'] += not what and not answer['refused']
                if what:
                    findings.append({'target': name, 'input': number, 'what': what, 'seed': arguments.seed})
                report['inputs'] += 1
                number += 1
                bar.update()
            process.kill()
            process.join()
    report['findings'] = len(findings)
    return report, findings


def answer_of(process: Any, pipe: Connection, seconds: float) -> dict[str, Any]:
    """What the process says of its next input, or {'gone': why it says nothing}."""
    if not pipe.poll(seconds):
        return {'gone': f'more than {seconds:g} s'}
    try:
        return pipe.recv()
    except EOFError:
        process.join()
        return {'gone': f'the process ends with {process.exitcode}'}


def work(name: str, seed: int, first: int, end: int, megabytes: float, pipe: Connection) -> None:
    """Reads inputs `first` to `end` of a target, and sends what came of each."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter('ignore')
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as scratch:
        os.environ['FER_JAX_CACHE'] = f'{scratch}/cache'
        folder = Path(scratch)
        valid = target.valid()
        for data in valid:  # imports all that is needed; what is valid is read
            target.read(data, folder)
        resource.setrlimit(resource.RLIMIT_AS, (address_space() + SPACE,) * 2)
        usual = peak()
        pipe.send({})
        for number in range(first, end):
            random = np.random.default_rng([seed, *name.encode(), number])
            data = mutate(random, valid, target.rebuild)
            begun = time.perf_counter()
            what, refused = '', False
            try:
                target.read(data, folder)
            except UserError:
                refused = True
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                text = str(error).splitlines()[0][:200] if str(error) else ''
                what = f'{type(error).__name__}: {text} ({Path(where.filename).name}:{where.lineno})'
                if end - first == 1:
                    print(traceback.format_exc(), flush=True)
            seconds = time.perf_counter() - begun
            grown = (peak() - usual) / 1e6
            if grown > megabytes and not what:
                what = f'{grown:.0f} MB'
                Path('/proc/self/clear_refs').write_text('5')  # the peak falls to what is held now
            answer = {'what': what, 'refused': refused, 'seconds': round(seconds, 3), 'megabytes': round(grown)}
            pipe.send(answer)
    with contextlib.suppress(OSError):
        pipe.close()


def peak() -> int:
    """Bytes of memory that this process held at most; getrusage would count those of its parent."""
    status = Path('/proc/self/status').read_text()
    return int(status.partition('VmHWM:')[2].split()[0]) * 1024


def address_space() -> int:
    return int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()


def table(reports: list[dict[str, Any]]) -> str:
    """A row a target, and their sum."""
    total = {key: sum(report[key] for report in reports) for key in ('inputs', 'refused', 'accepted', 'findings')}
    total |= {key: max(report[key] for report in reports) for key in ('slowest', 'megabytes')}
    rows = ['| reader | inputs | refused | read all the same | findings | slowest, s | memory, MB |', '|' + '---|' * 7]
    for report in (*reports, {'target': 'all', **total}):
        rows.append(
            f'| {report["target"]} | {report["inputs"]:,} | {report["refused"]:,} | {report["accepted"]:,} | '
            f'{report["findings"]} | {report["slowest"]:.2f} | {report["megabytes"]:.0f} |'
        )
    return '\n'.join(rows)


if __name__ == '__main__':
    sys.exit(main())
