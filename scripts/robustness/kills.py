"""Kills runs, stops runs and damages checkpoints, and compares what is left with what nothing happened to.

    python scripts/robustness/kills.py kills --count 100 --output docs/results/kills_cpu.jsonl
    python scripts/robustness/kills.py signals --count 20 --output docs/results/signals_cpu.jsonl
    python scripts/robustness/kills.py flips --count 120 --output docs/results/flips_cpu.jsonl

`kills` and `signals` train on images of noise by configs/reliability.py; `python -m fer_jax.main` ends by SIGKILL or
SIGTERM at a random moment and is started again by the same command, until it is through; of two processes one is hit,
and the other has to end by itself. Then the bits of its checkpoints, metrics.jsonl and results.json are compared with
those of a run that was left alone.
`flips` damages one file of the newest of two checkpoints of a ResNet-18, and opens them as a run does.

Each appends a JSON line a trial to --output, prints a table, and returns 0 where nothing was lost. The same command
goes on with what is there. Random numbers follow from --seed, the moments that they hit depend on the machine.
"""

import argparse
import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from configs.reliability import KINDS
from fer_jax.cli import quiet_logs
from fer_jax.runs import checkpoints, metrics_log
from fer_jax.utils import progress
from scripts.robustness.damaged_checkpoints import append, flips

REPOSITORY = Path(__file__).resolve().parents[2]
ENDS = {'kills': signal.SIGKILL, 'signals': signal.SIGTERM}
EXPECTED = {'kills': -signal.SIGKILL, 'signals': 75}
ALONE = 900.0  # seconds after which a run that should end is taken for hung
ALONE_AFTER = 120.0  # and a process whose other one has ended


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('campaign', choices=['kills', 'signals', 'flips'])
    parser.add_argument('--count', type=int, help='kills (100), signals (20), or damages of each sort (120)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--kinds', default=','.join(KINDS), help='of runs')
    parser.add_argument('--work', type=Path, default=Path('runs/reliability'), help='where the runs lie')
    parser.add_argument('--output', type=Path, help='.jsonl (default: in --work)')
    arguments = parser.parse_args(argv)
    arguments.work = arguments.work.absolute()
    arguments.output = arguments.output or arguments.work / f'{arguments.campaign}.jsonl'
    for folder in (arguments.work, arguments.output.parent):
        folder.mkdir(parents=True, exist_ok=True)
    quiet_logs()
    if arguments.campaign == 'flips':
        return flips(arguments.work, arguments.output, arguments.count or 120, arguments.seed)
    kinds = arguments.kinds.split(',')
    campaign = Campaign(arguments.campaign, arguments.work, arguments.output, arguments.seed, kinds)
    return campaign.run(arguments.count or {'kills': 100, 'signals': 20}[arguments.campaign])


