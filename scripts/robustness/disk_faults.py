"""Lets the disk of a run fail in each way at each moment, and looks at the message and at what is left.

    python scripts/robustness/disk_faults.py --output docs/results/reliability_disk.jsonl

A ResNet-8 by configs/reliability.py, trained in this process, writes to a small disk of its own. While it trains, saves
or finishes the disk gets full, or its inodes or the quota are used up, `fsync` fails, or the folder is removed or
renamed. A try is right where the run ends with status 2 and one message as the last line, without
a traceback, and where the same command, the fault removed, goes on and ends in the bits of a run that was left alone.
It mounts tmpfs and compiles a library that answers for the C library (`LD_PRELOAD`), so it needs root and gcc. Each try
is a JSON line of --output; the same command goes on with what is there.
"""

import argparse
import contextlib
import gc
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fer_jax.runs import metrics_log
from scripts.robustness import kills
from scripts.robustness.damaged_checkpoints import append

WAYS = ('full', 'inodes', 'quota', 'fsync', 'removed', 'renamed')
MOMENTS = ('training', 'saving', 'finishing')
DISK = 'size=64m,nr_inodes=3000'
NOISE = re.compile(r'Traceback|never retrieved|Exception|<Future|asyncio')
LIBRARY = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int fails(int fd, const char *kind) {
    const char *flag = getenv("FAULT_FLAG"), *root = getenv("FAULT_ROOT");
    char link[64], path[4096], name[4200];
    snprintf(name, sizeof name, "%s.%s", flag, kind);
    if (!flag || !root || access(name, F_OK)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return !strncmp(path, root, strlen(root));
}
#define REAL(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))
#define FAIL(kind, number) if (fails(fd, kind)) { errno = number; return -1; }
ssize_t write(int fd, const void *data, size_t size) { FAIL("quota", EDQUOT) return REAL(write)(fd, data, size); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    FAIL("quota", EDQUOT) return REAL(pwrite)(fd, data, size, at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    FAIL("quota", EDQUOT) return REAL(pwrite64)(fd, data, size, at); }
ssize_t writev(int fd, const struct iovec *parts, int count) {
    FAIL("quota", EDQUOT) return REAL(writev)(fd, parts, count); }
int fsync(int fd) { FAIL("fsync", EIO) return REAL(fsync)(fd); }
int fdatasync(int fd) { FAIL("fsync", EIO) return REAL(fdatasync)(fd); }
"""


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0 where every try was right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--work', type=Path, default=Path('runs/disk_faults'), help='where the runs lie')
    parser.add_argument('--output', type=Path, help='.jsonl (default: in --work)')
    parser.add_argument('--ways', default=','.join(WAYS))
    parser.add_argument('--moments', default=','.join(MOMENTS))
    arguments = parser.parse_args(argv)
    work = arguments.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    output = arguments.output or work / 'disk_faults.jsonl'
    preload(work)
    images = kills.noise(work / 'images')
    lines = metrics_log.read_metrics(output)
    for way in arguments.ways.split(','):
        for moment in arguments.moments.split(','):
            if not any((line['way'], line['moment']) == (way, moment) for line in lines):
                lines.append({'way': way, 'moment': moment, **attempt(work, images, way, moment)})
                lines[-1]['message'] = lines[-1]['message'].replace(f'{work}/', '')
                append(output, lines[-1])
                print(lines[-1], flush=True)
    print(table(lines))
    return int(any(line['wrong'] for line in lines))


def preload(work: Path) -> None:
    """Starts this process again with the library that lets writes fail, where it is not there yet."""
    library = work / 'faults.so'
    if os.environ.get('LD_PRELOAD') == str(library):
        return
    source = library.with_suffix('.c')
    source.write_text(LIBRARY)
    subprocess.run(['gcc', '-shared', '-fPIC', '-o', str(library), str(source), '-ldl'], check=True)
    os.environ |= {
        'FER_JAX_CACHE': str(work / 'cache'),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
        'LD_PRELOAD': str(library),
        'FAULT_FLAG': str(work / 'fault'),
        'FAULT_ROOT': str(work / 'disk'),
    }
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def left_alone(work: Path, images: Path) -> dict[str, str]:
    """Returns the outcome of a run that nothing happens to; it is made once."""
    path, folder = work / 'alone.json', work / 'alone'
    if not path.exists():
        shutil.rmtree(folder, ignore_errors=True)
        status, message = start(work, images, folder, lambda: None)
        if status:
            raise SystemExit(f'the run that was left alone ends with {status}: {message[-2000:]}')
        path.write_text(json.dumps(kills.outcome(folder / 'run')))
        shutil.rmtree(folder)
    return json.loads(path.read_text())


def attempt(work: Path, images: Path, way: str, moment: str) -> dict[str, Any]:
    """Runs until the fault, then again without it; returns what was said and what was wrong."""
    wanted = left_alone(work, images)
    last = max(int(name.split()[1]) for name in wanted if name.startswith('checkpoint'))
    folder = work / 'disk'
    with small_disk(folder):
        disk = Disk(folder, way)

        def watch() -> None:
            if reached(disk.run, moment, last):
                disk.fail()

        status, message = start(work, images, folder, watch)
        disk.mend()
        (work / f'{way}-{moment}.log').write_text(message)
        result: dict[str, Any] = {'status': status, 'message': last_line(message), 'wrong': ''}
        if not disk.failed:
            return result | {'wrong': 'the fault came too late'}
        if status != 2 or not result['message'].startswith('fer_jax: '):
            result['wrong'] = f'ends with status {status}'
        elif noise := NOISE.search(message):
            result['wrong'] = f'prints {noise[0]}'
        status, message = start(work, images, folder, lambda: None)
        if status:
            return result | {'wrong': f'does not go on: {last_line(message)}'}
        outcome = kills.outcome(folder / 'run')
        if differing := [name for name in wanted if outcome.get(name) != wanted[name]]:
            result['wrong'] = f'differs in {", ".join(differing)}'
        if left := [str(path) for path in (folder / 'run').rglob('.*') if path.is_file()]:
            result['wrong'] = f'left behind: {left}'
        return result


@contextlib.contextmanager
def small_disk(folder: Path):  # noqa: ANN201
    """Mounts a file system of its own for the block."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(['mount', '-t', 'tmpfs', '-o', DISK, 'none', str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(['umount', '-l', str(folder)], check=True)


class Disk:
    """The disk below `folder`, which fails in one way once and is mended."""

    def __init__(self, folder: Path, way: str):
        self.folder, self.way, self.failed = folder, way, False
        self.run, self.aside, self.ballast = folder / 'run', folder / 'aside', folder / 'ballast'

    def fail(self) -> None:
        """Lets it fail, at the first call."""
        if self.failed:
            return
        self.failed = True
        if self.way == 'full':
            with contextlib.suppress(OSError), self.ballast.open('wb', buffering=0) as file:
                while file.write(bytes(1 << 16)):
                    pass
        elif self.way == 'inodes':
            self.ballast.mkdir()
            with contextlib.suppress(OSError):
                for number in range(10**6):
                    (self.ballast / str(number)).touch()
        elif self.way == 'removed':
            self.run.rename(self.aside)  # at once; then what is open is gone as well
            shutil.rmtree(self.aside, ignore_errors=True)
        elif self.way == 'renamed':
            self.run.rename(self.aside)
        else:
            self.folder.with_name(f'fault.{self.way}').touch()

    def mend(self) -> None:
        """Ends the fault."""
        if self.way == 'renamed' and self.aside.exists():
            shutil.rmtree(self.run, ignore_errors=True)
            self.aside.rename(self.run)
        self.folder.with_name(f'fault.{self.way}').unlink(missing_ok=True)
        if self.ballast.is_dir():
            shutil.rmtree(self.ballast)
        self.ballast.unlink(missing_ok=True)


def fail_at(disk: Disk, moment: str, last: int) -> None:
    if reached(disk.run, moment, last):
        disk.fail()


def reached(run: Path, moment: str, last: int) -> bool:
    """Returns whether the run has come to a moment, by its files."""
    if moment == 'training':
        metrics = run / 'metrics.jsonl'
        return metrics.exists() and metrics.stat().st_size > 0
    if moment == 'saving':
        return any(path.is_dir() for path in run.glob('checkpoints/*'))
    return (run / 'checkpoints' / f'{last}.manifest.json').exists()


def start(work: Path, images: Path, folder: Path, watch: Callable[[], object]) -> tuple[int, str]:
    """Trains in this process as the command does, calls `watch` every few milliseconds beside it.

    Returns:
      The exit status, and what was printed to standard error.
    """
    from configs import reliability
    from fer_jax import cli, train
    from fer_jax.utils import disk_faults

    config = reliability.get_config('everything')
    config.model.name, config.data.batch_size, config.data.dir = 'resnet8_small', 40, str(images)
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.003):
            watch()

    watcher, before = threading.Thread(target=look), (threading.excepthook, sys.unraisablehook)
    with (work / 'log').open('w+') as log, contextlib.redirect_stdout(io.StringIO()):
        error = os.dup(2)
        os.dup2(log.fileno(), 2)
        watcher.start()
        try:
            cli.quiet_logs()
            status, message = cli.outcome(lambda: train(config, folder / 'run') and None)
        except Exception:
            status, message = 1, traceback.format_exc()
        if message:
            disk_faults.silence_threads()
            os.write(2, f'{message}\n'.encode())
        gc.collect()
        ended.set()
        watcher.join()
        os.dup2(error, 2)
        os.close(error)
        threading.excepthook, sys.unraisablehook = before
        logging.getLogger('asyncio').setLevel(logging.NOTSET)
        log.seek(0)
        return status, log.read()


def last_line(text: str) -> str:
    return next((line for line in reversed(re.split(r'[\r\n]', text)) if line.strip()), '')


def table(lines: list[dict[str, Any]]) -> str:
    """A row a way."""
    rows = ['| fault | tries | one message, goes on, equal bits |', '|---|---|---|']
    for way in dict.fromkeys(line['way'] for line in lines):
        own = [line for line in lines if line['way'] == way]
        rows.append(f'| {way} | {len(own)} | {sum(not line["wrong"] for line in own)} |')
    wrong = [f'{line["way"]}, {line["moment"]}: {line["wrong"]}' for line in lines if line['wrong']]
    return '\n'.join([*rows, *wrong])


if __name__ == '__main__':
    sys.exit(main())
