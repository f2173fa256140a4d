"""The frame of a run: build, restore, train all phases, score the selected checkpoint."""

import functools
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from fer_jax.config.check import check_config, plain_config
from fer_jax.config.source import PLACES, with_one_source
from fer_jax.data.sources.arrays import NAME, read_arrays
from fer_jax.data.tasks import PRIMARY
from fer_jax.distributed import processes
from fer_jax.errors import UserError
from fer_jax.evaluation import score_logits, summary
from fer_jax.evaluation.network_scorer import NetworkScorer
from fer_jax.inference import saliency
from fer_jax.reporting import figures, html_report, tensorboard
from fer_jax.runs import config as run_config
from fer_jax.runs import data as run_data
from fer_jax.runs import metrics_log, provenance
from fer_jax.runs import results as run_results
from fer_jax.runs.checkpoints import SELECTABLE, Checkpoints
from fer_jax.runs.lock import workdir_lock
from fer_jax.training import own_faces, parameter_table, setup
from fer_jax.training.dry_run import rehearse
from fer_jax.training.loop import OnEvaluation, Scorers, train_phases
from fer_jax.training.phase_program import PhaseProgram
from fer_jax.training.probe import probe
from fer_jax.training.run import Run
from fer_jax.training.wandb_logger import final_scores, wandb_run
from fer_jax.utils import atomic_files, checked_files, disk_faults
from fer_jax.utils.paths import user_path
from fer_jax.utils.signals import stop_request


def train(
    config: ConfigDict | Mapping[str, Any],
    workdir: str | Path = '',
    *,
    dry_run: bool = False,
    profile: bool = False,
    allow_changes: bool = False,
    allow_other_data: bool = False,
    data: Any = None,
    on_evaluation: OnEvaluation | None = None,
) -> dict[str, Any]:
    """Trains a network as `config` describes, or continues the run in `workdir`, and scores the selected checkpoint.

    Args:
      config: made by `fer_jax.config.defaults.get_config`; docs/reference/config.md describes its fields.
      workdir: folder of the run; '' makes a new one under `runs/`.
      dry_run: build everything, compile the steps, print what the job needs, write nothing into the workdir.
      profile: trace some steps into `<workdir>/profile`.
      allow_changes: continue although the changed config makes it a different run.
      allow_other_data: continue although images or labels have changed.
      data: arrays in place of the data that the config names: (images, labels), (images, labels, subjects), an iterable
        of (image, label), or {split: one of these}, see `data.sources.arrays`. None for those of the config.
      on_evaluation: is called after each evaluation with its record, a dict with `step`, `epoch`, `phase`, `split`, the
        scores and `best`, the record of the best evaluation so far. Where it returns True, training ends there.

    Returns:
      The content of results.json: `selected_on`, `step`, `classes`, `phases`, `splits` and `calibrated`.

    Raises:
      UserError: the config or the data are invalid.
      Stopped: a signal asked to stop; the state is saved and the same call continues the run.
    """
    plain = plain_config(config)
    check_config(plain)
    plain = with_one_source(plain)
    workdir = workdir and user_path(workdir)
    given = None if data is None else read_arrays(data)
    if given is not None:
        plain['data'] |= dict.fromkeys(PLACES, '')
    plain = own_faces.settle(plain, workdir, given)
    if 'probe' in plain:
        if given is not None:
            raise UserError('data are for training runs; a probe reads data.name, data.dir or data.manifest')
        return probe(plain, user_path(workdir) if workdir else free_workdir(plain), dry_run=dry_run)
    checkpoint = plain['checkpoint']
    with stop_request() as stop:
        run = setup.prepare(plain, given)
        folder = Path(processes.broadcast_from_main(str(workdir or free_workdir(plain))))
        if dry_run:
            return rehearse(run, folder)
        with (
            workdir_lock(folder),
            disk_faults.faults_named(folder),
            closing(
                Checkpoints(folder, run.network.spec, select=checkpoint['select'], keep=checkpoint['keep'])
            ) as store,
        ):
            notes = run_config.check_run_config(folder, plain, allow=allow_changes)
            introduce(run, folder, notes, allow_other_data=allow_other_data)
            scorers = {
                name: NetworkScorer(
                    run.network,
                    task.data,
                    batch_size=run.batch_size,
                    placement=plain['data']['placement'],
                    mesh=run.mesh,
                    task=name,
                    head=task.objective.head,
                )
                for name, task in run.tasks.items()
            }
            with wandb_run(plain, folder) as logged:
                log = logged.log if logged else None
                history = train_phases(
                    run, folder, store, scorers, stop, profile=profile, on_evaluation=on_evaluation, log=log
                )
                results = finish(run, folder, store, scorers, history)
                if logged:
                    logged.summary.update(final_scores(results))
            return results


