"""Gives inputs made to harm to every reader of fer_jax: each has to end soon, in little memory, without a traceback.

    python scripts/robustness/hostile_input.py --output docs/results/reliability_hostile.jsonl
    python scripts/robustness/hostile_input.py --only 'video:*' --traceback

Each input is made by a process of its own, and read by another with a limited address space. What counts as a finding:
any exception but UserError and a refused request, a crash, more than --seconds of a processor, more than --megabytes
above the process before, those of the processes that it starts included; or no end at all.
"""

import argparse
import asyncio
import contextlib
import fnmatch
import json
import logging
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.errors import UserError
from scripts.robustness.hostile_files import Case, cases

ROOT = Path(__file__).parents[2]
SPACE = 6 << 30  # bytes of address space above what the process has at its start
POLL_SECONDS = 0.02
IDLE_SECONDS = 60.0  # seconds of the clock without work, after which a process waits for ever


def read_folder(path: Path) -> None:
    """Reads a data folder as training does, and examines its images."""
    from fer_jax.data import dataset

    splits = {role: role for role in ('train', 'validation', 'test')}
    data = dataset.load_dataset(dir=str(path), splits=splits, image_size=32, channels=3, root=path)
    for split in data.splits.values():
        split.read(np.arange(len(split.ids)))


def read_manifest(path: Path) -> None:
    from fer_jax.data.quality import unreadable
    from fer_jax.data.sources import manifest

    table = manifest.read_manifest(path)
    message = unreadable.describe_unreadable(
        table.take(np.arange(min(len(table), 100))), unreadable.Remedy('manifest', str(path), '', path.parent)
    )
    if message:
        raise UserError(message)


def read_image(path: Path) -> None:
    from fer_jax.data.imaging import codec

    codec.decode(path.read_bytes(), None, 3, path.name)


def read_photo(path: Path) -> None:
    """Reads a photograph as `fer-jax predict` and --crop_faces do."""
    from fer_jax.inference import media

    for source in media.find_sources([str(path)]).sources:
        for frame in media.read_frames(source):
            if frame.error:
                raise UserError(frame.error)


def examine(path: Path) -> None:
    from fer_jax.data.quality import examination

    if reason := examination.image_stats(lambda index: path.read_bytes(), 0).unreadable:
        raise UserError(reason)


def read_archive(path: Path) -> None:
    from fer_jax.data.sets import archives

    source = archives.open_source(path)
    source.shape(source.images()[:100])
    for name in source.names[:100]:
        source.read(name) if not name.endswith('.txt') else Counter(source.lines(name))


def read_weights(path: Path) -> None:
    from fer_jax.pretrained.readers.torch_file import read_torch
    from fer_jax.pretrained.readers.unpack import unpacked

    with unpacked(path) as inner:
        for array in read_torch(inner).values():
            array.sum()


def read_keras(path: Path) -> None:
    from fer_jax.pretrained.readers.keras_file import read_keras
    from fer_jax.pretrained.readers.unpack import unpacked

    with unpacked(path) as inner:
        read_keras(inner)


def read_matlab(path: Path) -> None:
    from fer_jax.pretrained.readers.matlab_file import read_matconvnet

    read_matconvnet(path)


def read_converted(path: Path) -> None:
    from fer_jax.pretrained import weights

    weights.load(path, None)


def read_boxes(path: Path) -> None:
    from fer_jax.inference.given_faces import Boxes

    Boxes(path)


def read_predictions(path: Path) -> None:
    from fer_jax.evaluation import comparison

    comparison.read_csv(path, np.array(['a', 'b']), ('a', 'b'))


def read_fer2013(path: Path) -> None:
    from fer_jax.data.sets import fer2013

    fer2013.read(path)


def read_json(path: Path) -> None:
    """Reads the file as the config, the results and the record of crops of a run."""
    from fer_jax.data.imaging import crop_folder
    from fer_jax.runs import config, results

    path.rename(path.parent / 'config.json')
    for name in ('results.json', crop_folder.LOG):
        (path.parent / name).symlink_to(path.parent / 'config.json')
    crop_folder.logged(path.parent)
    refused = []
    for read in (config.read_run_config, results.read_results):
        try:
            read(path.parent)
        except UserError as error:
            refused.append(error)
    if refused:
        raise refused[0]


def read_arrays(path: Path) -> None:
    from fer_jax.utils import bounded_files

    try:
        bounded_files.read_arrays(path)
    except (OSError, ValueError) as error:  # its callers turn these into messages
        raise UserError(str(error)) from None


