"""Command line: `python -m fer_jax.evaluate --workdir DIR [--split test | --data SET] [--tta flip]`."""

import argparse
import sys
from pathlib import Path
from typing import Any

from fer_jax import drift, elsewhere, scoring, sharding, tasks
from fer_jax.checkpoints import Checkpoints, read_spec
from fer_jax.errors import UserError
from fer_jax.network import PRIMARY, build
from fer_jax.predict import Predictor
from fer_jax.scorer import Scorer
from fer_jax.steps import TTA


def evaluate(workdir: str | Path, split: str = 'test', *, dataset: str = '', tta: str = 'none') -> dict[str, Any]:
    """Restores the selected checkpoint of a run and scores one split of the data of each task, or of another set.

    Args:
      workdir: folder of the run.
      split: role of the split: 'train', 'validation' or 'test'.
      dataset: another set, NAME, FOLDER or MANIFEST, with :SPLIT where wanted, see `elsewhere.opened`; `split` is then
        not looked at.
      tta: 'none', 'flip' or 'tencrop', see `steps.views`.

    Returns:
      As results.json: `selected_on`, `step`, `classes` and `splits`; of another set also `left_out`.

    Raises:
      UserError: there is no run, no evaluated checkpoint, or no such split.
    """
    if tta not in TTA:
        raise UserError(f'--tta={tta!r} is unknown; choose {", ".join(TTA)}')
    workdir = Path(workdir)
    if dataset:
        return _elsewhere(workdir, dataset, tta)
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
            scorer = Scorer(network, data[name], **place, task=name, head=task['head'], tta=tta)
            splits |= scorer.score(split, params, stats)
    return {
        'selected_on': config['checkpoint']['select'],
        'step': step,
        'classes': list(data[PRIMARY].classes),
        'splits': splits,
    }


def _elsewhere(workdir: Path, name: str, tta: str) -> dict[str, Any]:
    predictor, config = Predictor(workdir, tta=tta), drift.read(workdir)
    found = elsewhere.compared(predictor, elsewhere.opened(name), elsewhere.trained_on(workdir))
    classes, left_out = found.pop('classes'), found.pop('left_out')
    about = {'selected_on': config['checkpoint']['select'], 'step': predictor.step, 'classes': classes}
    return about | {'splits': {Path(name).name: found}, 'left_out': left_out}


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 where the input is wrong."""
    parser = argparse.ArgumentParser(prog='python -m fer_jax.evaluate', description=__doc__)
    parser.add_argument('--workdir', required=True, help='folder of the run')
    parser.add_argument('--split', default='test', help='train, validation or test')
    parser.add_argument('--data', default='', help='another set: NAME, FOLDER or MANIFEST[:SPLIT]')
    parser.add_argument('--tta', default='none', help='views of each image: none, flip, tencrop')
    parser.add_argument('--output', default='', help='write the results there as JSON')
    arguments = parser.parse_args(argv)
    try:
        results = evaluate(arguments.workdir, arguments.split, dataset=arguments.data, tta=arguments.tta)
        print(scoring.summary(results))
        if left := results.get('left_out'):
            print('left out: ' + ', '.join(f'{count:,} {why}' for why, count in left.items()))
        if arguments.output:
            scoring.write(Path(arguments.output), results)
    except UserError as error:
        print(f'fer_jax: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
