"""Damages every kind of file that fer_jax writes and reads again, and looks whether the reader notices.

    python scripts/robustness/damaged_files.py --count 12 --output docs/results/reliability_damaged_files.jsonl

A small run on images of noise, its checkpoints, its features, a prepared set, the shipped network, converted weights,
those of an installed package and exports are made once. Each try flips one bit, changes one digit, or cuts one file,
and reads it as a command does:

  named      one message, or a warning, names the file
  anew       it was made anew of what it came from
  no effect  what was read is the same to the bit
  silent     it is another, and nobody was told
  traceback  a library's exception

Checkpoints have a campaign of their own: `kills.py flips`. Each try is a JSON line of --output, a table is printed, and
the exit status is 0 where no try was silent or ended in a traceback. Everything follows from --seed.
"""

import argparse
import logging
import logging.handlers
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SORTS = ('bit', 'digit', 'cut')
VERDICTS = ('named', 'anew', 'no effect', 'silent', 'traceback')
STEPS = 8


class Kind(NamedTuple):
    """Files of one kind.

    Attributes:
      name: of the kind.
      files: the files, of which each try damages one.
      read: reads them, and returns what decides something as bytes; raises UserError or warns where it is damaged.
    """

    name: str
    files: tuple[Path, ...]
    read: Callable[[], bytes]


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0 where no damage passed in silence or ended in a traceback."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--count', type=int, default=12, help='tries of each kind')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--kinds', default='', help='parts of their names, separated by commas')
    parser.add_argument('--work', type=Path, default=Path('runs/damaged'), help='where the files are made')
    parser.add_argument('--output', type=Path, help='.jsonl (default: in --work)')
    arguments = parser.parse_args(argv)
    work = arguments.work.absolute()
    output = arguments.output or work / 'damaged_files.jsonl'
    os.environ['FER_JAX_CACHE'] = str(work / 'cache')
    make_files(work)
    lines = []
    output.write_text('')
    for number, kind in enumerate(kinds_of(work)):
        if any(part in kind.name for part in arguments.kinds.split(',')):
            for trial in range(arguments.count):
                line = attempt(kind, [arguments.seed, number, trial])
                line['message'] = line['message'].replace(f'{work}/', '')
                lines.append({'kind': kind.name, 'trial': trial, **line})
                append(output, lines[-1])
            print(summarize(lines, kind.name), flush=True)
    print(table(lines))
    return int(any(line['verdict'] in ('silent', 'traceback') for line in lines))


