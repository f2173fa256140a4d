"""Command line: `python -m fer_jax.evaluate --workdir DIR [--split test]`."""

import argparse
import sys
from pathlib import Path
from typing import Any

from fer_jax import drift, scoring, sharding, tasks
from fer_jax.checkpoints import Checkpoints, read_spec
from fer_jax.errors import UserError
from fer_jax.network import PRIMARY, build
from fer_jax.scorer import Scorer


def evaluate(workdir: str | Path, split: str = 'test') -> dict[str, Any]:
    """Restores the selected checkpoint of a run and scores one split of the data of each task.

    Args:
      workdir: folder of the run.
      split: role of the split: 'train', 'validation' or 'test'.

    Returns:
      As results.json: `selected_on`, `step`, `classes` and `splits`.

    Raises:
      UserError: there is no run, no evaluated checkpoint, or no such split.
    """
    workdir = Path(workdir)
    spec = read_spec(workdir)
    config = drift.read(workdir)
    network = build(spec)
    store = Checkpoints(workdir, spec, select=config['checkpoint']['select'], read_only=True)
    step = store.best_step()
    if step is None:
        raise UserError(f'workdir={str(workdir)!r} has no evaluated checkpoint yet; let the run reach its first one')
    roles = [role for role, name in config['data']['splits'].items() if name]
    if split not in roles:
        raise UserError(f'--split={split!r} is not a split of this run; it has {", ".join(roles)}')
    data = tasks.load(config, image_size=spec.image_size, channels=spec.channels)
    for name, classes in tasks.heads(config, data).items():
        if classes != spec.classes[name]:
            raise UserError(
                f'{data[name].name} has the classes {", ".join(classes)}, the checkpoint '
                f'{", ".join(spec.classes[name])}'
            )
    batch_size, placement = config['data']['batch_size'], config['data']['placement']
    mesh = sharding.mesh_for(batch_size)
    params, stats = store.restore_model(step, *network.abstract(sharding.replicated(mesh)))
    splits: dict[str, Any] = {}
    for name, task in tasks.fields(config).items():
        if split in data[name].splits and data[name].classes:
            place: dict[str, Any] = {'batch_size': batch_size, 'placement': placement, 'mesh': mesh}
            scorer = Scorer(network, data[name], **place, task=name, head=task['head'])
            splits |= scorer.score(split, params, stats)
    return {
        'selected_on': config['checkpoint']['select'],
        'step': step,
        'classes': list(data[PRIMARY].classes),
        'splits': splits,
    }


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 where the input is wrong."""
    parser = argparse.ArgumentParser(prog='python -m fer_jax.evaluate', description=__doc__)
    parser.add_argument('--workdir', required=True, help='folder of the run')
    parser.add_argument('--split', default='test', help='train, validation or test')
    parser.add_argument('--output', default='', help='write the results there as JSON')
    arguments = parser.parse_args(argv)
    try:
        results = evaluate(arguments.workdir, arguments.split)
        print(scoring.summary(results))
        if arguments.output:
            scoring.write(Path(arguments.output), results)
    except UserError as error:
        print(f'fer_jax: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