def read_flags(given: list[str]) -> None:
    from fer_jax import main

    main.parse(['fer_jax', *given])
    main.checked_config()


def read_config(path: Path) -> None:
    from fer_jax.config.files import get_config

    get_config(str(path))


def read_request(given: tuple[str, Path]) -> None:
    """Reads a request as the server does, and decodes its pictures."""
    from starlette.requests import Request

    from fer_jax.data.imaging.codec import decode
    from fer_jax.inference import face_service, uploads

    body = given[1].read_bytes()

    async def receive() -> dict[str, Any]:
        return {'type': 'http.request', 'body': body, 'more_body': False}

    headers = [(b'content-type', given[0].encode()), (b'content-length', b'%d' % len(body))]
    scope = {'type': 'http', 'method': 'POST', 'path': '/faces', 'headers': headers, 'query_string': b''}
    try:
        pictures, _ = asyncio.run(uploads.read_pictures(Request(scope, receive)))
    except face_service.Refused as error:
        raise UserError(str(error)) from None
    for picture in pictures:
        decode(picture.data, None, 3, picture.name, most_pixels=face_service.LARGEST_PIXELS)


DOORS: dict[str, Callable[[Any], None]] = {
    'image': read_image, 'photo': read_photo, 'examination': examine, 'data folder': read_folder, 'flags': read_flags,
    'manifest': read_manifest, 'boxes': read_boxes, 'predictions': read_predictions, 'archive': read_archive,
    'fer2013': read_fer2013, 'weights': read_weights, 'keras': read_keras, 'matlab': read_matlab, 'json': read_json,
    'converted': read_converted, 'arrays': read_arrays, 'video': read_photo, 'config': read_config,
    'request': read_request,
}  # fmt: skip


