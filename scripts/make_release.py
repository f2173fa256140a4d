"""Makes a network that comes with fer_jax of a finished run: `predict --workdir release`, `fer_jax.load('release')`.

    python scripts/make_release.py --workdir runs/ferplus --data_licence 'none stated; images of a web search'

The folder is named after the run's data set and has to be in `fer_jax.runs.restore.RELEASES`. Weights become float16, a
file of at most 8 MB. Their scores are measured anew, on the data of the run, and stand in results.json and in the model
card. No image of the run is kept.
"""

import argparse
import dataclasses
import shutil
import sys
from pathlib import Path

import numpy as np

from fer_jax import pretrained
from fer_jax.cli import run_command
from fer_jax.data.tasks import PRIMARY
from fer_jax.errors import UserError
from fer_jax.evaluation.evaluate_runs import evaluate
from fer_jax.exporters.export_run import UNSTATED
from fer_jax.pretrained import Weights
from fer_jax.reporting import model_card
from fer_jax.runs import config as run_config
from fer_jax.runs import model_file, provenance, restore
from fer_jax.runs.results import read_results, write_results
from fer_jax.utils import cache, checked_files

LARGEST = 8_000_000  # bytes
KEPT = ('versions', 'git', 'data', 'weights')  # of environment.json


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 where the input is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--workdir', required=True, type=Path, help='of a finished run')
    parser.add_argument(
        '--output', type=Path, help='folder to write; by default fer_jax/release/<name of the data set>'
    )
    parser.add_argument('--data_licence', default=UNSTATED, help='of the training images, for the model card')
    arguments = parser.parse_args(argv)
    return run_command(lambda: print(release(arguments.workdir, arguments.output, arguments.data_licence)))


def release(workdir: Path, output: Path | None, data_licence: str) -> str:
    """Writes the folder; returns its card.

    Args:
      output: the folder; None for the one in the package that is named after the run's data set.
      data_licence: licence of the training images, for the card.

    Raises:
      UserError: the run is not finished, or too large.
    """
    results, config, spec = read_results(workdir), run_config.read_run_config(workdir), model_file.read_spec(workdir)
    weights = restore.weights_of_run(workdir)
    output = output or cache.PACKAGE / restore.RELEASE / config['data']['name']
    half = [
        {path: np.asarray(leaf, np.float16) for path, leaf in tree.items()} for tree in (weights.params, weights.stats)
    ]
    size = sum(leaf.nbytes for tree in half for leaf in tree.values())
    if size > LARGEST:
        raise UserError(f'{workdir}: {spec.name} has {size / 1e6:.1f} MB in float16, of {LARGEST / 1e6:g} at most')
    metadata = {'source': 'trained by fer_jax', 'step': str(results['step'])}
    metadata['classes'] = str(len(spec.classes[PRIMARY]))
    released = f'{restore.RELEASE}:{output.name}'
    target, output = output, output.with_name(f'.{output.name}.new')
    shutil.rmtree(output, ignore_errors=True)
    whole = Weights(weights.model, *half, weights.preprocessing, metadata)
    pretrained.save(output / 'checkpoints' / restore.FILE, whole)
    checked_files.write_json(output / 'checkpoints' / 'model.json', dataclasses.asdict(spec))
    made = provenance.read_environment(workdir / 'environment.json')
    written = {'config': config, 'environment': {name: made[name] for name in KEPT}}
    for name, value in written.items():
        checked_files.write_json(output / f'{name}.json', value)
    for split in ('validation', 'test'):
        results['splits'] |= evaluate(output, split)['splits']
    write_results(output / 'results.json', results)
    card = model_card.text(
        output,
        'The network that comes with fer_jax',
        'a release file',
        use=f'`fer-jax predict --workdir {released} photo.jpg`, or `fer_jax.load("{released}")(faces)`.',
        note='Its weights are float16; the scores below were measured with them.',
        data_licence=data_licence,
    )
    with checked_files.checked_write(output / 'card.md') as scratch:
        scratch.write_text(card)
    checked_files.add_files(output / 'checkpoints', [restore.FILE])
    shutil.rmtree(target, ignore_errors=True)
    output.rename(target)
    return card


if __name__ == '__main__':
    sys.exit(main())