def attempt(kind: Kind, seed: list[int]) -> dict[str, Any]:
    """Damages one file of a kind, reads, and puts the file back."""
    from fer_jax.errors import UserError

    random, sort = np.random.default_rng(seed), SORTS[seed[-1] % len(SORTS)]
    path = kind.files[seed[-1] // len(SORTS) % len(kind.files)]
    status, data = path.stat(), path.read_bytes()
    good = kind.read()
    harmed = harm(data, sort, random)
    warnings = logging.handlers.BufferingHandler(10_000)
    logger = logging.getLogger('fer_jax')
    logger.addHandler(warnings)
    line: dict[str, Any] = {'file': path.name, 'sort': sort}
    try:
        path.write_bytes(harmed)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        read = kind.read()
        messages = [record.getMessage() for record in warnings.buffer if record.levelno >= logging.WARNING]
        told = any(path.name in text or path.stem in text for text in messages)
        verdict = 'named' if told else 'no effect' if read == good else 'silent'
        if verdict == 'no effect' and path.exists() and path.read_bytes() != harmed:
            verdict = 'anew'
        return line | {'verdict': verdict, 'message': messages[0] if messages else ''}
    except UserError as error:
        return line | {'verdict': 'named', 'message': str(error)[:300]}
    except Exception:
        return line | {'verdict': 'traceback', 'message': traceback.format_exc()[-1000:]}
    finally:
        logger.removeHandler(warnings)
        path.write_bytes(data)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def harm(data: bytes, sort: str, random: np.random.Generator) -> bytes:
    """Returns the content with one bit flipped, one digit changed, or its end cut off."""
    changed = bytearray(data)
    digits = [place for place, byte in enumerate(data) if 48 <= byte < 58] if sort == 'digit' else []
    if digits:
        place = digits[random.integers(len(digits))]
        changed[place] = 48 + (changed[place] - 48 + int(random.integers(1, 10))) % 10
    elif sort == 'cut':
        del changed[int(random.integers(len(data))) :]
    else:
        bit = int(random.integers(8 * len(data)))
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def make_files(work: Path) -> None:
    """Makes the files that are damaged, where they are not there yet."""
    if (work / 'made').exists():
        return
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    from fer_jax import pretrained, train
    from fer_jax.config import defaults
    from fer_jax.data.imaging.codec import encode
    from fer_jax.data.sets import builder, jaffe
    from fer_jax.data.sets.builder import Example, Reading
    from fer_jax.data.sources import files, prepared
    from fer_jax.exporters.export_run import export
    from fer_jax.runs import restore
    from fer_jax.utils import cache
    from scripts.robustness.kills import noise

    files.MIN_NEW_FILES = 1
    config = defaults.get_config()
    config.model.update({'name': 'resnet18', 'weights': 'scratch', 'image_size': 32, 'channels': 3})
    config.data.update({'name': '', 'dir': str(noise(work / 'images')), 'batch_size': 32})
    config.log_every = 1
    frozen = defaults.phase(epochs=1, rates=defaults.HEAD_ONLY, cache_views=1)
    config.phases = (frozen, defaults.phase(epochs=1))
    train(config, work / 'run')
    random = np.random.default_rng(0)

    def examples(split: str) -> Iterator[Example]:
        for index in range(20):
            pixels = random.integers(0, 256, (24, 24, 3), np.uint8)
            yield Example(f'{split}/{index}', split, encode(pixels), index % 2, f's{index % 5}')

    reading = Reading(('happy', 'sad'), {'train': 20, 'test': 20}, examples, {'train': (10, 10)}, notes=('noise',))
    builder.write_prepared('jaffe', jaffe.VERSION, reading, work / 'sets')
    prepared.open_table('jaffe', work / 'sets')
    prepared.drop('jaffe', work / 'sets', ('blank',), ['train/0'])
    shutil.copytree(cache.PACKAGE / 'release' / 'fer2013', work / 'release')
    pretrained.save(work / 'converted.safetensors', restore.weights_of_run(work / 'run'))
    for name, form in (('own', 'safetensors'), ('torch', 'torchvision')):
        export(work / 'run', form, work / f'{name}.safetensors')
    if package := package_file():
        shutil.copy(package[0], work / 'package.pth')
    (work / 'made').touch()


def package_file() -> Any:
    """Returns the file of an installed package of weights, and what is published of it; None without one."""
    from fer_jax.pretrained.locate import installed_file
    from fer_jax.pretrained.published_weights import PUBLISHED

    return next(((file, known) for known in PUBLISHED if known.package and (file := installed_file(known))), None)


def kinds_of(work: Path) -> Iterator[Kind]:
    """Yields every kind of file, with how a command reads it."""
    from fer_jax import pretrained
    from fer_jax.data import dataset
    from fer_jax.data.sources import files
    from fer_jax.feature_cache.store import FeatureFile
    from fer_jax.pretrained import Weights
    from fer_jax.reporting import model_card
    from fer_jax.runs import checkpoints, metrics_log, model_file, provenance, restore, results
    from fer_jax.runs import config as run_config
    from fer_jax.runs import data as run_data
    from fer_jax.utils import checked_files

    run, shipped = work / 'run', work / 'release'

    def read_arrays(tree: Any) -> bytes:
        return repr([(name, np.asarray(tree[name]).dtype, np.asarray(tree[name]).tobytes()) for name in tree]).encode()

    def read_weights(weights: Weights) -> bytes:
        facts = (weights.model, weights.preprocessing, sorted(weights.metadata.items()))
        return repr(facts).encode() + read_arrays(weights.params) + read_arrays(weights.stats)

    def read_all(folder: Path) -> bytes:
        kept = [run_config.read_run_config(folder), provenance.read_environment(folder / 'environment.json')]
        kept += [results.read_results(folder), restore.calibration(folder), model_file.read_spec(folder)]
        return repr(kept).encode()

    def resumed() -> bytes:
        store = checkpoints.Checkpoints(run, model_file.read_spec(run), read_only=True)
        step = store.latest_step()
        copy = work / 'resumed'
        copy.mkdir(exist_ok=True)
        shutil.copy(run / 'metrics.jsonl', copy)
        try:
            metrics_log.RecordFile(copy / 'metrics.jsonl', step, store.history_sha256(step)).close()
        finally:
            store.close()
        return (copy / 'metrics.jsonl').read_bytes()

    def prepared_set() -> bytes:
        roles = {'train': 'train', 'validation': 'train', 'test': 'test'}
        data = dataset.load_dataset(name='jaffe', splits=roles, image_size=24, channels=3, root=work / 'sets')
        read = {role: split.read(np.arange(len(split.ids))) for role, split in data.splits.items()}
        labels = {role: split.learned for role, split in data.splits.items()}
        return repr((data.classes, data.fingerprint)).encode() + read_arrays(read) + read_arrays(labels)

    def features() -> bytes:
        for path in (work / 'cache' / 'features').glob('*.bin'):
            about = about_features[path.name]
            file = FeatureFile(path, tuple(about['shape']), np.dtype(about['dtype']), about['what'])
            if not file.is_whole():
                return b'computed anew'
        return b'whole'

    def digests() -> bytes:
        files.MIN_NEW_FILES = 1 << 60
        names = sorted(str(path.relative_to(work / 'images')) for path in (work / 'images').rglob('*.png'))
        return files.open_files(work / 'images', np.array(names))[0].tobytes()

    about_features = {
        path.with_suffix('.bin').name: checked_files.read_json(path, '')
        for path in (work / 'cache' / 'features').glob('*.json')
    }
    for name in ('config.json', 'environment.json', 'results.json', 'checkpoints/model.json'):
        yield Kind(f'run: {name}', (run / name,), lambda: read_all(run))
    both = ('metrics.jsonl', 'timing.jsonl')
    for name in both:
        yield Kind(f'run: {name}', (run / name,), lambda name=name: repr(metrics_log.read_metrics(run / name)).encode())
    yield Kind('run: metrics.jsonl at a resume', (run / 'metrics.jsonl',), resumed)
    splits = ('validation', 'test')
    yield Kind(
        'run: predictions.npz',
        (run / 'predictions.npz',),
        lambda: b''.join(read_arrays(results.read_predictions(run / 'predictions.npz', split)) for split in splits),
    )
    yield Kind('run: image_digests.npz', (run / 'image_digests.npz',), lambda: read_arrays(run_data.image_digests(run)))
    yield Kind('run: SHA256SUMS', (run / 'SHA256SUMS', run / 'checkpoints' / 'SHA256SUMS'), lambda: read_all(run))
    yield Kind(
        'shipped network',
        tuple(sorted(path for path in shipped.rglob('*') if path.is_file())),
        lambda: read_all(shipped) + model_card.data_licence(shipped).encode() + read_weights(restore_weights(shipped)),
    )
    for name in ('converted', 'own'):
        path = work / f'{name}.safetensors'
        kind = 'converted weights' if name == 'converted' else 'exported weights, safetensors'
        yield Kind(kind, (path,), lambda path=path: read_weights(pretrained.load(path, 'resnet18')))
    exported = work / 'torch.safetensors'
    yield Kind(
        'exported weights, torchvision',
        (exported, exported.with_name('torch.safetensors.md')),
        lambda: read_weights(pretrained.convert_file(exported, 'resnet18', source='', licence='')),
    )
    if package := package_file():
        path, known = work / 'package.pth', package[1]
        yield Kind(
            'weights of a package',
            (path,),
            lambda: read_weights(
                pretrained.convert_file(path, known.model, source='', licence='', digest=known.digest)
            ),
        )
    home = work / 'sets' / 'jaffe' / '1.0.0'
    yield Kind('prepared set', tuple(sorted(path for path in home.iterdir() if path.is_file())), prepared_set)
    yield Kind('feature cache', tuple(sorted((work / 'cache' / 'features').iterdir())), features)
    yield Kind('digests of images', tuple((work / 'cache' / 'digests').iterdir()), digests)


def restore_weights(folder: Path) -> Any:
    """Reads the weights of the shipped network, all of them."""
    from fer_jax.runs import restore

    return restore.weights_of_run(folder)


def append(path: Path, line: dict[str, Any]) -> None:
    import json

    with path.open('a') as file:
        file.write(json.dumps(line) + '\n')


def summarize(lines: list[dict[str, Any]], kind: str) -> str:
    own = [line['verdict'] for line in lines if line['kind'] == kind]
    return f'| {kind} | {len(own)} | ' + ' | '.join(str(own.count(verdict)) for verdict in VERDICTS) + ' |'


def table(lines: list[dict[str, Any]]) -> str:
    """A row a kind."""
    rows = [f'| file | tries | {" | ".join(VERDICTS)} |', '|---|---|' + '---|' * len(VERDICTS)]
    rows += [summarize(lines, kind) for kind in dict.fromkeys(line['kind'] for line in lines)]
    every = summarize([line | {'kind': 'all'} for line in lines], 'all')
    wrong = [str(line) for line in lines if line['verdict'] in ('silent', 'traceback')]
    return '\n'.join([*rows, every, *wrong])


if __name__ == '__main__':
    sys.exit(main())