def run_in_fork(work: Callable[[], str], seconds: float) -> tuple[str, float, float]:
    """Returns what `work` returns in a process of its own, its seconds of processor and the megabytes it takes more."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            result = work()
        except BaseException as error:
            result = f'!{type(error).__name__}: {error}'
        os.write(theirs, result.encode('utf-8', 'replace')[:4000])
        os._exit(0)
    os.close(theirs)
    most, taken = 0, 0.0
    usual = read_memory(child, 'VmRSS:')
    os.set_blocking(ours, False)
    result, ended, progress, before = b'', 0, time.monotonic(), 0.0
    while not ended and taken < seconds and time.monotonic() - progress < IDLE_SECONDS:
        processes = [child, *descendants(child)]
        together = sum(read_memory(process, 'VmRSS:') for process in processes)
        most = max(most, together, *(read_memory(process, 'VmHWM:') for process in processes))
        taken = max(taken, sum(map(read_seconds, processes)))
        if taken > before:
            progress, before = time.monotonic(), taken
        time.sleep(POLL_SECONDS)
        ended, status, usage = os.wait4(child, os.WNOHANG)
    if ended:
        taken = max(taken, usage.ru_utime + usage.ru_stime)
    if not ended:
        for process in [*descendants(child), child]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        os.waitpid(child, 0)
        result = f'!no end after {taken:g} s of a processor'.encode()
    else:
        with contextlib.suppress(BlockingIOError):
            result = os.read(ours, 1 << 16)
        result = result or f'!the process ends with {os.waitstatus_to_exitcode(status)}'.encode()
    os.close(ours)
    return result.decode('utf-8', 'replace'), taken, max(0, most - usual) / 1e6


def descendants(process: int) -> list[int]:
    try:
        text = Path(f'/proc/{process}/task/{process}/children').read_text()
        tasks = [Path(path, 'children').read_text() for path in Path(f'/proc/{process}/task').iterdir()]
    except OSError:
        return []
    below = [int(each) for each in {*text.split(), *' '.join(tasks).split()}]
    return below + [lower for each in below for lower in descendants(each)]


def read_seconds(process: int) -> float:
    """Returns the seconds of processor that a process, and those that it waited for, took."""
    try:
        fields = Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf('SC_CLK_TCK')


def read_memory(process: int, name: str) -> int:
    """Returns the bytes that a process has (`VmRSS:`), or had at most (`VmHWM:`)."""
    try:
        status = Path(f'/proc/{process}/status').read_text()
    except OSError:
        return 0
    return int(status.partition(name)[2].split()[0]) * 1024 if name in status else 0


def read_case(case: Case, given: Any, show: bool) -> str:
    """Gives the input to its door; returns the message where it is refused, and what begins with ! for a finding."""
    Path('/proc/self/clear_refs').write_text('5')  # the peak falls to what is held now
    pages = int(Path('/proc/self/statm').read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + SPACE,) * 2)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)
    os.dup2(silence, 1) if not show else None
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        DOORS[case.kind](given)
    except UserError as error:
        return f'refused: {error}'
    except BaseException as error:
        if show:
            print(traceback.format_exc(), flush=True)
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f'!{type(error).__name__}: {str(error)[:200]} ({Path(where.filename).name}:{where.lineno})'
    return 'read'


def try_case(case: Case, arguments: argparse.Namespace) -> dict[str, Any]:
    """Makes one input and gives it to its door."""
    folder = Path(tempfile.mkdtemp(prefix='fer_jax_hostile_'))
    try:
        about = folder.with_suffix('.json')

        def make() -> str:
            (folder / 'in').mkdir()
            given = case.make(folder / 'in')
            about.write_text(json.dumps(given, default=lambda path: {'path': str(path)}))
            return 'made'

        made = run_in_fork(make, 300.0)[0]
        if made != 'made':
            return {'kind': case.kind, 'input': case.name, 'what': f'cannot be made: {made}', 'outcome': 'finding'}
        given = json.loads(about.read_text(), object_hook=lambda entry: Path(entry['path']))
        os.environ['FER_JAX_CACHE'] = str(folder / 'cache')
        result, seconds, megabytes = run_in_fork(
            lambda: read_case(case, given, arguments.traceback), arguments.kill_after
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_suffix('.json').unlink(missing_ok=True)
    what = result
    if seconds > arguments.seconds and not what.startswith('!'):
        what = f'!more than {arguments.seconds:g} s, then {result}'
    if megabytes > arguments.megabytes and not what.startswith('!'):
        what = f'!more than {arguments.megabytes:g} MB, then {result}'
    outcome = 'finding' if what.startswith('!') else what.partition(':')[0]
    return {
        'kind': case.kind, 'input': case.name, 'seconds': round(seconds, 2), 'megabytes': round(megabytes),
        'outcome': outcome, 'what': what.replace(str(folder), '')[:300],
    }  # fmt: skip


def table(results: list[dict[str, Any]]) -> str:
    """Returns a row a kind, and their sum."""
    rows = ['| reader | inputs | refused | read | findings | slowest, s | memory, MB |', '|' + '---|' * 7]
    kinds = dict.fromkeys(result['kind'] for result in results)
    for kind in [*kinds, 'all']:
        part = [result for result in results if kind in (result['kind'], 'all')]
        count = Counter(result['outcome'] for result in part)
        slowest, most = (max(result.get(name, 0) for result in part) for name in ('seconds', 'megabytes'))
        rows.append(
            f'| {kind} | {len(part)} | {count["refused"]} | {count["read"]} | {count["finding"]} | {slowest:.1f} | '
            f'{most} |'
        )
    return '\n'.join(rows)


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 1 where there are findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', nargs='+', default=['*'], help="patterns of <kind>:<input>, such as 'image:PNG*'")
    parser.add_argument('--seconds', type=float, default=10.0, help='of a processor, for one input')
    parser.add_argument('--kill_after', type=float, default=40.0, help='seconds of a processor until it is killed')
    parser.add_argument('--megabytes', type=float, default=1000.0, help='of memory above that of the process before')
    parser.add_argument('--traceback', action='store_true', help='print the tracebacks')
    parser.add_argument('--output', type=Path, help='.jsonl to write, a line an input')
    arguments = parser.parse_args(argv)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter('ignore')
    import h5py  # noqa: F401  what the doors import is no memory of an input

    from fer_jax import main as _main  # noqa: F401
    from fer_jax.data import dataset  # noqa: F401
    from fer_jax.data.quality import examination, unreadable  # noqa: F401
    from fer_jax.data.sets import fer2013  # noqa: F401
    from fer_jax.evaluation import comparison  # noqa: F401
    from fer_jax.inference import given_faces, media, uploads  # noqa: F401
    from fer_jax.pretrained import weights  # noqa: F401

    results = []
    for case in cases():
        if not any(fnmatch.fnmatch(f'{case.kind}:{case.name}', only) for only in arguments.only):
            continue
        result = try_case(case, arguments)
        results.append(result)
        print(' | '.join(str(value) for value in result.values()), flush=True)
        if arguments.output:
            arguments.output.write_text(''.join(json.dumps(result) + '\n' for result in results))
    print(table(results))
    return int(any(result['outcome'] == 'finding' for result in results))


if __name__ == '__main__':
    sys.exit(main())
