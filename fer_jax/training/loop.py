"""The loop over phases and steps: train, record, evaluate, save."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fer_jax.data.augmentation.augment import Augment
from fer_jax.data.tasks import PRIMARY
from fer_jax.distributed import processes, sharding
from fer_jax.distributed.stop_consensus import StopConsensus
from fer_jax.evaluation import scoring, summary
from fer_jax.evaluation.scorer import Scorer
from fer_jax.models.parameters import Flat
from fer_jax.runs.checkpoints import SELECTABLE, Checkpoints
from fer_jax.training import nonfinite, train_state
from fer_jax.training.multi_step import StepsPerCall
from fer_jax.training.phases import Phase
from fer_jax.training.recorder import Recorder
from fer_jax.training.run import Run
from fer_jax.training.train_state import FrozenState, TrainState
from fer_jax.utils.signals import Stopped, StopRequest

Scorers = Mapping[str, Scorer]
RECORDED = ('accuracy', 'balanced_accuracy', 'macro_f1', 'nll')


def train_phases(
    run: Run, workdir: Path, store: Checkpoints, scorers: Scorers, stop: StopRequest, *, profile: bool = False
) -> None:
    """Takes all steps that the newest checkpoint has not done."""
    step, total = store.latest_step() or 0, run.phases[-1].last
    if step < total and processes.is_main_process():
        (workdir / 'results.json').unlink(missing_ok=True)  # those of a shorter run
    if step:
        longer = f'; to train longer raise phases[{run.phases[-1].index}].epochs' if step >= total else ''
        print(f'resuming at step {step} of {total}{longer}')
        params, stats = store.restore_model(step, *run.network.abstract(run.replicated))
    else:
        params, stats = run.initial()
    recorder = Recorder(workdir, step=step, total=total, batch_size=run.batch_size, profile=profile)
    ema: dict[str, Flat] = {}
    try:
        for phase in run.phases:
            if step > phase.last:
                continue
            state, fixed = run.init_phase_state(phase, max(step, phase.first), params, stats, ema)
            if step > phase.first:
                item = store.restore_train(step, train_state.train_item(state))
                state = train_state.with_item(state, item)
            state = train_phase(run, phase, state, fixed, store, scorers, recorder, stop)
            params, stats, ema = train_state.all_params(state, fixed), state.batch_stats, state.ema
            step = phase.last
        store.wait()
    finally:
        recorder.close()


def train_phase(
    run: Run,
    phase: Phase,
    state: TrainState,
    fixed: FrozenState,
    store: Checkpoints,
    scorers: Scorers,
    recorder: Recorder,
    stop: StopRequest,
) -> TrainState:
    """Goes on with `phase` to its end, or until its scores stall.

    Raises:
      Stopped: asked to; the state is on disk.
    """
    for scorer in scorers.values():
        scorer.forget_features()
    if phase.features and phase.features.views == 1 and phase.augment != Augment():
        print(f'phase {phase.index} trains on plain images: cache_views=1 keeps no augmented view')
    loader = run.loader_for(phase, state, fixed)
    cached, every = phase.features is not None, run.config['log_every']
    pace = StepsPerCall(features=cached, last=phase.last, ends=run.evaluations, every=every)
    take_steps = run.step_function(phase)
    role, metric = run.select
    sign = 1 if SELECTABLE[metric] else -1
    step = int(state.step)
    scores = [
        sign * entry[metric]
        for entry in recorder.history(step)
        if (entry['split'], entry['phase']) == (role, phase.index)
    ]
    consensus = StopConsensus(run.mesh, stop)
    with stop.waiting():
        while step < phase.last:
            if phase.stalled(scores):
                enough = f'{phase.stop_after} evaluations brought no better {metric}'
                recorder.say(f'phase {phase.index} ends early: {enough}')
                break
            count = pace.count(step)
            with jax.profiler.StepTraceAnnotation('train', step_num=step):
                with recorder.timed('data'):
                    batch = pace.batch(loader, step, count)
                state = take_steps(state, fixed, loader.device_data, *batch)
                pace.took(count, state.step)
            step += count
            recorder.stepped(count)
            recorder.trace(count, state.step)
            if step % run.config['log_every'] == 0 or step in run.evaluations:
                state = record(run, phase, state, step, recorder)
            if step in run.evaluations:
                processes.step_finished(more=False)
                value = evaluate(run, phase, state, fixed, step, scorers, recorder)
                scores.append(sign * value)
                state = state._replace(scale=sharding.put(np.float32(phase.scale(scores)), run.replicated))
                with recorder.timed('checkpoint'):
                    store.save(train_state.to_items(state, fixed), value)
            if consensus.after_step():
                processes.step_finished(more=False)
                nonfinite.check_finite(run, phase, state, recorder.workdir)
                store.save(train_state.to_items(state, fixed))
                store.wait()
                said = f'stopped by {stop.whom} after step {step}, saved'
                raise Stopped(f'{said}; the same command with --workdir goes on')
        if consensus.at_end():
            stop.stop()
        processes.step_finished(more=False)
    return state


def record(run: Run, phase: Phase, state: TrainState, step: int, recorder: Recorder) -> TrainState:
    """Writes the mean of the steps since the last record; returns the state with empty sums."""
    nonfinite.check_finite(run, phase, state, recorder.workdir)
    sums = {name: float(value) for name, value in jax.device_get(state.sums).items()}
    rate = float(phase.schedule(step - 1 - phase.first)) * float(state.scale)
    epoch = step * run.batch_size / run.examples
    values: dict[str, Any] = {'learning_rate': rate}
    if sums['steps']:  # some were kept
        for name, task in run.tasks.items():
            prefix = '' if name == PRIMARY else f'{name}/'
            values[f'{prefix}loss'] = sums[f'{name}/loss'] / sums['steps']
            if task.objective.hits is not None:
                values[f'{prefix}accuracy'] = sums[f'{name}/correct'] / sums[f'{name}/examples']
        values['gradient_norm'] = sums['gradient_norm'] / sums['steps']
    if skipped := int(state.health['skipped']):
        values['skipped'] = skipped
    recorder.metrics(step, epoch, phase.index, 'train', values)
    shown = {'loss': f'{values["loss"]:.3f}', 'acc': f'{values["accuracy"]:.1%}'} if sums['steps'] else {}
    shown |= {'skipped': str(skipped)} if skipped else {}
    recorder.rate(step, **shown, lr=f'{rate:.1e}', epoch=f'{epoch:.1f}')
    return state._replace(sums=sharding.put(train_state.zero_sums(run.tasks), run.replicated))


def evaluate(
    run: Run, phase: Phase, state: TrainState, fixed: FrozenState, step: int, scorers: Scorers, recorder: Recorder
) -> float:
    """Scores the selecting split of every task, records it, and returns the selecting metric."""
    role, metric = run.select
    begun = time.perf_counter()
    start = phase.partition.boundary if phase.features else None
    found: dict[str, dict[str, Any]] = {}
    for name, scorer in scorers.items():
        if role in run.tasks[name].data.splits:
            found |= {name: scorer.score(role, *train_state.eval_params(state, fixed), start=start)[scorer.named(role)]}
    recorder.took(step, 'evaluate', time.perf_counter() - begun)
    epoch, scores = run.evaluations[step], found.pop(PRIMARY)
    values = {name: scores[name] for name in (*RECORDED, 'accuracy_ci95')}
    for task, other in found.items():
        values |= {f'{task}/{name}': other[name] for name in (*RECORDED, *scoring.OF_LEVELS) if name in other}
    recorder.metrics(step, epoch, phase.index, role, values)
    recorder.say(
        f'phase {phase.index}, epoch {epoch:g}: {role} accuracy '
        f'{summary.share(scores["accuracy"], scores["accuracy_ci95"])}, '
        f'macro F1 {scores["macro_f1"]:.3f}'
        + ''.join(f'; {task} {summary.headline(other)}' for task, other in found.items())
    )
    return scores[metric]
