"""Runs scored again: alone, together, beside the predictions of others, on another set."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fer_jax.data import dataset as data_dataset
from fer_jax.data import tasks as data_tasks
from fer_jax.data.tasks import PRIMARY
from fer_jax.distributed import sharding
from fer_jax.errors import UserError
from fer_jax.evaluation import comparison, cross_dataset, score_logits
from fer_jax.evaluation.comparison import Predictions
from fer_jax.evaluation.network_scorer import NetworkScorer
from fer_jax.inference.predictor import Predictor
from fer_jax.inference.tta import check_views
from fer_jax.runs import config as run_config
from fer_jax.runs import data as run_data
from fer_jax.runs import restore
from fer_jax.runs.model_file import read_spec


class Evaluated(NamedTuple):
    """The evaluation of one run on one split.

    Attributes:
      results: results in the form of results.json.
      predictions: predictions of the primary task; None where it predicts levels.
      subsets: name -> ids of subsets of the split.
    """

    results: dict[str, Any]
    predictions: Predictions | None
    subsets: Mapping[str, np.ndarray]


def evaluate(workdir: str | Path, split: str = 'test', *, dataset: str = '', tta: str = 'none') -> dict[str, Any]:
    """Restores the selected checkpoint of a run and scores one split of each task's data, or another data set.

    Args:
      workdir: folder of the run.
      split: role of the split: 'train', 'validation' or 'test'.
      dataset: another set, NAME, FOLDER or MANIFEST, with :SPLIT where wanted, see `data.dataset.open_split`; `split`
        is then ignored.
      tta: 'none', 'flip', 'tencrop' or a number of random views, see `inference.tta.views`.

    Returns:
      Results in the form of results.json: `selected_on`, `step`, `classes`, `splits` and `calibrated`; for another set
      also `left_out`, {reason: number of images}, and `not_left_out`, a line for each network whose training images are
      unknown and may thus be among the scored images.

    Raises:
      UserError: there is no run, no evaluated checkpoint, or no such split.
    """
    check_views(tta)
    return _evaluated(Path(workdir), split, dataset, tta).results


def evaluate_together(
    workdirs: Sequence[Path],
    split: str = 'test',
    *,
    dataset: str = '',
    tta: str = 'none',
    predictions: Sequence[Path] = (),
) -> dict[str, Any]:
    """Scores several runs, and the predictions of other programs, on the same images.

    Args:
      workdirs: folders of runs, or of runs of several seeds as `--seeds` leaves them; none where `dataset` is given.
      split, dataset, tta: see `evaluate`.
      predictions: CSV files, see `evaluation.comparison.read_csv`.

    Returns:
      `runs`, {name: results of `evaluate`}, and the results of `evaluation.comparison.compare`; for runs that differ
      only by their seed also `seeds` {split: results of `evaluation.score_logits.average_seeds`}.

    Raises:
      UserError: see `evaluate`; or the runs and predictions cannot be compared.
    """
    check_views(tta)
    runs = {name: _evaluated(workdir, split, dataset, tta) for name, workdir in _named(workdirs).items()}
    contenders = {}
    for name, run in runs.items():
        if run.predictions is None:
            raise UserError(f'{name} tells levels, which are not compared; evaluate it alone')
        contenders[name] = run.predictions
    if runs:
        subsets = next(iter(runs.values())).subsets
        truth = next(iter(contenders.values()))
        where = dataset or split
    else:
        if not dataset:
            raise UserError('--predictions without --workdir needs --data SET, the labelled images they are about')
        table = data_dataset.open_split(dataset)
        subsets = {name: table.ids[rows] for name, rows in table.subsets.items() if 0 < rows.sum() < len(rows)}
        truth = Predictions(
            table.classes, table.ids, table.labels, table.subjects, table.groups, np.empty((len(table), 0))
        )
        where = dataset
    for path in predictions:
        if path.stem in contenders:
            raise UserError(f'--predictions={path} has the name of another contender, {path.stem}; rename the file')
        contenders[path.stem] = truth._replace(logits=comparison.read_csv(path, truth.ids, truth.classes))
    compared = comparison.compare(contenders, subsets, name=Path(where).name, ensemble=list(runs))
    configs = [run_config.read_run_config(workdir) for workdir in _named(workdirs).values()]
    if len({json.dumps({**config, 'seed': 0}, sort_keys=True) for config in configs}) == 1 and len(configs) > 1:
        compared['seeds'] = {
            part: score_logits.average_seeds([scores[name] for name in runs])
            for part, scores in compared['splits'].items()
        }
    return {'runs': {name: run.results for name, run in runs.items()}} | compared


def _named(workdirs: Sequence[Path]) -> dict[str, Path]:
    """The runs, those of several seeds one by one, by the shortest ends of their paths that tell them apart."""
    runs = [run for workdir in workdirs for run in (sorted(workdir.glob('seed-*')) or [workdir])]
    if len({run.resolve() for run in runs}) < len(runs):
        raise UserError(f'--workdir={" ".join(map(str, workdirs))} names a run twice; give each once')
    for length in range(1, max([len(run.resolve().parts) for run in runs], default=0) + 1):
        names = ['/'.join(run.resolve().parts[-length:]) for run in runs]
        if len(set(names)) == len(names):
            return dict(zip(names, runs, strict=True))
    return {}


def _evaluated(workdir: Path, split: str, dataset: str, tta: str) -> Evaluated:
    return _elsewhere(workdir, dataset, tta) if dataset else _of_run(workdir, split, tta)


def _of_run(workdir: Path, split: str, tta: str) -> Evaluated:
    spec = read_spec(workdir)
    config = run_config.read_run_config(workdir)
    roles = [role for role, name in config['data']['splits'].items() if name]
    if split not in roles:
        raise UserError(f'--split={split!r} is not a split of this run; it has {", ".join(roles)}')
    try:
        data = run_data.data_of_run(workdir)
    except UserError as error:
        raise UserError(
            f'the data of {workdir} cannot be loaded: {error}. Where they have moved, run the training command once '
            'with their new place; or score another set by --data'
        ) from None
    for name, classes in data_tasks.heads(config, data).items():
        if classes != spec.classes[name]:
            raise UserError(
                f'{data[name].name} has the classes {", ".join(classes)}, the checkpoint '
                f'{", ".join(spec.classes[name])}'
            )
    batch_size, placement = config['data']['batch_size'], config['data']['placement']
    mesh = sharding.mesh_for(batch_size)
    network, step, variables = restore.restore_selected(workdir, sharding.replicated(mesh))
    splits: dict[str, Any] = {}
    predictions = None
    for name, task in data_tasks.task_configs(config).items():
        if split in data[name].splits and data[name].classes:
            place: dict[str, Any] = {'batch_size': batch_size, 'placement': placement, 'mesh': mesh}
            scorer = NetworkScorer(network, data[name], **place, task=name, head=task['head'], tta=tta)
            logits = scorer.logits(split, variables)
            splits |= scorer.scores(split, logits)
            if name == PRIMARY and data[name].splits[split].levels is None:
                part = data[name].splits[split]
                predictions = Predictions(data[name].classes, part.ids, part.truth, part.subjects, part.groups, logits)
    of_primary = data[PRIMARY].splits[split]
    return Evaluated(
        results={
            'selected_on': config['checkpoint']['select'],
            'step': step,
            'classes': list(data[PRIMARY].classes),
            'splits': splits,
            'calibrated': _calibrated(workdir, split, predictions),
        },
        predictions=predictions,
        subsets={name: of_primary.ids[rows] for name, rows in of_primary.subsets.items()},
    )


def _calibrated(workdir: Path, split: str, predictions: Predictions | None) -> dict[str, Any]:
    """As `score_logits.score_calibration`, at the temperature that was fitted when the run ended; {} where none was."""
    fitted = restore.calibration(workdir)
    if predictions is None or predictions.labels.ndim > 1 or not fitted or split == fitted['fitted_on']:
        return {}
    scaled = score_logits.score_at_temperature(predictions.logits, predictions.labels, fitted['temperature'])
    return {'fitted_on': fitted['fitted_on'], 'temperature': fitted['temperature'], 'splits': {split: scaled}}


def _elsewhere(workdir: Path, name: str, tta: str) -> Evaluated:
    predictor, config = Predictor(workdir, tta=tta), run_config.read_run_config(workdir)
    seen, unknown = cross_dataset.seen_images(workdir)
    predictions, left_out = cross_dataset.predict_unseen(predictor, data_dataset.open_split(name), seen)
    results = {
        'selected_on': config['checkpoint']['select'],
        'step': predictor.step,
        'classes': list(predictions.classes),
        'splits': {Path(name).name: comparison.scores(predictions)},
        'calibrated': _calibrated(workdir, Path(name).name, predictions),
        'left_out': left_out,
        'not_left_out': unknown,
    }
    return Evaluated(results, predictions, {})