class Campaign:
    """Chains: each is one run, interrupted until it is through. A line of the output is one process of a chain."""

    def __init__(self, name: str, work: Path, output: Path, seed: int, kinds: list[str]):
        self.name, self.work, self.output, self.seed, self.kinds = name, work, output, seed, kinds
        self.images = noise(work / 'images')

    def run(self, count: int) -> int:
        """Interrupts `count` times; returns the exit status."""
        lines = metrics_log.read_metrics(self.output)
        wrong = 0
        with progress.bar(None, self.name, count, unit='', delay=0, initial=interruptions(lines)) as bar:
            while interruptions(lines) < count or not lines[-1]['ended']:
                line = self.process(lines, interrupt=interruptions(lines) < count)
                append(self.output, line)
                lines.append(line)
                wrong += bool(line['wrong'])
                bar.update(line['interrupted'])
                bar.set_postfix(wrong=wrong)
        print(table(lines))
        return int(any(line['wrong'] for line in lines))

    def process(self, lines: list[dict[str, Any]], *, interrupt: bool) -> dict[str, Any]:
        """Starts the next process of the last chain, or the first of the next, and ends it or lets it end."""
        last = lines[-1] if lines else None
        chain = 0 if last is None else last['chain'] + bool(last['ended'])
        number = 0 if last is None or last['ended'] else last['number'] + 1
        kind = self.kinds[chain % len(self.kinds)]
        reference = self.reference(kind)
        folder = self.work / f'{self.name}-{chain}'
        if not number:
            shutil.rmtree(folder, ignore_errors=True)
        before = newest(folder / 'run')
        random = np.random.default_rng([self.seed, chain, number])
        earliest = 0.0 if random.random() < 0.2 else reference['ready']
        delay = random.uniform(earliest, reference['seconds'])
        begun = time.time()
        status, text = self.start(kind, folder, delay if interrupt else None)
        line = {'kind': kind, 'chain': chain, 'number': number, 'seconds': round(time.time() - begun, 2)}
        line |= {'interrupted': status == EXPECTED[self.name], 'ended': status == 0, 'status': status}
        line |= {'moment': moment(folder, begun), 'step': last_record(folder / 'run')}
        line['resumed_at'] = None if line['moment'] == 'starting' else resumed(text)
        line |= {'saved': newest(folder / 'run'), 'wrong': ''}
        if status == -signal.SIGTERM and 'workdir' not in text:  # before Python had read the program: nothing is lost
            return line
        if status not in (0, EXPECTED[self.name]):
            line |= {'wrong': f'exit status {status}', 'ended': True}
        elif line['resumed_at'] is not None and line['resumed_at'] != before:
            line['wrong'] = f'resumed at {line["resumed_at"]}, {before} was saved'
        elif self.name == 'signals' and line['interrupted']:
            line |= {'wrong': self.unsaved(text, line)}
        elif line['ended']:
            differing = [name for name, value in outcome(folder / 'run').items() if value != reference['outcome'][name]]
            line['wrong'] = f'differs in {", ".join(differing)}' if differing else ''
        if line['ended'] and not line['wrong']:
            shutil.rmtree(folder)
        return line

    def unsaved(self, text: str, line: Mapping[str, Any]) -> str:
        """What is wrong with how a run ended on SIGTERM, '' where nothing is."""
        if 'stopped by SIGTERM, nothing is lost' in text:
            return '' if line['saved'] == line['step'] else 'a step was lost'
        if f' after step {line["step"]}, saved' not in text or line['saved'] != line['step']:
            return f'step {line["step"]} is not saved'
        return ''

    def reference(self, kind: str) -> dict[str, Any]:
        """What a run that is left alone ends with, and how long it takes when its programs are compiled."""
        path = self.work / f'{kind}.json'
        if not path.exists():
            folder = self.work / f'reference-{kind}'
            for _ in range(2):
                shutil.rmtree(folder, ignore_errors=True)
                begun = time.time()
                status, text = self.start(kind, folder, None)
                if status:
                    raise SystemExit(f'the run that was left alone ends with {status}: {text[-2000:]}')
            ready = (folder / 'run' / 'parameters.txt').stat().st_mtime - begun
            outcome_line = {'ready': ready, 'seconds': time.time() - begun, 'outcome': outcome(folder / 'run')}
            path.write_text(json.dumps(outcome_line))
            shutil.rmtree(folder)
        return json.loads(path.read_text())

    def start(self, kind: str, folder: Path, delay: float | None) -> tuple[int, str]:
        """Runs the command, interrupted after `delay` seconds; returns its exit status and what it said.

        Of several processes one is interrupted, and its status counts unless another ends otherwise than it may.
        """
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, '-m', 'fer_jax.main', '--config', f'configs/reliability.py:{kind}']
        command += [f'--config.data.dir={self.images}', f'--workdir={folder}/run']
        commands = [command]
        if kind == 'two_processes':
            command += [f'--coordinator=localhost:{free_port()}', '--num_processes=2']
            commands = [[*command, f'--process_id={index}'] for index in range(2)]
        environment = os.environ | {
            'FER_JAX_CACHE': str(folder / 'cache'),  # the feature cache begins empty
            'JAX_COMPILATION_CACHE_DIR': str(self.work / 'xla'),
            'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.2',
            'PYTHONPATH': str(REPOSITORY),
            'PYTHONUNBUFFERED': '1',
        }
        with (folder / 'log').open('w') as log:
            start = functools.partial(subprocess.Popen, cwd=REPOSITORY, env=environment, stdout=log, stderr=log)
            processes = [start(started) for started in commands]
            hit = processes.pop(int(1000 * (delay or 0)) % len(processes))
            try:
                hit.wait(ALONE if delay is None else delay)
            except subprocess.TimeoutExpired:
                if delay is not None:
                    hit.send_signal(ENDS[self.name])
                    hit.wait(ALONE)
            finally:
                for process in processes:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(ALONE_AFTER)
                for process in (hit, *processes):
                    process.kill()
                    process.wait()
        others = [process.returncode for process in processes]
        may = (0, 1, 2, 75, -signal.SIGABRT) if hit.returncode else (0,)
        status = next((other for other in others if other not in may), hit.returncode)
        return status, (folder / 'log').read_text()


