"""Disturbs small runs at random for as long as asked, and looks for what is lost or left behind.

    python scripts/robustness/soak.py --events 300 --output docs/results/reliability_soak.jsonl

A ResNet-8 by configs/reliability.py trains on a small disk of its own, until it is through; then the next begins. At
random moments it is killed, stopped by a signal, its disk gets full or has no inodes left, an evaluation reads the run
beside it, or a second run trains from the same cache. A run that is through has to end in the bits of one that was left
alone, no process and no shared memory may be left, and no half-written file in the workdir or the cache. Events follow
from --seed, the moments that they hit depend on the machine. Each event is a JSON line of --output; the same command
goes on with what is there. It mounts tmpfs, so it needs root.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.cli import quiet_logs
from fer_jax.runs import metrics_log
from scripts.robustness import kills
from scripts.robustness.damaged_checkpoints import append
from scripts.robustness.disk_faults import Disk, small_disk

SIGNALS = {'SIGKILL': -9, 'SIGTERM': 75, 'SIGUSR1': 75, 'SIGINT': 75}  # and the status that follows
EVENTS = (*SIGNALS, 'full', 'inodes', 'evaluation', 'second run')
SMALL = ('--config.model.name=resnet8_small', '--config.data.batch_size=40')
FROZEN = '--config.phases[0].rates=(("layer3/.*", 1.0), ("head/.*", 1.0), (".*", 0.0))'  # a ResNet-8 has no layer4
SHARED_MEMORY = Path('/dev/shm')


class Soak:
    """Runs one after another on the same disk and cache, each disturbed until it is through."""

    def __init__(self, work: Path):
        self.work, self.images, self.disk = work, kills.noise(work / 'images'), work / 'disk'
        self.processes: list[subprocess.Popen] = []

    def start(self, arguments: list[str], log: str) -> subprocess.Popen:
        """Starts a command of fer_jax in a group of its own."""
        environment = os.environ | {
            'FER_JAX_CACHE': str(self.work / 'cache'),
            'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.2',
            'PYTHONPATH': str(kills.REPOSITORY),
            'PYTHONUNBUFFERED': '1',
        }
        with (self.work / log).open('w') as file:
            process = subprocess.Popen(
                [sys.executable, '-m', *arguments],
                cwd=kills.REPOSITORY,
                env=environment,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def train(self, kind: str, workdir: Path, log: str) -> subprocess.Popen:
        """Starts or continues a run."""
        config = ['--config', f'configs/reliability.py:{kind}', *SMALL, f'--config.data.dir={self.images}']
        config += [FROZEN] if kind == 'feature_cache' else []
        return self.start(['fer_jax.main', *config, f'--workdir={workdir}'], log)

    def reference(self, kind: str) -> dict[str, Any]:
        """Returns the seconds and the outcome of a run that is left alone, its programs compiled before."""
        path, folder = self.work / f'{kind}.json', self.work / 'alone'
        if not path.exists():
            for _ in range(2):
                shutil.rmtree(folder, ignore_errors=True)
                begun = time.monotonic()
                if status := self.train(kind, folder, 'alone.log').wait(kills.ALONE):
                    raise SystemExit(f'left alone, {kind} ends with {status}: {self.read("alone.log")[-2000:]}')
            path.write_text(json.dumps({'seconds': time.monotonic() - begun, 'outcome': kills.outcome(folder)}))
            shutil.rmtree(folder)
        return json.loads(path.read_text())

    def read(self, log: str) -> str:
        return (self.work / log).read_text(errors='replace')

    def event(self, name: str, moment: float) -> dict[str, Any]:
        """Starts the run, lets the event happen after `moment` seconds, and waits; returns what was wrong."""
        process, disk = self.train('everything', self.disk / 'run', 'run.log'), Disk(self.disk, name)
        wrong, may, other = [], {0}, None
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            if name in SIGNALS:
                process.send_signal(getattr(signal, name))
                may |= {SIGNALS[name], -getattr(signal, name)}  # before Python listens
            elif name == 'evaluation':
                other = self.start(['fer_jax.evaluate', '--workdir', str(self.disk / 'run')], 'other.log')
            elif name == 'second run':
                other = self.train('feature_cache', self.work / 'second', 'other.log')
            else:
                disk.fail()
                may |= {2}
        status = process.wait(kills.ALONE)
        disk.mend()
        if status not in may:
            wrong.append(f'status {status}: {self.read("run.log")[-500:]}')
        if other is not None and (ended := other.wait(kills.ALONE)) not in (0, 2):
            wrong.append(f'{name} ends with {ended}: {self.read("other.log")[-500:]}')
        for log in ('run.log', 'other.log') if other else ('run.log',):
            if 'Traceback' in (text := self.read(log)) and status != -signal.SIGKILL:
                wrong.append(f'{log}: {text[text.index("Traceback") :][:500]}')
            if 'is damaged' in text:
                wrong.append(f'{log}: {text[text.index("is damaged") - 200 :][:500]}')
        return {'status': status, 'ended': status == 0, 'wrong': wrong}

    def outcome(self, memory: set[str]) -> list[str]:
        """Returns what is lost or left behind, now that a run is through."""
        wrong = []
        for folder, kind in ((self.disk / 'run', 'everything'), (self.work / 'second', 'feature_cache')):
            if folder.exists():
                wanted, result = self.reference(kind)['outcome'], kills.outcome(folder)
                wrong += [f'{kind} differs in {name}' for name in wanted if result.get(name) != wanted[name]]
                wrong += [f'{path} is left' for path in folder.rglob('.*') if path.is_file()]
                shutil.rmtree(folder)
        wrong += [f'{path} is left' for path in (self.work / 'cache').rglob('.*') if path.is_file()]
        wrong += [f'process {each.pid} lives' for each in self.processes if group_lives(each.pid)]
        wrong += [f'{name} is left in shared memory' for name in set(os.listdir(SHARED_MEMORY)) - memory]
        self.processes.clear()
        return wrong


def group_lives(group: int) -> bool:
    """Returns whether a process of a group is alive."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0 where nothing was lost or left behind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--events', type=int, default=300)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--work', type=Path, default=Path('runs/soak'), help='where the runs lie')
    parser.add_argument('--output', type=Path, help='.jsonl (default: in --work)')
    arguments = parser.parse_args(argv)
    work = arguments.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    output = arguments.output or work / 'soak.jsonl'
    quiet_logs()
    soak, lines = Soak(work), metrics_log.read_metrics(output)
    seconds = soak.reference('everything')['seconds']
    soak.reference('feature_cache')
    (work / 'disk').mkdir(exist_ok=True)
    with small_disk(work / 'disk'):
        memory = set(os.listdir(SHARED_MEMORY))
        while len(lines) < arguments.events or not lines[-1]['ended']:
            random = np.random.default_rng([arguments.seed, len(lines)])
            name = str(random.choice(EVENTS)) if len(lines) < arguments.events else 'evaluation'
            line = {'event': name, **soak.event(name, float(random.uniform(0, seconds)))}
            if line['ended']:
                line['wrong'] += soak.outcome(memory)
            lines.append(line)
            append(output, line)
            print(f'{len(lines)}: {line}', flush=True)
    print(table(lines))
    return int(any(line['wrong'] for line in lines))


def table(lines: list[dict[str, Any]]) -> str:
    """A row an event."""
    rows = ['| event | times | wrong |', '|---|---|---|']
    wrong = Counter(line['event'] for line in lines if line['wrong'])
    for name, count in Counter(line['event'] for line in lines).most_common():
        rows.append(f'| {name} | {count} | {wrong[name]} |')
    ended = sum(line['ended'] for line in lines)
    return '\n'.join([*rows, f'{len(lines)} events, {ended} runs through, {sum(wrong.values())} wrong'])


if __name__ == '__main__':
    sys.exit(main())
