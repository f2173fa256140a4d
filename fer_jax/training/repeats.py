"""Several runs of one config as a unit: other seeds, or the folds of a cross-validation."""

import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fer_jax.errors import UserError
from fer_jax.evaluation import score_logits, summary
from fer_jax.reporting import figures, html_report
from fer_jax.runs import config as run_config
from fer_jax.runs import results as run_results
from fer_jax.training.train import train
from fer_jax.utils.signals import stop_request


def train_seeds(config: Mapping[str, Any], seeds: Sequence[int], workdir: Path) -> dict[str, Any]:
    """Trains `config` once for each seed, in `workdir/seed-<n>`, and pools the scores.

    The same call continues what is not finished. Intervals are Student's t over the seeds: they estimate where the mean
    of other seeds lies, on these test images.

    Returns:
      The content of results.json, which it writes: `splits` has the mean of each score, `<score>_ci95`, and the scores
      `each`.

    Raises:
      UserError: there are fewer than two seeds, a seed is repeated, or a run cannot start.
      Stopped: a signal asked to stop.
    """
    if len(seeds) < 2 or len(set(seeds)) < len(seeds):
        raise UserError(f'--seeds={",".join(map(str, seeds))}; give at least two, each once')
    configs = {f'seed-{seed}': {**config, 'seed': seed} for seed in seeds}
    runs = list(_train_all(configs, workdir).values())
    splits = {name: score_logits.average_seeds([run['splits'][name] for run in runs]) for name in runs[0]['splits']}
    return _write(workdir, {**_common(runs), 'seeds': list(seeds), 'splits': splits}, list(configs))


def train_folds(config: Mapping[str, Any], workdir: Path) -> dict[str, Any]:
    """Trains every fold of `config`, in `workdir/fold-<n>`; every example is scored once, by its own test fold.

    The same call continues what is not finished.

    Returns:
      The content of results.json, which it writes: the scores of all examples together, and the accuracy of `each`
      fold.

    Raises:
      UserError: data.folds is 0, the config is a probe's, which keeps no predictions, or a run cannot start.
      Stopped: a signal asked to stop.
    """
    count = config['data']['folds']
    if not count:
        raise UserError('--folds=all needs folds; set --config.data.folds=10')
    if 'probe' in config:
        raise UserError('--folds=all pools predictions, which a probe does not keep; give --config.data.fold=0, 1, ...')
    configs = {f'fold-{fold}': {**config, 'data': {**config['data'], 'fold': fold}} for fold in range(count)}
    runs = _train_all(configs, workdir)
    splits = {}
    for role in (name for name in ('validation', 'test') if config['data']['splits'][name]):
        parts = [run_results.read_predictions(workdir / name / 'predictions.npz', role) for name in runs]
        splits[role] = over_folds(parts, next(iter(runs.values()))['classes'])
        splits[role]['each'] = {'accuracy': [run['splits'][role]['accuracy'] for run in runs.values()]}
    results = _write(workdir, {**_common(list(runs.values())), 'folds': count, 'splits': splits}, list(configs))
    figures.confusions(workdir, results)
    return results


def once(config: Mapping[str, Any], workdir: Path) -> dict[str, Any]:
    """Returns the results of the run in `workdir`, training it first unless it is finished under this config."""
    results = workdir / 'results.json'
    if results.is_file() and (workdir / 'report.html').is_file() and not run_config.check_run_config(workdir, config):
        return run_results.read_results(workdir)
    scores = train(config, workdir)
    jax.clear_caches()  # compiled programs, which live on in the compilation cache
    gc.collect()
    return scores


def over_folds(parts: Sequence[Mapping[str, np.ndarray]], classes: Sequence[str]) -> dict[str, Any]:
    """Computes the scores of the predictions of all folds together.

    Raises:
      ValueError: an example is in two folds.
    """
    pooled = {name: np.concatenate([part[name] for part in parts]) for name in run_results.PREDICTED}
    if len(np.unique(pooled['ids'])) < len(pooled['ids']):
        raise ValueError('an example stands in two folds')
    return score_logits.score_logits(
        pooled['logits'], pooled['labels'], tuple(classes), pooled['subjects'], pooled['groups']
    )


def _train_all(configs: Mapping[str, Mapping[str, Any]], workdir: Path) -> dict[str, dict[str, Any]]:
    runs: dict[str, dict[str, Any]] = {}
    with stop_request():
        for name, config in configs.items():
            print(f'{name}, {len(runs) + 1} of {len(configs)}')
            runs[name] = once(config, workdir / name)
    return runs


def _common(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: runs[0][name] for name in ('selected_on', 'classes')} | {'steps': [run['step'] for run in runs]}


def _write(workdir: Path, results: dict[str, Any], runs: list[str]) -> dict[str, Any]:
    run_results.write_results(workdir / 'results.json', results)
    html_report.pooled(workdir, results, runs)
    print(summary.summary(results))
    print(f'the runs and their pooled results are in {workdir}, report.html among them')
    return results
