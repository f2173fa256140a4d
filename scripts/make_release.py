"""Makes the network that comes with fer_jax of a finished run: `predict --workdir release`, `fer_jax.load('release')`.

    python scripts/make_release.py --workdir runs/small --data_licence 'none stated; images of a web search'

That is `configs/fer2013_speedrun.py:scratch`. Weights become float16, a file of at most 8 MB; what they score so is
measured anew, on the data of the run, and stands in results.json and in the model card. Of the run's images nothing is
kept.
"""

import argparse
import json
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
from fer_jax.runs import checkpoints, restore
from fer_jax.runs import config as run_config
from fer_jax.runs.results import read_results
from fer_jax.utils import atomic_files

LARGEST = 8_000_000  # bytes
KEPT = ('versions', 'git', 'data', 'weights')  # of environment.json


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 where the input is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--workdir', required=True, type=Path, help='of a finished run')
    parser.add_argument('--output', type=Path, default=restore.resolve_workdir(restore.RELEASE), help='folder to write')
    parser.add_argument('--data_licence', default=UNSTATED, help='of the training images, for the model card')
    arguments = parser.parse_args(argv)
    return run_command(lambda: print(release(arguments.workdir, arguments.output, arguments.data_licence)))


def release(workdir: Path, output: Path, data_licence: str) -> str:
    """Writes the folder; returns its card.

    Raises:
      UserError: the run is not finished, or too large.
    """
    results, config, spec = read_results(workdir), run_config.read_run_config(workdir), checkpoints.read_spec(workdir)
    weights = restore.weights_of_run(workdir)
    half = [
        {path: np.asarray(leaf, np.float16) for path, leaf in tree.items()} for tree in (weights.params, weights.stats)
    ]
    size = sum(leaf.nbytes for tree in half for leaf in tree.values())
    if size > LARGEST:
        raise UserError(f'{workdir}: {spec.name} has {size / 1e6:.1f} MB in float16, of {LARGEST / 1e6:g} at most')
    metadata = {'source': 'trained by fer_jax', 'step': str(results['step'])}
    metadata['classes'] = str(len(spec.classes[PRIMARY]))
    shutil.rmtree(output, ignore_errors=True)
    whole = Weights(weights.model, *half, weights.preprocessing, metadata)
    pretrained.save(output / 'checkpoints' / restore.FILE, whole)
    shutil.copy(workdir / 'checkpoints' / 'model.json', output / 'checkpoints' / 'model.json')
    made = json.loads((workdir / 'environment.json').read_text())
    written = {'config': config, 'environment': {name: made[name] for name in KEPT}}
    for name, value in written.items():
        atomic_files.write_text(output / f'{name}.json', json.dumps(value, indent=2) + '\n')
    for split in ('validation', 'test'):
        results['splits'] |= evaluate(output, split)['splits']
    atomic_files.write_text(output / 'results.json', json.dumps(results, indent=2) + '\n')
    card = model_card.text(
        output,
        'The network that comes with fer_jax',
        'a release file',
        use='`python -m fer_jax.predict --workdir release photo.jpg`, or `fer_jax.load("release")(faces)`.',
        found='Its weights are float16; the scores below were measured with them.',
        data_licence=data_licence,
    )
    atomic_files.write_text(output / 'card.md', card)
    return card


if __name__ == '__main__':
    sys.exit(main())