def free_workdir(config: Mapping[str, Any]) -> Path:
    """Returns the first path `runs/<model>-<data>-<number>` that does not exist."""
    data = config['data']['name'] or Path(config['data']['dir'] or config['data']['manifest'] or NAME).stem
    number = 1
    while (chosen := Path('runs') / f'{config["model"]["name"]}-{data}-{number}').exists():
        number += 1
    return chosen


def introduce(run: Run, workdir: Path, changes: list[str], *, allow_other_data: bool) -> None:
    """Prints and records what is about to run, and what has changed since it ran last.

    Raises:
      UserError: the run used other data before.
    """
    if not processes.is_main_process():
        return
    table = parameter_table.parameter_table(run.network, run.phases)
    print(f'workdir {workdir}\n{run.describe()}\n{table}')
    for change in changes:
        print(f'changed since this run began: {change}')
    data = {
        name: {
            'name': task.data.name,
            'fingerprint': task.data.fingerprint,
            'examples': {role: len(split.labels) for role, split in task.data.splits.items()},
            'faces': task.data.faces(),
        }
        for name, task in run.tasks.items()
    }
    environment = provenance.environment(
        data=data.pop(PRIMARY) | ({'joint': data} if data else {}),
        weights={} if run.weights is None else run.weights.metadata,
    )
    environment |= {'mesh': run.mesh.size, 'processes': processes.count(), 'teachers': dict(run.teachers)}
    path = workdir / 'environment.json'
    before = provenance.read_environment(path)
    if (changed := provenance.changes(before, environment)) or 'earlier' in before:
        environment['earlier'] = [*before.pop('earlier', []), *([before] if changed else [])]
    for change in changed:
        print(change)
    if provenance.other_data(before, environment) and not allow_other_data:
        raise UserError(
            f'{workdir} holds a run on other data: the images or labels of {run.data.name} have changed since; choose '
            'another --workdir, or go on all the same with --allow_other_data'
        )
    run_data.write_image_digests(workdir, {name: task.data for name, task in run.tasks.items()})
    checked_files.write_json(workdir / 'config.json', run.config)
    atomic_files.write_text(workdir / 'parameters.txt', table + '\n')
    checked_files.write_json(path, environment)


def finish(
    run: Run, workdir: Path, store: Checkpoints, scorers: Scorers, history: list[dict[str, Any]]
) -> dict[str, Any]:
    """Scores the selected checkpoint once on every split but train, and writes results and figures.

    Args:
      history: the records of metrics.jsonl.
    """
    best = store.best_step()
    if best is None:
        raise UserError(f'{workdir} has no checkpoint with a finite {run.config["checkpoint"]["select"]}')
    variables = store.restore_model(best, run.network.abstract(run.replicated))
    role, metric = run.select
    results: dict[str, Any] = {
        'selected_on': run.config['checkpoint']['select'],
        'step': best,
        'classes': list(run.data.classes),
        'phases': metrics_log.best_of_phases(history, role, metric, larger=SELECTABLE[metric]),
        'splits': {},
        'calibrated': {},
    }
    predictions: dict[str, np.ndarray] = {}
    phase = next(phase for phase in run.phases if best <= phase.last)
    start = PhaseProgram(run, phase).start
    for name, scorer in scorers.items():
        if phase is not run.phases[-1]:
            scorer.forget_features()
        for split in (split for split in run.tasks[name].data.splits if split != 'train'):
            logits = scorer.logits(split, variables, start if split == role else None)
            results['splits'] |= scorer.scores(split, logits)
            predictions |= scorer.predictions(split, logits)
    others = [name for name in run.data.splits if name not in ('train', role)]
    results['calibrated'] = score_logits.score_calibration(role, predictions, others)
    if not processes.is_main_process():
        return results
    checked_files.add_files(workdir, ('metrics.jsonl', 'timing.jsonl'))
    run_results.write_predictions(workdir / 'predictions.npz', predictions)
    run_results.write_results(workdir / 'results.json', results)
    print(summary.summary(results))
    figures.write_figures(workdir, results, history)
    tensorboard.write_final_results(workdir, results, run.data)
    html_report.write_report(
        workdir, run.data, functools.partial(saliency.explain, run.network, jax.device_get(variables))
    )
    print(f'report.html, results, pictures and checkpoints are in {workdir}')
    return results