def noise(folder: Path) -> Path:
    """Three classes of 40 images of noise, each class of another brightness."""
    from PIL import Image

    random = np.random.default_rng(0)
    for label, name in enumerate(('angry', 'happy', 'sad')):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(40):
            pixels = random.integers(40 * label, 160 + 40 * label, (32, 32), np.uint8)
            Image.fromarray(pixels).save(folder / name / f'{index}.png')
    return folder


def free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(('', 0))
        return chosen.getsockname()[1]


def interruptions(lines: list[dict[str, Any]]) -> int:
    return sum(line['interrupted'] for line in lines)


def newest(workdir: Path) -> int:
    """The newest step that is sealed, 0 if none is."""
    return max((int(path.name.partition('.')[0]) for path in workdir.glob('checkpoints/*.manifest.json')), default=0)


def last_record(workdir: Path) -> int:
    """The last step whose record is written."""
    return max((record['step'] for record in metrics_log.read_metrics(workdir / 'metrics.jsonl')), default=0)


def resumed(text: str) -> int:
    """The step at which a run says that it goes on, 0 where it begins."""
    match = re.search(r'^resuming at step (\d+)', text, re.MULTILINE)
    return int(match[1]) if match else 0


def moment(folder: Path, begun: float) -> str:
    """What a process that began at `begun` was doing, as far as its files show."""

    def new(pattern: str) -> list[Path]:
        return [path for path in folder.glob(pattern) if path.stat().st_ctime > begun]

    steps = {path for path in new('run/checkpoints/*') if path.is_dir() and path.name != 'set_aside'}
    if any(not path.with_name(f'{path.name}.manifest.json').exists() for path in steps):
        return 'saving'
    if new('cache/features/.*'):
        return 'writing the feature cache'
    if new('run/results.json') or new('run/predictions.npz'):
        return 'finishing'
    if new('run/tensorboard/*'):
        return 'training'
    return 'starting'


def outcome(workdir: Path) -> dict[str, str]:
    """Digests of all that two runs have in common if they ended in the same bits."""
    steps = checkpoints.step_folders(workdir / 'checkpoints')
    digests = {f'checkpoint {folder.name}': checkpoints.digest(folder) for folder in steps}
    for name in ('metrics.jsonl', 'results.json'):
        digests[name] = hashlib.sha256((workdir / name).read_bytes()).hexdigest()
    return digests


def table(lines: list[dict[str, Any]]) -> str:
    """A row a kind of run."""
    rows = ['| run | interrupted | while | ends equal |', '|---|---|---|---|']
    for kind in dict.fromkeys(line['kind'] for line in lines):
        own = [line for line in lines if line['kind'] == kind]
        moments = Counter(line['moment'] for line in own if line['interrupted'])
        ended = [line for line in own if line['ended']]
        equal = sum(not line['wrong'] for line in ended)
        shown = ', '.join(f'{what} {count}' for what, count in moments.most_common())
        rows.append(f'| {kind} | {interruptions(own)} | {shown} | {equal} of {len(ended)} |')
    wrong = [line for line in lines if line['wrong']]
    rows += [f'chain {line["chain"]}, process {line["number"]} ({line["kind"]}): {line["wrong"]}' for line in wrong]
    return '\n'.join([*rows, f'{len(lines)} processes, {interruptions(lines)} interrupted, {len(wrong)} wrong'])


if __name__ == '__main__':
    sys.exit(main())
